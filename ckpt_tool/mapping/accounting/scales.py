"""Weights that are codes: numbers of few bits that mean something only with the scale that lies
beside them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from ckpt_tool.errors import Problem
from ckpt_tool.keys import fold
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog, DType, counted

CODES = frozenset((
    DType.F8_E4M3, DType.F8_E5M2, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ,
    DType.F6_E2M3, DType.F6_E3M2, DType.F4,
    DType.I8, DType.U8, DType.I16, DType.I32, DType.I64,
))  # fmt: skip
"""Element types that quantised weights are stored in; the long ones pack several codes in one
number (GPTQ, AWQ).
"""

_SCALE = re.compile(
    r"(?:^|_)"
    r"(?:w?q?(?:de)?(?:quant_)?(?:global_)?scales?(?:_inv|_\d+)?|scaling_factors?|zero_points?"
    r"|q?zeros|absmax|amax|SCB|quant_map|quant_state|g_idx)"
    r"(?:$|_)"
)
"""Words that name what lies beside codes."""
_QUANTISER = re.compile(r"(^|_)(quant\w*|packed|codes|blocks|qdata|data|q)$|quantizer")
MAX_PATTERNS = 6


class Scales:
    """The scales of a catalog, by what they are named after.

    The names are those of DeepSeek and transformers' FP8 (`weight_scale_inv`), compressed-tensors
    (`weight_scale`, `weight_packed`), Mistral (`qscale_weight`), TensorRT-LLM
    (`weights_scaling_factor`), ModelOpt (`weight_quantizer._amax`), quanto (`weight._scale`),
    ComfyUI (`scale_weight`), bitsandbytes (`SCB`, `weight.absmax`), GPTQ and AWQ (`scales`,
    `qzeros`), torch (`scale`, `zero_point`); or a tree of scales repeats the names of the weights
    (`scales.layer1.weight`).
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._by_path: dict[tuple[str, ...], str] = {}
        for key in keys:
            if (path := _path_of_scale(key)) is not None:
                self._by_path.setdefault(path, key)

    def of(self, key: str) -> str | None:
        """The scale of a tensor of few bits; None where there is none."""
        names = key.split(".")
        bare = _stem(names[-1])
        for path in ((*names[:-1], bare), tuple(names), tuple(names[:-1])):
            for start in range(len(path)):
                if (
                    (found := self._by_path.get(path[start:]))
                    and found != key
                    and (not start or _is_tree(found, path[start:]))
                ):
                    return found
        return self._by_path.get(()) if len(names) == 1 else None

    def __bool__(self) -> bool:
        return bool(self._by_path)


def _path_of_scale(key: str) -> tuple[str, ...] | None:
    """What a scale is named after: its key without the words that say what it is; None for what is
    no scale.

    A name beside that stays: `weight_scale` and `qscale_weight` are of `weight`, `input_scale` is
    of `input`.
    """
    found, path = False, []
    for name in key.split("."):
        plain = _SCALE.sub("_", name.lstrip("_")).strip("_")
        if plain != name.strip("_"):
            found = True
            plain = _stem(plain)
        if plain and not _QUANTISER.search(plain):
            path.append("weight" if plain == "weights" else plain)
    return tuple(path) if found else None


def _stem(name: str) -> str:
    """A leaf's name without what says that it holds codes: `weight_packed`, `_weight_qdata`,
    `w13_blocks`.
    """
    return re.sub(r"_(packed|q|codes|blocks|qdata|quantized)$", "", name.lstrip("_")) or name


def _is_tree(scale: str, path: tuple[str, ...]) -> bool:
    """Whether a scale lies in a tree of its own that repeats the names of weights, rather than in
    another module of that name.
    """
    return _SCALE.search(scale.split(".")[0]) is not None and len(path) > 1


def scale_of(key: str, catalog: Iterable[str]) -> str | None:
    """The key of the scale that a tensor of few bits has among some keys; None where it has none.

    >>> scale_of("layer.weight", ["layer.weight", "layer.weight_scale_inv"])
    'layer.weight_scale_inv'
    >>> scale_of("layer.weight", ["layer.weight", "layer.bias", "norm.scale"])
    """
    return Scales(catalog).of(key)


def check_scales(plan: Plan, named: Collection[str]) -> Iterator[Problem]:
    """Casts of codes whose scale isn't used, unless it is `named` to be dropped; and casts to codes
    whose scale the target keeps.

    What a scale is used for is a step that has both among its inputs.
    """
    target = plan.target if plan.target is not None else Catalog(())
    if not any(info.dtype in CODES for side in (plan.source, target) for info in side.values()):
        return
    if unused := dict(_unused_scales(plan, named)):
        yield _problem(unused, "source", plan.source)
    if kept := dict(_kept_scales(plan, target)):
        yield _problem(kept, "target", target)


def _unused_scales(plan: Plan, named: Collection[str]) -> Iterator[tuple[str, str]]:
    """Keys of the source whose codes are cast, each with the scale that this leaves aside."""
    scales: Scales | None = None
    for step in plan.steps:
        made = {plan.outputs[key].dtype for key in step.outputs if key in plan.outputs}
        for key in step.inputs:
            dtype = plan.source[key].dtype
            if dtype not in CODES or made <= {dtype}:
                continue
            scales = scales or Scales(plan.source)
            scale = scales.of(key)
            if scale and scale not in step.inputs and scale not in named:
                yield key, scale


def _kept_scales(plan: Plan, target: Catalog) -> Iterator[tuple[str, str]]:
    """Keys of the target that become codes by a cast, each with the scale that the target keeps."""
    scales, kept = Scales(target), plan.kept
    for step in plan.steps:
        given = {plan.source[key].dtype for key in step.inputs}
        for key in step.outputs if given else ():
            made = plan.outputs.get(key)
            if made is None or made.dtype not in CODES or made.dtype in given:
                continue
            scale = scales.of(key)
            if scale and scale in kept:
                yield key, scale


def _problem(listed: Mapping[str, str], side: str, catalog: Catalog) -> Problem:
    """One problem for all keys of a side, each with its scale."""
    key, scale = next(iter(listed.items()))
    kind = catalog[key].dtype.value
    folds = fold(dict.fromkeys(listed), keys_of(catalog))
    notes = (
        [f"`{one.pattern}` ({len(one.keys):,})" for one in folds[:MAX_PATTERNS]]
        if len(listed) > 1
        else []
    )
    if len(folds) > MAX_PATTERNS:
        notes.append(counted(len(folds) - MAX_PATTERNS, "more pattern"))
    if side == "source":
        message = f"`{key}` is {kind} codes with a scale, `{scale}`; a cast would ignore the scale"
        notes.append(
            "dequantise first with the library that wrote them; `drop:` or `--drop` of the scales "
            "by name casts the bare codes"
        )
    else:
        message = (
            f"`{key}` would be cast to {kind} codes, and the target keeps its own scale, `{scale}`"
        )
        notes.append(
            "quantise with the library that will read them, or map onto a target of plain floats"
        )
    return Problem(
        "scale",
        message + (f"; {len(listed)} keys in all" if len(listed) > 1 else ""),
        None,
        tuple(notes),
    )
