"""Drafted rules that the planner has confirmed: they make exactly their pairs. What it refuses is
given up, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.drafting.draft import draft_rules
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.errors import RuleError
from ckpt_tool.keys import Matcher, PatternSet, parse, quote
from ckpt_tool.keys.folding.pairs import pair_groups
from ckpt_tool.mapping import DTypePolicy, Plan, Step, compile_plan, read_rule_text
from ckpt_tool.mapping.reading.writing import rule_line, scalar
from ckpt_tool.tensors import Catalog

MAX_TRIES = 6
"""How often rules that make something else are taken out of a draft."""

MAX_FOLDED = 20_000
"""Renames that are looked through for patterns that match no other key."""

KeySets = tuple[frozenset[str], frozenset[str]]
"""Target keys and source keys. Collected keys have no order of their own: experts by kind, or the
kinds of each expert.
"""


@dataclass(frozen=True, slots=True)
class CheckedDraft:
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
        """The plan of these rules. Raises RuleError for what the planner refuses."""
        return compile_plan(
            read_rule_text(_text(lines, self.drop, self.keep), "drafted"),
            self.source,
            self.target,
            dtypes=self.dtypes,
        )


def checked_draft(pairs: Sequence[Pair], setting: Setting) -> CheckedDraft:
    """The short draft, mended where it makes anything else than the pairs, or patterns that match
    no other keys, whichever are fewer rules; else one rule for each pair that the planner takes.
    """
    wanted = {_keys_of_pair(pair): pair for pair in pairs}
    lines, plan = _sound(draft_rules(pairs, setting.source), wanted, setting)
    if plan and not _lacking(wanted, plan):
        return CheckedDraft(tuple(lines), plan)
    ways = ((lines, (_by_leaves, _by_leaves)), (_exactly(pairs, setting), ()))
    found = [
        made
        for lines, mending in ways
        if (made := _mended(lines, (*mending, written_out, written_out), wanted, setting))
    ]
    fewest = min(found, key=lambda each: len(each.lines), default=None)
    return fewest or _one_by_one(pairs, setting)


Mending = Callable[[Sequence[Pair], Iterable[str]], list[str]]
"""What drafts lines for pairs that others don't make, of which some have been left out."""


def _mended(
    lines: Sequence[str],
    mending: Sequence[Mending],
    wanted: Mapping[KeySets, Pair],
    setting: Setting,
) -> CheckedDraft | None:
    """The draft with lines for what it lacks before the others; None where it stays incomplete."""
    for mended in mending:
        sound, plan = _sound(lines, wanted, setting)
        lacking = _lacking(wanted, plan)
        if plan and not lacking:
            return CheckedDraft(tuple(sound), plan)
        lines = [*mended(lacking, setting.source), *sound]
    return None


def _lacking(wanted: Mapping[KeySets, Pair], plan: Plan | None) -> list[Pair]:
    """The pairs that a plan doesn't make."""
    made = {_keys_of_step(step) for step in plan.steps} if plan else set()
    return [pair for each, pair in wanted.items() if each not in made]


def _exactly(pairs: Sequence[Pair], setting: Setting) -> list[str]:
    """Renames by patterns that match no key beside those of the pairs and what is dropped: what
    stays out of them is in the middle of what is renamed.
    """
    renames = {pair.sources[0][0]: pair.targets[0][0] for pair in pairs if pair.is_rename}
    if len(renames) > MAX_FOLDED:
        return []
    others = [pair for pair in pairs if not pair.is_rename]
    taken = {key for pair in others for key in keys_in(pair.sources)}
    dropped = PatternSet([Matcher(parse(pattern)) for pattern in setting.drop])
    left = [key for key in setting.source if key not in taken and not dropped.first(key)]
    groups = pair_groups(renames, {}, left, ())
    return [*written_out(others, ()), *(rule_line([each.a], [each.b]) for each in groups)]


