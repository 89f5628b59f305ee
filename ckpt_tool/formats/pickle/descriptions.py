"""Values of a pickle as short texts for people."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_tool.formats.pickle.unreadable import claimed_size
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    ArrayType,
    Global,
    Opaque,
    OpaqueTensor,
    SetValue,
    StorageRef,
    TensorRef,
    UnhashableKey,
    UnreadObject,
)

MAX_DESCRIBED = 200
"""Characters of a description; what would stand behind them is not looked at."""
MAX_PARTS = 12
"""Members of a container that are described."""


def describe(value: object, most: int = MAX_DESCRIBED) -> str:
    """A short text for people: numbers, texts and small containers as Python writes them, objects
    by their class.
    """
    text = _describe(value, 3)
    return text if len(text) <= most else text[: most - 1] + "…"


def _describe(value: object, depth: int) -> str:
    if isinstance(value, str | bytes):
        return repr(value[:MAX_DESCRIBED])
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 1 << 200 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float | complex | bool | None):
        return str(value)
    if isinstance(value, UnhashableKey):
        return _describe(value.value, depth)
    if isinstance(value, Global | UnreadObject):
        return value.full_name if isinstance(value, Global) else value.text
    if isinstance(value, TensorRef | OpaqueTensor | ArrayRef | StorageRef | ArrayType):
        return _describe_tensor(value)
    return _describe_container(value, depth)


def _describe_container(value: object, depth: int) -> str:
    left, right, parts = _brackets_and_parts(value, depth)
    inside = ", ".join(_first_parts(parts)) if depth > 0 else "…"
    return f"{left}{inside}{right}"


def _brackets_and_parts(value: object, depth: int) -> tuple[str, str, Iterator[str]]:
    """What stands around a container's members, and these, described when they are asked for."""
    if isinstance(value, dict):
        pairs = ((_describe(key, 0), one) for key, one in value.items())
        return "{", "}", (f"{key}: {_describe(one, depth - 1)}" for key, one in pairs)
    if isinstance(value, Opaque):
        return f"{value.type_name}(", ")", _described_attributes(value.state, depth - 1)
    left, right = _brackets(value)
    members = _in_order(value.members) if isinstance(value, SetValue) else value
    if not isinstance(members, list | tuple):
        return left, right, iter(())
    return left, right, (_describe(one, depth - 1) for one in members)


def _in_order(members: list[object]) -> list[object]:
    """A set's members; texts and integers sorted, since a set is written in any order."""
    if not all(type(one) in (str, bytes, int) for one in members):
        return members
    return sorted(members, key=lambda one: (type(one).__name__, one))


def _described_attributes(state: object, depth: int) -> Iterator[str]:
    named: dict[object, object] = state if isinstance(state, dict) else {}
    return (f"{_attribute(name)}={_describe(one, depth)}" for name, one in named.items())


def _brackets(value: object) -> tuple[str, str]:
    if isinstance(value, list):
        return "[", "]"
    return "(", ",)" if isinstance(value, tuple) and len(value) == 1 else ")"


def _first_parts(parts: Iterator[str]) -> Iterator[str]:
    """As many as there is room for, and a mark where there are more."""
    room = MAX_DESCRIBED
    for count, part in enumerate(parts):
        if count == MAX_PARTS or room < 0:
            yield "…"
            return
        yield part
        room -= len(part)


def _attribute(name: object) -> str:
    # Whatever it is, it is not looked into: names in names of names have no end.
    return name[:MAX_DESCRIBED] if isinstance(name, str) else _describe(name, 0)


def _describe_tensor(value: TensorRef | OpaqueTensor | ArrayRef | StorageRef | ArrayType) -> str:
    match value:
        case TensorRef():
            return f"tensor {value.dtype.value} {claimed_size(value.shape)}"
        case OpaqueTensor():
            return value.text
        case ArrayRef():
            return f"array {value.type_text or 'of a structure'} {claimed_size(value.shape)}"
        case StorageRef():
            return f"{value.type_name} of {value.count} elements"
    return f"dtype {value.text}"
