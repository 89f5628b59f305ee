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
from ckpt_tool.mapping.parts import with_parts, with_target_sizes, with_words, words_of
from ckpt_tool.mapping.plan import Origin, Step
from ckpt_tool.mapping.rules import Rule, RuleSet, Side
from ckpt_tool.ops import Init, OpError, TensorForm, infer_chain
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
        elif (
            any(side.only for side in (*rule.sources, *rule.targets))
            or len(rule.sources) + len(rule.targets) > 2
        ):
            _add_groups(building, rule, taken)
        else:
            _add_renames(building, rule, taken)
        _shorten(building.problems, before)
    return building.steps, building.problems


def _add_initialized(building: _Building, rule: Rule) -> None:
    """A step for each target key that a rule without a source matches."""
    keys = _initialized_keys(rule, building.target)
    if not keys and not (rule.is_optional and building.target is not None):
        side = rule.targets[0]
        message = f"`{side.pattern}` matches no key of the target"
        if building.target is None:
            message = f"only a target can tell which keys `{side.pattern}` stands for"
        building.problems.append(Problem("dead-rule", message, side.where))
    for key in keys:
        info = building.target.get(key) if building.target is not None else None
        ops = tuple(
            op.with_form(TensorForm(info.dtype, info.shape))
            if isinstance(op, Init) and info
            else op
            for op in rule.ops
        )
        try:
            infer_chain(ops, [])
        except OpError as error:
            building.problems.append(_op_problem(rule, error, [key]))
        else:
            building.steps.append(Step((), (key,), ops, Origin("rule", rule)))


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
                info, words = building.source[claim.key], words_of(rule.sources[0], claim.binding)
                ops = with_words(ops, [words], [words | words_of(rule.targets[0], claim.binding)])
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
        inputs, sizes = _inputs(building, rule, members)
        if inputs:
            _add_group(building, rule, inputs, sizes)


Domains = dict[str, range]


def _inputs(
    building: _Building, rule: Rule, members: list[Claim]
) -> tuple[tuple[Claim, ...], list[int]]:
    """The keys of a group in order, with the sizes of the dimensions that they span; none after
    adding what is missing.
    """
    by_place: dict[tuple[object, ...], Claim] = {}
    for claim in members:
        place = (claim.side, *(claim.binding[hole] for hole in rule.sources[claim.side].only))
        if place in by_place:
            message = (
                f"`{by_place[place].key}` and `{claim.key}` stand for the same part of one group"
            )
            building.problems.append(Problem("collision", message, rule.sources[claim.side].where))
            return (), []
        by_place[place] = claim
    places: list[tuple[object, ...]] = []
    sizes: list[int] = []
    count = 0
    for number, side in enumerate(rule.sources):
        domains = _domains(side, [claim.binding for claim in members if claim.side == number])
        sizes = [len(domain) for domain in domains.values()]
        count += prod(sizes)
        # One place more than there are keys is enough to know one that is missing.
        places.extend(
            (number, *values)
            for values in islice(_places(tuple(domains.values())), len(by_place) + 1)
        )
    missing = next((place for place in places if place not in by_place), None)
    if missing:
        building.problems.append(_incomplete(rule, members, missing, count - len(by_place)))
        return (), []
    return tuple(by_place[place] for place in places), [len(rule.sources), *sizes] if len(
        rule.sources
    ) > 1 else sizes


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


def _domains(side: Side, bindings: list[Binding]) -> Domains:
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


def _add_group(
    building: _Building, rule: Rule, members: tuple[Claim, ...], sizes: list[int]
) -> None:
    inputs, binding = tuple(claim.key for claim in members), members[0].binding
    domains = [_target_domains(side) for side in rule.targets]
    counts = [len(domain) if domain is not None else None for domain in domains[0].values()]
    if len(rule.targets) > 1:
        counts.insert(0, len(rule.targets))
    forms = [TensorForm(building.source[key].dtype, building.source[key].shape) for key in inputs]
    try:
        ops = with_parts(rule.ops, sizes, counts)
        ops = with_words(
            ops,
            [words_of(rule.sources[claim.side], claim.binding) for claim in members],
            _output_words(rule, binding, domains),
        )
        if None not in counts:
            ops = with_target_sizes(ops, forms, _outputs(rule, domains, binding), building.target)
        results = infer_chain(ops, forms)
        outputs = _outputs(
            rule, [_completed(each, len(results), len(rule.targets)) for each in domains], binding
        )
        _check_count(len(results), len(outputs))
    except OpError as error:
        building.problems.append(_op_problem(rule, error, inputs))
    except ValueError as error:
        building.problems.append(
            Problem("bad-number", f"{error} for `{inputs[0]}`", rule.targets[0].where)
        )
    else:
        building.steps.append(Step(inputs, outputs, ops, Origin("rule", rule)))


def _check_count(results: int, keys: int) -> None:
    """Raises OpError where the ops give more tensors than there are names for them, or fewer, or
    none.
    """
    if results != keys or not results:
        raise OpError(f"the ops give {counted(results, 'tensor')} for {counted(keys, 'key')}")


def _target_domains(side: Side) -> dict[str, range | None]:
    """The values of each hole of the target only; None for a number whose count the ops will tell."""
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
    return [words_of(side, values) for side, values in _bindings(rule, domains, binding)]


def _bindings(
    rule: Rule, domains: Sequence[Mapping[str, range | None]], binding: Binding
) -> Iterator[tuple[Side, Binding]]:
    """Each target's pattern with what its holes stand for, in order."""
    for side, each in zip(rule.targets, domains, strict=True):
        known = [domain or range(0) for domain in each.values()]
        if prod(map(len, known)) > MAX_OUTPUTS:
            raise OpError(f"`{side.pattern}` stands for more than {MAX_OUTPUTS:,} keys")
        for values in _places(known):
            yield side, {**binding, **dict(zip(each, values, strict=True))}
