"""The `tests:` of a rule file: names alone, checked without any checkpoint."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

from ckpt_tool.errors import Problem
from ckpt_tool.keys import Matcher, PatternError, render
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.assign import Claim, assign_rules
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.params import bind_params
from ckpt_tool.mapping.rules import NameTest, Rule, RuleSet, RuleSide
from ckpt_tool.tensors import Catalog, DType, TensorInfo

MAX_TRIED = 100_000
"""Target keys of one group that are looked through for the one that a test names."""


def check_tests(rules: RuleSet, numbers: Mapping[str, int] | None = None) -> Iterator[Problem]:
    """A problem for each test whose source key goes elsewhere than it says; `when:` looks at the
    keys that the tests name.

    Without the `numbers` of parameters, each counts as 1, and tests of rules that name one can only
    be checked with a source.
    """
    names = Catalog(TensorInfo(test.source, DType.F32, ()) for test in rules.tests)
    rules = with_blocks(rules, names)
    rules = bind_params(rules, numbers) if numbers else rules
    claims = assign_rules(rules, names)
    reached: dict[str, list[tuple[Rule, Claim]]] = defaultdict(list)
    for rule, taken in zip(rules.rules, claims.by_rule, strict=True):
        for claim in taken:
            reached[claim.key].append((rule, claim))
    dropped = {key for keys in claims.dropped for key in keys}
    if rules.rest_source == "drop":
        dropped |= set(claims.unnamed)
    for test in rules.tests:
        fault = _fault(test, reached.get(test.source), test.source in dropped)
        if fault:
            yield Problem("test", f"`{test.source}` {fault}", test.where)


def _fault(
    test: NameTest, reached: Sequence[tuple[Rule, Claim]] | None, is_dropped: bool
) -> str | None:
    """What becomes of a test's key instead of what the test wants; None where it is that."""
    wanted = " and ".join(f"`{target}`" for target in test.targets) or "to be dropped"
    if is_dropped:
        return f"is dropped; the test wants {wanted}" if test.targets else None
    if not reached:
        return f"is matched by no rule; the test wants {wanted}"
    if test.targets and all(_is_reached(target, reached) for target in test.targets):
        return None
    return f"becomes {_fate(*reached[0])}; the test wants {wanted}"


def _fate(rule: Rule, claim: Claim) -> str:
    """The first target key that a source key has a part in, or why there is none."""
    try:
        return f"`{next(targets_of(rule, claim))}`"
    except (ValueError, StopIteration) as error:
        return f"nothing, {error or 'as nothing is left of its group'}"


def _is_reached(target: str, reached: Sequence[tuple[Rule, Claim]]) -> bool:
    return any(_reaches(rule, claim, target) for rule, claim in reached)


def _reaches(rule: Rule, claim: Claim, target: str) -> bool:
    """Whether a source key has a part in a target key: what the holes of both sides stand for is
    the same.
    """
    for side in rule.targets:
        try:
            binding = Matcher(side.pattern, rule.matchers[0].bounds).match(target)
        except PatternError:
            return _is_among(target, targets_of(rule, claim))
        if binding is not None and all(
            claim.binding.get(hole, value) == value for hole, value in binding.items()
        ):
            return True
    return False


def _is_among(target: str, keys: Iterator[str]) -> bool:
    try:
        return target in islice(keys, MAX_TRIED)
    except ValueError:  # a number would be negative
        return False


def targets_of(rule: Rule, claim: Claim) -> Iterator[str]:
    """The target keys that one source key has a part in; numbers that only the ops can tell are
    taken as 0. Raises ValueError.
    """
    return (
        render(side.pattern, {**claim.binding, **dict(zip(side.only, values, strict=True))})
        for side in rule.targets
        for values in product(*(_values(side, hole) for hole in side.only))
    )


def _values(side: RuleSide, hole: str) -> range:
    words = next(
        (
            len(token.words)
            for token in side.pattern.tokens
            if isinstance(token, Choice) and token.id == hole
        ),
        None,
    )
    return range(words) if words is not None else side.pattern.bounds.get(hole, range(1))
