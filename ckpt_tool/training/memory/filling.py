"""Values into the tensors of a live module, wherever these lie; what can't be filled is known
before anything is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ckpt_tool.errors import InputError
from ckpt_tool.torch_bridge import (
    identity_of,
    is_distributed,
    is_plain,
    is_wrapper,
    local_part,
    memory_of,
    odd_kind,
    quantised_kind,
)
from ckpt_tool.training.memory.arena import Arena
from ckpt_tool.training.memory.local_parts import LocalPart, local_parts
from ckpt_tool.training.memory.offloaded import offloaded
from ckpt_tool.training.memory.strides import overlaps_itself
from ckpt_tool.training.snapshots import Snapshot
from ckpt_tool.wording import type_text

if TYPE_CHECKING:
    import torch
    from torch import nn

OFFLOADED = (
    "is offloaded: accelerate keeps its values elsewhere, so that values written to it are lost",
    "load before the model is offloaded",
)


class _Place(NamedTuple):
    """Where a module has a tensor: its own dict of them, and the name there."""

    tensors: MutableMapping[str, torch.Tensor]
    name: str


class LiveTensors:
    """A module's tensors by the keys of its state dict."""

    def __init__(self, module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """`state` is the module's state dict with its own tensors."""
        self._name = type(module).__name__
        self._by_key = state
        self._places: dict[object, list[_Place]] = defaultdict(list)
        """Where a tensor of the meta device is to be replaced: wherever a module has it, or has it
        as another object.
        """
        self.replaced: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Tensors of the meta device, by their identity, with what comes in their places."""
        self._asked: set[object] = set()
        self._memory = Arena()
        self._waiting: list[tuple[_Place, torch.Tensor]] = []
        self._known: dict[int, torch.Tensor] = {}
        """The module's tensors that have a storage, by their identity as objects."""
        self.had_meta = False
        """Whether any tensor of the module, of its state dict or not, was on the meta device."""
        for tensors, name, tensor in _places_in(module):
            self.had_meta |= tensor.is_meta
            if not odd_kind(tensor):
                self._known[id(tensor)] = tensor
                if tensor.is_meta:
                    self._places[identity_of(tensor)].append(_Place(tensors, name))
        self._offloaded = {id(tensor) for tensor in offloaded(module)} if self.had_meta else set()

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._by_key[key]

    def check(self, keys: Iterable[str]) -> None:
        """Raises InputError for a tensor that can't be filled."""
        for key in keys:
            tensor = self._by_key[key]
            why = self._obstacle(tensor) if tensor.numel() else None
            why = OFFLOADED if id(tensor) in self._offloaded else why
            if why:
                raise InputError(self._name, f"`{key}` {why[0]}", why[1])

    def _obstacle(self, tensor: torch.Tensor) -> tuple[str, str] | None:
        """Why a tensor can't be filled, and what to do; None where it can."""
        if self._is_usual(tensor):
            return None
        import torch

        if kind := odd_kind(tensor):
            return (
                f"is {kind}, and can't be filled",
                "load before the model is made sparse or quantised, or keep it",
            )
        if is_wrapper(local_part(tensor)):
            return (
                f"is {type_text(tensor)}, which only its own class can fill",
                "load before the model is quantised or wrapped",
            )
        if packed := quantised_kind(tensor):
            return f"is {packed}", "load before the model is quantised, or keep it"
        if _is_partial(tensor):
            return (
                "is a DTensor of partial sums (Partial), which no value can be cut into",
                "load before it is made partial",
            )
        if id(tensor) not in self._known and memory_of(tensor) not in self._sharers:
            fact = (
                "is made again whenever the state dict is asked for, so that values "
                "written to it are lost"
            )
            return fact, "load before the model is sharded, quantised or wrapped"
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            return (
                "was made in inference mode, and can't be written",
                "build the model outside of torch.inference_mode()",
            )
        if overlaps_itself(tensor):
            return (
                "is expanded or overlaps itself: several of its elements are one in memory",
                "give the model a tensor of its own: `.expand(…).clone()`",
            )
        if tensor.is_meta and self._views_of(tensor) > 1:
            fact = (
                "overlaps other tensors of the model, which can't be kept up where there "
                "is no memory yet"
            )
            return fact, "build the model on a device, not on meta"
        return None

    def _is_usual(self, tensor: torch.Tensor) -> bool:
        """Whether it is what nearly all tensors are, which can be filled."""
        return (
            id(tensor) in self._known
            and is_plain(tensor)
            and tensor.is_contiguous()
            and not (vars(tensor) or tensor.is_inference())
        )

    @cached_property
    def _sharers(self) -> Mapping[object, list[torch.Tensor]]:
        """The module's tensors that see each storage, as it is before any is filled."""
        found: dict[object, list[torch.Tensor]] = defaultdict(list)
        for tensor in self._known.values():
            found[memory_of(tensor)].append(tensor)
        return found

    def _views_of(self, tensor: torch.Tensor) -> int:
        """The number of ways in which the module's tensors see this one's storage."""
        return len({identity_of(other) for other in self._sharers[memory_of(tensor)]})

    def fill(self, current: torch.Tensor, value: torch.Tensor) -> None:
        """Copies a value into a tensor of the module, on its device; of a distributed one, those
        parts that this process has. One on the meta device gets memory, see `destinations`.
        """
        import torch

        if current.is_meta or is_distributed(current):
            for part in self.destinations(current):
                part.copy(value[part.region.slices])
        elif current.is_inference():
            with torch.inference_mode():
                current.copy_(value)
        else:
            current.copy_(value)

    def destinations(self, current: torch.Tensor) -> list[LocalPart]:
        """Where this process's parts of a tensor belong. For one on the meta device that is new
        memory, which `commit` puts in its place; none where it was asked for already, tied to it.
        """
        if not current.is_meta:
            return local_parts(current)
        if (identity := identity_of(current)) in self._asked:
            return []
        self._asked.add(identity)
        has_room = _takes_room(current)
        memory = self._memory.take(local_part(current)) if has_room else _new_memory(current)
        self._replace(current, _whole(memory, current))
        return local_parts(current, memory)

    def reserve(self, keys: Iterable[str]) -> None:
        """Allocates memory at once for those of these tensors that are on the meta device; of a
        distributed one, for this process's part.
        """
        some = [self[key] for key in keys if _takes_room(self[key])]
        for tensor in {identity_of(tensor): tensor for tensor in some}.values():
            self._memory.reserve(local_part(tensor).nbytes)

    def can_adopt(self, key: str, dtype: torch.dtype) -> bool:
        """Whether another plain CPU tensor of this dtype can take a tensor's place: nothing else of
        the module has its memory.
        """
        current = self[key]
        from torch import Tensor, nn

        is_plain = type(current) in (Tensor, nn.Parameter, nn.Buffer) and current.is_contiguous()
        return (
            is_plain
            and current.dtype == dtype
            and (current.is_meta or (current.is_cpu and not current.is_inference()))
            and self._views_of(current) == 1
            and (current.is_meta or len(self._sharers[memory_of(current)]) == 1)
        )

    def adopt(self, key: str, value: torch.Tensor) -> None:
        """Lets a tensor have this value's memory: the same object, but for one on meta."""
        from torch.autograd.graph import increment_version

        current = self[key]
        if not current.is_meta:
            current.data = value
            increment_version(current)  # what autograd has saved for a backward is no more
        elif (identity := identity_of(current)) not in self._asked:
            self._asked.add(identity)
            self._replace(current, value)

    def commit(self) -> None:
        """Puts the tensors that have memory in the place of those on the meta device, where these
        were found: a module's own `__setattr__` may refuse them.
        """
        for place, new in self._waiting:
            place.tensors[place.name] = new
        self._waiting.clear()

    def try_fill(self, current: torch.Tensor, value: torch.Tensor, undo: ExitStack) -> None:
        """The same for a tensor whose class may refuse it, which raises InputError; `undo` gets
        what puts everything back.
        """
        undo.callback(Snapshot([current]).restore)
        try:
            self.fill(current, value)
            if current.is_meta:
                self.replaced[id(current)][1].copy_(value)  # its class is asked
        except Exception as error:
            key = next(key for key, tensor in self._by_key.items() if tensor is current)
            fact = (
                f"`{key}` is {type_text(current)}, which can't be filled: "
                f"{type(error).__name__}: {error}"
            )
            raise InputError(
                self._name, fact, "keep it, or load before the model has it"
            ) from error

    def _replace(self, current: torch.Tensor, value: torch.Tensor) -> None:
        for place in self._places[identity_of(current)]:
            tensor = place.tensors[place.name]
            if id(tensor) not in self.replaced:
                self.replaced[id(tensor)] = tensor, _like(tensor, value)
            self._waiting.append((place, self.replaced[id(tensor)][1]))


def _places_in(
    module: nn.Module,
) -> Iterator[tuple[MutableMapping[str, torch.Tensor], str, torch.Tensor]]:
    for owner in module.modules():
        for tensors in (owner._parameters, owner._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    yield tensors, name, tensor  # type: ignore[misc]


def _takes_room(tensor: torch.Tensor) -> bool:
    """Whether memory on the CPU is to come for a tensor on the meta device, the same bytes for all
    that this process has of it.
    """
    if not tensor.is_meta:
        return False
    if is_distributed(tensor) and tensor.device_mesh.device_type != "cpu":  # type: ignore[attr-defined]
        return False
    own = local_part(tensor)
    return own.is_contiguous() and own.nbytes > 0


def has_own_class(tensor: torch.Tensor) -> bool:
    """Whether a tensor's class answers torch's functions itself, and so may refuse what is written
    to it.
    """
    import torch
    from torch import nn

    if type(tensor) in (torch.Tensor, nn.Parameter):
        return False
    kinds = (
        kind for kind in type(tensor).__mro__ if kind not in (torch.Tensor, nn.Parameter, nn.Buffer)
    )
    return any("__torch_function__" in vars(kind) for kind in kinds) and not is_wrapper(tensor)


def _new_memory(like: torch.Tensor) -> torch.Tensor:
    """Memory for this process's part of a tensor on the meta device, in its layout."""
    import torch

    device = like.device_mesh.device_type if is_distributed(like) else "cpu"  # type: ignore[attr-defined]
    return torch.empty_like(local_part(like), device=device)


def _whole(memory: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor of which this process has that memory."""
    if not is_distributed(like):
        return memory
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    return DTensor.from_local(
        memory,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A value as the parameter or buffer that stood there: of its class, with what others noted on
    it, and with its gradient's hooks, whose handles go on working.
    """
    import torch
    from torch import nn

    if type(tensor) in (torch.Tensor, nn.Parameter) or is_distributed(tensor):
        new = (
            nn.Parameter(value, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else value
        )
    else:
        new = value.as_subclass(type(tensor)).requires_grad_(tensor.requires_grad)
    if not is_distributed(tensor):
        vars(new).update(vars(tensor))
    if tensor.is_leaf and tensor._backward_hooks is not None:
        new._backward_hooks = tensor._backward_hooks
    if tensor.is_leaf and tensor._post_accumulate_grad_hooks is not None:
        new._post_accumulate_grad_hooks = tensor._post_accumulate_grad_hooks
    return new


def _is_partial(tensor: torch.Tensor) -> bool:
    return is_distributed(tensor) and any(
        placement.is_partial()
        for placement in tensor.placements  # type: ignore[attr-defined]
    )
