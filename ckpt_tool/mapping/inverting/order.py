"""Inverse rules in an order that works: exceptions before what they except, and one way back from
each key.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

from ckpt_tool.keys import Matcher, with_numbers
from ckpt_tool.keys.effort import Effort
from ckpt_tool.keys.overlap import covers
from ckpt_tool.mapping.rules import Rule, RuleSide, names_in_pattern


def target_matchers(rule: Rule, stand_ins: Mapping[str, int]) -> list[Matcher]:
    """Matchers of a rule's targets, its parameters counted as 1. Raises PatternError for numbers
    that can't be worked out.
    """
    sides = [with_numbers(side.pattern, stand_ins) for side in (*rule.sources, *rule.targets)]
    bounds = {name: span for pattern in sides for name, span in pattern.bounds.items()}
    return [Matcher(pattern, bounds) for pattern in sides[len(rule.sources) :]]


def order_of_inverses(
    rules: Sequence[Rule], stand_ins: Mapping[str, int], effort: Effort
) -> tuple[list[int], dict[int, int]]:
    """The order in which to match the rules' targets; and, for rules whose targets another rule has
    all of, that rule's number.

    Rules that name parameters stay where they are: what they match is not known. Raises
    TooMuchToCompare.
    """
    behind, twins = _exceptions(rules, stand_ins, effort)
    order: dict[int, None] = {}
    while len(order) < len(rules):
        effort.spend(len(rules))
        order[_next(order, behind)] = None
    return [index for index in order if index not in twins], twins


def _exceptions(
    rules: Sequence[Rule], stand_ins: Mapping[str, int], effort: Effort
) -> tuple[list[set[int]], dict[int, int]]:
    """For each rule those that must come before it, as its targets are more than all of theirs; and
    for rules that have the targets of an earlier one, that one.
    """
    fixed = [index for index, rule in enumerate(rules) if not names_params(rule.targets, stand_ins)]
    matchers = {index: target_matchers(rules[index], stand_ins) for index in fixed}
    behind: list[set[int]] = [set() for _ in rules]
    twins: dict[int, int] = {}
    for one, other in permutations(fixed, 2):
        if not _covers(matchers[one], matchers[other], effort):
            continue
        if not _covers(matchers[other], matchers[one], effort):
            behind[one].add(other)
        elif one < other:
            twins.setdefault(other, one)
    return behind, twins


def _next(order: Mapping[int, None], behind: Sequence[set[int]]) -> int:
    """The first rule that is not in the order yet, and before which nothing is missing."""
    return next(
        index
        for index, before in enumerate(behind)
        if index not in order and before <= order.keys()
    )


def names_params(sides: Sequence[RuleSide], stand_ins: Mapping[str, int]) -> bool:
    """Whether patterns have numbers of parameters in them: what they match is not known."""
    return any(names_in_pattern(side.pattern) & stand_ins.keys() for side in sides)


def _covers(wide: Sequence[Matcher], narrow: Sequence[Matcher], effort: Effort) -> bool:
    """Whether every key of the narrow matchers is one of the wide ones'."""
    return all(any(covers(one, other, effort) for one in wide) for other in narrow)
