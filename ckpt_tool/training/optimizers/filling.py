"""The tensors of the new state: passed on, or what ops make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.ops import OpError, TensorForm, run_chain
from ckpt_tool.optimizers import SlotStep
from ckpt_tool.optimizers.saved import Path
from ckpt_tool.torch_bridge import is_distributed, is_wrapper, local_part, tensor_info

if TYPE_CHECKING:
    import torch

LABEL = "the optimizer's state"


def form_of(value: object) -> TensorForm | None:
    """Dtype and shape of a value that is a tensor with plain elements."""
    import torch

    if not isinstance(value, torch.Tensor) or is_wrapper(local_part(value)):
        return None  # of a class that wraps other tensors, as torchao's of 8 bits, nothing is known
    try:
        info = tensor_info("", value)
    except ValueError:  # a sparse or quantised one, which can only stay as it is
        return None
    return TensorForm(info.dtype, info.shape)


def fill(
    entries: dict[str, object],
    steps: Sequence[SlotStep],
    given: Mapping[str, object],
    is_live: bool,
) -> None:
    """Puts what the steps give into the new state dict; no two entries have one memory, nor any
    that of an optimizer that is live.
    """
    seen = {path for step in steps for path in step.inputs} if is_live else set()
    for step in steps:
        values = _run(step, given) if step.ops else [_own(step, given, seen)]
        for path, value in zip(step.outputs, values, strict=True):
            if path is not None:
                _put(entries, path, value)


def _own(step: SlotStep, given: Mapping[str, object], seen: set[Path]) -> object:
    """A value that is passed on, as it is the first time; a copy then."""
    path = step.inputs[0]
    value = _get(given, path)
    if path in seen:
        return deepcopy(value)
    seen.add(path)
    return value


def _run(step: SlotStep, given: Mapping[str, object]) -> list[torch.Tensor]:
    import torch

    tensors = [_tensor(given, path) for path in step.inputs]
    device = tensors[0].device
    with torch.no_grad(), torch.device("cpu"):
        try:
            results = run_chain(step.ops, [tensor.detach().cpu() for tensor in tensors])
        except OpError as error:
            raise RuleError([_different(step, tensors, error)]) from None
        return [
            result.to(device).clone(memory_format=torch.contiguous_format) for result in results
        ]


def _tensor(given: Mapping[str, object], path: Path) -> torch.Tensor:
    import torch

    value = _get(given, path)
    assert isinstance(value, torch.Tensor)
    if is_distributed(value):
        fact = (
            f"`{'.'.join(map(str, path))}` is a part of a distributed tensor, which ops would cut"
        )
        raise InputError(LABEL, fact, "gather it first: StateDictOptions(full_state_dict=True)")
    return value


def _different(step: SlotStep, tensors: Sequence[torch.Tensor], error: OpError) -> Problem:
    """What is said of values that must be equal and aren't."""
    output = next(".".join(map(str, path[1:])) for path in step.outputs if path is not None)
    values = [f"{t.item():g}" for t in tensors if t.numel() == 1]
    shown = f": {', '.join(dict.fromkeys(values))}" if values else ""
    message = (
        f"`{output}` would be made of several that differ{shown}"
        if values
        else f"`{output}`: {error}"
    )
    return Problem("optimizer-state", message, None, ("fresh=[…] begins without a state there",))


def _get(given: Mapping[str, object], path: Path) -> object:
    value: object = given
    for part in path:
        assert isinstance(value, Mapping)
        value = value[part]
    return value


def _put(entries: dict[str, object], path: Path, value: object) -> None:
    *outer, last = path
    inside: dict[object, object] = entries  # type: ignore[assignment]
    for part in outer:
        inside = inside.setdefault(part, {})  # type: ignore[assignment]
    inside[last] = value
