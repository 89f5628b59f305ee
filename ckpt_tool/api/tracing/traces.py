"""A trace of two networks: live ones with a plan, or factories with checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.api.loading import load_into
from ckpt_tool.api.next_steps.refused import with_next
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.planning import plan_checkpoint
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.keys import Matcher, parse
from ckpt_tool.keys.pattern import PatternError
from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.mapping import Plan
    from ckpt_tool.tracing import Trace

MAX_ELEMENTS = 1 << 61
"""The bytes of so many numbers are counted in 64 bits."""


def plan_between(one: nn.Module, other: nn.Module, options: MappingOptions) -> Plan:
    """Which tensors of the second network stand for which of the first. Raises RuleError."""
    with plan_checkpoint(one, other, options) as planned:
        if planned.plan is None:
            error = RuleError(planned.problems, planned.tally)
            raise with_next(error, planned.source, planned.target, options)
        return planned.plan


def trace(
    one: nn.Module,
    other: nn.Module,
    inputs: object,
    plan: Plan,
    inputs_other: object = None,
    keep: Sequence[str] = (),
    train: bool = False,
    seed: int = 0,
    names: tuple[str, str] = ("a", "b"),
) -> Trace:
    """Traces two live networks whose tensors the plan maps. Raises InputError."""
    from ckpt_tool.tracing import trace_models
    from ckpt_tool.tracing.recording import Setting
    from ckpt_tool.training import unwrapped

    _check_seed(seed)
    first, second = unwrapped(one), unwrapped(other)
    _check(plan, first, second)
    keeps = _matching(keep, (first, second))
    return trace_models(
        first, second, inputs, plan, inputs_other, keeps, Setting(train, seed), names
    )


def trace_checkpoints(
    source: str,
    target: str | None,
    factories: tuple[str, str],
    inputs: tuple[str | None, str | None, str | None],
    options: MappingOptions,
    keep: Sequence[str] = (),
    train: bool = False,
    seed: int = 0,
) -> Trace:
    """Loads checkpoints into the networks of two factories and traces these. Without `target`, the
    second gets the first one's tensors by the options; with it, its own, and the options say which
    stand for each other.

    `inputs` are the file with the input, that of the second network's, and a shape such as
    `1x3x224x224` for a random one. A network of float32 whose checkpoint is in half precision runs
    in that, unless the options say what happens where dtypes differ. Raises InputError, RuleError.
    """
    from ckpt_tool.training import build_model

    _check_choices(inputs, seed)
    one, other = (build_model(factory) for factory in factories)
    if other is one:  # a model that is there already
        other = deepcopy(one)
    given = _inputs_for(one, inputs[0], inputs[2], seed)
    given_other = None if inputs[1] is None else _inputs_for(other, inputs[1], None, seed)
    if given_other is None and inputs[0] is not None:
        given_other = _inputs_for(other, inputs[0], None, seed)
    if options.dtypes == "strict":
        halves = [
            _to_half(network, path) for network, path in ((one, source), (other, target or source))
        ]
        given_other = _cast(given if given_other is None else given_other, halves[1])
        given, options = _cast(given, halves[0]), replace(options, dtypes="target")
    own = MappingOptions(dtypes=options.dtypes)
    load_into(one, source, own)
    if target is None:
        plan = load_into(other, one, options).plan
    else:
        load_into(other, target, own)
        plan = plan_between(one, other, options)
    names = f"{factories[0]} with {source}", f"{factories[1]} with {target or source}"
    return trace(one, other, given, plan, given_other, keep, train, seed, names)


def _check_choices(inputs: tuple[str | None, str | None, str | None], seed: int) -> None:
    """Raises InputError for two inputs of one network, and for a seed that is none."""
    if inputs[0] is not None and inputs[2] is not None:
        raise InputError(
            "--random-input", "is given beside --input: the network takes one", "leave one out"
        )
    _check_seed(seed)


def _check_seed(seed: int) -> None:
    """Raises InputError for what torch takes as no seed."""
    if not -(1 << 63) <= seed < 1 << 64:
        raise InputError("--seed", f"{seed} is not a number of 64 bits", "give 0, 1, 2, …")


def _to_half(network: nn.Module, path: str) -> torch.dtype | None:
    """Gives the parameters and buffers of a network of float32 the half precision of its
    checkpoint; None where that has none. The frequencies of rotary positions, which no state dict
    has, stay in float32, as transformers makes them.
    """
    import torch

    halves = {DType.F16: torch.float16, DType.BF16: torch.bfloat16}
    with open_checkpoint(path) as checkpoint:
        stored = {info.dtype for info in checkpoint.definite().catalog.values()}
    floats = {dtype for dtype in stored if dtype.is_floating}
    half = halves.get(floats.pop()) if len(floats) == 1 else None
    state = [each for each in network.state_dict().values() if each.is_floating_point()]
    if half is None or any(each.dtype is not torch.float32 for each in state):
        return None
    for module in network.modules():
        stays = {name for name in module._non_persistent_buffers_set if "freq" in name}
        buffers = [each for name, each in module._buffers.items() if name not in stays]
        for tensor in (*module._parameters.values(), *buffers):
            if tensor is not None and tensor.is_floating_point():
                tensor.data = tensor.data.to(half)
    return half


def _cast(inputs: object, dtype: torch.dtype | None) -> object:
    """Inputs whose numbers of float32 have a network's dtype."""
    import torch
    from torch.utils import _pytree

    if dtype is None:
        return inputs
    return _pytree.tree_map_only(
        torch.Tensor, lambda each: each.to(dtype) if each.dtype is torch.float32 else each, inputs
    )


