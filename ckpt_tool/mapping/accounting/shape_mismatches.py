"""Why two tensors of one name have different shapes, and the `fit:` that adapts the one to the
other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

from ckpt_tool.keys import fold, quote
from ckpt_tool.mapping.accounting.heads import is_table, is_vocabulary, may_be_head
from ckpt_tool.mapping.reading.writing import flow
from ckpt_tool.ops import OpError, TensorForm
from ckpt_tool.tensors import Catalog, DType, Shape

_POSITIONS = re.compile(
    r"pos(ition)?(al)?_?(emb|enc|table)|(^|[._])(pos|positions?)$", re.IGNORECASE
)
_RELATIVE = re.compile(r"rel(ative)?_?pos(ition)?_?(bias|table)", re.IGNORECASE)
_IN_A_ROW = re.compile(
    r"(^|[._])(wpe|rel_pos\w*|\w*pos(ition)?s?|position\w*|quer(y|ies)\w*)([._]|$)"
)
"""Names of tables whose rows are places in a sequence, distances along one axis, or queries: their
first rows need not mean the same in a longer one.
"""
_FIRST = re.compile(r"(^|\.)(conv|patch|stem|embed|0\.)")
BEIT_TOKENS = 3
"""Rows for special tokens at the end of BEiT's tables of relative positions."""
MAX_PREFIX = 5
"""A class or a distillation token, and DINOv2's four registers."""
WORDS = {
    "resize_grid": "another image size",
    "resize_bias": "another window",
    "resize_patch": "another patch size",
    "input_channels": "another number of input channels",
    "rows": "another number of words",
    "fresh": "another number of classes",
}
"""Why a fit is needed."""


@dataclass(frozen=True, slots=True)
class KeyFit:
    """A key whose shape differs, and the name of the fit that adapts it."""

    key: str
    fit: str


def fit_for(
    key: str, source: Shape, target: Shape, around: Catalog, origin: str = ""
) -> str | None:
    """The fit that makes a tensor the target's shape, by its name, or the one that it has in the
    source, and what differs; None where none does, nor where it would leave fresh what is no head.
    `around` are the tensors of its network.
    """
    name = _fit_by_name(key, source, target, around, origin)
    return None if name == "fresh" and not _is_head(key, origin, around) else name


def _is_head(key: str, origin: str, around: Catalog) -> bool:
    return any(may_be_head(one, around) for one in (key, origin or key))


def _fit_by_name(
    key: str, source: Shape, target: Shape, around: Catalog, origin: str
) -> str | None:
    keys = (key, origin or key)
    if any(map(_RELATIVE.search, keys)):
        names = ["resize_bias"]
    elif any(map(_POSITIONS.search, keys)):
        names = ["resize_grid"] if any(_is_of_patches(one, around) for one in keys) else []
    elif any(map(_IN_A_ROW.search, keys)):
        names = []
    elif len(source) > 2:
        names = ["input_channels", "resize_patch"] if any(map(_FIRST.search, keys)) else []
    elif len(source) in (1, 2):
        # The first rows of a vocabulary are the same words; the first classes of another classifier
        # mean nothing here.
        are_words = any(is_vocabulary(name) or is_table(name, source) for name in keys)
        names = ["rows" if are_words else "fresh"]
    else:
        names = []
    return next((name for name in names if _fits(name, source, target)), None)


def is_position_table(key: str) -> bool:
    """Whether a name says that a tensor holds what is added at each place of a grid."""
    return _POSITIONS.search(key) is not None and _RELATIVE.search(key) is None


def _is_of_patches(key: str, around: Catalog) -> bool:
    """Whether the patches of images are embedded in the module that has these positions: those of
    texts lie in no grid, though their number may be a square.
    """
    module = key.removesuffix(".weight").rpartition(".")[0]
    return any(
        len(info.shape) > 3 and info.shape[-1] > 1 and other.startswith(f"{module}." * bool(module))
        for other, info in around.items()
    )


def fit_note(
    key: str,
    source: Shape,
    target: Shape,
    around: Catalog,
    are_words: bool = False,
    origin: str = "",
) -> list[str]:
    """A hint for a shape that a `fit:` adapts; `are_words` where its rows are known to be
    words, whatever its name is, and the one that it has in the source, `origin`.
    """
    fit = fit_of(key, source, target, around, are_words, origin)
    if fit is None:
        return _oblong_note(key, source, target, around, origin)
    what = "keeps the target's" if fit == "fresh" else "adapts it"
    return [f"{reason_of(fit)}? `fit: {flow([{quote(key): fit}])}` in a rule file {what}"]


