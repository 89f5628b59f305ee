"""Drafted rules that the planner has confirmed: they say exactly their pairs. What it refuses is
given up, and nothing else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from ckpt_tool.align.drafting.draft import draft_rules
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.errors import RuleError
from ckpt_tool.keys import quote
from ckpt_tool.mapping import DTypePolicy, Plan, Step, compile_plan, read_rule_text
from ckpt_tool.mapping.reading.writing import rule_line, scalar
from ckpt_tool.tensors import Catalog

MAX_TRIES = 6
"""How often rules that say something else are taken out of a draft."""

Said = tuple[frozenset[str], frozenset[str]]
"""Target keys and source keys. Collected keys have no order of their own: experts by kind, or the
kinds of each expert.
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """Lines of rules and their plan, which has exactly the pairs but for those that the planner
    `refused`, each with the reason.
    """

    lines: tuple[str, ...]
    plan: Plan | None
    refused: tuple[tuple[Pair, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compiled beside the rules. What neither the rules nor these patterns name stays where
    it is.
    """

    source: Catalog
    target: Catalog
    dtypes: DTypePolicy = "target"
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()

    def plan(self, lines: Sequence[str]) -> Plan:
        return compile_plan(
            read_rule_text(_text(lines, self.drop, self.keep), "drafted"),
            self.source,
            self.target,
            dtypes=self.dtypes,
        )


def checked(pairs: Sequence[Pair], setting: Setting) -> Checked:
    """The short draft, mended where it says anything else than the pairs; else one rule for each
    pair that the planner takes.
    """
    wanted = {_said_of(pair): pair for pair in pairs}
    lines = draft_rules(pairs, setting.source)
    for mended in (_by_leaves, _by_leaves, written_out, written_out):
        lines, plan = _sound(lines, wanted, setting)
        said = {_said(step) for step in plan.steps} if plan else set()
        lacking = [pair for each, pair in wanted.items() if each not in said]
        if plan and not lacking:
            return Checked(tuple(lines), plan)
        lines = [*mended(lacking, setting.source), *lines]
    return _one_by_one(pairs, setting)


def _sound(
    lines: Sequence[str], wanted: Container[Said], setting: Setting
) -> tuple[list[str], Plan | None]:
    """The lines that make nothing but what is wanted, with their plan."""
    lines = list(lines)
    for _ in range(MAX_TRIES):
        try:
            plan = setting.plan(lines)
        except RuleError as error:
            bad = set(_lines_of(error, lines))
            if not bad:
                break
        else:
            wrong = {step.origin.line for step in plan.steps if _said(step) not in wanted}
            bad = {place for place, start in enumerate(starts_of(lines)) if start in wrong}
            if not bad:
                return lines, plan
        lines = [line for place, line in enumerate(lines) if place not in bad]
    return [], None


def _by_leaves(pairs: Sequence[Pair], source_keys: Iterable[str]) -> list[str]:
    return draft_rules(pairs, source_keys, are_paths_moved=False)


def _one_by_one(pairs: Sequence[Pair], setting: Setting) -> Checked:
    """A rule for each pair, without those that the planner refuses."""
    refused: list[tuple[Pair, str]] = []
    left = list(pairs)
    while left:
        lines = [(line, pair) for pair in left for line in written_out([pair], setting.source)]
        texts = [line for line, _ in lines]
        try:
            plan = setting.plan(texts)
        except RuleError as error:
            reasons = _lines_of(error, texts) or dict.fromkeys(
                range(len(texts)), error.problems[0].message
            )
            bad = {id(lines[place][1]): reason for place, reason in reasons.items()}
            refused += [(pair, bad[id(pair)]) for pair in left if id(pair) in bad]
            left = [pair for pair in left if id(pair) not in bad]
        else:
            said = {_said(step) for step in plan.steps}
            refused += [
                (pair, "its rule takes other keys") for pair in left if _said_of(pair) not in said
            ]
            if all(_said_of(pair) in said for pair in left):
                return Checked(tuple(texts), plan, tuple(refused))
            left = [pair for pair in left if _said_of(pair) in said]
    return Checked((), None, tuple(refused))


def _lines_of(error: RuleError, lines: Sequence[str]) -> dict[int, str]:
    """The places of the rules that have a problem, with the problem."""
    owners = {
        start + more: place
        for place, start in enumerate(starts_of(lines))
        for more in range(lines[place].count("\n") + 1)
    }
    found = [
        (owners.get(each.where.line if each.where else 0), each.message) for each in error.problems
    ]
    return {place: message for place, message in reversed(found) if place is not None}


def starts_of(lines: Sequence[str]) -> list[int]:
    """The line numbers, in the rule file, at which the rules begin."""
    starts, number = [], 2
    for line in lines:
        starts.append(number)
        number += line.count("\n") + 1
    return starts


def written_out(pairs: Sequence[Pair], _: Iterable[str]) -> list[str]:
    """A line for each pair, without numbers left open but for those of keys that are collected."""
    lines = (
        [_as_it_is(pair)] if _has_single_keys(pair) else draft_rules([pair], keys_in(pair.sources))
        for pair in pairs
    )
    return [line for each in lines for line in each]


def keys_in(slots: Iterable[Slot]) -> list[str]:
    return [key for slot in slots for key in slot]


def _has_single_keys(pair: Pair) -> bool:
    return all(len(slot) == 1 for slot in (*pair.sources, *pair.targets))


def _as_it_is(pair: Pair) -> str:
    return rule_line(
        [quote(key) for (key,) in pair.sources], [quote(key) for (key,) in pair.targets], pair.ops
    )


def _said(step: Step) -> Said:
    return frozenset(step.outputs), frozenset(step.inputs)


def _said_of(pair: Pair) -> Said:
    return frozenset(keys_in(pair.targets)), frozenset(keys_in(pair.sources))


def _text(lines: Sequence[str], drop: Sequence[str], keep: Sequence[str]) -> str:
    """A rule file without comments: its rules begin on the lines that `starts_of` gives."""
    text = ["rules:", *(f"  - {line}" for line in lines)] if lines else ["rules: []"]
    for name, patterns in (("drop", drop), ("keep", keep)):
        if patterns:
            text += [f"{name}:", *(f"  - {scalar(pattern)}" for pattern in patterns)]
    return "\n".join([*text, "rest: {source: drop, target: keep}"]) + "\n"
