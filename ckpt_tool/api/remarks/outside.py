"""What lies outside of two state dicts: what both sides have of it is to be compared, what one side
has alone is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ckpt_tool.api.remarks.left_behind import left_behind_list
from ckpt_tool.api.remarks.values_beside import (
    ValueDifference,
    differing_values,
    is_all_tensors,
)
from ckpt_tool.formats import Checkpoint, LeftBehind
from ckpt_tool.formats.opening import split_fragment
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.torch_files.listing import REST

MAX_VALUES = 4
"""Values beside the tensors that one note names."""
MAX_TEXT = 40
"""Characters of a text in a header that are shown."""
OF_LIBRARIES = ("format",)
"""What safetensors' headers say of their writer: `pt` for torch."""
Pair = tuple[Checkpoint, Checkpoint]


def outside_of(
    source: Checkpoint, target: Checkpoint, is_chosen: bool
) -> tuple[Pair | None, tuple[str, ...]]:
    """What both files hold outside of their state dicts, or None where nothing is there twice; and
    in words what is compared with nothing.

    An optimizer, averaged weights and the like count as a whole: what of these both sides have is
    compared key by key. Where patterns chose among the keys of the state dicts, nothing else is
    compared, and of two state dicts of one file nothing is to be told.
    """
    if _are_parts_of_one(source, target):
        return None, ()
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


def _are_parts_of_one(source: Checkpoint, target: Checkpoint) -> bool:
    """Whether these are two state dicts of one file, which holds nothing that the other lacks."""
    one, other = (split_fragment(side.path)[0] for side in (source, target))
    return one == other and source.contents.taken != target.contents.taken


def _differing(source: Checkpoint, target: Checkpoint) -> list[str]:
    """What is to be said of numbers, texts and objects that differ, or that one file alone has."""
    found = {each.path: each for each in (*_inside(source, target), *_metadata(source, target))}
    for each in _listed(source, target):
        if not any(_is_in(path, each.path) for path in found):
            found[each.path] = each
    both = [
        f"{each.path} {each.one} → {each.other}"
        for each in found.values()
        if each.one and each.other
    ]
    notes = []
    if both:
        count = "1 value differs" if len(both) == 1 else f"{len(both):,} values differ"
        notes.append(f"{count} beside the tensors: {_some(both)}")
    for side, alone in (
        (source, [f"{each.path} {each.one}" for each in found.values() if not each.other]),
        (target, [f"{each.path} {each.other}" for each in found.values() if not each.one]),
    ):
        if alone:
            notes.append(f"only {side.path} has, beside its tensors: {_some(alone)}")
    return notes


def _some(texts: Sequence[str]) -> str:
    more = "" if len(texts) <= MAX_VALUES else f" and {len(texts) - MAX_VALUES:,} more"
    return ", ".join(texts[:MAX_VALUES]) + more


def _listed(source: Checkpoint, target: Checkpoint) -> Iterator[ValueDifference]:
    """The numbers and texts that differ, of any format."""
    known = {one.path: one.text for one in source.extras if one.kind == "value"}
    for one in target.extras:
        if one.kind == "value" and known.get(one.path, one.text) != one.text:
            yield ValueDifference(one.path, known[one.path], one.text)


def _metadata(source: Checkpoint, target: Checkpoint) -> Iterator[ValueDifference]:
    """The texts in the headers of safetensors files, but for what libraries write of themselves."""
    sides = [side.contents.metadata for side in (source, target)]
    for name in dict.fromkeys((*sides[0], *sides[1])):
        one, other = (describe(side[name], MAX_TEXT) if name in side else "" for side in sides)
        if name not in OF_LIBRARIES and sides[0].get(name) != sides[1].get(name):
            yield ValueDifference(name, one, other)


def _inside(source: Checkpoint, target: Checkpoint) -> Iterable[ValueDifference]:
    """What differs at any depth of two pickles, outside of their state dicts."""
    sides = source.contents, target.contents
    if any(side.root is None for side in sides) or all(is_all_tensors(side.root) for side in sides):
        return ()
    taken = [side.values for side in sides if side.values is not side.root]
    return differing_values(sides[0].root, sides[1].root, taken)


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
