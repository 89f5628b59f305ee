"""`fit:`: tensors whose shape is not the target's are adapted, where a line says so, and every one
is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckpt_tool.errors import Problem
from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Fold, fold
from ckpt_tool.mapping.plan import Step, step_forms
from ckpt_tool.mapping.rules import FitRule, RuleSet
from ckpt_tool.ops import Copy, OpError, TensorForm
from ckpt_tool.ops.fits import Fresh
from ckpt_tool.tensors import Catalog, shape_text


@dataclass(slots=True)
class Fitted:
    """The steps after fitting. `fresh` are target keys that keep their value, `left` the source
    keys that are not used for it.
    """

    steps: list[Step] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def notes(self, target: Catalog | None) -> list[str]:
        """What is said of tensors that were fitted, one line a pattern."""
        return [_note(one, self.facts[one.keys[0]]) for one in fold(self.facts, target or ())]


@frozen
class Fact:
    """What became of a key: the fit by its name, none where it stays fresh, and both shapes, with
    what the fit took them for.
    """

    fit: str | None
    sizes: str


def _note(one: Fold, fact: Fact) -> str:
    is_one = len(one.keys) == 1
    name = f"`{one.pattern}`" if is_one else f"`{one.pattern}` ({len(one.keys):,})"
    if fact.fit is None:
        return f"{name} {'stays' if is_one else 'stay'} fresh: {fact.sizes}"
    verb = "is" if is_one else "are"
    return f"{name} {verb} fitted by `{fact.fit}`, which is not exact: {fact.sizes}"


def fit_steps(
    rules: RuleSet, steps: Sequence[Step], source: Catalog, target: Catalog | None
) -> Fitted:
    """Adapts the outputs whose shape differs from the target's and that a line of `fit:` names."""
    fitted = Fitted()
    for step in steps:
        adapted = _rules_for(rules.fits, step, source, target)
        if not adapted or target is None:
            fitted.steps.append(step)
        elif len(step.outputs) > 1 and not _makes_copies(step):
            fitted.steps.append(step)
            fitted.problems += [_one_of_several(rule, key, step) for key, rule in adapted.items()]
        else:
            _fit_each(fitted, adapted, step, source, target)
    if target is not None:
        fitted.problems += [
            _dead(rule)
            for rule in rules.fits
            if not any(rule.selector.matcher.match(key) is not None for key in target)
        ]
    return fitted


def _rules_for(
    fits: Sequence[FitRule], step: Step, source: Catalog, target: Catalog | None
) -> dict[str, FitRule]:
    """The line of `fit:` for each output of a step that has another shape than the target's."""
    if target is None or not fits or not any(key in target for key in step.outputs):
        return {}
    found = {}
    for key, form in zip(step.outputs, step_forms(step, source), strict=True):
        if key in target and form.shape != target[key].shape:
            found[key] = _line_for(fits, key)
    return {key: rule for key, rule in found.items() if rule is not None}


def _line_for(fits: Sequence[FitRule], key: str) -> FitRule | None:
    return next((rule for rule in fits if rule.selector.matcher.match(key) is not None), None)


def _makes_copies(step: Step) -> bool:
    """Whether all outputs are the one tensor that the ops before the last make."""
    last = step.ops[-1]
    return isinstance(last, Copy) and last.parts == len(step.outputs)


def _one_of_several(rule: FitRule, key: str, step: Step) -> Problem:
    makers = [op.name for op in step.ops if op.produces]
    return Problem(
        "bad-fit",
        f"`{rule.fit.name}` can't adapt `{key}`, one of {len(step.outputs)} tensors that "
        f"`{makers[-1]}` makes",
        rule.selector.where,
        ("a `fit:` adapts what one key becomes, or a copy of it",),
    )


def _fit_each(
    fitted: Fitted, adapted: Mapping[str, FitRule], step: Step, source: Catalog, target: Catalog
) -> None:
    """Each output with its own fit is a step of its own; the other copies stay together."""
    ops = step.ops[:-1] if len(step.outputs) > 1 else step.ops
    others = tuple(key for key in step.outputs if key not in adapted)
    if others:
        copies = () if len(others) == 1 else (Copy(len(others)),)
        fitted.steps.append(replace(step, outputs=others, ops=(*ops, *copies)))
    before = len(fitted.steps) - bool(others)
    for key, rule in adapted.items():
        _fit(fitted, rule, replace(step, outputs=(key,), ops=ops), source, target)
    if len(fitted.steps) == before:
        fitted.left.extend(step.inputs)


def _fit(fitted: Fitted, rule: FitRule, step: Step, source: Catalog, target: Catalog) -> None:
    key, (form,) = step.outputs[0], step_forms(step, source)
    wanted = target[key].shape
    sizes = f"{shape_text(form.shape)} → {shape_text(wanted)}"
    if isinstance(rule.fit, Fresh):
        fitted.fresh.append(key)
        fitted.facts[key] = Fact(None, sizes)
        return
    try:
        fit = rule.fit.with_form(TensorForm(form.dtype, wanted)).settled(form.shape)
        fit.infer([form])
    except OpError as error:
        fitted.problems.append(
            Problem("bad-fit", str(error), rule.selector.where, (f"for `{key}`",))
        )
        return
    fitted.steps.append(replace(step, ops=(*step.ops, fit)))
    details = fit.details(form.shape)
    fitted.facts[key] = Fact(fit.name, f"{sizes}, {details}" if details else sizes)


def _dead(rule: FitRule) -> Problem:
    return Problem(
        "dead-rule",
        f"`{rule.selector.pattern}` fits nothing: no key of the target matches it",
        rule.selector.where,
    )
