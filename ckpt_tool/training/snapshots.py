"""What a module holds, noted so that it can be put back: code that loads may change any of it."""

from __future__ import annotations

import gc
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from logging import Logger
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING

from ckpt_tool.torch_bridge import is_distributed, is_wrapper, local_part, same_bytes
from ckpt_tool.training.holders import Arguments, Defaults, Holder, Slots, Variable, holders_in

if TYPE_CHECKING:
    import torch

Exchange = Mapping[int, tuple[object, object]]
"""By the identity of what is to go: it itself, and what comes in its place."""

_MUTABLE = (dict, list, set, deque, bytearray)
_BUILT_IN = (dict, list, tuple, set, frozenset, deque)
_FROZEN = (tuple, frozenset)
_HOLDERS = (Variable, Defaults, Arguments, Slots)
_LEAVES = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    ModuleType,
    BuiltinFunctionType,
    Logger,
)


class Snapshot:
    """The dicts, lists, sets, slots, variables of closures and tensors that are reached from here,
    with what they hold now; the tensors take their memory once more.
    """

    def __init__(self, root: object) -> None:
        import torch

        self._containers: list[tuple[object, list[object]]] = []
        self._tensors: dict[int, _Kept] = {}
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            for each in held(root):
                if isinstance(each, torch.Tensor):
                    self._tensors[id(each)] = _Kept(each)
                else:
                    self._containers.append((each, _contents(each)))

    def is_written(self, tensor: torch.Tensor) -> bool:
        """Whether one of the tensors was written to, be it with what it had."""
        return self._tensors[id(tensor)].is_written

    def is_changed(self, tensor: torch.Tensor) -> bool:
        """Whether one of the tensors has other values."""
        return self._tensors[id(tensor)].is_changed

    def restore(self) -> None:
        """Puts everything back as it was noted."""
        import torch

        for container, contents in self._containers:
            _set_contents(container, contents)
        with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            for kept in self._tensors.values():
                kept.restore()


class _Kept:
    """A tensor with a copy of its values; without one where it has none to lose."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._version = version_of(tensor)
        self._copy = tensor.detach().clone() if _has_values(tensor) else None

    @property
    def is_written(self) -> bool:
        # Not only the version: writing to `.data` doesn't count, nor does anything in inference
        # mode.
        return self._copy is not None and (
            version_of(self._tensor) != self._version or self.is_changed
        )

    @property
    def is_changed(self) -> bool:
        if self._copy is None:
            return False
        return (
            not same_bytes(self._tensor, self._copy)
            if _is_plain(self._tensor)
            else version_of(self._tensor) != self._version
        )

    def restore(self) -> None:
        import torch

        if self._copy is None or not self.is_changed:
            return
        # Not `inference_mode(False)` for the others, which would turn gradients on.
        with torch.inference_mode() if self._tensor.is_inference() else nullcontext():
            self._tensor.copy_(self._copy)


def held(root: object) -> Iterator[object]:
    """Each dict, list, set, tensor, and what holds others in another way (`Holder`), that is
    reached from here, once: by attributes and slots, in collections, enclosed in functions.
    """
    import torch

    kinds = (torch.Tensor, *_MUTABLE)
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if type(value) in _LEAVES or id(value) in seen or isinstance(value, _LEAVES):
            continue
        seen[id(value)] = value
        if isinstance(value, kinds):
            yield value
        holders = [] if type(value) in _BUILT_IN else list(holders_in(value))
        yield from holders
        waiting += _inside(value, holders)


def exchange(root: object, known: Exchange) -> None:
    """Puts others in the place of objects, wherever they are reached from here."""
    import torch

    for container in list(held(root)) if known else ():
        if not isinstance(container, torch.Tensor | bytearray) and _has_any(container, known):
            _set_contents(container, [_exchanged(value, known) for value in _contents(container)])


def _has_any(container: object, known: Exchange) -> bool:
    """Whether anything in a container, or in tuples and frozen sets in it, is to be exchanged."""
    values: Iterable[object] = container  # type: ignore[assignment]
    if isinstance(container, dict):
        values = chain(dict.keys(container), dict.values(container))
    elif isinstance(container, _HOLDERS):
        values = container.contents()
    for value in values:
        if id(value) in known:
            return True
        if isinstance(value, _FROZEN) and _has_any(value, known):
            return True
    return False


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; tensors of inference mode don't count."""
    return 0 if tensor.is_inference() else tensor._version


