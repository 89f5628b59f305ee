"""transformers' conversion operations as ops of a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ckpt_tool.ops import Op, parse_ops
from ckpt_tool.tensors import Shape

_AXES = "abcdfg"


class NotExpressible(Exception):
    """An operation that no op says."""


@dataclass(frozen=True, slots=True)
class Expressed:
    """Ops, and the parameters that they name with the config key of each."""

    ops: tuple[Op, ...]
    params: dict[str, str]


@dataclass(slots=True)
class _Context:
    """What an operation may look at: the patterns of its converter, the keys, the shapes that
    arrive, and the model.
    """

    names: list[str]
    keys: list[str]
    targets: Sequence[str]
    shape: Shape
    model: Any
    params: dict[str, str] = field(default_factory=dict)


def express_operations(
    operations: Sequence[Any],
    source_patterns: Sequence[str],
    target_patterns: Sequence[str],
    targets: Sequence[str],
    slots: Sequence[Sequence[str]],
    shapes: Sequence[Shape],
    model: Any,
) -> Expressed:
    """The ops of a converter, in its order. Raises NotExpressible for an operation that
    has none.
    """
    context = _Context(
        list(source_patterns), [slot[0] for slot in slots], targets, shapes[0], model
    )
    ops: list[object] = []
    for operation in operations:
        express = OPERATIONS.get(type(operation).__name__)
        if express is None:
            raise NotExpressible(f"{type(operation).__name__} of transformers")
        ops.extend(express(operation, context))
        if type(operation).__name__ in ("Chunk", "Split"):
            context.names, context.keys = list(target_patterns), list(targets)
    return Expressed(parse_ops(ops) if ops else (), context.params)


def _joined(name: str) -> Callable[[Any, _Context], list[object]]:
    def say(operation: Any, context: _Context) -> list[object]:
        return [{name: operation.dim}]

    return say


def _transpose(operation: Any, context: _Context) -> list[object]:
    if operation.check_dims and len(context.targets) == 1:
        wanted = tuple(context.model.get_parameter(context.targets[0]).shape)
        if wanted == context.shape:
            return []
    return [{"transpose": [operation.dim0, operation.dim1]}]


def _interleave(operation: Any, context: _Context) -> list[object]:
    dim = operation.dim % len(context.shape)
    before = " ".join(_AXES[:dim])
    pair = ("(two n)", "(n two)") if operation.inverse else ("(n two)", "(two n)")
    return [
        {
            "rearrange": f"{before} {pair[0]} ... -> {before} {pair[1]} ...".strip().replace(
                "->  ", "-> "
            ),
            "two": 2,
        }
    ]


def _permute(operation: Any, context: _Context) -> list[object]:
    """Rotary pairs side by side, or apart: of all tensors, or of those whose names hold a word."""
    config, key = context.model.config, "num_attention_heads"
    if operation.subconfig_key is not None and hasattr(config, operation.subconfig_key):
        config, key = getattr(config, operation.subconfig_key), f"{operation.subconfig_key}.{key}"
    heads: object = "heads" if hasattr(config, "num_attention_heads") else 1
    if heads == "heads":
        context.params["heads"] = key
    before, after = "(heads pair two)", "(heads two pair)"
    if operation.inverse:
        before, after = after, before
    ops = {"rearrange": f"{before} ... -> {after} ...", "heads": heads, "two": 2}
    if operation.permute_layer_names is None:
        return [ops]
    chosen = _keys_with(operation.permute_layer_names, context)
    if len(chosen) == len(context.keys):
        return [ops]
    return [{"each": dict.fromkeys(chosen, ops)}] if chosen else []


def _keys_with(words: Iterable[str], context: _Context) -> list[str]:
    """The keys whose names hold one of the words."""
    named = zip(context.names, context.keys, strict=True)
    return [key for name, key in named if any(word in name for word in words)]


def _flattened(operation: Any, context: _Context) -> list[object]:
    return [{"rearrange": "o i t h w -> o (i t h w)"}] if len(context.shape) == 5 else []


def _unflattened(operation: Any, context: _Context) -> list[object]:
    t, h, w = operation.kernel_size
    if context.shape[-1] != operation.in_channels * prod(operation.kernel_size):
        raise NotExpressible("LinearToConv3d of transformers for another size")
    return [
        {
            "rearrange": "o (i t h w) -> o i t h w",
            "i": operation.in_channels,
            "t": t,
            "h": h,
            "w": w,
        }
    ]


OPERATIONS: dict[str, Callable[[Any, _Context], list[object]]] = {
    "Chunk": _joined("split"),
    "Split": _joined("split"),
    "Concatenate": _joined("concat"),
    "MergeModulelist": _joined("stack"),
    "SplitModulelist": _joined("unstack"),
    "Transpose": _transpose,
    "Interleave": _interleave,
    "PermuteForRope": _permute,
    "Conv3dToLinear": _flattened,
    "LinearToConv3d": _unflattened,
}
"""What each of transformers' operations is called here; others have no word."""
