"""What a module's own code has done to it on loading: which tensors have other values, which were
put in the place of others, and what of that can stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ckpt_tool.torch_bridge import Memory, identity_of, is_wrapper, memory_of, same_bytes
from ckpt_tool.training.load_hooks.parts import HookedModule, Slot
from ckpt_tool.training.snapshots import Snapshot, exchange, held

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class Taken:
    """What a module was filled with by its own code: keys whose values it changed, keys that it
    filled besides, slots that have another tensor now, tensors that were written to.
    """

    changed: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    replaced: list[Slot] = field(default_factory=list)
    written: list[Slot] = field(default_factory=list)

    @property
    def is_changed(self) -> bool:
        """Whether the code did more than copy."""
        return bool(self.changed) or any(self.filled)


def taken_by(
    part: HookedModule,
    given: Mapping[str, torch.Tensor],
    slots: Sequence[Slot],
    snapshot: Snapshot,
) -> Taken:
    """What the module was filled with; `given` are the values that its code has left as they were.
    Raises InputError for what can't be kept.
    """
    untouched = {key: given.get(name) for name, key in part.loaded.items()}
    taken = Taken()
    for slot in slots:
        if slot.is_replaced and not slot.key:
            continue  # no tensor of the state dict: it is as the code left it
        now = slot.now
        if now is None or now.shape != slot.tensor.shape:
            raise part.refused(f"gives `{slot.key}` another shape on loading")
        is_asked = slot.key in untouched
        if not (slot.is_replaced or _is_filled(now, is_asked, snapshot)):
            if is_asked:
                raise part.refused(f"leaves out `{slot.key}` on loading")
            continue
        (taken.replaced if slot.is_replaced else taken.written).append(slot)
        if not is_asked:
            taken.filled.append(slot.key)
        elif not _has_value(now, untouched[slot.key]):
            taken.changed.append(slot.key)
    return taken


def _is_filled(now: torch.Tensor, is_asked: bool, snapshot: Snapshot) -> bool:
    """Whether a tensor that stayed was written to; one that nobody asked for counts where its
    values are others.
    """
    return snapshot.is_written(now) if is_asked else snapshot.is_changed(now)


def put_back(part: HookedModule, slots: Sequence[Slot], replaced: Sequence[Slot]) -> None:
    """Puts the module's own tensors, which others know, where torch or the code has put others,
    also where the code has noted these.
    """
    known = {id(slot.now): (slot.now, slot.tensor) for slot in replaced}
    owners = {id(slot.now): id(slot.tensor) for slot in replaced}
    own = {memory_of(slot.tensor) for slot in slots} - {None}
    memories: dict[Memory | None, str] = {}
    for slot in replaced:
        assert slot.now is not None
        memory = memory_of(slot.now)
        if owners[id(slot.now)] != id(slot.tensor) or memory in own:
            raise part.refused(f"ties `{slot.key}` to another tensor on loading")
        if memory:
            memories[memory] = slot.key
    exchange(part.module, known)
    _refuse_views(part, memories, {id(slot.tensor) for slot in slots})


def _refuse_views(
    part: HookedModule, memories: Mapping[Memory | None, str], own: Collection[int]
) -> None:
    """What the code has noted of tensors that don't stay would go on showing these."""
    import torch

    for each in held(part.module) if memories else ():
        memory = memory_of(each) if isinstance(each, torch.Tensor) and id(each) not in own else None
        if memory in memories:
            raise part.refused(
                f"keeps a view of `{memories[memory]}` on loading, which is replaced where it is "
                "on the meta device or in parts"
            )


def _has_value(now: torch.Tensor, given: torch.Tensor | None) -> bool:
    if given is None:
        return False
    return identity_of(now) == identity_of(given) or (
        not is_wrapper(now) and now.dtype == given.dtype and same_bytes(now, given)
    )
