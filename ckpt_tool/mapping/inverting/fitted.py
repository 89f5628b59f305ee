"""What `fit:` adapted, on the way back: a table is fitted to the source's size, and what stayed
fresh stays on its side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.errors import Location
from ckpt_tool.keys import fold
from ckpt_tool.mapping.inverting.verdicts import InvertedRule
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.mapping.reading.writing import flow
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.ops.fits import Fit, Fresh


@dataclass(frozen=True, slots=True)
class FitsBack:
    """`lines` are those of `fit:` of the inverse. `fresh` are the target's keys that stayed fresh,
    `left` the source's that were for them.
    """

    lines: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


NO_FITS = FitsBack()


def fits_back(rules: RuleSet, plan: Plan) -> FitsBack:
    """What a plan's fits need on the way back."""
    if not rules.fits:
        return NO_FITS
    known = dict(_fits(plan))
    lines = tuple(
        flow({one.pattern: known[one.keys[0]]}) for one in fold(_texts(known), plan.source)
    )
    left = () if rules.rest_source == "drop" else tuple(_unnamed(rules, plan))
    return FitsBack(lines, tuple(_fresh(rules, plan)), left)


def _texts(known: dict[str, object]) -> dict[str, str]:
    return {key: flow(fit) for key, fit in known.items()}


def _fits(plan: Plan) -> Iterator[tuple[str, object]]:
    """The source's keys that were fitted, and the fit that leads back to each."""
    for step in plan.steps:
        for op in step.ops:
            if isinstance(op, Fit) and len(step.inputs) == 1:
                back = op.back()
                argument = back.argument()
                yield step.inputs[0], back.name if argument is None else {back.name: argument}


def _fresh(rules: RuleSet, plan: Plan) -> Iterator[str]:
    for key in plan.kept:
        fits = (rule.fit for rule in rules.fits if rule.selector.matcher.match(key) is not None)
        named = any(selector.matcher.match(key) is not None for selector in rules.keep)
        if isinstance(next(fits, None), Fresh) and not named:
            yield key


def _unnamed(rules: RuleSet, plan: Plan) -> Iterator[str]:
    """What was left though nobody dropped it: a fit left it."""
    for key in plan.dropped:
        if not any(selector.matcher.match(key) is not None for selector in rules.drop):
            yield key


def without_fresh(
    inverted: Sequence[InvertedRule], fits: FitsBack, used: Sequence[Location]
) -> tuple[InvertedRule, ...]:
    """The inverses, none of them exact whose keys a fresh one stands for; nothing for a rule that
    made no other. `used` are the places of the rules that made something.
    """
    left: dict[int, list[str]] = defaultdict(list)
    takers = [each.rule for each in inverted if each.rule.sources and not each.rule.is_extra]
    for key in fits.left:
        for rule in takers:
            if any(matcher.match(key) is not None for matcher in rule.matchers):
                left[id(rule)].append(key)
                break
    return tuple(_lossy(each, left[id(each.rule)], used) for each in inverted)


def _lossy(each: InvertedRule, left: Sequence[str], used: Sequence[Location]) -> InvertedRule:
    if not left or each.text is None:
        return each
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    why = f"`{left[0]}`{more} was left for a key that stays fresh, and does not come back"
    is_idle = each.where not in used and not each.rule.is_optional
    whys = f"{each.why}; {why}" if each.why else why
    return replace(each, text="" if is_idle else each.text, verdict="lossy", why=whys)
