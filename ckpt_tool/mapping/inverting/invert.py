"""Inverse rules: what maps the target back onto the source, with a verdict for each rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckpt_tool.errors import Location, Problem, RuleError
from ckpt_tool.keys import PatternError, fold, quote
from ckpt_tool.keys.effort import Effort, TooMuchToCompare
from ckpt_tool.keys.write import pattern_text
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.inverting.document import WayBack, inverse_document
from ckpt_tool.mapping.inverting.doubts import (
    come_along,
    common_prefix,
    with_inverse_doubts,
    without_idle,
)
from ckpt_tool.mapping.inverting.fitted import NO_FITS, FitsBack, fits_back, without_fresh
from ckpt_tool.mapping.inverting.inverse_ops import inverse_for, inverse_of
from ckpt_tool.mapping.inverting.order import order_of_inverses, target_matchers
from ckpt_tool.mapping.inverting.proof import proved
from ckpt_tool.mapping.inverting.verdicts import InvertedRule, InvertedRules
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.reading.writing import rule_line
from ckpt_tool.mapping.rules import Rule, RuleSet
from ckpt_tool.ops import Inverse


def invert_rules(
    rules: RuleSet,
    plan: Plan | None = None,
    params: Mapping[str, int] | None = None,
    config: Mapping[str, object] | None = None,
) -> InvertedRules:
    """The inverse rules. Raises RuleError.

    A plan that was made of the rules tells the sizes that they alone don't. With it, "exact" is
    proved: the way back is planned for what the plan gives, and leads to the source's keys and
    shapes. `params` and `config` give the numbers of parameters then.
    """
    if plan is None:
        return replace(_inverted_alone(rules), measured=_measured(rules))
    rules = with_blocks(rules, plan.source)
    prefix, lost = _prefixes(rules, plan)
    steps = _steps_by_rule(plan)
    inverses = [inverse_for(rule, steps.get(rule.where, ()), plan) for rule in rules.rules]
    dropped = tuple(one.pattern for one in fold(dict.fromkeys(plan.dropped), plan.source))
    fits = fits_back(rules, plan)
    without = without_fresh(_inverted_by(inverses, rules, prefix), fits, list(steps))
    unproved = InvertedRules(without, None, lost, dropped)
    found, back = _way_back(unproved, rules, plan, prefix, fits)
    if back is None:
        return found
    document = inverse_document(back)
    inverted = proved(found.rules, document, plan, lost, params or {}, config or {})
    is_whole = all(each.text is not None for each in inverted)
    yaml = document if is_whole else None
    return replace(found, rules=inverted, yaml=yaml, measured=_measured(rules))


def _inverted_alone(rules: RuleSet) -> InvertedRules:
    """The inverse of rules without any checkpoint: exact as far as names and ops tell."""
    prefix, lost = _prefixes(rules, None)
    inverted = _inverted_by([inverse_of(rule) for rule in rules.rules], rules, prefix)
    every = (*inverted, *_unchosen(rules))
    found, back = _way_back(InvertedRules(every, None, lost, _dropped(rules)), rules, None, prefix)
    if back is None:
        return found
    doubted = with_inverse_doubts(
        rules, found.rules, [each.rule for each in back.order], _stand_ins(rules)
    )
    own = tuple(selector.pattern.text for selector in back.own)
    return replace(
        found,
        rules=_with_fits(rules, doubted),
        yaml=inverse_document(back),
        kept=("**",) if rules.rest_target == "keep" else own,
    )


def _prefixes(rules: RuleSet, plan: Plan | None) -> tuple[str, tuple[str, ...]]:
    """The prefix that goes back before every key; and those of `strip:` that are lost, where it
    is not known which key had which.
    """
    prefix = common_prefix(rules, plan)
    return ("", rules.strip) if prefix is None else (prefix, ())


def _dropped(rules: RuleSet) -> tuple[str, ...]:
    """The patterns of what rules leave behind."""
    named = tuple(selector.pattern.text for selector in rules.drop)
    return (*named, "**") if rules.rest_source == "drop" else named


def _measured(rules: RuleSet) -> tuple[str, ...]:
    """The parameters that are measured in the source, which is the target of the way back."""
    return tuple(
        param.name
        for param in rules.params
        if (param.dimension or param.count) and not param.of_target and param.default is None
    )


def _unchosen(rules: RuleSet) -> Iterator[InvertedRule]:
    """Rules of blocks, which have no inverse without a source that chooses among them."""
    why = "a source's headers choose among the blocks of `when:`; name one"
    for block in rules.blocks:
        yield from (InvertedRule(rule, None, "lossy", why) for rule in block.rules)


def _stand_ins(rules: RuleSet) -> dict[str, int]:
    """1 for each parameter."""
    return dict.fromkeys((param.name for param in rules.params), 1)


def _steps_by_rule(plan: Plan) -> Mapping[Location, list[Step]]:
    """The steps that each rule drafted; none for a rule that drafted none."""
    steps: dict[Location, list[Step]] = defaultdict(list)
    for step in plan.steps:
        if step.origin.rule:
            steps[step.origin.rule.where].append(step)
    return steps


def _way_back(
    inverted: InvertedRules,
    rules: RuleSet,
    plan: Plan | None,
    prefix: str,
    fits: FitsBack = NO_FITS,
) -> tuple[InvertedRules, WayBack | None]:
    """The inverses with one way back from each key, and that way; none where a rule has no inverse.

    Raises RuleError where the rules can't be put in order.
    """
    stand_ins, effort = _stand_ins(rules), Effort()
    try:
        busy = without_idle(inverted.rules, rules.drop, stand_ins, effort)
        if any(each.text is None for each in busy):
            return replace(inverted, rules=busy), None
        found, order = _one_way_back(busy, stand_ins, effort)
        own = come_along(rules, [each.rule for each in order], stand_ins, effort)
    except TooMuchToCompare:
        message = (
            "to order these rules for the way back takes too long: they are too many, or too alike"
        )
        raise RuleError([Problem("not-compared", message, rules.where)]) from None
    return replace(inverted, rules=found), WayBack(rules, order, own, plan, prefix, fits)


def _inverted_by(
    inverses: Sequence[Inverse], rules: RuleSet, prefix: str
) -> tuple[InvertedRule, ...]:
    stand_ins = _stand_ins(rules)
    return tuple(
        _inverted(rule, inverse, stand_ins, prefix)
        for rule, inverse in zip(rules.rules, inverses, strict=True)
    )


def _with_fits(rules: RuleSet, inverted: tuple[InvertedRule, ...]) -> tuple[InvertedRule, ...]:
    """The inverses, none of them exact where a fit may change what a rule makes: without the files
    nothing tells which.
    """
    if not rules.fits:
        return inverted
    why = "`fit:` may adapt what it makes, and is not inverted"
    return tuple(
        replace(each, verdict="lossy", why=each.why or why) if each.text else each
        for each in inverted
    )


def _one_way_back(
    inverted: tuple[InvertedRule, ...], stand_ins: Mapping[str, int], effort: Effort
) -> tuple[tuple[InvertedRule, ...], list[InvertedRule]]:
    """The inverses, those left out whose targets another rule has all of; and those that have a
    text, in their order.
    """
    with_text = [each for each in inverted if each.text]
    order, twins = order_of_inverses([each.rule for each in with_text], stand_ins, effort)
    for number, other in twins.items():
        line = f"line {with_text[other].where.line}"
        why = f"{line} has the same targets, and leads back to its own sources"
        with_text[number] = replace(with_text[number], text="", verdict="lossy", why=why)
    by_place = {id(each.rule): each for each in with_text}
    return tuple(by_place.get(id(each.rule), each) for each in inverted), [
        with_text[number] for number in order
    ]


def _inverted(
    rule: Rule, inverse: Inverse, stand_ins: Mapping[str, int], prefix: str
) -> InvertedRule:
    if rule.is_extra:
        return InvertedRule(rule, None, "lossy", "it reads keys that other rules take")
    if not rule.sources:
        return InvertedRule(rule, "", "exact", "what it makes is dropped on the way back")
    fault = _unmatchable(rule, stand_ins)
    if fault or (rule.ops and not inverse.ops):
        return InvertedRule(rule, None, inverse.verdict, fault or inverse.why)
    sources = [quote(prefix) + pattern_text(side.pattern) for side in rule.sources]
    return InvertedRule(
        rule,
        rule_line([pattern_text(side.pattern) for side in rule.targets], sources, inverse.ops),
        inverse.verdict,
        inverse.why,
    )


def _unmatchable(rule: Rule, stand_ins: Mapping[str, int]) -> str | None:
    """Why the target's patterns can't be matched, or None where they can."""
    try:
        target_matchers(rule, stand_ins)
    except PatternError as error:
        return error.message
    return None