def _sound(
    lines: Sequence[str], wanted: Container[KeySets], setting: Setting
) -> tuple[list[str], Plan | None]:
    """The lines that make nothing but what is wanted, with their plan."""
    lines = list(lines)
    for _ in range(MAX_TRIES):
        plan, bad = _tried(lines, wanted, setting)
        if not bad:
            return (lines, plan) if plan else ([], None)
        lines = [line for place, line in enumerate(lines) if place not in bad]
    return [], None


def _tried(
    lines: Sequence[str], wanted: Container[KeySets], setting: Setting
) -> tuple[Plan | None, Collection[int]]:
    """The plan, or None where it is refused; and the places of the lines that are at fault."""
    try:
        plan = setting.plan(lines)
    except RuleError as error:
        return None, _lines_of(error, lines)
    wrong = {step.origin.line for step in plan.steps if _keys_of_step(step) not in wanted}
    return plan, {place for place, start in enumerate(starts_of(lines)) if start in wrong}


def _by_leaves(pairs: Sequence[Pair], source_keys: Iterable[str]) -> list[str]:
    return draft_rules(pairs, source_keys, are_paths_moved=False)


def _one_by_one(pairs: Sequence[Pair], setting: Setting) -> CheckedDraft:
    """A rule for each pair, without those that the planner refuses."""
    refused: tuple[tuple[Pair, str], ...] = ()
    left = list(pairs)
    while left:
        tried = _each_written_out(left, setting)
        refused += tried.refused
        if tried.plan and not tried.refused:
            return replace(tried, refused=refused)
        gone = {id(pair) for pair, _ in tried.refused}
        left = [pair for pair in left if id(pair) not in gone]
    return CheckedDraft((), None, refused)


def _each_written_out(pairs: Sequence[Pair], setting: Setting) -> CheckedDraft:
    """A rule for each pair, and those of them that the planner refuses, or takes otherwise."""
    lines = [(line, pair) for pair in pairs for line in written_out([pair], setting.source)]
    texts = tuple(line for line, _ in lines)
    try:
        plan = setting.plan(texts)
    except RuleError as error:
        reasons = {id(lines[place][1]): why for place, why in _reasons(error, texts).items()}
        return CheckedDraft(texts, None, _refused(pairs, reasons))
    made = {_keys_of_step(step) for step in plan.steps}
    others = [pair for pair in pairs if _keys_of_pair(pair) not in made]
    return CheckedDraft(texts, plan, tuple((pair, "its rule takes other keys") for pair in others))


def _refused(pairs: Sequence[Pair], reasons: Mapping[int, str]) -> tuple[tuple[Pair, str], ...]:
    """The pairs that have a reason, by their `id`."""
    return tuple((pair, reasons[id(pair)]) for pair in pairs if id(pair) in reasons)


def _reasons(error: RuleError, lines: Sequence[str]) -> dict[int, str]:
    """Why rules are refused, by their places: all of them where the problem is of none."""
    every = range(len(lines))
    return _lines_of(error, lines) or dict.fromkeys(every, error.problems[0].message)


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
    """The keys of slots, in order."""
    return [key for slot in slots for key in slot]


def _has_single_keys(pair: Pair) -> bool:
    return all(len(slot) == 1 for slot in (*pair.sources, *pair.targets))


def _as_it_is(pair: Pair) -> str:
    return rule_line(
        [quote(key) for (key,) in pair.sources], [quote(key) for (key,) in pair.targets], pair.ops
    )


def _keys_of_step(step: Step) -> KeySets:
    return frozenset(step.outputs), frozenset(step.inputs)


def _keys_of_pair(pair: Pair) -> KeySets:
    return frozenset(keys_in(pair.targets)), frozenset(keys_in(pair.sources))


def _text(lines: Sequence[str], drop: Sequence[str], keep: Sequence[str]) -> str:
    """A rule file without comments: its rules begin on the lines that `starts_of` gives."""
    text = ["rules:", *(f"  - {line}" for line in lines)] if lines else ["rules: []"]
    for name, patterns in (("drop", drop), ("keep", keep)):
        if patterns:
            text += [f"{name}:", *(f"  - {scalar(pattern)}" for pattern in patterns)]
    return "\n".join([*text, "rest: {source: drop, target: keep}"]) + "\n"
