"""What lies outside of two state dicts: what both sides have of it is to be compared, what one side
has alone is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ckpt_tool.api.remarks.left_behind import left_behind_list
from ckpt_tool.formats import Checkpoint, LeftBehind
from ckpt_tool.formats.torch_files.listing import REST

MAX_VALUES = 4
"""Values beside the tensors that one note names."""
Pair = tuple[Checkpoint, Checkpoint]


def outside_of(
    source: Checkpoint, target: Checkpoint, is_chosen: bool
) -> tuple[Pair | None, tuple[str, ...]]:
    """What both files hold outside of their state dicts, or None where nothing is there twice; and
    in words what is compared with nothing.

    An optimizer, averaged weights and the like count as a whole: what of these both sides have is
    compared key by key. Where patterns chose among the keys of the state dicts, nothing else is
    compared.
    """
    if is_chosen:
        listed = ((side, _with_tensors(side)) for side in (source, target))
        return None, tuple(
            _told("not compared: what is outside of the state dict of {}", side, left)
            for side, left in listed
            if left
        )
    values = _differing(source, target)
    one, other = source.outside(), target.outside()
    alone = _alone(source, _keys(other)), _alone(target, _keys(one))
    parts = zip((source, target), alone, strict=True)
    notes = [
        _told("only {} holds, outside of its state dict", side, left)
        for side, left in parts
        if left
    ]
    shared = tuple(
        side.only(_without(_keys(side), left))
        for side, left in zip((one, other), alone, strict=True)
    )
    both = (shared[0], shared[1]) if any(_keys(side) for side in shared) else None
    return both, (*notes, *values)


def _differing(source: Checkpoint, target: Checkpoint) -> list[str]:
    """What is to be said of numbers and texts that both files have, and that differ."""
    known = {one.path: one.text for one in source.extras if one.kind == "value"}
    found = [
        f"{one.path} {known[one.path]} → {one.text}"
        for one in target.extras
        if one.kind == "value" and known.get(one.path, one.text) != one.text
    ]
    if not found:
        return []
    count = "1 value differs" if len(found) == 1 else f"{len(found)} values differ"
    more = "" if len(found) <= MAX_VALUES else " …"
    return [f"{count} that {_are(found)} no tensor: {', '.join(found[:MAX_VALUES])}{more}"]


def _are(found: Sequence[str]) -> str:
    return "is" if len(found) == 1 else "are"


def _keys(side: Checkpoint) -> tuple[str, ...]:
    return (*side.catalog, *side.catalog.unreadable)


def _with_tensors(side: Checkpoint) -> list[LeftBehind]:
    return [one for one in side.contents.left_behind if one.tensors]


def _alone(side: Checkpoint, others: Collection[str]) -> list[LeftBehind]:
    """The parts of which the other side has no tensor."""
    parts = [one for one in _with_tensors(side) if one.path != REST or not others]
    return [one for one in parts if not any(_is_in(key, one.path) for key in others)]


def _without(keys: Iterable[str], parts: Sequence[LeftBehind]) -> set[str]:
    return {key for key in keys if not any(_is_in(key, one.path) for one in parts)}


def _is_in(key: str, path: str) -> bool:
    return key == path or (key.startswith(path) and key[len(path)] in ".#[")


def _told(what: str, side: Checkpoint, left: Sequence[LeftBehind]) -> str:
    return f"{what.format(side.path)}: {left_behind_list(left)}"
