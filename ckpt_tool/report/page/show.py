"""The page of `ckpt show`: what a checkpoint contains."""

from __future__ import annotations

from collections.abc import Sequence

from ckpt_tool.formats import Checkpoint
from ckpt_tool.report.page.document import Item, Page, Status, Table, form_of, keys_of
from ckpt_tool.wording import size_text

STATUSES = (
    Status("tensors", "plain"),
    Status("shared", "special", "lie in the storage of another tensor"),
    Status("unreadable", "warn", "are named, but their values can't be read"),
    Status("elsewhere", "muted", "lie outside of the state dict", is_calm=True),
)


def show_page(checkpoint: Checkpoint, answer: str, onwards: str | None = None) -> Page:
    """The page; `answer` is the command's last line, `onwards` the command to go on with."""
    contents, catalog = checkpoint.contents, checkpoint.catalog
    keys = keys_of(catalog)
    items = [_item(keys.numbers[key], info.shared_storage_with) for key, info in catalog.items()]
    for key, tensor in catalog.unreadable.items():
        items.append(Item((keys.numbers[key],), (), "unreadable", note=tensor.text or tensor.kind))
    for info in contents.elsewhere:
        if info.key not in keys.numbers:
            items.append(Item((keys.add(info.key, form_of(info)),), (), "elsewhere"))
    notes = (contents.layout,) if contents.layout else ()
    return Page(
        "show",
        answer,
        "warn" if checkpoint.asked else "plain",
        (keys.side("file", checkpoint.path, catalog),),
        STATUSES,
        tuple(items),
        highlights=_calls(checkpoint.asked),
        notes=notes,
        tables=_tables(checkpoint),
        next=onwards,
    )


def _item(number: int, other: str | None) -> Item:
    if other is None:
        return Item((number,), (), "tensors")
    return Item((number,), (), "shared", note=f"shares its storage with {other}")


def _calls(asked: Sequence[str]) -> tuple[str, ...]:
    """What unpickling would call or import, where it would."""
    names = ", ".join(asked)
    fact = f"unpickling this file would call or import {names}; nothing was run"
    return (fact,) if asked else ()


def _tables(checkpoint: Checkpoint) -> tuple[Table, ...]:
    contents = checkpoint.contents
    left = tuple(
        (one.path, one.kind, f"{one.tensors:,}", size_text(one.nbytes))
        for one in contents.left_behind
        if one.kind != "values"
    )
    extras = tuple((one.path, one.kind, one.text) for one in checkpoint.extras[:200])
    tables = (
        Table("Outside of the state dict", ("name", "kind", "tensors", "size"), left),
        Table("Metadata", ("name", "value"), tuple(checkpoint.metadata.items())),
        Table("Besides the tensors", ("name", "kind", "value"), extras),
    )
    return tuple(table for table in tables if table.rows)