def _check(plan: Plan, one: nn.Module, other: nn.Module) -> None:
    """Raises InputError for a plan of other networks."""
    from ckpt_tool.training.registered import own_state

    for module, keys, side in (
        (one, [key for step in plan.steps for key in step.inputs], "source"),
        (other, list(plan.producers), "target"),
    ):
        known = own_state(module)
        if missing := [key for key in keys if key not in known]:
            raise InputError(
                type(module).__name__,
                f"has no key `{missing[0]}`, which is in the plan's {side}",
                "give the plan that maps the first network's keys onto the second's",
            )


def _matching(patterns: Sequence[str], modules: Sequence[nn.Module]) -> Callable[[str], bool]:
    """Whether a module's path matches one of some patterns. Raises InputError for what is no
    pattern, and for one that matches no module.
    """
    paths = [path for module in modules for path, _ in module.named_modules()]
    matchers = []
    for pattern in patterns:
        try:
            matcher = Matcher(parse(pattern))
        except PatternError as error:
            raise InputError("keep", f"`{pattern}` is not a pattern: {error}") from None
        if not any(matcher.match(path) is not None for path in paths):
            near = get_close_matches(pattern, paths, 1)
            hint = f"did you mean `{near[0]}`?" if near else "`named_modules()` lists the paths"
            raise InputError("keep", f"`{pattern}` matches no module of either network", hint)
        matchers.append(matcher)
    return lambda path: any(matcher.match(path) is not None for matcher in matchers)


def _inputs_for(module: nn.Module, path: str | None, shape: str | None, seed: int) -> object:
    """What a network takes: the tensors of a file by the names of its `forward`, or in order; or
    random numbers.
    """
    if path is not None:
        return _by_names(module, path, read_inputs(path))
    if shape is not None:
        import torch

        sizes = _sizes(shape)
        return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))
    raise InputError(
        "--input",
        "is missing: a trace runs both networks on one input",
        "give a file that torch.save or safetensors wrote, or --random-input 1x3x224x224",
    )


def _sizes(shape: str) -> list[int]:
    parts = shape.replace("×", "x").lower().split("x")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(
            "--random-input", f"`{shape}` is not a shape", "give 1x3x224x224, for example"
        )
    sizes = [int(part) for part in parts]
    if prod(sizes) >= MAX_ELEMENTS or max(sizes) >= MAX_ELEMENTS:
        raise InputError(
            "--random-input", f"`{shape}` is larger than any tensor may be", "give less"
        )
    return sizes


def read_inputs(path: str | os.PathLike[str]) -> dict[str, object]:
    """The tensors of a file, by their keys; nothing in it is unpickled. Raises InputError."""
    with open_checkpoint(path) as checkpoint:
        checkpoint.definite()
        found: dict[str, object] = {key: checkpoint.read(key) for key in checkpoint.catalog}
    if not found:
        raise InputError(str(path), "has no tensors", "save the input with torch.save")
    return found


def _by_names(module: nn.Module, path: str, given: Mapping[str, object]) -> object:
    from inspect import Parameter, signature

    parameters = signature(module.forward).parameters.values()
    names = {each.name for each in parameters}
    if given.keys() <= names:
        return dict(given)
    if len(given) == 1 or all(key.isdecimal() for key in given):
        return tuple(given.values())
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
        return dict(given)
    strange = next(key for key in given if key not in names)
    raise InputError(
        path,
        f"has `{strange}`, and the forward of {type(module).__name__} takes "
        f"{', '.join(sorted(names))}",
        "name the tensors as it does",
    )
