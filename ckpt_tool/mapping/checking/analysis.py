"""What rules alone show, without any checkpoint: rules that can never get a key, and what a reader
should know besides.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import combinations, islice, product

from ckpt_tool.errors import Location, Problem
from ckpt_tool.keys import Matcher, PatternError, render
from ckpt_tool.keys.effort import Effort, TooMuchToCompare
from ckpt_tool.keys.overlap import can_match, common_key, covers
from ckpt_tool.keys.pattern import Choice, Number, Pattern, Rest, Star
from ckpt_tool.mapping.rules import Rule, RuleSet, Selector, names_in_pattern

MAX_BINDINGS = 2_000
"""Examples of numbers and words that are tried for one rule."""
MAX_COMPARED = 500
"""Rules and drops up to this number are compared, each with each."""


def find_problems(rules: RuleSet, effort: Effort | None = None) -> Iterator[Problem]:
    """Rules that can never get a key: drops or earlier rules take all that they match, or nothing
    can match them.

    Where comparing costs more than `effort`, those that were found by then; the notes say so.
    """
    with suppress(TooMuchToCompare):
        yield from _shadowed(rules, effort or Effort())


def _shadowed(rules: RuleSet, effort: Effort) -> Iterator[Problem]:
    """Of rules and drops that stand together, those that others before them leave nothing."""
    if _are_many(rules):
        return
    params = {param.name for param in rules.params}
    for listed, drop in _variants(rules):
        takers = [rule for rule in listed if not rule.is_extra and rule.sources]
        for index, rule in enumerate(takers):
            yield from _never_takes(rule, [*drop, *takers[:index]], params, effort)
        for index, selector in enumerate(drop):
            yield from _never_drops(selector, drop[:index], effort)


def _are_many(rules: RuleSet) -> bool:
    return (
        len(rules.rules)
        + len(rules.drop)
        + sum(len(block.rules) + len(block.drop) for block in rules.blocks)
        > MAX_COMPARED
    )


def _variants(rules: RuleSet) -> Iterator[tuple[tuple[Rule, ...], tuple[Selector, ...]]]:
    """The rules and drops that stand together: the plain ones, and each block of `when:` before
    them.
    """
    yield rules.rules, rules.drop
    for block in rules.blocks:
        yield (*block.rules, *rules.rules), (*block.drop, *rules.drop)


def _never_takes(
    rule: Rule, before: Sequence[Rule | Selector], params: set[str], effort: Effort
) -> Iterator[Problem]:
    """A problem for each pattern of a rule that can't get a key; what names parameters can."""
    for matcher, side in zip(rule.matchers, rule.sources, strict=True):
        if names_in_pattern(matcher.pattern) & params:
            continue
        pattern = f"`{matcher.pattern}`"
        if not can_match(matcher):
            message = f"{pattern} can never match: its numbers would be negative"
            yield Problem("dead-rule", message, side.where)
        elif taker := _taker_of_all(matcher, before, params, effort):
            by = f"line {taker.where.line} (`{_text(taker)}`)"
            message = f"{pattern} can never get a key: {by} takes all that it matches"
            yield Problem("shadowed-rule", message, side.where)


def _taker_of_all(
    matcher: Matcher, before: Sequence[Rule | Selector], params: set[str], effort: Effort
) -> Rule | Selector | None:
    """The first rule or drop one of whose patterns matches all that this one does."""
    for taker in before:
        for other in taker.matchers if isinstance(taker, Rule) else (taker.matcher,):
            if not names_in_pattern(other.pattern) & params and covers(other, matcher, effort):
                return taker
    return None


def _never_drops(
    selector: Selector, before: Sequence[Selector], effort: Effort
) -> Iterator[Problem]:
    for other in before:
        if covers(other.matcher, selector.matcher, effort):
            by = f"line {other.where.line} (`{other.pattern}`)"
            message = f"`{selector.pattern}` can never drop a key: {by} drops all that it matches"
            yield Problem("shadowed-rule", message, selector.where)
            return


