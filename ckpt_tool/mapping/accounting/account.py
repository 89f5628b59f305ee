"""The one accounting of all ways of mapping: every key of both sides is mapped, or somebody named
it, or there is no plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import replace

from ckpt_tool.errors import Location, Problem, RuleError
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.accounting.coverage import check_unnamed, tally_of
from ckpt_tool.mapping.accounting.dtypes import DTypePolicy, cast_notes, check_casts, with_dtypes
from ckpt_tool.mapping.accounting.scales import check_scales
from ckpt_tool.mapping.accounting.target_shapes import check_target_shapes
from ckpt_tool.mapping.accounting.ties import tie_notes
from ckpt_tool.mapping.accounting.unreadable import check_readable, keys_of
from ckpt_tool.mapping.plan import Draft, Plan, Step
from ckpt_tool.mapping.rules import RuleSet, Selector
from ckpt_tool.tensors import Catalog

NOTHING_NAMED = RuleSet((), (), Location("the command line", 1, 1))
A_PART = RuleSet((), (), NOTHING_NAMED.where, rest_source="drop", rest_target="keep")
"""The wish for a part: what nothing pairs stays where it is."""


@frozen
class Pairing:
    """What a way of mapping found for two catalogs.

    `notes` belong to the plan; `remarks` say why keys are left, where that is no plan. `excused`
    are keys of the source and of the target that may be left though nobody named them. `name_of` is
    what the target calls a key of the source, if anything.
    """

    steps: Sequence[Step]
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()
    excused: tuple[Collection[str], Collection[str]] = ((), ())
    name_of: Callable[[str], str | None] = str


def without_named(named: RuleSet, source: Catalog, target: Catalog) -> tuple[Catalog, Catalog]:
    """Both sides without the keys that were named: what is left to be paired."""
    return _without(named.drop, source), _without(named.keep, target)


def check_left(named: RuleSet, source: Catalog, target: Catalog) -> None:
    """Raises RuleError where every key of one side was named, and nothing is left to be paired."""
    sides = without_named(named, source, target)
    for selectors, whole, left, done in (
        (named.drop, source, sides[0], "source is dropped"),
        (named.keep, target, sides[1], "target is kept"),
    ):
        if selectors and keys_of(whole) and not keys_of(left):
            message = f"every key of the {done}: nothing is left to be mapped"
            raise RuleError([Problem("nothing-pairs", message, selectors[0].where)])


def _without(selectors: Sequence[Selector], catalog: Catalog) -> Catalog:
    if not selectors:
        return catalog
    known = _selected(selectors, keys_of(catalog))
    readable = (info for key, info in catalog.items() if key not in known)
    return Catalog(
        readable,
        catalog.is_ordered,
        (one for key, one in catalog.unreadable.items() if key not in known),
        catalog.is_declared,
    )


def _selected(selectors: Sequence[Selector], keys: Sequence[str]) -> dict[str, int]:
    """The index of the first pattern that names each key that one does."""
    if not selectors:
        return {}
    from ckpt_tool.keys import PatternSet

    patterns = PatternSet([selector.matcher for selector in selectors])
    return {key: found[0] for key in keys if (found := patterns.first(key))}


def account(
    pairing: Pairing, named: RuleSet, source: Catalog, target: Catalog, dtypes: DTypePolicy
) -> Plan:
    """The plan that a pairing makes, once every key of both sides is mapped or named. Raises
    RuleError with every problem.
    """
    taken = {key for step in pairing.steps for key in step.inputs}
    made = {key for step in pairing.steps for key in step.outputs}
    dropped, kept = _selected(named.drop, keys_of(source)), _selected(named.keep, list(target))
    left = _without_keys(keys_of(source), taken, dropped)
    fresh = _without_keys(target, made, kept)
    open_source = _without_keys(left, pairing.excused[0])
    open_target = _without_keys(fresh, pairing.excused[1])
    problems = [
        *_dead(named, dropped, kept, source, target),
        *check_readable(source, open_source, {*open_target}, target, pairing.name_of),
        *check_unnamed(named, open_source, open_target, source, target, pairing.remarks),
    ]
    plan = Plan(
        tuple(pairing.steps),
        dropped=_in_order(keys_of(source), {*left, *dropped}),
        kept=_in_order(target, {*fresh, *kept}),
        source=source,
        target=target,
        notes=tuple(pairing.notes),
    )
    return checked_plan(plan, dtypes, problems, frozenset(dropped), (open_source, open_target))


def _without_keys(keys: Iterable[str], *others: Container[str]) -> list[str]:
    return [key for key in keys if not any(key in each for each in others)]


def _in_order(keys: Iterable[str], chosen: Container[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if key in chosen)


def _dead(
    named: RuleSet, dropped: dict[str, int], kept: dict[str, int], source: Catalog, target: Catalog
) -> Iterator[Problem]:
    if not (named.drop or named.keep):
        return
    from ckpt_tool.mapping.accounting.dead_rules import check_dead_drops, check_dead_keeps

    yield from check_dead_drops(named, {*dropped.values()}, source)
    yield from check_dead_keeps(named, kept, target)


def checked_plan(
    plan: Plan,
    dtypes: DTypePolicy,
    problems: list[Problem],
    named: Collection[str] = frozenset(),
    undecided: tuple[Collection[str], Collection[str]] = ((), ()),
) -> Plan:
    """A drafted plan, with the casts that are asked for, once its outputs fit the target. Raises
    RuleError, which gets the draft and how far it would come.

    `named` are the keys of the source that a person left behind by name, `undecided` those of the
    source and of the target that are neither mapped nor named.
    """
    if not any(problem.code in ("collision", "bad-op") for problem in problems):
        plan = with_dtypes(plan, dtypes)
        problems += [*check_scales(plan, named), *check_casts(plan)]
        if plan.target is not None:
            faults = check_target_shapes(plan, plan.target)
            problems += [
                fault for fault in faults if fault.code != "dtype" or dtypes in ("strict", "target")
            ]
    if problems:
        made = {key for step in plan.steps for key in step.outputs}
        tally = tally_of(made, undecided[1], undecided[0], plan.target)
        draft = Draft(plan, frozenset(undecided[0]), frozenset(undecided[1]))
        raise RuleError(sorted(problems, key=_place), tally, draft=draft)
    notes = (*tie_notes(plan), *cast_notes(plan))
    return replace(plan, notes=(*plan.notes, *notes)) if notes else plan


def _place(problem: Problem) -> tuple[bool, str, int, int]:
    """In the order of the files' lines; keys that nothing names come last, for a fault in a rule
    explains most of them.
    """
    where = problem.where
    is_consequence = problem.code in ("unmapped-source", "unmapped-target", "unreadable")
    return (
        (is_consequence, where.file, where.line, where.column)
        if where
        else (is_consequence, "", 0, 0)
    )
