"""Rules with parameters that have no number: which keys they may take, whatever it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import replace

from ckpt_tool.errors import Location
from ckpt_tool.keys import Matcher
from ckpt_tool.keys.affine import LinearNumber
from ckpt_tool.keys.pattern import Number, Pattern, Token
from ckpt_tool.mapping.params import bind_params
from ckpt_tool.mapping.rules import Param, Rule, RuleSet, RuleSide, Selector


def bound_as_known(
    rules: RuleSet, numbers: Mapping[str, int]
) -> tuple[RuleSet, Mapping[Location, tuple[Param, ...]]]:
    """Rules with the numbers that are known, though other parameters have none. Rules and drops
    whose patterns name one of those take every key that they may take; they are in the second
    value, by their places. Raises RuleError.
    """
    params = [param for param in rules.params if param.name not in numbers]
    patterns = {rule.where: [side.pattern for side in _sides(rule)] for rule in rules.rules}
    patterns |= {drop.where: [drop.pattern] for drop in rules.drop}
    named = {where: _named_by(each, params) for where, each in patterns.items()}
    found = {where: each for where, each in named.items() if each}
    closed = replace(
        rules,
        rules=tuple(rule for rule in rules.rules if rule.where not in found),
        drop=tuple(drop for drop in rules.drop if drop.where not in found),
        keep=(),
    )
    bound = bind_params(closed, numbers)
    bound_rules = {rule.where: rule for rule in bound.rules}
    bound_drops = {drop.where: drop for drop in bound.drop}
    names = {param.name for param in params}
    opened = replace(
        rules,
        rules=tuple(bound_rules.get(rule.where) or _open_rule(rule, names) for rule in rules.rules),
        drop=tuple(bound_drops.get(drop.where) or _open_drop(drop, names) for drop in rules.drop),
    )
    return opened, found


def _sides(rule: Rule) -> tuple[RuleSide, ...]:
    return (*rule.sources, *rule.targets)


def _named_by(patterns: Iterable[Pattern], params: Iterable[Param]) -> tuple[Param, ...]:
    """The parameters that these patterns name, in a number or as one of its bounds."""
    names = {name for pattern in patterns for name in pattern.numbers}
    ends = (end for pattern in patterns for ends in pattern.open_bounds.values() for end in ends)
    names |= {name for end in ends for name in end.names}
    return tuple(param for param in params if param.name in names)


def _open_rule(rule: Rule, names: Collection[str]) -> Rule:
    sides = rule.sources or rule.targets
    return replace(rule, matchers=tuple(_taking_all(side.pattern, names) for side in sides))


def _open_drop(drop: Selector, names: Collection[str]) -> Selector:
    return replace(drop, matcher=_taking_all(drop.pattern, names))


def _taking_all(pattern: Pattern, names: Collection[str]) -> Matcher:
    """What matches all that a pattern may, with every number where one of these names has a say."""
    unknown = {*names, *pattern.open_bounds}
    tokens = tuple(_any_number(token, at, unknown) for at, token in enumerate(pattern.tokens))
    return Matcher(replace(pattern, tokens=tokens, bounds={}, open_bounds={}))


def _any_number(token: Token, at: int, unknown: Set[str]) -> Token:
    """A number for itself, where it depends on what is unknown, or on other numbers."""
    if not isinstance(token, Number):
        return token
    is_known = len(token.affine.names) == 1 and unknown.isdisjoint(token.affine.names)
    return token if is_known else Number(LinearNumber(((f"any{at}", 1),)))