def _text(taker: Rule | Selector) -> str:
    return taker.text if isinstance(taker, Rule) else f"drop: {taker.pattern}"


def find_notes(rules: RuleSet, effort: Effort | None = None) -> Iterator[Problem]:
    """What is allowed and still worth a look: order that decides, two ways to one key, params and
    tables that nothing uses.

    The last note says where comparing rules was ended, because they are too many or it would cost
    more than `effort`.
    """
    yield from _unused(rules)
    if _are_many(rules):
        yield Problem(
            "not-compared",
            f"more than {MAX_COMPARED} rules and drops: they were not compared with each other",
            rules.where,
        )
        return
    try:
        yield from _compared(rules, effort or Effort())
    except TooMuchToCompare:
        message = "comparing the rules with each other takes too long: some notes may be missing"
        yield Problem("not-compared", message, rules.where)


def _compared(rules: RuleSet, effort: Effort) -> Iterator[Problem]:
    """Notes on each two rules, and on each rename by itself."""
    fixed = _without_params(rules)
    for one, other in combinations(fixed, 2):
        yield from _overlap(one, other, effort)
    renames = [rule for rule in fixed if rule.is_rename]
    for rule in renames:
        yield from _two_to_one(rule)
    made = [(rule, target) for rule in renames if (target := _target_matcher(rule))]
    for first, second in combinations(made, 2):
        yield from _same_target(renames, first, second, effort)


def _without_params(rules: RuleSet) -> list[Rule]:
    """The rules whose patterns name no parameter; what others match is not known."""
    params = {param.name for param in rules.params}
    return [rule for rule in rules.rules if not _names_of(rule) & params]


def _overlap(one: Rule, other: Rule, effort: Effort) -> Iterator[Problem]:
    """A note where two rules want one key and neither is the other's exception."""
    if one.is_extra or other.is_extra:
        return
    for source, (number, target) in product(
        one.matchers[: len(one.sources)], enumerate(other.matchers[: len(other.sources)])
    ):
        key = common_key(source, target, effort)
        if (
            key is not None
            and not covers(target, source, effort)
            and not covers(source, target, effort)
        ):
            by = f"line {one.where.line} (`{one.text}`), which takes them"
            message = f"`{target.pattern}` shares keys with {by}: `{key}` is one"
            yield Problem("overlap", message, other.sources[number].where)
            return


def _two_to_one(rule: Rule) -> Iterator[Problem]:
    """A note where two source keys of one rule become one target key."""
    target = rule.targets[0].pattern
    try:
        Matcher(target, rule.matchers[0].bounds)
    except PatternError:
        seen: dict[str, str] = {}
        for binding in islice(_bindings(rule.sources[0].pattern, rule.matchers[0]), MAX_BINDINGS):
            key, output = render(rule.sources[0].pattern, binding), _rendered(target, binding)
            if output is not None and seen.setdefault(output, key) != key:
                message = f"`{seen[output]}` and `{key}` would both become `{output}`"
                yield Problem("two-to-one", message, rule.targets[0].where)
                return


def _bindings(pattern: Pattern, matcher: Matcher) -> Iterator[dict[str, int | str]]:
    """Examples of what the holes of a pattern can stand for."""
    domains: dict[str, Sequence[int | str]] = {}
    for token in pattern.tokens:
        match token:
            case Number(affine):
                domains.update({name: matcher.bounds.get(name, range(5)) for name in affine.names})
            case Choice(id=id, words=words):
                domains[id] = range(len(words))
            case Star(id) | Rest(id):
                domains[id] = ("x",)
            case _:
                pass
    for values in product(*domains.values()):
        yield dict(zip(domains, values, strict=True))


def _rendered(pattern: Pattern, binding: dict[str, int | str]) -> str | None:
    try:
        return render(pattern, binding)
    except ValueError:
        return None