def fit_of(
    key: str,
    source: Shape,
    target: Shape,
    around: Catalog,
    are_words: bool = False,
    origin: str = "",
) -> str | dict[str, object] | None:
    """As `fit_for`, and with the arguments that the fit needs: what stands behind the key in
    `fit:`.
    """
    name = _fit_by_name(key, source, target, around, origin)
    if name == "fresh":
        is_head = _is_head(key, origin, around)
        return "rows" if are_words else "fresh" if is_head else None
    if name:
        return name
    if any(map(_RELATIVE.search, (key, origin))):
        extra = {"extra": BEIT_TOKENS}
        return {"resize_bias": extra} if _fits("resize_bias", source, target, extra) else None
    is_table = is_position_table(key) or is_position_table(origin)
    if not (is_table and any(_is_of_patches(one, around) for one in (key, origin or key))):
        return None
    prefixes = _other_prefixes(source, target)
    return {"resize_grid": prefixes} if prefixes else None


def _oblong_note(key: str, source: Shape, target: Shape, around: Catalog, origin: str) -> list[str]:
    """A hint for positions of a grid that is not square, whose sides only its user knows."""
    keys = (key, origin or key)
    is_grid = any(is_position_table(one) and _is_of_patches(one, around) for one in keys)
    if not is_grid or len(source) not in (2, 3) or len(target) != len(source):
        return []
    if (*source[:-2], source[-1]) != (*target[:-2], target[-1]):
        return []
    tokens = (n for n in range(MAX_PREFIX + 1) if isqrt(source[-2] - n) ** 2 == source[-2] - n)
    patches = target[-2] - next(tokens, target[-2])
    if patches <= 0 or isqrt(patches) ** 2 == patches:
        return []
    line = flow([{quote(key): {"resize_grid": {"new_grid": ["ROWS", "COLUMNS"]}}}])
    return [
        f"{WORDS['resize_grid']}? `fit: {line}` in a rule file adapts it; {patches} patches are no "
        "square, so give their rows and columns"
    ]


def reason_of(fit: str | dict[str, object]) -> str:
    """Why this fit is needed."""
    if isinstance(fit, str):
        return WORDS[fit]
    return "other tokens before the grid" if "resize_grid" in fit else WORDS["resize_bias"]


def _other_prefixes(source: Shape, target: Shape) -> dict[str, int] | None:
    """The numbers of tokens before the grids of two position tables, where there is one way to see
    them, and these are few: a class, a distillation token, registers.
    """
    if len(source) != len(target) or len(source) not in (2, 3):
        return None
    from ckpt_tool.ops.fits import ResizeGrid

    choices = ResizeGrid().choices(source, target)
    if len(choices) != 1 or max(choices[0]) > MAX_PREFIX:
        return None
    prefixes = dict(zip(("prefix", "new_prefix"), choices[0], strict=True))
    return prefixes if _fits("resize_grid", source, target, prefixes) else None


def _fits(name: str, source: Shape, target: Shape, argument: object = None) -> bool:
    if name == "fresh":
        return len(source) == len(target) and source[1:] == target[1:]
    from ckpt_tool.ops.fits import FITS

    try:
        FITS[name].parse(argument).with_form(TensorForm(DType.F32, target)).infer(
            [TensorForm(DType.F32, source)]
        )
    except OpError:
        return False
    return name != "resize_grid" or argument is not None or _has_usual_prefix(source, target)


def _has_usual_prefix(source: Shape, target: Shape) -> bool:
    """Whether no more tokens stand before the grids than networks have: more are a coincidence."""
    from ckpt_tool.ops.fits import ResizeGrid

    prefixes = [one for one, other in ResizeGrid().choices(source, target) if one == other]
    return prefixes[0] <= MAX_PREFIX


def fit_lines(fits: Iterable[KeyFit], others: Sequence[str]) -> dict[str, list[str]]:
    """The patterns of these keys, by fit: the lines of `fit:`. None of them matches another key."""
    known = {each.key: each.fit for each in fits}
    lines: dict[str, list[str]] = {}
    for one in fold(known, others):
        lines.setdefault(known[one.keys[0]], []).append(one.pattern)
    return lines


def rule_file(
    fits: Mapping[str, Sequence[str]], drop: Sequence[str] = (), keep: Sequence[str] = ()
) -> str:
    """A whole rule file on one line: everything by name, and these fits."""
    sections: dict[str, object] = {"rules": ["** -> **"], "drop": list(drop), "keep": list(keep)}
    sections["fit"] = [{pattern: name} for name, patterns in fits.items() for pattern in patterns]
    return flow({name: lines for name, lines in sections.items() if lines})
