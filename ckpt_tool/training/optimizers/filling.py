"""The tensors of the new state: passed on, or what ops make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.ops import OpError, TensorForm, run_chain
from ckpt_tool.optimizers import SlotStep
from ckpt_tool.optimizers.saved import Path
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, Shape
from ckpt_tool.torch_bridge import (
    DTYPES,
    is_distributed,
    is_wrapper,
    local_part,
    tensor_info,
    torch_dtype,
    whole_tensor,
)
from ckpt_tool.training.memory.local_parts import local_parts
from ckpt_tool.training.optimizers.reading import MAX_DEPTH, Unread, read_now

if TYPE_CHECKING:
    import torch

LABEL = "the optimizer's state"


def form_of(value: object) -> TensorForm | None:
    """Dtype and shape of a value that is a tensor with plain elements."""
    import torch

    if isinstance(value, Unread):
        return value.form
    if not isinstance(value, torch.Tensor) or is_wrapper(local_part(value)):
        return None  # of a class that wraps other tensors, as torchao's of 8 bits, nothing is known
    try:
        info = tensor_info("", value)
    except ValueError:  # a sparse or quantised one, which can only stay as it is
        return None
    return TensorForm(info.dtype, info.shape)


def holds_parameters(value: object, depth: int = 0) -> bool:
    """Whether there is a tensor of more than one element in a value, as in the copies in float32
    that apex and Megatron keep of parameters.
    """
    form = form_of(value)
    if form is not None:
        return form.shape not in ((), (0,), (1,))
    inner = tuple(value.values()) if isinstance(value, Mapping) else value
    if depth > MAX_DEPTH or not isinstance(inner, list | tuple):
        return False
    return any(holds_parameters(each, depth + 1) for each in inner)


Home = Callable[[Path], "torch.Tensor | None"]
"""The parameter that an entry of the new state dict belongs to, where there is one already."""


def fill(
    entries: dict[str, object],
    steps: Sequence[SlotStep],
    given: Mapping[str, object],
    is_live: bool,
    home: Home,
) -> None:
    """Puts what the steps give into the new state dict; no two entries have one memory, nor any
    that of an optimizer that is live.

    Slots lie as their parameters do: in parts for those of FSDP2 and tensor parallelism. Where the
    source's are in parts and go through ops, all processes must call this.
    """
    seen = {path for step in steps for path in step.inputs} if is_live else set()
    for step in steps:
        values = _run(step, given, home) if step.ops else [_own(step, given, seen)]
        for path, value in zip(step.outputs, values, strict=True):
            if path is not None:
                _put(entries, path, _as_at_home(value, home(path)))


def _as_at_home(value: object, parameter: torch.Tensor | None) -> object:
    """A slot of the parameter's shape, cut or gathered as the parameter is."""
    import torch

    if isinstance(value, Unread):
        if parameter is not None and _is_cut(value.form.shape, parameter):
            value.check()
            return _part_of(value.read_part, value.form.dtype, parameter)
        value = value.read()
    if parameter is None or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    if is_distributed(parameter) and not is_distributed(value):
        whole, dtype = value, DTYPES[str(value.dtype).removeprefix("torch.")]
        return _part_of(lambda region: whole[region.slices], dtype, parameter)
    return value if is_distributed(parameter) else whole_tensor(value)


def _is_cut(shape: Shape, parameter: torch.Tensor) -> bool:
    """Whether a slot of this shape lies in parts, as its parameter does."""
    return is_distributed(parameter) and shape == tuple(parameter.shape)


def _part_of(
    box_of: Callable[[Region], torch.Tensor], dtype: DType, parameter: torch.Tensor
) -> torch.Tensor:
    """This process's part of a slot that every process can have whole."""
    import torch

    result = torch.empty_like(parameter.detach(), dtype=torch_dtype(dtype))
    for part in local_parts(result):
        part.copy(box_of(part.region))
    return result


def _own(step: SlotStep, given: Mapping[str, object], seen: set[Path]) -> object:
    """A value that is passed on, as it is the first time; a copy then."""
    path = step.inputs[0]
    value = _get(given, path)
    if isinstance(value, Unread):
        return value
    value = read_now(value)
    if path in seen:
        return deepcopy(value)
    seen.add(path)
    return value


def _run(step: SlotStep, given: Mapping[str, object], home: Home) -> list[torch.Tensor]:
    import torch

    has_homes = all(path is None or home(path) is not None for path in step.outputs)
    tensors = [_tensor(given, path, has_homes) for path in step.inputs]
    device = tensors[0].device
    with torch.no_grad(), torch.device("cpu"):
        try:
            results = run_chain(step.ops, [tensor.detach().cpu() for tensor in tensors])
        except OpError as error:
            raise RuleError([_different(step, tensors, error)]) from None
        return [
            result.to(device).clone(memory_format=torch.contiguous_format) for result in results
        ]


def _tensor(given: Mapping[str, object], path: Path, has_homes: bool) -> torch.Tensor:
    """The whole tensor at a path; one in parts is gathered where it is known how to cut it."""
    import torch

    value = _get(given, path)
    if isinstance(value, Unread):
        return value.read()
    assert isinstance(value, torch.Tensor)
    if is_distributed(value) and not has_homes:
        fact = (
            f"`{'.'.join(map(str, path))}` is a part of a distributed tensor, which ops would cut"
        )
        hint = (
            "give the model and the optimizer, or gather it: StateDictOptions(full_state_dict=True)"
        )
        raise InputError(LABEL, fact, hint)
    return whole_tensor(value)


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
