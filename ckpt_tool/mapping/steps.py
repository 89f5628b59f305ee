"""Claims into steps: renames one by one; rules that collect or produce by complete groups."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import prod

from ckpt_tool.errors import Problem
from ckpt_tool.keys import Binding, Renderer, render
from ckpt_tool.keys.pattern import Choice, Rest, Star
from ckpt_tool.mapping.assign import Claim, Claims
from ckpt_tool.mapping.parts import key_words, with_labels, with_parts, with_target_sizes
from ckpt_tool.mapping.plan import Origin, Step
from ckpt_tool.mapping.rules import Rule, RuleSet, RuleSide
from ckpt_tool.ops import Init, Op, OpError, TensorForm, infer_chain
from ckpt_tool.tensors import Catalog, counted

MAX_OUTPUTS = 100_000
"""Keys that one group of tensors may become."""
MAX_PER_RULE = 3
"""Problems of one kind that are listed for one rule; the others are counted."""


@dataclass(slots=True)
class _Building:
    source: Catalog
    target: Catalog | None
    steps: list[Step] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def build_steps(
    rules: RuleSet, claims: Claims, source: Catalog, target: Catalog | None
) -> tuple[list[Step], list[Problem]]:
    """A step for each group of source keys that a rule makes into target keys, and what stands in
    the way of the others.
    """
    building = _Building(source, target)
    for rule, taken in zip(rules.rules, claims.by_rule, strict=True):
        before = len(building.problems)
        if not rule.sources:
            _add_initialized(building, rule)
        elif rule.is_of_groups:
            _add_groups(building, rule, taken)
        else:
            _add_renames(building, rule, taken)
        _shorten(building.problems, before)
    return building.steps, building.problems


def _add_initialized(building: _Building, rule: Rule) -> None:
    """A step for each target key that a rule without a source matches."""
    keys = _initialized_keys(rule, building.target)
    if not keys and not (rule.is_optional and building.target is not None):
        building.problems.append(_unmatched(rule.targets[0], building.target))
    for key in keys:
        ops = _ops_for(rule, key, building.target)
        try:
            infer_chain(ops, [])
        except OpError as error:
            building.problems.append(_op_problem(rule, error, [key]))
        else:
            building.steps.append(Step((), (key,), ops, Origin("rule", rule)))


def _unmatched(side: RuleSide, target: Catalog | None) -> Problem:
    """The problem of a rule without a source that names no key."""
    message = f"`{side.pattern}` matches no key of the target"
    if target is None:
        message = f"only a target can say which keys `{side.pattern}` stands for"
    return Problem("dead-rule", message, side.where)


def _ops_for(rule: Rule, key: str, target: Catalog | None) -> tuple[Op, ...]:
    """The rule's ops, `init` with the dtype and shape that the target has, where it has the key."""
    info = target.get(key) if target is not None else None
    if info is None:
        return rule.ops
    form = TensorForm(info.dtype, info.shape)
    return tuple(op.with_form(form) if isinstance(op, Init) else op for op in rule.ops)


def _initialized_keys(rule: Rule, target: Catalog | None) -> list[str]:
    """The target's keys that the rule's patterns match; without a target, those that the patterns
    alone spell out.
    """
    if target is not None:
        return [
            key
            for key in target
            if any(matcher.match(key) is not None for matcher in rule.matchers)
        ]
    keys: list[str] = []
    for side in rule.targets:
        if any(isinstance(token, Star | Rest) for token in side.pattern.tokens):
            return []
        domains = [_target_domains(side)]
        if None in domains[0].values():
            return []
        keys.extend(_outputs(rule, domains, {}))
    return keys


def _shorten(problems: list[Problem], start: int) -> None:
    hidden = len(problems) - start - MAX_PER_RULE
    if hidden > 0:
        last = problems[start + MAX_PER_RULE - 1]
        del problems[start + MAX_PER_RULE :]
        problems[-1] = Problem(
            last.code, last.message, last.where, (*last.notes, f"{hidden} more of this rule")
        )


