"""The `tests:` of a rule file: names alone, checked without any checkpoint."""

from collections.abc import Iterator
from itertools import product

from ckpt_tool.errors import Problem
from ckpt_tool.keys import render
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.assign import Claim, assign_rules
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.rules import NameTest, Rule, RuleSet, Side
from ckpt_tool.tensors import Catalog, DType, TensorInfo


def check_tests(rules: RuleSet) -> Iterator[Problem]:
    """A problem for each test whose source key goes elsewhere than it says; `when:` looks at the keys that the tests name."""
    names = Catalog(TensorInfo(test.source, DType.F32, ()) for test in rules.tests)
    rules = with_blocks(rules, names)
    claims = assign_rules(rules, names)
    reached = {claim.key: targets_of(rule, claim) for rule, taken in zip(rules.rules, claims.by_rule, strict=True) for claim in taken}
    dropped = {key for keys in claims.dropped for key in keys}
    if rules.rest_source == "drop":
        dropped |= set(claims.unnamed)
    for test in rules.tests:
        fault = _fault(test, reached.get(test.source), test.source in dropped)
        if fault:
            yield Problem("test", f"`{test.source}` {fault}", test.where)


def _fault(test: NameTest, reached: tuple[str, ...] | None, is_dropped: bool) -> str | None:
    wanted = " and ".join(f"`{target}`" for target in test.targets) or "to be dropped"
    if is_dropped:
        return f"is dropped; the test wants {wanted}" if test.targets else None
    if reached is None:
        return f"is matched by no rule; the test wants {wanted}"
    if test.targets and all(target in reached for target in test.targets):
        return None
    return f"becomes `{reached[0]}`; the test wants {wanted}"


def targets_of(rule: Rule, claim: Claim) -> tuple[str, ...]:
    """The target keys that one source key has a part in; numbers that only the ops can tell are taken as 0."""
    return tuple(
        render(side.pattern, {**claim.binding, **dict(zip(side.only, values, strict=True))})
        for side in rule.targets
        for values in product(*(_values(side, hole) for hole in side.only))
    )


def _values(side: Side, hole: str) -> range:
    words = next((len(token.words) for token in side.pattern.tokens if isinstance(token, Choice) and token.id == hole), None)
    return range(words) if words is not None else side.pattern.bounds.get(hole, range(1))
