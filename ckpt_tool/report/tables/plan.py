"""A plan as a table."""

from collections.abc import Iterator

from ckpt_tool.mapping.plan import Plan
from ckpt_tool.report.parts.mapped import mapped_rows, rest_folds
from ckpt_tool.report.parts.style import PLAIN, Style
from ckpt_tool.report.tables.formats import Cell, Table

TITLES = ("what", "source", "target", "tensors", "ops", "rule", "confidence")


def plan_table(plan: Plan, style: Style = PLAIN) -> Table:
    """A row for each rule or fold of what is mapped, and for each pattern of what is dropped and
    kept; where `style` doesn't fold, for each tensor.
    """
    return Table(TITLES, tuple(_rows(plan, style)), ("source", "target"))


def _rows(plan: Plan, style: Style) -> Iterator[tuple[Cell, ...]]:
    for row in mapped_rows(plan, style, are_keys=True):
        yield "mapped", row.source, row.target, row.tensors, row.ops, row.rule, row.confidence
    for one in rest_folds(plan.dropped, plan.source, style, are_keys=True):
        yield "dropped", one.pattern, None, len(one.keys), None, None, None
    for one in rest_folds(plan.kept, plan.target, style, are_keys=True):
        yield "kept", None, one.pattern, len(one.keys), None, None, None
