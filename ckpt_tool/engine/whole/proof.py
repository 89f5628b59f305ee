"""The proof of a pickle that was made anew, before it is written: it is read once more, and
whatever was not to change must be the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from ckpt_tool.engine.whole.optimizer import OptimizerPart
from ckpt_tool.engine.whole.weights import Part
from ckpt_tool.errors import FormatError
from ckpt_tool.formats.pickle.graph import TENSOR_TYPES, children, key_text
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    ArrayType,
    Global,
    ObjectDict,
    Opaque,
    OpaqueTensor,
    SetValue,
    StorageRef,
    TensorRef,
    UnhashableKey,
)
from ckpt_tool.formats.torch_files.zip_archive import StorageIds
from ckpt_tool.torch_bridge import packed_shape

Pair: TypeAlias = tuple[object, object]


class NotProven(Exception):
    """What is not as it should be in the new pickle."""


def prove(
    root: object,
    pickled: bytes,
    parts: Collection[Part | OptimizerPart],
    removed: Collection[tuple[str, ...]],
) -> None:
    """Raises NotProven where the new pickle differs from the old one's `root` in anything but what
    the parts make and what is removed, or where the weights are not what the plan says.
    """
    try:
        made = PickleMachine(pickled, persistent=StorageIds().find).load("", "the new pickle")
    except FormatError as error:
        raise NotProven(error.fact) from None
    replaced = {id(one) for part in parts for one in _replaced(root, part) if one is not None}
    gone = {(id(_at(root, names[:-1])), names[-1]) for names in removed}
    _compare(root, made, replaced, gone)
    for part in parts:
        if isinstance(part, Part):
            _check_weights(_at(root, part.names), _at(made, part.names), part)


def _at(root: object, names: tuple[str, ...]) -> object:
    """The value to which names lead; None where there is none."""
    for name in names:
        root = next((child for key, child in reversed(list(children(root))) if key == name), None)
    return root


def _replaced(root: object, part: Part | OptimizerPart) -> Iterator[object]:
    """The objects that a part writes anew."""
    if isinstance(part, Part):
        yield _at(root, part.names)
        return
    yield _at(root, (*part.names, "state"))
    for number in range(len(part.state.groups)):
        for name in ("params", "param_names"):
            yield _at(root, (*part.names, "param_groups", str(number), name))


def _compare(
    root: object, made: object, replaced: Collection[int], gone: Collection[tuple[int, str]]
) -> None:
    pending: list[Pair] = [(root, made)]
    seen: set[tuple[int, int]] = set()
    while pending:
        old, new = pending.pop()
        if id(old) in replaced or (id(old), id(new)) in seen:
            continue
        if type(old) is not type(new):
            raise NotProven(f"has a {type(new).__name__} where a {type(old).__name__} was")
        if isinstance(old, _LEAVES):
            if old != new and old == old:
                raise NotProven(f"has {new!r:.60} where {old!r:.60} was")
            continue
        seen.add((id(old), id(new)))
        pending += _inside(old, new, gone)


_LEAVES = (str, bytes, int, float, complex, type(None))


def _inside(old: object, new: object, gone: Collection[tuple[int, str]]) -> list[Pair]:
    """What two objects of one type hold, in pairs. Raises NotProven for another number of it."""
    if isinstance(old, dict) and isinstance(new, dict):
        kept = {
            key: value
            for key, value in old.items()
            if not gone or (id(old), key_text(key)) not in gone
        }
        pairs = [*_paired(list(kept), list(new)), *_paired(kept.values(), new.values())]
        if isinstance(old, ObjectDict) and isinstance(new, ObjectDict):
            pairs.append((old.attributes, new.attributes))
        return pairs
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return _paired(old, new)
    names = _FIELDS.get(type(old))
    if isinstance(old, StorageRef) and old.content is None:
        names = ("key", *_FIELDS[StorageRef])  # else its key is made up
    if names is None:
        raise NotProven(f"has a {type(old).__name__}, which can't be compared")
    return [(getattr(old, name), getattr(new, name)) for name in names]


def _paired(old: Collection[object], new: Collection[object]) -> list[Pair]:
    if len(old) != len(new):
        raise NotProven(f"has {len(new)} members where {len(old)} were")
    return list(zip(old, new, strict=True))


_FIELDS: Mapping[type, tuple[str, ...]] = {
    Global: ("module", "name"),
    Opaque: ("callee", "args", "state", "items", "appended"),
    SetValue: ("members",),
    UnhashableKey: ("value",),
    StorageRef: ("type_name", "itemsize", "count", "start", "content"),
    TensorRef: (
        "storage", "shape", "stride", "offset", "conjugate", "negative", "takes", "attributes",
    ),
    OpaqueTensor: ("kind", "shape", "inside", "takes"),
    ArrayType: ("text",),
    ArrayRef: ("type_text", "shape", "is_fortran", "content", "objects"),
}  # fmt: skip
"""What makes an object of a type what it is."""


def _check_weights(old: object, new: object, part: Part) -> None:
    """Raises NotProven where a state dict has not the tensors that the plan says."""
    was, found = dict(_tensors(old)), dict(_tensors(new))
    moved = part.moved
    for key, info in part.plan.outputs.items():
        name = f"{part.prefix}{key}"
        value = found.get(name)
        if value is None:
            raise NotProven(f"lacks `{name[:80]}`")
        if key in moved:
            _compare(was.get(f"{part.prefix}{moved[key]}"), value, (), ())
        elif type(value) is not TensorRef or value.storage.key != part.storages[key]:
            raise NotProven(f"has another tensor as `{name[:80]}`")
        elif (value.dtype, value.shape) != (info.dtype, packed_shape(info.dtype, info.shape)):
            raise NotProven(f"has `{name[:80]}` in another shape or type")


def _tensors(value: object) -> Iterator[tuple[str, object]]:
    """The tensors of a state dict by their keys, also those in dicts inside of it."""
    pending, seen = [("", value)], set()
    while pending:
        start, container = pending.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        for name, child in children(container):
            if type(child) in TENSOR_TYPES:
                yield f"{start}{name}", child
            elif isinstance(child, dict | list):
                pending.append((f"{start}{name}.", child))
