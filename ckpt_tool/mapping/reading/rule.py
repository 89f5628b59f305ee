"""One rule from its YAML: its shape, then its patterns, then their holes, then what a rule must
hold.
"""

from collections.abc import Iterable

from ckpt_tool.keys import Matcher, Pattern, with_numbers
from ckpt_tool.mapping.reading.pairing import PairedSides, hole_ids, pair_sides
from ckpt_tool.mapping.reading.patterns import PatternText, Reading, read_matcher, read_patterns
from ckpt_tool.mapping.reading.rule_checks import check_rule
from ckpt_tool.mapping.reading.rule_shape import RuleShape, read_shape
from ckpt_tool.mapping.reading.yaml_nodes import Node
from ckpt_tool.mapping.rules import Rule, RuleSide


def read_rule(reading: Reading, node: Node) -> Rule | None:
    """The rule, or None after adding what is wrong with it to `reading.problems`."""
    shape = read_shape(reading, node)
    return None if shape is None else _rule_of(reading, shape)


def _rule_of(reading: Reading, shape: RuleShape) -> Rule | None:
    sources = read_patterns(reading, shape.sources, is_source=True)
    targets = read_patterns(reading, shape.targets, is_source=False)
    if sources is None or targets is None:
        return None
    paired = pair_sides(reading, sources, targets, shape.targets)
    if paired is None:
        return None
    bounds = _bounds(reading, (*sources, *targets))
    matchers = _matchers(reading, shape, paired, bounds)
    if matchers is None:
        return None
    known = {*paired.carried, *reading.params}
    rule = Rule(
        shape.text,
        tuple(_sides(shape.sources, paired.sources, known)),
        tuple(_sides(shape.targets, paired.targets, known)),
        shape.ops,
        matchers,
        paired.carried,
        shape.where,
    )
    problems = check_rule(rule)
    reading.problems += problems
    return None if problems else rule


def _bounds(reading: Reading, patterns: Iterable[Pattern]) -> dict[str, range]:
    """The ranges of all patterns' numbers, parameters counted as 1."""
    closed = (with_numbers(pattern, reading.stand_ins) for pattern in patterns)
    return {name: numbers for pattern in closed for name, numbers in pattern.bounds.items()}


def _matchers(
    reading: Reading, shape: RuleShape, paired: PairedSides, bounds: dict[str, range]
) -> tuple[Matcher, ...] | None:
    """Matchers of the sources; of the targets for a rule without a source, which is matched against
    the target's keys. None after adding a problem.
    """
    patterns = paired.sources or paired.targets
    texts = shape.sources or shape.targets
    found = [
        read_matcher(reading, text, pattern, bounds)
        for text, pattern in zip(texts, patterns, strict=True)
    ]
    matchers = tuple(matcher for matcher in found if matcher is not None)
    return matchers if len(matchers) == len(found) else None


def _sides(
    texts: Iterable[PatternText], patterns: Iterable[Pattern], known: set[str]
) -> Iterable[RuleSide]:
    """Each pattern with its place; `known` are the ids of holes that stand on the other side too,
    or are parameters.
    """
    for text, pattern in zip(texts, patterns, strict=True):
        only = tuple(hole for hole in hole_ids(pattern) if hole not in known)
        yield RuleSide(pattern, text.where, only)
