"""What can be compared in what a module takes or gives: tensors and numbers, wherever they are."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    import torch

Path = tuple[str, ...]
MAX_DEPTH = 32
"""Objects inside of each other; what refers to itself has no end."""
INTEGERS = 1 << 63
"""Those below it are compared exactly."""


class Position(str):
    """A place that is a number, in a list or a tuple: no name."""

    __slots__ = ()


def leaves_in(value: object, path: Path = ()) -> list[tuple[Path, torch.Tensor]]:
    """The tensors of numbers, numbers and texts in tuples, lists, mappings and dataclasses, with
    their places; of other objects the tensors that they hold, as caches and distributions do.
    """
    return [(at, leaf) for at, leaf, _ in _leaves(value, path, True, 0) if leaf is not None]


def unknown_in(value: object) -> list[str]:
    """The places and kinds of what can't be compared."""
    return [
        f"`{'.'.join(at) or 'it'}` ({kind})"
        for at, leaf, kind in _leaves(value, (), True, 0)
        if leaf is None
    ]


Leaf = tuple[Path, "torch.Tensor | None", str]


def _leaves(value: object, path: Path, is_plain: bool, depth: int) -> Iterator[Leaf]:
    """Leaves with their places; None with what it is for one that can't be compared. Inside of
    objects that are no plain containers (`is_plain` is false) tensors alone count.
    """
    import torch

    if isinstance(value, torch.Tensor):
        yield from _tensors(value, path)
    elif isinstance(value, bool | int | float | str):
        if is_plain:
            yield path, _number(value), ""
    elif depth < MAX_DEPTH:
        inside = _inside(value)
        if inside is None:
            if is_plain:
                yield path, None, type(value).__name__
            return
        is_plain = is_plain and _is_container(value)
        for name, each in inside:
            yield from _leaves(each, (*path, name), is_plain, depth + 1)


def _tensors(tensor: torch.Tensor, path: Path) -> Iterator[Leaf]:
    import torch

    if tensor.is_nested:
        for number, each in enumerate(tensor.unbind()):
            yield (*path, Position(number)), each, ""
    elif tensor.layout is torch.sparse_coo:
        whole = tensor.detach().coalesce()
        yield (*path, "indices"), whole.indices(), ""
        yield (*path, "values"), whole.values(), ""
    elif tensor.layout is not torch.strided:
        yield path, None, str(tensor.layout)
    else:
        yield path, tensor, ""


def _number(value: bool | int | float | str) -> torch.Tensor:
    import torch

    if isinstance(value, str):
        return torch.tensor(crc32(value.encode(errors="replace")))
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float32)
    is_small = -INTEGERS <= value < INTEGERS
    return torch.tensor(value, dtype=torch.int64 if is_small else torch.float64)


def _is_container(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple) or is_dataclass(value)


def _inside(value: object) -> Sequence[tuple[str, object]] | None:
    """What an object holds, by name; None for one that can't be looked into."""
    import torch

    if isinstance(value, Mapping):
        return [(str(name), each) for name, each in value.items()]
    if isinstance(value, set | frozenset):  # which has no order
        return None
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [*zip(map(str, value._fields), value, strict=False)]
    if isinstance(value, list | tuple):
        return _numbered(value)
    if is_dataclass(value):
        return [(each.name, getattr(value, each.name, None)) for each in fields(value)]
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        return _array(value)
    is_nothing = value is None or isinstance(value, bytes | enum.Enum | type | torch.nn.Module)
    if is_nothing or callable(value) or type(value).__module__ in ("torch", "builtins"):
        return []
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    if not slots and not hasattr(value, "__dict__"):
        return None
    held = {name: getattr(value, name, None) for name in slots} | getattr(value, "__dict__", {})
    return [(str(name), each) for name, each in held.items()]


def _numbered(values: Iterable[object]) -> Sequence[tuple[str, object]]:
    return [(Position(number), each) for number, each in enumerate(values)]


def _array(value: object) -> Sequence[tuple[str, object]] | None:
    """numpy's and other libraries' arrays, as a tensor; None where torch has no such type."""
    import torch

    try:
        return _numbered([torch.as_tensor(value)])
    except (TypeError, ValueError, RuntimeError):
        return None
