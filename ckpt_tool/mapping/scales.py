"""Weights that are codes: numbers of few bits that mean something only with the scale that lies beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ckpt_tool.errors import Problem
from ckpt_tool.keys import fold
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.unreadable import keys_of
from ckpt_tool.tensors import Catalog, DType

CODES = frozenset((
    DType.F8_E4M3, DType.F8_E5M2, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ, DType.F6_E2M3, DType.F6_E3M2, DType.F4,
    DType.I8, DType.U8, DType.I32,
))  # fmt: skip
"""Element types that quantised weights are stored in; I32 packs several codes in one number (GPTQ, AWQ)."""

BESIDE = (
    "scale", "scales", "scale_inv", "zero_point", "zero_points", "qzeros", "zeros", "SCB", "absmax", "quant_map", "quant_state", "g_idx",
)  # fmt: skip
"""Names of what lies in the module of such a weight, alone or with the weight's own name before or behind it."""
MOST_PATTERNS = 6


def scale_of(key: str, catalog: Catalog | Collection[str]) -> str | None:
    """The key of the scale that a tensor of few bits has in its module; None where it has none.

    The names are those of DeepSeek and transformers' FP8 (`weight_scale_inv`), compressed-tensors (`weight_scale`, `weight_packed`),
    ComfyUI (`scale_weight`), bitsandbytes (`SCB`, `weight.absmax`), GPTQ and AWQ (`scales`, `qzeros`), torch's own (`scale`, `zero_point`).

    >>> scale_of("layer.weight", ["layer.weight", "layer.weight_scale_inv"])
    'layer.weight_scale_inv'
    """
    module, dot, leaf = key.rpartition(".")
    stem = leaf.removesuffix("_packed").removesuffix("_q")
    for word in BESIDE:
        for name in (f"{stem}_{word}", f"{leaf}.{word}", f"{word}_{stem}", word, f"{stem}_quantizer.{word}", f"{leaf}.quant_{word}"):
            if (found := f"{module}{dot}{name}") in catalog and found != key:
                return found
    return None


@dataclass(frozen=True, slots=True)
class _Ignored:
    """A key whose cast would leave its scale aside: the scale, and which side both are of."""

    key: str
    scale: str
    side: str


def check_scales(plan: Plan, named: Collection[str]) -> Iterator[Problem]:
    """Casts of codes whose scale isn't used, unless it is `named` to be dropped; and casts to codes whose scale the target keeps.

    What a scale is used for is a step that has both among its inputs.
    """
    sides = [plan.source] if plan.target is None else [plan.source, plan.target]
    if not any(info.dtype in CODES for catalog in sides for info in catalog.values()):
        return
    found = [each for step in plan.steps for each in _ignored(step, plan, named)]
    for side, catalog in (("source", plan.source), ("target", plan.target)):
        listed = {each.key: each.scale for each in found if each.side == side}
        if listed and catalog is not None:
            yield _problem(listed, side, catalog)


def _ignored(step: Step, plan: Plan, named: Collection[str]) -> Iterator[_Ignored]:
    outputs = [(key, plan.outputs[key].dtype) for key in step.outputs if key in plan.outputs]
    for key in step.inputs:
        given = plan.source[key].dtype
        if given in CODES and any(dtype is not given for _, dtype in outputs):
            scale = scale_of(key, plan.source)
            if scale and scale not in step.inputs and scale not in named:
                yield _Ignored(key, scale, "source")
    if plan.target is None or not step.inputs:
        return
    sources = {plan.source[key].dtype for key in step.inputs}
    for key, dtype in outputs:
        if dtype in CODES and dtype not in sources and (scale := scale_of(key, plan.target)) and scale in plan.kept:
            yield _Ignored(key, scale, "target")


def _problem(listed: Mapping[str, str], side: str, catalog: Catalog) -> Problem:
    key, scale = next(iter(listed.items()))
    kind = catalog[key].dtype.value
    folds = fold(dict.fromkeys(listed), keys_of(catalog))
    notes = [f"`{one.pattern}` ({len(one.keys)})" for one in folds[:MOST_PATTERNS]] if len(listed) > 1 else []
    if len(folds) > MOST_PATTERNS:
        notes.append(f"{len(folds) - MOST_PATTERNS} more patterns")
    if side == "source":
        message = f"`{key}` is {kind} codes with a scale, `{scale}`; a cast would ignore the scale"
        notes.append("dequantise first with the library that wrote them; `drop:` or `--drop` of the scales by name casts the bare codes")
    else:
        message = f"`{key}` would be cast to {kind} codes, and the target keeps its own scale, `{scale}`"
        notes.append("quantise with the library that will read them, or map onto a target of plain floats")
    return Problem("scale", message + (f"; {len(listed)} keys in all" if len(listed) > 1 else ""), None, tuple(notes))