def _add_renames(building: _Building, rule: Rule, claims: Sequence[Claim]) -> None:
    origin, render_target = Origin("rule", rule), Renderer(rule.targets[0].pattern)
    for claim in claims:
        try:
            output = render_target(claim.binding)
            ops = rule.ops
            if ops:
                info, words = (
                    building.source[claim.key],
                    key_words(rule.sources[0], claim.binding),
                )
                ops = with_labels(ops, [words], [words | key_words(rule.targets[0], claim.binding)])
                _check_count(len(infer_chain(ops, [TensorForm(info.dtype, info.shape)])), 1)
        except OpError as error:
            building.problems.append(_op_problem(rule, error, [claim.key]))
        except ValueError as error:
            building.problems.append(
                Problem("bad-number", f"{error} for `{claim.key}`", rule.targets[0].where)
            )
        else:
            building.steps.append(Step((claim.key,), (output,), ops, origin))


def _op_problem(rule: Rule, error: OpError, keys: Sequence[str]) -> Problem:
    keyed = f"for `{keys[0]}`" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
    return Problem(
        "bad-op", str(error), rule.where, (keyed, *((error.hint,) if error.hint else ()))
    )


def _add_groups(building: _Building, rule: Rule, claims: Sequence[Claim]) -> None:
    groups: dict[tuple[int | str, ...], list[Claim]] = defaultdict(list)
    for claim in claims:
        groups[tuple(claim.binding[hole] for hole in rule.carried)].append(claim)
    for members in groups.values():
        group = _group(rule, members)
        if isinstance(group, Problem):
            building.problems.append(group)
        elif group.claims:
            _add_group(building, rule, group)


Domains = dict[str, range]
Place = tuple[object, ...]
"""Where a key stands in its group: the number of its pattern, and the values of the holes that only
this side has.
"""


@dataclass(frozen=True, slots=True)
class _Group:
    """Source keys that become target keys together, in the order in which the ops take them, and
    the sizes of the dimensions that they span.
    """

    claims: tuple[Claim, ...]
    sizes: list[int]


def _group(rule: Rule, members: list[Claim]) -> _Group | Problem:
    """The group that keys make, or why it is none: two of one place, or a place without a key."""
    by_place = _by_place(rule, members)
    if isinstance(by_place, Problem):
        return by_place
    domains = [_domains_of(rule, number, members) for number in range(len(rule.sources))]
    # One place more than there are keys is enough to know one that is missing.
    places = list(_places_of(domains, len(by_place) + 1))
    missing = next((place for place in places if place not in by_place), None)
    if missing:
        count = sum(prod(map(len, each.values())) for each in domains)
        return _incomplete(rule, members, missing, count - len(by_place))
    sizes = [len(domain) for domain in domains[-1].values()]
    if len(rule.sources) > 1:
        sizes.insert(0, len(rule.sources))
    return _Group(tuple(by_place[place] for place in places), sizes)


def _by_place(rule: Rule, members: list[Claim]) -> dict[Place, Claim] | Problem:
    """The key of each place, or the problem that two have one."""
    by_place: dict[Place, Claim] = {}
    for claim in members:
        side = rule.sources[claim.side]
        place = (claim.side, *(claim.binding[hole] for hole in side.only))
        first = by_place.setdefault(place, claim)
        if first is not claim:
            message = f"`{first.key}` and `{claim.key}` stand for the same part of one group"
            return Problem("collision", message, side.where)
    return by_place


def _domains_of(rule: Rule, number: int, members: list[Claim]) -> Domains:
    """For each hole that only the sources have, the values that a complete group has of it."""
    bindings = [claim.binding for claim in members if claim.side == number]
    return _domains(rule.sources[number], bindings)


def _places_of(domains: Sequence[Domains], limit: int) -> Iterator[Place]:
    """The places of a whole group in order, of each pattern no more than the limit."""
    for number, each in enumerate(domains):
        for values in islice(_places(tuple(each.values())), limit):
            yield number, *values


def _places(domains: Sequence[range]) -> Iterator[tuple[int, ...]]:
    """One number of each in all ways, as `product` gives them; which would hold them all at once,
    however many there are.
    """
    if not domains:
        yield ()
    elif all(domains):
        for number in domains[0]:
            for others in _places(domains[1:]):
                yield number, *others


def _domains(side: RuleSide, bindings: list[Binding]) -> Domains:
    """For each hole that stands on this side only, the values that a complete group has."""
    choices = {
        token.id: range(len(token.words))
        for token in side.pattern.tokens
        if isinstance(token, Choice)
    }
    bounds = side.pattern.bounds
    return {
        hole: choices.get(hole)
        or bounds.get(hole)
        or range(max((int(binding[hole]) for binding in bindings), default=-1) + 1)
        for hole in side.only
    }


