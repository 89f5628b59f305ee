"""Every key of both sides once: what is kept, what nothing names, what two rules make."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import prod

from ckpt_tool.errors import Location, Problem, Tally
from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Fold, fold, nearest, quote
from ckpt_tool.mapping.accounting.ties import tied_with
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.tensors import Catalog, counted
from ckpt_tool.wording import named

MAX_PATTERNS = 12
"""Patterns of unnamed keys that are listed; the others are counted."""


def kept_keys(
    rules: RuleSet, steps: Iterable[Step], target: Catalog | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The target keys that no step produces: those that are kept, with the index of the keep
    pattern, and those unnamed.

    The index is -1 where `rest:` keeps them.
    """
    from ckpt_tool.keys import PatternSet

    produced = {key for step in steps for key in step.outputs}
    keepers = PatternSet([selector.matcher for selector in rules.keep])
    kept: dict[str, int] = {}
    unnamed: list[str] = []
    for key in target or ():
        if key in produced:
            continue
        if keeper := keepers.first(key):
            kept[key] = keeper[0]
        elif rules.rest_target == "keep":
            kept[key] = -1
        else:
            unnamed.append(key)
    return kept, tuple(unnamed)


def tally_of(
    made: Collection[str], fresh: Collection[str], left: Collection[str], target: Catalog | None
) -> Tally | None:
    """How far it would come; None without a target, or where nothing is left."""
    if target is None or not (fresh or left):
        return None
    elements = {key: prod(info.shape) for key, info in target.items()}
    mapped = sum(key in elements for key in made)
    fresh_elements = sum(elements[key] for key in fresh)
    return Tally(
        mapped, len(fresh), len(left), fresh_elements, sum(elements.values()), len(elements)
    )


@frozen
class _Unnamed:
    """Keys of one side that nothing names."""

    keys: Sequence[str]
    catalog: Catalog
    where: Location | None
    """The rules; None where keys are paired without any."""
    others: Sequence[str]
    """The keys of the other side that are left over too."""

    @property
    def near(self) -> str | None:
        """The key of the other side that is nearest to the first of them, where there are rules."""
        return nearest(self.keys[0], self.others) if self.where else None


def check_unnamed(
    rules: RuleSet,
    source_keys: Sequence[str],
    target_keys: Sequence[str],
    source: Catalog,
    target: Catalog | None,
    remarks: Sequence[str] = (),
) -> Iterator[Problem]:
    """Keys of either side that nothing names: one problem a side, its keys folded. `remarks` say
    what else is known of them.
    """
    where = rules.where if rules.rules else None
    is_target_open = bool(target_keys) and target is not None and rules.rest_target != "keep"
    if source_keys and rules.rest_source != "drop":
        problem = _unmapped_source(_Unnamed(source_keys, source, where, target_keys), target)
        yield problem if target_keys else replace(problem, notes=(*problem.notes, *remarks))
    if target is not None and is_target_open:
        problem = _unmapped_target(_Unnamed(target_keys, target, where, source_keys))
        yield replace(problem, notes=(*problem.notes, *_tie_hint(target_keys, target), *remarks))


def _tie_hint(keys: Sequence[str], target: Catalog) -> Iterator[str]:
    """What to do about keys that are one tensor with others, which rules did name."""
    unnamed = frozenset(keys)
    found = tied_with(target, (key for key in target if key not in unnamed), unnamed)
    for key, others in islice(found.items(), 1):
        ends = f"-> {{{quote(key)},{quote(others[0])}}}: copy"
        tied_to = f"is tied to {named(key)} in the target"
        yield f"{named(others[0])} {tied_to}: a rule for both ends in `{ends}`"


def _unmapped_source(unnamed: _Unnamed, target: Catalog | None) -> Problem:
    notes = _own_names(unnamed, target) if unnamed.where else ()
    return _problem(unnamed, "source", "drop", "dropped", notes)


