"""Tensors that somebody else reads: a loader hands them over one by one, in any order, on any
device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ckpt_tool.errors import InputError
from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.torch_bridge import tensor_info, whole_tensor

if TYPE_CHECKING:
    import torch

    from ckpt_tool.mapping.plan import Plan, Step
    from ckpt_tool.tensors import TensorInfo
    from ckpt_tool.training.memory.filling import LiveTensors

    Loader: TypeAlias = Callable[[Sequence[str]], Iterable[tuple[str, torch.Tensor]]]
    """Gets the source's keys that are needed, in the order in which they lie; gives each with its
    tensor.
    """


class HasValues(Protocol):
    """What knows of tensors that need no value any more."""

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has its value already, or one that waits for it."""


def fill_from(loader: Loader, plan: Plan, tensors: LiveTensors, hooked: HasValues) -> None:
    """Fills a model by the plan with what a loader gives. A step runs as soon as all its inputs are
    there; what no step needs any more is let go of.

    `hooked` knows the tensors that have their values already. Raises InputError for
    tensors that are not those of the plan, and for those that don't come.
    """
    steps = [step for step in plan.steps if _wanted(step, tensors, hooked)]
    uses = Counter(key for step in steps for key in dict.fromkeys(step.inputs))
    needing: dict[str, list[Step]] = {}
    for step in steps:
        for key in dict.fromkeys(step.inputs):
            needing.setdefault(key, []).append(step)
    there: dict[str, torch.Tensor] = {}
    for key, tensor in _given(loader, tuple(key for key in plan.source if key in uses)):
        if key not in uses or key in there or not uses[key]:
            raise _not_asked(key)
        _check(key, tensor, plan.source[key])
        there[key] = tensor
        for step in needing[key]:
            if all(each in there for each in step.inputs):
                _run(step, there, tensors, _wanted(step, tensors, hooked))
                uses.subtract(set(step.inputs))
        there = {each: there[each] for each in there if uses[each]}
        if key in there:  # it waits for others, and the loader may use its memory again
            there[key] = tensor.detach().clone()
    if missing := [key for key, count in uses.items() if count and key not in there]:
        raise _loader_error(f"did not give `{missing[0]}`", len(missing))


def _given(loader: Loader, keys: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """What the loader gives, once each is a key with its tensor. Raises InputError."""
    from torch import Tensor

    given = loader(keys)
    if not isinstance(given, Iterable):
        raise _loader_error(f"returned a {type(given).__name__}, not (key, tensor) pairs", 1)
    for one in given.items() if isinstance(given, Mapping) else given:
        is_pair = isinstance(one, tuple | list) and len(one) == 2
        if not (is_pair and isinstance(one[0], str) and isinstance(one[1], Tensor)):
            raise _loader_error(f"gave a {_kind(one)}, not a (key, tensor) pair", 1)
        yield one[0], one[1]


def _kind(value: object) -> str:
    """What something is, and if it is a short tuple, what is in it."""
    name = type(value).__name__
    if not isinstance(value, tuple | list) or not 0 < len(value) < 4:
        return name
    return f"{name} of {', '.join(type(each).__name__ for each in value)}"


def _wanted(step: Step, tensors: LiveTensors, hooked: HasValues) -> list[str]:
    return [key for key in step.outputs if not hooked.has(tensors[key])]


def _run(
    step: Step, there: dict[str, torch.Tensor], tensors: LiveTensors, wanted: Sequence[str]
) -> None:
    inputs = [there[key].detach() for key in step.inputs]
    if step.ops:  # they compute on the CPU
        inputs = [tensor.cpu() for tensor in inputs]
    values = apply_step(step, inputs, lambda: whole_tensor(tensors[step.outputs[0]]).cpu())
    for key, value in zip(step.outputs, values, strict=True):
        if key in wanted:
            tensors.fill(tensors[key], value)


def _check(key: str, tensor: torch.Tensor, known: TensorInfo) -> None:
    given = tensor_info(key, tensor)
    if (given.dtype, given.shape) != (known.dtype, known.shape):
        fact = f"gave `{key}` as {given.dtype.value} {given.shape}, and the file has "
        raise _loader_error(f"{fact}{known.dtype.value} {known.shape}", 1)


def _not_asked(key: str) -> InputError:
    return _loader_error(f"gave `{key}`, which it wasn't asked for, or twice", 1)


def _loader_error(fact: str, count: int) -> InputError:
    more = f" (and {count - 1} more)" if count > 1 else ""
    return InputError("loader", fact + more, "the model is half loaded: load again")
