"""A checkpoint's tensors, or its modules, as a table."""

from ckpt_tool.formats import Checkpoint
from ckpt_tool.report.parts.amounts import amount_of, dtypes_text, shapes_text
from ckpt_tool.report.parts.style import PLAIN, Style
from ckpt_tool.report.show import ORDER, groups_of
from ckpt_tool.report.tables.formats import Table


def show_table(checkpoint: Checkpoint, style: Style = PLAIN, sort: str = ORDER) -> Table:
    """A row for each pattern, or where `style` doesn't fold, for each tensor."""
    rows = []
    for pattern, infos in groups_of(checkpoint.catalog, style, sort):
        amount = amount_of(infos)
        shapes = shapes_text(info.shape for info in infos)
        tied = infos[0].shared_storage_with if len(infos) == 1 else None
        rows.append(
            (pattern, len(infos), dtypes_text(infos), shapes, amount.elements, amount.nbytes, tied)
        )
    titles = ("key", "tensors", "dtype", "shape", "parameters", "bytes", "shares")
    return Table(titles, tuple(rows), ("key", "shares"))
