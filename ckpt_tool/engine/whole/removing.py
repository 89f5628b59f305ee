"""An entry of a dict in a pickle that is left out."""

from __future__ import annotations

from collections.abc import Sequence

from ckpt_tool.engine.whole.outline import Fill, Made, Outline, OutlineFault, resolved
from ckpt_tool.engine.whole.places import SET_ITEMS, find
from ckpt_tool.engine.whole.splicing import Edit, Splicer


def removal(outline: Outline, names: Sequence[str]) -> Edit:
    """The edit after which the dict at all names but the last lacks the last. Raises
    OutlineFault.
    """
    owner = resolved(find(outline, names[:-1]))
    for fill in owner.fills:
        if fill.code in SET_ITEMS:
            for key, value in zip(fill.parts[::2], fill.parts[1::2], strict=True):
                if outline.name(key) == names[-1]:
                    start, end = _span(fill, key, value)
                    return Edit(start, end, _nothing, is_object=False)
    raise OutlineFault(f"has `{names[-1][:80]}` where it can't be left out")


def _span(fill: Fill, key: Made, value: Made) -> tuple[int, int]:
    """A key and its value; with the opcode that sets them where that is for them alone."""
    return (fill.start, fill.end) if fill.code == ord("s") else (key.start, value.end)


def _nothing(splicer: Splicer) -> None:
    pass
