"""What differs between two pickles besides their tensors: numbers, texts, objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isnan

from ckpt_tool.formats.limits import NODES
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.graph import TENSOR_TYPES, holders, unwrap
from ckpt_tool.formats.pickle.values import (
    ArrayType,
    Global,
    Opaque,
    SetValue,
    StorageRef,
    UnhashableKey,
    UnreadObject,
)
from ckpt_tool.frozen import frozen

TEXT = 40
"""Characters of a value that are shown."""
Pair = tuple[str, object, object]


@frozen
class ValueDifference:
    """A value that both have, or with an empty text on one side, that the other alone has."""

    path: str
    one: str
    other: str


def is_all_tensors(root: object) -> bool:
    """Whether a root is a dict of tensors and nothing else, or no pickle's root at all."""
    if isinstance(root, dict):
        return all(type(value) in TENSOR_TYPES for value in root.values())
    return root is None


def differing_values(
    one: object, other: object, passed_over: Iterable[object] = ()
) -> Iterator[ValueDifference]:
    """The values that differ between two roots, in their order. Tensors, what is passed over and
    what only one side has with tensors in it are compared elsewhere: one file's root may be the
    state dict that lies deeper in the other.
    """
    seen: set[tuple[int, int]] = set()
    skipped = {id(value) for value in passed_over}
    holding = {*holders(one)[0], *holders(other)[0]}
    waiting: list[Pair] = [("", unwrap(one), unwrap(other))]
    met = 0
    while waiting and met < NODES:
        path, a, b = waiting.pop()
        if a is b or (id(a), id(b)) in seen or {id(a), id(b)} & skipped:
            continue
        seen.add((id(a), id(b)))
        if _is_tensor(a) or _is_tensor(b):
            continue
        alone: list[ValueDifference] = []
        inner = _inside(path, a, b, alone, holding)
        yield from alone
        if inner is not None:
            waiting += reversed(inner)
            met += len(inner)
        elif not _are_equal(a, b):
            yield ValueDifference(path, *_texts(a, b))
    if waiting:
        yield ValueDifference("…", "too many", "to compare")


def _inside(
    path: str, a: object, b: object, alone: list[ValueDifference], holding: set[int]
) -> list[Pair] | None:
    """The pairs inside of two containers of one kind; None where they are none."""
    if isinstance(a, dict) and isinstance(b, dict):
        _add_alone(path, a, b, alone, holding)
        return [(_under(path, key), value, b[key]) for key, value in a.items() if key in b]
    if isinstance(a, list | tuple) and type(a) is type(b):
        return _in_order(path, a, b) if isinstance(b, list | tuple) and len(a) == len(b) else None
    if type(a) is Opaque and type(b) is Opaque and a.type_name == b.type_name:
        return [
            (path, a.callee, b.callee),
            (path, a.args, b.args),
            (path, a.state, b.state),
            (path, a.items, b.items),
            (path, a.appended, b.appended),
        ]
    if type(a) is SetValue and type(b) is SetValue and len(a.members) == len(b.members):
        return _in_order(path, sorted(a.members, key=describe), sorted(b.members, key=describe))
    return None


def _in_order(path: str, a: Iterable[object], b: Iterable[object]) -> list[Pair]:
    return [
        (_under(path, at), one, other) for at, (one, other) in enumerate(zip(a, b, strict=True))
    ]


def _add_alone(
    path: str,
    a: dict[object, object],
    b: dict[object, object],
    alone: list[ValueDifference],
    holding: set[int],
) -> None:
    """What one of two dicts alone has. Keys that are compared by identity are passed over."""
    for is_first, mine, theirs in ((True, a, b), (False, b, a)):
        for key, value in mine.items():
            if key in theirs or type(key) is UnhashableKey:
                continue
            if id(value) in holding or _is_tensor(value):
                continue
            text = describe(value, TEXT)
            texts = (text, "") if is_first else ("", text)
            alone.append(ValueDifference(_under(path, key), *texts))


def _under(path: str, key: object) -> str:
    name = key if isinstance(key, str) else describe(key, TEXT)
    return f"{path}.{name}".lstrip(".")


def _texts(a: object, b: object) -> tuple[str, str]:
    one, other = describe(a, TEXT), describe(b, TEXT)
    if one == other:  # as far as they are shown
        one, other = _kind(a), _kind(b)
    return one, other


def _kind(value: object) -> str:
    size = f" of {len(value)}" if isinstance(value, list | tuple | str | bytes) else ""
    return f"a {type(value).__name__}{size}"


def _is_tensor(value: object) -> bool:
    return type(value) in TENSOR_TYPES or type(value) is StorageRef


def _are_equal(a: object, b: object) -> bool:
    if type(a) is Global and type(b) is Global:
        return a.full_name == b.full_name
    if type(a) is ArrayType and type(b) is ArrayType:
        return a.text == b.text
    if type(a) is UnreadObject and type(b) is UnreadObject:
        return a.text == b.text
    if type(a) is not type(b):
        return False
    is_plain = isinstance(a, bool | int | float | complex | str | bytes | type(None))
    return is_plain and (a == b or _are_nan(a, b))


def _are_nan(a: object, b: object) -> bool:
    return isinstance(a, float) and isinstance(b, float) and isnan(a) and isnan(b)
