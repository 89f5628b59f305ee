"""What rules alone leave open about their way back: keys that come from two places, or that the
source never had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from ckpt_tool.keys import Matcher, PatternError, parse, quote, render
from ckpt_tool.keys.effort import Effort, TooMuchToCompare
from ckpt_tool.keys.overlap import common_key, covers
from ckpt_tool.keys.pattern import Choice, Text
from ckpt_tool.mapping.assign import strip_prefixes
from ckpt_tool.mapping.inverting.order import names_params, target_matchers
from ckpt_tool.mapping.inverting.verdicts import InvertedRule
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.mapping.rules import Rule, RuleSet, Selector

STRIPPED = "prefixes that `strip:` removes are not restored"
IDLE = "it never gets a key: earlier lines take all that it matches"


def common_prefix(rules: RuleSet, plan: Plan | None) -> str | None:
    """The one prefix that `strip:` takes off all keys of a plan's source, which can be put back;
    None where that is not known.
    """
    if not rules.strip:
        return ""
    prefixes = (
        {key.removesuffix(strip_prefixes(key, rules.strip)) for key in plan.source}
        if plan
        else set()
    )
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    try:
        parse(quote(prefix) + "**")
    except PatternError:
        return None
    return prefix


def without_idle(
    inverted: Sequence[InvertedRule],
    drop: Sequence[Selector],
    stand_ins: Mapping[str, int],
    effort: Effort,
) -> tuple[InvertedRule, ...]:
    """The inverses, with nothing for rules that never get a key: drops or earlier rules take all
    that they match.

    Raises TooMuchToCompare.
    """
    takers = [selector.matcher for selector in drop if not selector.pattern.open_bounds]
    kept = []
    for each in inverted:
        if not _is_fixed(each.rule, stand_ins):
            kept.append(each)
        elif _is_idle(each.rule, takers, effort):
            kept.append(replace(each, text="", verdict="exact", why=IDLE))
        else:
            kept.append(each)
            takers += each.rule.matchers
    return tuple(kept)


def _is_fixed(rule: Rule, stand_ins: Mapping[str, int]) -> bool:
    """Whether a rule takes source keys, and no parameter decides which."""
    return bool(rule.sources) and not rule.is_extra and not names_params(rule.sources, stand_ins)


def _is_idle(rule: Rule, takers: Sequence[Matcher], effort: Effort) -> bool:
    """Whether the takers before a rule match all that it does."""
    return all(any(covers(taker, matcher, effort) for taker in takers) for matcher in rule.matchers)


def with_inverse_doubts(
    rules: RuleSet,
    inverted: Sequence[InvertedRule],
    order: Sequence[Rule],
    stand_ins: Mapping[str, int],
) -> tuple[InvertedRule, ...]:
    """The inverses, "exact with a check" instead of "exact" where names may lead elsewhere than
    they came from.
    """
    doubts: dict[int, list[str]] = {id(rule): [STRIPPED] if rules.strip else [] for rule in order}
    effort = Effort()
    try:
        for one, other in combinations(order, 2):
            if key := _unclear_key(one, other, stand_ins, effort):
                doubts[id(one)].append(
                    f"it takes back `{key}`, which line {other.where.line} may have made"
                )
                doubts[id(other)].append(
                    f"`{key}`, which it may have made, goes back by line {one.where.line}"
                )
    except TooMuchToCompare:
        for whys in doubts.values():
            whys.append("the rules are too many, or too alike, to be compared with each other")
    return tuple(_doubted(each, doubts.get(id(each.rule), [])) for each in inverted)


def _doubted(each: InvertedRule, whys: Sequence[str]) -> InvertedRule:
    if not whys or not each.text:
        return each
    verdict = "exact with a check" if each.verdict == "exact" else each.verdict
    return replace(
        each, verdict=verdict, why="; ".join([*([each.why] if each.why else []), *whys[:2]])
    )


def _unclear_key(
    one: Rule, other: Rule, stand_ins: Mapping[str, int], effort: Effort
) -> str | None:
    """A key that both rules can have made. None also where the first, which takes it, made all that
    it matches.
    """
    if _is_used_up(one):
        return None
    for source in target_matchers(one, stand_ins):
        for target in target_matchers(other, stand_ins):
            if (key := common_key(source, target, effort)) is not None:
                return key
    return None


def _is_used_up(rule: Rule) -> bool:
    """Whether each key that the rule's targets match has been made by it: they are few, and all of
    its words must stand for a key.
    """
    tokens = [token for side in (*rule.sources, *rule.targets) for token in side.pattern.tokens]
    return not rule.is_optional and all(
        isinstance(token, Text) or (isinstance(token, Choice) and not token.is_table)
        for token in tokens
    )


def come_along(
    rules: RuleSet, order: Sequence[Rule], stand_ins: Mapping[str, int], effort: Effort
) -> tuple[Selector, ...]:
    """The patterns of `keep:` of which rules match some keys: the target's own, which then go back
    to names that the source never had.

    Raises TooMuchToCompare.
    """
    mine = [selector for selector in rules.keep if not selector.is_optional]
    return tuple(
        selector
        for selector in mine
        if _is_produced(selector, order, rules.drop, stand_ins, effort)
    )


def _is_produced(
    selector: Selector,
    order: Sequence[Rule],
    drop: Sequence[Selector],
    stand_ins: Mapping[str, int],
    effort: Effort,
) -> bool:
    """Whether a rule gives values to some of the keys that a pattern of `keep:` names."""
    for rule in order:
        for matcher in target_matchers(rule, stand_ins):
            key = common_key(selector.matcher, matcher, effort)
            if key is not None and not _comes_from_dropped(rule, matcher, key, drop):
                return True
    return False


def _comes_from_dropped(rule: Rule, target: Matcher, key: str, drop: Sequence[Selector]) -> bool:
    """Whether a rename would have to take the key from one that is left behind."""
    if not rule.is_rename:
        return False
    source = render(rule.sources[0].pattern, target.match(key) or {})
    return any(selector.matcher.match(source) is not None for selector in drop)
