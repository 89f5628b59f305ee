"""A pickle written anew from spans of another one and new opcodes between them, so that what is
kept still finds in the memo what it fetches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from ckpt_tool.engine.layouts.pickle_writer import (
    PickleWriter,
    get_opcode,
    put_opcode,
    put_tensor,
)
from ckpt_tool.engine.whole.outline import (
    Begun,
    Event,
    Fetched,
    Frame,
    Made,
    Outline,
    OutlineFault,
    Put,
    Skipped,
    Stored,
)
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import TensorInfo


@frozen
class Edit:
    """A span of a stream that something else takes the place of; `write` writes that.

    `is_object`: whether that is an object, which then lies on top of the stack.
    """

    start: int
    end: int
    write: Callable[[Splicer], None]
    is_object: bool = True


class Splicer:
    """The new stream, as it is written. `storages` are the keys of those that it names, in its
    order.
    """

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        # Where the memo counts by itself, nothing else may be put into it.
        numbers = iter(()) if outline.has_memoize else count(outline.highest + 1)
        self.writer = PickleWriter(numbers)
        self.storages: dict[str, None] = {}
        self._memo: dict[int, Put | None] = {}
        self._defining: set[Put] = set()

    @property
    def content(self) -> bytes:
        """What is written by now."""
        return b"".join(self.writer.parts)

    def add(self, raw: bytes) -> None:
        """Adds new opcodes."""
        self.writer.parts.append(raw)

    def add_tensor(self, info: TensorInfo, storage: str) -> None:
        """Adds a new tensor, which is all of a storage."""
        self.storages[storage] = None
        put_tensor(self.writer, info, storage)

    def keep_item(self, item: Made) -> None:
        """Adds an object as it is written, in another place."""
        self.keep(item.start, item.end, is_moved=True)

    def keep(self, start: int, end: int, is_moved: bool = False) -> None:
        """Adds a span as it is written; `is_moved`: not in its old place, where the memo may count
        otherwise, and where parts of it may have been written before. Raises OutlineFault.
        """
        outline, at = self.outline, start
        for event in (outline.with_begins if is_moved else outline.events_between)(start, end):
            if event.start < at or self._is_kept(event, is_moved):
                continue
            self.add(outline.data[at : event.start])
            at = event.end
            self._write_otherwise(event)
        self.add(outline.data[at:end])

    def _is_kept(self, event: Event, is_moved: bool) -> bool:
        """Whether the opcodes stay as they are; what they mean for the memo and the storages is
        noted.
        """
        match event:
            case Put():
                self._memo[event.index] = event
                return event.is_numbered or not is_moved
            case Begun():
                return self._memo.get(event.put.index) is not event.put
            case Fetched():
                return self._memo.get(event.put.index) is event.put
            case Frame() | Skipped():
                return False
            case Stored():
                self.storages[self.outline.storage_key(event.identity)] = None
                return True

    def _write_otherwise(self, event: Event) -> None:
        match event:
            case Put():
                self.add(put_opcode(event.index))
            case Begun():
                self.add(get_opcode(event.put.index))
            case Fetched():
                self._define(event.put)

    def _define(self, put: Put) -> None:
        """Writes what was put into the memo by opcodes that are gone, where it is first needed."""
        if put in self._defining or put.item.is_filled_elsewhere:
            raise OutlineFault("refers to something in the weights that refers to itself")
        self._defining.add(put)
        self.keep_item(put.item)
        self._defining.remove(put)

    def fill_memo(self, edit: Edit) -> None:
        """Puts the object on top, or None, wherever opcodes that are gone put something, so that
        the memo counts on as before.
        """
        events = self.outline.events_between(edit.start, edit.end)
        puts = (event.index for event in events if type(event) is Put)
        gone = [index for index in dict.fromkeys(puts) if index not in self._memo]
        if not gone or not self.outline.has_memoize:
            return
        filled = b"".join(map(put_opcode, gone))
        self.add(filled if edit.is_object else b"N" + filled + b"0")
        self._memo.update(dict.fromkeys(gone))


def spliced(outline: Outline, edits: Sequence[Edit]) -> Splicer:
    """The stream with all edits, which don't lie in each other. Raises OutlineFault."""
    made = Splicer(outline)
    at = 0
    for edit in sorted(edits, key=lambda one: one.start):
        if edit.start < at:
            raise OutlineFault("has parts to be replaced that lie in each other")
        made.keep(at, edit.start)
        edit.write(made)
        made.fill_memo(edit)
        at = edit.end
    made.keep(at, outline.end)
    return made