def _same_target(
    rules: Sequence[Rule], first: tuple[Rule, Matcher], second: tuple[Rule, Matcher], effort: Effort
) -> Iterator[Problem]:
    """A note where two rules, each with the matcher of its target, give one key, for source keys
    that each of them would get.
    """
    (one, source), (other, target) = first, second
    sources = one.matchers[0], other.matchers[0]
    if (
        one.is_optional
        or other.is_optional
        or covers(*sources, effort)
        or covers(*sources[::-1], effort)
    ):
        return
    key = common_key(source, target, effort)
    if key is None:
        return
    effort.spend(len(rules) * len(key))
    origins = _source_of(one, source, key), _source_of(other, target, key)
    if _taker(rules, origins[0]) is one and _taker(rules, origins[1]) is other:
        ways = f"`{origins[1]}` and, by line {one.where.line}, from `{origins[0]}`"
        message = f"`{key}` can come from {ways}; a source with both is refused"
        yield Problem("two-to-one", message, other.targets[0].where)


def _source_of(rule: Rule, target: Matcher, key: str) -> str | None:
    return _rendered(rule.sources[0].pattern, target.match(key) or {})


def _taker(rules: Sequence[Rule], key: str | None) -> Rule | None:
    """The first rule that matches a source key."""
    return next(
        (rule for rule in rules if key is not None and rule.matchers[0].match(key) is not None),
        None,
    )


def _target_matcher(rule: Rule) -> Matcher | None:
    try:
        return Matcher(rule.targets[0].pattern, rule.matchers[0].bounds)
    except PatternError:
        return None


def _unused(rules: RuleSet) -> Iterator[Problem]:
    """A note for each parameter and table that no pattern and no op names, and no parameter that
    is used.
    """
    patterns = list(_patterns(rules))
    named = {name for pattern in patterns for name in names_in_pattern(pattern)}
    named.update(_names_in_ops(rules))
    for param in reversed(rules.params):  # a formula is made of what stands above it
        if param.name in named and param.formula:
            named.update(param.formula.names)
    tables = {token.id for pattern in patterns for token in _tables(pattern)}
    for param in rules.params:
        if param.name not in named:
            yield _unused_name("param", param.name, param.where)
    for name, where in rules.table_places.items():
        if name not in tables:
            yield _unused_name("table", name, where)


def _unused_name(kind: str, name: str, where: Location) -> Problem:
    return Problem(f"unused-{kind}", f"no rule names the {kind} `{name}`", where)


def _every_rule(rules: RuleSet) -> Iterator[Rule]:
    """The rules, those of blocks too."""
    yield from rules.rules
    for block in rules.blocks:
        yield from block.rules


def _patterns(rules: RuleSet) -> Iterator[Pattern]:
    """Every pattern of a rule set."""
    for rule in _every_rule(rules):
        yield from (side.pattern for side in (*rule.sources, *rule.targets))
    yield from (selector.pattern for selector in (*rules.drop, *rules.keep))
    for block in rules.blocks:
        yield from (selector.pattern for selector in (*block.drop, *block.keep))
        yield from (condition.matcher.pattern for condition in block.conditions)
    yield from (fit.selector.pattern for fit in rules.fits)


def _names_in_ops(rules: RuleSet) -> Iterator[str]:
    for rule in _every_rule(rules):
        for op in rule.ops:
            yield from op.parameters()


def _tables(pattern: Pattern) -> Iterator[Choice]:
    """The choices of a pattern whose words come from a table."""
    for token in pattern.tokens:
        if isinstance(token, Choice) and token.is_table:
            yield token


def _names_of(rule: Rule) -> set[str]:
    """The names of the numbers in a rule's patterns."""
    return {
        name for side in (*rule.sources, *rule.targets) for name in names_in_pattern(side.pattern)
    }
