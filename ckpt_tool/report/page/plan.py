"""The page of `ckpt plan`: what becomes of every key, and why."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ckpt_tool.api import Planned
from ckpt_tool.mapping.plan import Draft, Plan, Step
from ckpt_tool.ops import Op
from ckpt_tool.report.page.document import (
    NONE,
    Item,
    Keys,
    Page,
    Status,
    Table,
    Why,
    keys_of,
)
from ckpt_tool.report.parts.mapped import ops_text
from ckpt_tool.report.plan import PlanNames
from ckpt_tool.wording import plural

AS_IS, BY_OPS = "mapped as is", "mapped by ops"
FROM, INTO = "undecided in the source", "undecided in the target"
STATUSES = (
    Status(AS_IS, "good", "take the source's values as they are"),
    Status(BY_OPS, "special", "are computed from the source's values by ops"),
    Status("initialised", "special", "are filled by a rule without a source"),
    Status("kept", "calm", "keep the target's values"),
    Status("dropped", "bad", "keys of the source that are left behind"),
    Status(FROM, "warn", "go nowhere yet: the plan was refused"),
    Status(INTO, "special", "get nothing yet"),
)


def plan_page(plan: Plan, names: PlanNames, answer: str) -> Page:
    """The page of a complete plan; `answer` is the command's last line."""
    target = plan.target if plan.target is not None else plan.outputs
    source, into = keys_of(plan.source), keys_of(target)
    items = [
        Item(
            tuple(source.numbers[key] for key in step.inputs),
            tuple(into.numbers[key] for key in step.outputs),
            _status(step),
            _why(step, names.rules),
        )
        for step in plan.steps
    ]
    items += [Item(NONE, (into.numbers[key],), "kept") for key in plan.kept]
    items += [Item((source.numbers[key],), NONE, "dropped") for key in plan.dropped]
    sides = (
        source.side("from", names.source, plan.source),
        into.side("into", names.target or "the output", target),
    )
    how = Table("How", ("option", "value"), (("rules", ", ".join(names.rules)),))
    tables = (how,) if names.rules else ()
    return Page(
        "plan", answer, "good", sides, STATUSES, tuple(items), notes=plan.notes, tables=tables
    )


def refused_page(planned: Planned, names: PlanNames, onwards: str | None) -> Page:
    """The page of a plan that was refused: both sides, what would be mapped, and every reason why
    there is no plan.
    """
    sides = planned.source.catalog, planned.target_catalog
    source, into = map(keys_of, sides)
    count = plural(len(planned.problems), "problem")
    answer = f"{count}; {planned.tally}" if planned.tally else count
    items = list(_items_of(planned.draft, source, into, names.rules)) if planned.draft else []
    for number in sorted({*source.numbers.values()}.difference(*(item.a for item in items))):
        items.append(Item((number,), NONE, FROM))
    for number in sorted({*into.numbers.values()}.difference(*(item.b for item in items))):
        items.append(Item(NONE, (number,), INTO))
    listed = [source.side("from", names.source, sides[0])]
    if sides[1] is not None:
        listed.append(into.side("into", names.target or "the target", sides[1]))
    return Page(
        "plan",
        answer,
        "bad",
        tuple(listed),
        STATUSES,
        tuple(items),
        notes=planned.layouts,
        problems=planned.problems,
        next=onwards,
    )


def _items_of(draft: Draft, source: Keys, into: Keys, files: tuple[str, ...]) -> Iterator[Item]:
    """What a refused plan would do: its pairs, and what was named; not what is undecided."""
    for step in draft.plan.steps:
        a = tuple(source.numbers[key] for key in step.inputs)
        b = tuple(into.numbers[key] for key in step.outputs if key in into.numbers)
        if a or b:
            yield Item(a, b, _status(step), _why(step, files))
    for key in draft.plan.kept:
        if key not in draft.fresh:
            yield Item(NONE, (into.numbers[key],), "kept")
    for key in draft.plan.dropped:
        if key not in draft.left:
            yield Item((source.numbers[key],), NONE, "dropped")


def _status(step: Step) -> str:
    if not step.inputs:
        return "initialised"
    return BY_OPS if step.ops else AS_IS


def _why(step: Step, files: tuple[str, ...]) -> Why:
    """The rule of a step, where it stands, and its ops; its file as the reader knows it."""
    origin = step.origin
    rule = origin.rule
    ops = ops_in_words(step.ops)
    if rule is None:
        drafted = origin.drafted.text if origin.drafted else ""
        return Why(origin.by, drafted, "", ops, origin.confidence)
    file = next((name for name in files if rule.where.file.endswith(name)), rule.where.file)
    return Why("rule", rule.text, f"{file}:{rule.where.line}", ops)


@lru_cache(maxsize=1 << 10)
def ops_in_words(ops: tuple[Op, ...]) -> str:
    """The ops of a step as a rule has them, side by side; empty where there are none."""
    return ops_text(ops).removeprefix("[").removesuffix("]")
