"""The check that what rules make has a place in the target: its key, its shape, its dtype."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckpt_tool.errors import Problem
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.accounting.nearest import nearest_note
from ckpt_tool.mapping.accounting.scales import CODES, scale_of
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text
from ckpt_tool.wording import named


def check_target_shapes(plan: Plan, target: Catalog) -> Iterator[Problem]:
    """Keys that the target doesn't have, and shapes and dtypes that it has otherwise; one problem a
    rule and kind.
    """
    found: dict[tuple[str, int], list[_Fault]] = defaultdict(list)
    for step, info in plan.producers.values():
        fault = _fault(step, info, target)
        if fault:
            found[fault.code, id(step.origin.rule)].append(fault)
    for faults in found.values():
        yield _problem(faults, plan, target)


@frozen
class _Fault:
    """A tensor that a step makes and the target has no place for."""

    code: str
    message: str
    step: Step
    made: TensorInfo


def _fault(step: Step, made: TensorInfo, target: Catalog) -> _Fault | None:
    key = made.key
    wanted = target.get(key)
    if wanted is None:
        return _Fault("unknown-target", f"{named(key)} is not a key of the target", step, made)
    if wanted.shape != made.shape:
        shapes = f"{shape_text(made.shape)}, the target has {shape_text(wanted.shape)}"
        return _Fault("shape", f"{named(key)} would get {shapes}", step, made)
    if wanted.dtype is not made.dtype:
        dtypes = f"{made.dtype.value}, the target has {wanted.dtype.value}"
        return _Fault("dtype", f"{named(key)} would get {dtypes}", step, made)
    return None


def _problem(faults: Sequence[_Fault], plan: Plan, target: Catalog) -> Problem:
    """One problem for all faults of a kind and rule, in the words of the first."""
    first = faults[0]
    notes = _notes(first, plan.source, target)
    if len(faults) > 1:
        notes = (*notes, f"{len(faults)} keys in all")
    rule = first.step.origin.rule
    return Problem(first.code, first.message, rule.targets[0].where if rule else None, notes)


def _notes(fault: _Fault, source: Catalog, target: Catalog) -> tuple[str, ...]:
    """What to do about a fault, by its kind."""
    made = fault.made
    match fault.code:
        case "unknown-target":
            return _nearest_of_shape(made, target)
        case "shape":
            from ckpt_tool.mapping.accounting.shape_mismatches import fit_note

            inputs, ops = fault.step.inputs, fault.step.ops
            if len(fault.step.outputs) > 1 and ops[-1].name != "copy":
                return ()  # a fit adapts what one key becomes
            origin = inputs[0] if len(inputs) == 1 else ""
            wanted = target[made.key].shape
            around = source if origin else target
            return tuple(fit_note(made.key, made.shape, wanted, around, origin=origin))
        case _:
            return (_dtype_note(fault.step, source),)


def _nearest_of_shape(info: TensorInfo, target: Catalog) -> tuple[str, ...]:
    """The nearest key that the tensor would fit; any nearest key where it fits none."""
    fitting = [key for key in target if target[key].shape == info.shape]
    return nearest_note(info.key, fitting) or nearest_note(info.key, target)


def _dtype_note(step: Step, source: Catalog) -> str:
    """What to do about another dtype."""
    codes = (source[key] for key in step.inputs if source[key].dtype in CODES)
    for info in codes:
        if scale := scale_of(info.key, source):
            return (
                f"{named(info.key)} holds codes, and {named(scale)} their scale: dequantise first, "
                "a cast alone would ignore the scale"
            )
        if not info.dtype.is_floating and len(info.shape) > 1:
            return (
                f"{named(info.key)} holds whole numbers: codes of a quantised weight are nothing "
                "without a scale; `--dtype target` casts them bare"
            )
    return (
        "add `cast:` to the rule, or `--dtype target` to cast and `--dtype source` to leave it "
        "as it is"
    )