def _incomplete(
    rule: Rule, members: list[Claim], missing: tuple[object, ...], count: int
) -> Problem:
    side_number, *values = missing
    side = rule.sources[int(side_number)]  # type: ignore[call-overload]
    binding = {**members[0].binding, **dict(zip(side.only, values, strict=True))}
    absent = render(side.pattern, binding)  # type: ignore[arg-type]
    note = f"`{members[0].key}` is there" + (
        f"; {count} keys of the group are missing" if count > 1 else ""
    )
    return Problem("incomplete-group", f"`{absent}` is missing from its group", side.where, (note,))


def _add_group(building: _Building, rule: Rule, group: _Group) -> None:
    inputs = tuple(claim.key for claim in group.claims)
    try:
        step = _group_step(building, rule, group)
    except OpError as error:
        building.problems.append(_op_problem(rule, error, inputs))
    except ValueError as error:
        message = f"{error} for `{inputs[0]}`"
        building.problems.append(Problem("bad-number", message, rule.targets[0].where))
    else:
        building.steps.append(step)


def _group_step(building: _Building, rule: Rule, group: _Group) -> Step:
    """The step of one complete group. Raises OpError where the ops don't fit, ValueError where a
    number of a target key would be negative.
    """
    inputs, binding = tuple(claim.key for claim in group.claims), group.claims[0].binding
    domains = [_target_domains(side) for side in rule.targets]
    counts = _counts(domains)
    forms = [TensorForm(building.source[key].dtype, building.source[key].shape) for key in inputs]
    words = [key_words(rule.sources[claim.side], claim.binding) for claim in group.claims]
    ops = with_parts(rule.ops, group.sizes, counts)
    ops = with_labels(ops, words, _output_words(rule, binding, domains))
    if None not in counts:
        ops = with_target_sizes(ops, forms, _outputs(rule, domains, binding), building.target)
    results = len(infer_chain(ops, forms))
    completed = [_completed(each, results, len(rule.targets)) for each in domains]
    outputs = _outputs(rule, completed, binding)
    _check_count(results, len(outputs))
    return Step(inputs, outputs, ops, Origin("rule", rule))


def _counts(domains: Sequence[Mapping[str, range | None]]) -> list[int | None]:
    """How many tensors each producing op gives: one for each target, then for each of its holes;
    None where the ops will tell.
    """
    counts = [len(domain) if domain is not None else None for domain in domains[0].values()]
    return [len(domains), *counts] if len(domains) > 1 else counts


def _check_count(results: int, keys: int) -> None:
    """Raises OpError where the ops give more tensors than there are names for them, or fewer, or
    none.
    """
    if results != keys or not results:
        raise OpError(f"the ops give {counted(results, 'tensor')} for {counted(keys, 'key')}")


def _target_domains(side: RuleSide) -> dict[str, range | None]:
    """The values of each hole of the target only; None for a number that the ops will count."""
    choices = {
        token.id: range(len(token.words))
        for token in side.pattern.tokens
        if isinstance(token, Choice)
    }
    return {hole: choices.get(hole) or side.pattern.bounds.get(hole) for hole in side.only}


def _completed(
    domains: Mapping[str, range | None], results: int, targets: int
) -> dict[str, range | None]:
    """The domains with the one open number counted from the tensors that the ops give."""
    known = targets * prod(len(domain) for domain in domains.values() if domain is not None)
    return {
        hole: range(results // known) if domain is None else domain
        for hole, domain in domains.items()
    }


def _outputs(
    rule: Rule, domains: Sequence[Mapping[str, range | None]], binding: Binding
) -> tuple[str, ...]:
    return tuple(render(side.pattern, values) for side, values in _bindings(rule, domains, binding))


def _output_words(
    rule: Rule, binding: Binding, domains: Sequence[Mapping[str, range | None]]
) -> list[frozenset[str]]:
    return [key_words(side, values) for side, values in _bindings(rule, domains, binding)]


def _bindings(
    rule: Rule, domains: Sequence[Mapping[str, range | None]], binding: Binding
) -> Iterator[tuple[RuleSide, Binding]]:
    """Each target's pattern with what its holes stand for, in order."""
    for side, each in zip(rule.targets, domains, strict=True):
        known = [domain or range(0) for domain in each.values()]
        if prod(map(len, known)) > MAX_OUTPUTS:
            raise OpError(f"`{side.pattern}` stands for more than {MAX_OUTPUTS:,} keys")
        for values in _places(known):
            yield side, {**binding, **dict(zip(each, values, strict=True))}
