"""Whether two networks give the same though a module inside diverges: what a conversion folds into
another module, scales or reorders inside differs by design. That outputs agree says so only where
they depend on what that module gives: saturated ones, and labels, agree whatever it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.tracing.comparing import JUMP, Parting
from ckpt_tool.tracing.exact import Found
from ckpt_tool.tracing.leaves import leaves_in
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.recording import Call, Recorder, Setting
from ckpt_tool.tracing.sketches import SHORT, Sketch, distance, floor_of, paired

if TYPE_CHECKING:
    import torch
    from torch import nn

Change = Callable[["torch.Tensor"], "torch.Tensor"]
Outputs = Sequence[tuple[Sketch, Sketch]]


@dataclass(frozen=True, slots=True)
class Inner:
    """What is known of outputs that agree: `is_same` where they depend on the module and agree all
    the same, or where neither network uses what it gives; `said` is a note of it.
    """

    is_same: bool
    said: str


def outputs_agree(one: Sequence[Sketch], other: Sequence[Sketch]) -> bool:
    """Whether all that two networks give was compared, and is the same but for rounding."""
    both = list(paired(one, other))
    return len(both) == len(one) == len(other) and all(_agree(*each) for each in both)


def _agree(one: Sketch, other: Sketch) -> bool:
    apart = distance(one, other)
    return apart is not None and apart <= _limit(one, other)


def _limit(one: Sketch, other: Sketch) -> float:
    """How far apart rounding may bring outputs: in full precision what many modules add up to, in
    short types what one does.
    """
    floor = floor_of(one, other)
    return floor * JUMP if floor < SHORT else floor


def inner_of(
    networks: tuple[nn.Module, nn.Module],
    inputs: tuple[object, object],
    setting: Setting,
    parting: Parting,
    found: Found,
    outputs: tuple[Sequence[Sketch], Sequence[Sketch]],
    orders: Orders = NO_ORDERS,
) -> Inner:
    """What outputs that agree say of the module that diverges, which gives what `found` has: the
    second network runs once more with the differences there under random signs; where that changes
    nothing, both run with NaN, which goes through all that uses it.
    """
    at = parting.at or parting.row
    what = "gets other inputs" if parting.kind == "code" else "gives other outputs"
    name = f"`{at.other}`" if at.other else "the second network"
    inside = f"inside, {name} {what}"
    call = at.other, at.call
    both = [each for each in paired(*outputs) if _is_evidence(*each)]
    gave = [each.output for each in found.entered]
    noise = _noise(gave[0], gave[1], orders) if both else None
    if noise is not None:
        noisy = _changed(networks[1], inputs[1], setting, call, noise)
        if noisy is not None and _depend(both, noisy):
            return Inner(True, f"{inside}; the networks' outputs agree all the same")
    if both and _is_unused(networks, inputs, setting, ((at.one, at.call), call), outputs):
        return Inner(True, f"{inside}; no network uses what it gives, and their outputs agree")
    said = (
        f"the networks' outputs agree, and depend too little on what {name} gives for that to "
        "settle it: give another input"
    )
    is_short = any(each.eps >= SHORT for pair in paired(*outputs) for each in pair)
    return Inner(False, f"{said}, or networks in float32" if is_short else said)


def _is_evidence(one: Sketch, other: Sketch) -> bool:
    """Whether a value is one of many that could have been: finite numbers that are no labels, no
    mask and not all the same.
    """
    return all(each.eps > 0 and not each.odd and each.is_varied for each in (one, other))


def _depend(both: Outputs, noisy: Sequence[Sketch]) -> bool:
    """Whether noise brings an output farther than the networks are apart, and than rounding may."""
    by_path = {each.path: each for each in noisy}
    for one, other in both:
        moved = by_path.get(other.path)
        far = None if moved is None else distance(other, moved)
        apart = distance(one, other) or 0.0
        if far is not None and far > max(_limit(one, other), JUMP * apart):
            return True
    return False


def _is_unused(
    networks: tuple[nn.Module, nn.Module],
    inputs: tuple[object, object],
    setting: Setting,
    calls: tuple[Call, Call],
    outputs: tuple[Sequence[Sketch], Sequence[Sketch]],
) -> bool:
    """Whether both networks give the same with NaN for what the module gives."""
    for number, network in enumerate(networks):
        spoilt = _changed(network, inputs[number], setting, calls[number], _nan)
        if spoilt is None or not _is_equal(outputs[number], spoilt):
            return False
    return True


def _is_equal(ones: Sequence[Sketch], others: Sequence[Sketch]) -> bool:
    return len(ones) == len(others) and all(
        one.path == other.path and distance(one, other) == 0
        for one, other in zip(ones, others, strict=True)
    )


def _changed(
    network: nn.Module, inputs: object, setting: Setting, call: Call, change: Change
) -> Sequence[Sketch] | None:
    """What a network gives where numbers that a module gives are changed; None where they can't be
    all, and where it fails with them.
    """
    count, changed = 0, [0, 0]

    def after(module: nn.Module, args: object, output: object) -> object:
        nonlocal count
        count += 1
        if count - 1 != call[1]:
            return None
        made, changed[0] = _with(output, change)
        changed[1] = sum(_can_change(each) for _, each in leaves_in(output))
        return made

    recorder = Recorder(network, {""})
    handle = network.get_submodule(call[0]).register_forward_hook(after)
    try:
        recorder.run(inputs, setting)
    except InputError:
        return None
    finally:
        handle.remove()
    return recorder.calls["", 0].outputs if changed[0] == changed[1] > 0 else None


def _with(output: object, change: Change) -> tuple[object, int]:
    """A value with its tensors of floating numbers changed, and how many they are."""
    import torch
    from torch.utils import _pytree

    count = 0

    def made(each: torch.Tensor) -> torch.Tensor:
        nonlocal count
        if not _can_change(each):
            return each
        count += 1
        return change(each)

    return _pytree.tree_map_only(torch.Tensor, made, output), count


def _difference(one: torch.Tensor, other: torch.Tensor, orders: Orders) -> torch.Tensor:
    import torch

    some = [each.cpu().double() - other.cpu().double() for each in (one, *orders.variants(one))]
    return min((torch.nan_to_num(each) for each in some), key=lambda each: float(each.norm()))


def _can_change(value: object) -> bool:
    """Whether it is a tensor of floating numbers, not one of them alone."""
    import torch

    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 0


def _noise(one: object, other: object, orders: Orders) -> Change | None:
    """The differences of two values, in the order in which they are closest, under random signs,
    added to the second's tensors in turn; None for values that are built otherwise. torch's own
    random numbers stay as they are.
    """
    import torch
    from torch.utils import _pytree

    (ones, shape), (others, its) = _pytree.tree_flatten(one), _pytree.tree_flatten(other)
    both = [each for each in zip(ones, others, strict=False) if _can_change(each[1])]
    if shape != its or any(getattr(each, "shape", None) != own.shape for each, own in both):
        return None
    generator = torch.Generator().manual_seed(0)
    left = iter([_difference(each, own, orders) for each, own in both])

    def change(tensor: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
        return tensor + (next(left) * signs).to(tensor.device, tensor.dtype)

    return change


def _nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor * float("nan")
