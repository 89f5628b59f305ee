"""The language of key names: patterns are parsed, matched, paired and rendered; many keys fold into
the fewest true patterns.
"""

from typing import TYPE_CHECKING

# Modules named as their function, which a name bound on use could not replace.
from ckpt_tool.keys.folding.fold import Fold, fold, outline
from ckpt_tool.keys.nearest import nearest
from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.keys.affine import LinearNumber
    from ckpt_tool.keys.match import Binding, Matcher, PatternSet, Renderer, render
    from ckpt_tool.keys.pairing import HolePairing, pair
    from ckpt_tool.keys.parsing import parse
    from ckpt_tool.keys.pattern import (
        Choice,
        Hole,
        Number,
        Pattern,
        PatternError,
        Rest,
        Star,
        Text,
        with_numbers,
    )
    from ckpt_tool.keys.quoting import can_be_word, quote
    from ckpt_tool.keys.wider import meant_note, wider_note, wider_pattern

__all__ = [
    "Binding",
    "Choice",
    "Fold",
    "Hole",
    "HolePairing",
    "LinearNumber",
    "Matcher",
    "Number",
    "Pattern",
    "PatternError",
    "PatternSet",
    "Renderer",
    "Rest",
    "Star",
    "Text",
    "can_be_word",
    "fold",
    "meant_note",
    "nearest",
    "outline",
    "pair",
    "parse",
    "quote",
    "render",
    "wider_note",
    "wider_pattern",
    "with_numbers",
]  # fmt: skip

__getattr__ = bind_on_use(__name__, {
    "affine": "LinearNumber",
    "match": "Binding Matcher PatternSet Renderer render",
    "pairing": "HolePairing pair",
    "parsing": "parse",
    "pattern": "Choice Hole Number Pattern PatternError Rest Star Text with_numbers",
    "quoting": "can_be_word quote",
    "wider": "meant_note wider_note wider_pattern",
})  # fmt: skip