def _own_names(unnamed: _Unnamed, target: Catalog | None) -> Iterator[str]:
    """That keys can keep their names: all of them without a target, else those that it has."""
    count = len(unnamed.keys if target is None else {*unnamed.keys} & {*unnamed.others})
    if not count:
        return
    rule = "a last rule `** -> **`" if _is_in_file(unnamed) else "a last `-e '** -> **'`"
    if target is None:
        yield f"{rule} lets the others keep their names"
    else:
        yield f"{rule} maps the {counted(count, 'key')} that both sides have under one name"


def _is_in_file(unnamed: _Unnamed) -> bool:
    return unnamed.where is not None and not unnamed.where.file.startswith("-")


def _unmapped_target(unnamed: _Unnamed) -> Problem:
    return _problem(unnamed, "target", "keep", "kept")


def _problem(
    unnamed: _Unnamed, side: str, section: str, done: str, more: Iterable[str] = ()
) -> Problem:
    """`section` is where the keys of this side can be named, to be `done` with; `more` is what else
    can be done.
    """
    keys, where = unnamed.keys, unnamed.where
    folds = fold(dict.fromkeys(keys), keys_of(unnamed.catalog))
    notes = [*_listed(folds), *more]
    wish = f"if {'it' if len(keys) == 1 else 'they'} should be {done}"
    if _is_in_file(unnamed):
        notes.append(f"{wish}: list {'it' if len(keys) == 1 else 'them'} under `{section}:`")
    else:
        notes.append(f"{wish}: `--{section} PATTERN` (`{section}=` in Python)")
    # A key that the other side has, too, was left over there for the same reason.
    if (near := unnamed.near) and near != keys[0]:
        other = "target" if side == "source" else "source"
        left_over = f"nearest key of the {other} that is left over, for {named(keys[0])}"
        notes.append(f"{left_over}: {near}")
    name = f"{named(folds[0].pattern)}: " if len(folds) == 1 else ""
    fact = f"{'is' if len(keys) == 1 else 'are'} neither mapped nor {done}"
    message = f"{name}{counted(len(keys), 'key')} of the {side} {fact}"
    return Problem(f"unmapped-{side}", message, where, tuple(notes))


def _listed(folds: Sequence[Fold]) -> list[str]:
    """A note for each pattern, where there are several; the last counts those beyond the limit."""
    if len(folds) < 2:
        return []
    notes = [f"{named(one.pattern)} ({len(one.keys):,})" for one in folds[:MAX_PATTERNS]]
    hidden = len(folds) - MAX_PATTERNS
    return [*notes, counted(hidden, "more pattern")] if hidden > 0 else notes


def check_collisions(steps: Sequence[Step]) -> Iterator[Problem]:
    """Target keys with two producers; both sources and both rules are named."""
    producers: dict[str, Step] = {}
    reported: set[tuple[int, int]] = set()
    for step in steps:
        for key in step.outputs:
            first = producers.setdefault(key, step)
            pair = (id(first.origin.rule), id(step.origin.rule))
            if first is not step and pair not in reported:
                reported.add(pair)
                yield _collision(key, first, step)


def _collision(key: str, first: Step, second: Step) -> Problem:
    places = [
        f"{_origin_of(step)} by line {step.origin.line} (`{step.origin.rule.text}`)"
        for step in (first, second)
        if step.origin.rule
    ]
    where = second.origin.rule.targets[0].where if second.origin.rule else None
    both = f"from {_origin_of(first)} and from {_origin_of(second)}"
    message = f"{named(key)} would get two values: {both}"
    return Problem("collision", message, where, tuple(places))


def _origin_of(step: Step) -> str:
    return named(step.inputs[0]) if step.inputs else f"`{step.ops[0].name}`"


def check_expect(rules: RuleSet, plan: Plan) -> Iterator[Problem]:
    """A problem for each count that `expect:` names and that a plan hasn't."""
    if rules.expect is None:
        return
    for name, count in plan.counts.items():
        wanted = getattr(rules.expect, name)
        if wanted is not None and wanted != count:
            message = f"{count} {name}, but {wanted} are expected"
            yield Problem("expect", message, rules.expect.where)
