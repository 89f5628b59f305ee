"""Claims into steps: renames one by one; rules that collect or produce by complete groups."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from ckpt_tool.errors import Problem
from ckpt_tool.keys import Binding, Renderer, render
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.assign import Claim, Claims
from ckpt_tool.mapping.plan import Origin, Step
from ckpt_tool.mapping.rules import Rule, RuleSet, Side
from ckpt_tool.ops import Form, Op, OpError, infer_chain
from ckpt_tool.tensors import Catalog

MOST_PER_RULE = 3
"""Problems of one kind that are listed for one rule; the others are counted."""


@dataclass(slots=True)
class _Building:
    source: Catalog
    target: Catalog | None
    steps: list[Step] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def build_steps(rules: RuleSet, claims: Claims, source: Catalog, target: Catalog | None) -> tuple[list[Step], list[Problem]]:
    """A step for each group of source keys that a rule makes into target keys, and what stands in the way of the others."""
    building = _Building(source, target)
    for rule, taken in zip(rules.rules, claims.by_rule, strict=True):
        before = len(building.problems)
        if any(side.only for side in (*rule.sources, *rule.targets)) or len(rule.sources) + len(rule.targets) > 2:
            _add_groups(building, rule, taken)
        else:
            _add_renames(building, rule, taken)
        _shorten(building.problems, before)
    return building.steps, building.problems


def _shorten(problems: list[Problem], start: int) -> None:
    hidden = len(problems) - start - MOST_PER_RULE
    if hidden > 0:
        last = problems[start + MOST_PER_RULE - 1]
        del problems[start + MOST_PER_RULE :]
        problems[-1] = Problem(last.code, last.message, last.where, (*last.notes, f"{hidden} more of this rule"))


def _add_renames(building: _Building, rule: Rule, claims: Sequence[Claim]) -> None:
    origin, render_target = Origin("rule", rule), Renderer(rule.targets[0].pattern)
    for claim in claims:
        try:
            output = render_target(claim.binding)
            if rule.ops:
                info = building.source[claim.key]
                infer_chain(rule.ops, [Form(info.dtype, info.shape)])
        except OpError as error:
            building.problems.append(_op_problem(rule, error, [claim.key]))
        except ValueError as error:
            building.problems.append(Problem("bad-number", f"{error} for `{claim.key}`", rule.targets[0].where))
        else:
            building.steps.append(Step((claim.key,), (output,), rule.ops, origin))


def _op_problem(rule: Rule, error: OpError, keys: Sequence[str]) -> Problem:
    return Problem("bad-op", str(error), rule.where, (f"for `{keys[0]}`" + (f" and {len(keys) - 1} more" if len(keys) > 1 else ""),))


def _add_groups(building: _Building, rule: Rule, claims: Sequence[Claim]) -> None:
    groups: dict[tuple[int | str, ...], list[Claim]] = defaultdict(list)
    for claim in claims:
        groups[tuple(claim.binding[hole] for hole in rule.carried)].append(claim)
    for members in groups.values():
        inputs, sizes = _inputs(building, rule, members)
        if inputs is not None:
            _add_group(building, rule, inputs, sizes, members[0].binding)


Domains = dict[str, range]


def _inputs(building: _Building, rule: Rule, members: list[Claim]) -> tuple[tuple[str, ...] | None, list[int]]:
    """The keys of a group in order, with the sizes of the dimensions that they span; None after adding what is missing."""
    by_place: dict[tuple[object, ...], Claim] = {}
    for claim in members:
        place = (claim.side, *(claim.binding[hole] for hole in rule.sources[claim.side].only))
        if place in by_place:
            message = f"`{by_place[place].key}` and `{claim.key}` stand for the same part of one group"
            building.problems.append(Problem("collision", message, rule.sources[claim.side].where))
            return None, []
        by_place[place] = claim
    places: list[tuple[object, ...]] = []
    sizes: list[int] = []
    for number, side in enumerate(rule.sources):
        domains = _domains(side, [claim.binding for claim in members if claim.side == number])
        sizes = [len(domain) for domain in domains.values()]
        places.extend((number, *values) for values in product(*domains.values()))
    missing = [place for place in places if place not in by_place]
    if missing:
        building.problems.append(_incomplete(rule, members, missing))
        return None, []
    return tuple(by_place[place].key for place in places), [len(rule.sources), *sizes] if len(rule.sources) > 1 else sizes


def _domains(side: Side, bindings: list[Binding]) -> Domains:
    """For each hole that stands on this side only, the values that a complete group has."""
    choices = {token.id: range(len(token.words)) for token in side.pattern.tokens if isinstance(token, Choice)}
    bounds = side.pattern.bounds
    return {
        hole: choices.get(hole) or bounds.get(hole) or range(max((int(binding[hole]) for binding in bindings), default=-1) + 1)
        for hole in side.only
    }


def _incomplete(rule: Rule, members: list[Claim], missing: list[tuple[object, ...]]) -> Problem:
    side_number, *values = missing[0]
    side = rule.sources[int(side_number)]  # type: ignore[call-overload]
    binding = {**members[0].binding, **dict(zip(side.only, values, strict=True))}
    absent = render(side.pattern, binding)  # type: ignore[arg-type]
    note = f"`{members[0].key}` is there" + (f"; {len(missing)} keys of the group are missing" if len(missing) > 1 else "")
    return Problem("incomplete-group", f"`{absent}` is missing from its group", side.where, (note,))


def _add_group(building: _Building, rule: Rule, inputs: tuple[str, ...], sizes: list[int], binding: Binding) -> None:
    domains = [_target_domains(side) for side in rule.targets]
    counts = [len(domain) if domain is not None else None for domain in domains[0].values()]
    if len(rule.targets) > 1:
        counts.insert(0, len(rule.targets))
    forms = [Form(building.source[key].dtype, building.source[key].shape) for key in inputs]
    try:
        ops = _with_parts(rule.ops, sizes, counts)
        if None not in counts:
            ops = _with_target_sizes(ops, forms, _outputs(rule, domains, binding), building.target)
        results = infer_chain(ops, forms)
        outputs = _outputs(rule, [_completed(each, len(results), len(rule.targets)) for each in domains], binding)
        if len(outputs) != len(results):
            raise OpError(f"the ops give {len(results)} tensors for {len(outputs)} keys")
    except OpError as error:
        building.problems.append(_op_problem(rule, error, inputs))
    except ValueError as error:
        building.problems.append(Problem("bad-number", f"{error} for `{inputs[0]}`", rule.targets[0].where))
    else:
        building.steps.append(Step(inputs, outputs, ops, Origin("rule", rule)))


def _target_domains(side: Side) -> dict[str, range | None]:
    """The values of each hole of the target only; None for a number whose count the ops will tell."""
    choices = {token.id: range(len(token.words)) for token in side.pattern.tokens if isinstance(token, Choice)}
    return {hole: choices.get(hole) or side.pattern.bounds.get(hole) for hole in side.only}


def _completed(domains: Mapping[str, range | None], results: int, targets: int) -> dict[str, range | None]:
    """The domains with the one open number counted from the tensors that the ops give."""
    known = targets * prod(len(domain) for domain in domains.values() if domain is not None)
    return {hole: range(results // known) if domain is None else domain for hole, domain in domains.items()}


def _outputs(rule: Rule, domains: Sequence[Mapping[str, range | None]], binding: Binding) -> tuple[str, ...]:
    outputs = []
    for side, each in zip(rule.targets, domains, strict=True):
        for values in product(*(domain or range(0) for domain in each.values())):
            outputs.append(render(side.pattern, {**binding, **dict(zip(each, values, strict=True))}))
    return tuple(outputs)


def _with_parts(ops: Sequence[Op], sizes: Sequence[int], counts: Sequence[int | None]) -> tuple[Op, ...]:
    """Collecting ops take the source's dimensions from the right, producing ops the target's from the left."""
    inward, outward = list(sizes), list(counts)
    filled = []
    for op in ops:
        if op.collects and inward:
            op = op.with_parts(inward.pop())
        elif op.produces and outward and (count := outward.pop(0)) is not None:
            op = op.with_parts(count)
        filled.append(op)
    return tuple(filled)


def _with_target_sizes(ops: tuple[Op, ...], forms: Sequence[Form], outputs: Sequence[str], target: Catalog | None) -> tuple[Op, ...]:
    """A final `split` without sizes takes them from the target's shapes; equal parts where the target doesn't tell."""
    if not ops or target is None or ops[-1].name != "split" or getattr(ops[-1], "sizes", None) is not None:
        return ops
    parts, dim = getattr(ops[-1], "parts", None), getattr(ops[-1], "dim", 0)
    shapes = [target[key].shape for key in outputs[:parts] if key in target]
    before = infer_chain(ops[:-1], forms)[0].shape
    if len(shapes) != parts or any(not -len(shape) <= dim < len(shape) for shape in (*shapes, before)):
        return ops
    sizes = tuple(shape[dim] for shape in shapes)
    if sum(sizes) != before[dim]:
        return ops
    return (*ops[:-1], ops[-1].with_sizes(sizes))  # type: ignore[attr-defined]