def _exchanged(value: object, known: Exchange) -> object:
    if id(value) in known:
        return known[id(value)][1]
    if not isinstance(value, _FROZEN):
        return value
    new = [_exchanged(each, known) for each in value]
    if all(one is other for one, other in zip(value, new, strict=True)):
        return value
    return _made_like(value, new)


def _made_like(value: tuple[object, ...] | frozenset[object], new: list[object]) -> object:
    """A tuple or frozen set of the same class with other contents; its own `__new__`, which may
    take other arguments, is not asked.
    """
    made: object
    try:
        made = (
            tuple.__new__(type(value), new)
            if isinstance(value, tuple)
            else frozenset.__new__(type(value), new)
        )
    except TypeError:  # of the kind that C makes, such as torch's named results
        return type(value)(new)
    getattr(made, "__dict__", {}).update(getattr(value, "__dict__", {}))
    return made


def _inside(value: object, holders: Iterable[Holder]) -> Iterable[object]:
    """What is reached from an object by one step, without running code of its own; `holders` is
    what it has of these.
    """
    if type(value) in _BUILT_IN:
        values: Iterable[object] = value  # type: ignore[assignment]
        return list(value.values() if isinstance(value, dict) else values)
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    inside = [each for holder in holders for each in holder.contents()]
    if isinstance(value, FunctionType):
        return *inside, value.__kwdefaults__, *(value.__closure__ or ())
    if isinstance(value, MappingProxyType):
        return gc.get_referents(value)
    if isinstance(value, partial):
        inside += [value.func, value.keywords]
    if isinstance(value, dict):
        inside += dict.values(value)
    elif isinstance(value, _BUILT_IN):
        inside += value
    if not isinstance(value, CellType):
        with suppress(AttributeError):
            inside.append(object.__getattribute__(value, "__dict__"))
    return inside


def _contents(container: object) -> list[object]:
    """What a container holds; a dict's pairs are tuples."""
    if isinstance(container, _HOLDERS):
        return container.contents()
    if isinstance(container, dict):
        return list(dict.items(container))
    assert isinstance(container, _MUTABLE)
    return list(container)


def _set_contents(container: object, contents: list[object]) -> None:
    if _are_same(_contents(container), contents):
        return
    if isinstance(container, _HOLDERS):
        container.put(contents)
    elif isinstance(container, dict):
        # Not by its own methods, which a class may have overridden, but for an OrderedDict's: it
        # has an order besides.
        kind = OrderedDict if isinstance(container, OrderedDict) else dict
        kind.clear(container)
        for pair in contents:
            kind.__setitem__(container, *pair)  # type: ignore[misc]
    elif isinstance(container, set):
        container.clear()
        container.update(contents)
    elif isinstance(container, list | deque | bytearray):
        container.clear()
        container.extend(contents)  # type: ignore[arg-type]


def _are_same(source: list[object], target: list[object]) -> bool:
    return len(source) == len(target) and all(
        one is other
        or (
            type(one) is type(other) is tuple
            and len(one) == len(other)
            and all(map(_is, one, other))
        )
        for one, other in zip(source, target, strict=True)
    )


def _is(one: object, other: object) -> bool:
    return one is other


def _has_values(tensor: torch.Tensor) -> bool:
    import torch
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor) or tensor.is_meta:
        return False
    if is_wrapper(tensor) or tensor.layout is not torch.strided:
        return not is_distributed(tensor) or _has_values(local_part(tensor))
    # Sharding frees the memory of what it has gathered, and leaves the tensor.
    return not tensor.numel() or tensor.untyped_storage().nbytes() > 0


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    return tensor.layout is torch.strided and not is_wrapper(tensor) and not tensor.is_quantized
