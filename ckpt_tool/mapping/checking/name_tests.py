"""The `tests:` of a rule file: names alone, checked without any checkpoint."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

from ckpt_tool.errors import Problem
from ckpt_tool.keys import Matcher, PatternError, render
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.assign import Claim, assign_rules
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.checking.unset_numbers import bound_as_known
from ckpt_tool.mapping.params import known_numbers
from ckpt_tool.mapping.rules import NameTest, Param, Rule, RuleSet, RuleSide
from ckpt_tool.tensors import Catalog, DType, TensorInfo

MAX_TRIED = 100_000
"""Target keys of one group that are looked through for the one that a test names."""


def check_tests(rules: RuleSet, numbers: Mapping[str, int] | None = None) -> Iterator[Problem]:
    """A problem for each test whose source key goes elsewhere than it says; `when:` looks at the
    keys that the tests name.

    Without the `numbers` of parameters their defaults count. One that has none is a problem where
    a test needs it. Raises RuleError for numbers that the rules can't be used with.
    """
    names = Catalog(TensorInfo(test.source, DType.F32, ()) for test in rules.tests)
    rules = with_blocks(rules, names)
    known = known_numbers(rules, {})[0] if numbers is None else numbers
    rules, unset = bound_as_known(rules, known)
    claims = assign_rules(rules, names)
    reached: dict[str, list[tuple[Rule, Claim]]] = defaultdict(list)
    for rule, taken in zip(rules.rules, claims.by_rule, strict=True):
        for claim in taken:
            reached[claim.key].append((rule, claim))
    drops = zip(rules.drop, claims.dropped, strict=True)
    dropped = {key: drop.where for drop, keys in drops for key in keys}
    if rules.rest_source == "drop":
        dropped |= dict.fromkeys(claims.unnamed, rules.where)
    missing: dict[Param, None] = {}
    for test in rules.tests:
        takers = reached.get(test.source, [])
        places = [dropped.get(test.source), *(rule.where for rule, _ in takers)]
        if needed := [param for place in places if place for param in unset.get(place, ())]:
            missing |= dict.fromkeys(needed)
        elif fault := _fault(test, takers, test.source in dropped):
            yield Problem("test", f"`{test.source}` {fault}", test.where)
    yield from map(_without_number, missing)


def _without_number(param: Param) -> Problem:
    """The problem of a parameter that a test needs."""
    message = f"`{param.name}` has no number, and `tests:` need it"
    note = f"give it by `--set {param.name}=…` or by a `default:`"
    return Problem("unset-param", message, param.where, (note,))


def _fault(test: NameTest, reached: Sequence[tuple[Rule, Claim]], is_dropped: bool) -> str | None:
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
