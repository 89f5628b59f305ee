"""The shipped mappings as a table."""

from collections.abc import Sequence

from ckpt_tool.api import ShippedMapping
from ckpt_tool.report.tables.formats import Table


def mappings_table(found: Sequence[ShippedMapping]) -> Table:
    """A row for each mapping, with how many tensors of a pair it maps, keeps and drops."""
    kinds = ("mapped", "kept", "dropped")
    rows = tuple(
        [
            (each.name, each.about, *((each.counts or {}).get(kind) for kind in kinds),
             ", ".join(each.needs) or None)
            for each in found
        ]
    )  # fmt: skip
    return Table(("name", "about", *kinds, "needs"), rows, ("name",))
