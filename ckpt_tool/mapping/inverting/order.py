"""Inverse rules in an order that works: exceptions before what they except, and one way back from
each key.
"""

from collections.abc import Mapping, Sequence

from ckpt_tool.keys import Matcher, with_numbers
from ckpt_tool.keys.effort import Effort
from ckpt_tool.keys.overlap import covers
from ckpt_tool.mapping.rules import Rule, Side


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

    Rules that name parameters stay where they are: what they match can't be told. Raises
    TooMuchToCompare.
    """
    fixed = [index for index, rule in enumerate(rules) if not names_params(rule.targets, stand_ins)]
    matchers = {index: target_matchers(rules[index], stand_ins) for index in fixed}
    behind: dict[int, set[int]] = {index: set() for index in range(len(rules))}
    twins: dict[int, int] = {}
    for one in fixed:
        for other in fixed:
            if one != other and _covers(matchers[one], matchers[other], effort):
                if not _covers(matchers[other], matchers[one], effort):
                    behind[one].add(other)
                elif one < other:
                    twins.setdefault(other, one)
    order: dict[int, None] = {}
    while len(order) < len(rules):
        effort.spend(len(rules))
        order[
            next(
                index
                for index in range(len(rules))
                if index not in order and behind[index] <= order.keys()
            )
        ] = None
    return [index for index in order if index not in twins], twins


def names_params(sides: Sequence[Side], stand_ins: Mapping[str, int]) -> bool:
    """Whether patterns have numbers of parameters in them: what they match can't be told."""
    patterns = [side.pattern for side in sides]
    names = {name for pattern in patterns for name in pattern.numbers}
    names |= {
        name
        for pattern in patterns
        for ends in pattern.open_bounds.values()
        for end in ends
        for name in end.names
    }
    return bool(names & set(stand_ins))


def _covers(source: Sequence[Matcher], target: Sequence[Matcher], effort: Effort) -> bool:
    """Whether every key of one rule's targets is one of the other's."""
    return all(any(covers(one, other, effort) for one in source) for other in target)
