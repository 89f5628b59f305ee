"""Several ops in a row: parsed from a rule, inferred, run, inverted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from ckpt_tool.ops.cuts import Index, Pad, Repeat, Slice
from ckpt_tool.ops.joins import Concat, Copy, Same, Split, Stack, Unstack
from ckpt_tool.ops.numbers import Affine, Cast, Init, Mean, Sum, Unary, WeightNorm
from ckpt_tool.ops.op import Form, Inverse, Op, OpError, Verdict
from ckpt_tool.ops.shuffles import Rearrange, Reshape, Transpose

if TYPE_CHECKING:
    import torch

OPS: dict[str, type[Op]] = {
    "transpose": Transpose, "rearrange": Rearrange, "reshape": Reshape,
    "concat": Concat, "split": Split, "stack": Stack, "unstack": Unstack, "copy": Copy, "same": Same,
    "slice": Slice, "pad": Pad, "index": Index, "repeat": Repeat,
    "cast": Cast, "affine": Affine, "unary": Unary, "sum": Sum, "mean": Mean, "weight_norm": WeightNorm, "init": Init,
}  # fmt: skip
"""All ops, by the names that rules use."""


def parse_ops(argument: object) -> tuple[Op, ...]:
    """The ops of a rule: `transpose`, `{split: 0}`, `{rearrange: "…", h: heads}`, or a list of these. Raises OpError."""
    if isinstance(argument, list | tuple):
        return tuple(op for item in argument for op in parse_ops(item))
    if isinstance(argument, str):
        return (_class(argument).parse(None),)
    if not isinstance(argument, Mapping) or not argument:
        raise OpError(f"an op is a name, or a name with its argument, not {argument!r}")
    names = [str(name) for name in argument if name in OPS]
    if len(names) > 1:
        raise OpError(f"`{names[0]}` and `{names[1]}` in one mapping; ops that follow each other are a list")
    if not names:
        return (_class(str(next(iter(argument)))).parse(None),)
    (name,) = names
    if len(argument) == 1:
        return (OPS[name].parse(argument[name]),)
    others = {str(key): value for key, value in argument.items() if key != name}
    main = {"rearrange": "pattern", "unary": "function", "init": "kind"}.get(name, "dim")
    return (OPS[name].parse({main: argument[name], **others}),)


def _class(name: str) -> type[Op]:
    if name not in OPS:
        raise OpError(f"`{name}` is no op; there are {', '.join(OPS)}")
    return OPS[name]


def ops_argument(ops: Sequence[Op]) -> list[object]:
    """Plain data from which `parse_ops` makes these ops again."""
    return [_plain(op) for op in ops]


def _plain(op: Op) -> object:
    argument = op.argument()
    if argument is None:
        return op.name
    if isinstance(argument, Mapping) and isinstance(op, Rearrange):
        return {op.name: argument["pattern"], **{axis: size for axis, size in argument.items() if axis != "pattern"}}
    return {op.name: argument}


def infer_chain(ops: Sequence[Op], forms: Sequence[Form]) -> tuple[Form, ...]:
    """The forms that the ops make, one after the other. Raises OpError."""
    result = tuple(forms)
    for op in ops:
        result = op.infer(result)
    return result


def run_chain(ops: Sequence[Op], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    result = list(tensors)
    for op in ops:
        result = op.run(result)
    return result


def run_step(ops: Sequence[Op], tensors: Sequence[torch.Tensor], target: Callable[[], torch.Tensor] | None = None) -> list[torch.Tensor]:
    """A step's ops; `target` gives the target's own tensor to a fit that takes what the source lacks from it."""
    if not ops or not getattr(ops[-1], "needs_target", False):
        return run_chain(ops, tensors)
    if target is None:
        raise OpError(f"`{ops[-1].name}` needs the target's values")
    return ops[-1].run([*run_chain(ops[:-1], tensors), target()])


def invert_chain(ops: Sequence[Op], forms: Sequence[Form] | None = None) -> Inverse:
    """The ops that undo all of these, last first; with the forms that go in, more can be undone.

    The verdict is that of the weakest link. A link without an inverse leaves the whole without ops.
    """
    inverses: list[Inverse] = []
    for op in ops:
        inverses.append(op.invert() if forms is None else op.invert_for(forms))
        forms = None if forms is None else op.infer(forms)
    weakest = max(inverses, key=lambda each: get_args(Verdict).index(each.verdict), default=Inverse((), "exact"))
    why = "; ".join(dict.fromkeys(each.why for each in inverses if each.why))
    if any(not each.ops for each in inverses):
        return Inverse((), weakest.verdict, why)
    return Inverse(tuple(op for each in reversed(inverses) for op in each.ops), weakest.verdict, why)
