"""A pickle's stream as spans: at which bytes each object is written, so that one can be kept or
replaced. Nothing is made of it, imported or called.
"""

from __future__ import annotations

import pickletools
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ckpt_tool.formats.pickle.graph import key_text
from ckpt_tool.formats.pickle.machine import PickleMachine

GET = 0
"""The code of what is fetched from the memo, whichever opcode does it."""
MEMOIZE = 0x94
_BINUNICODE, _NONE = ord("X"), ord("N")
_SMALL = {ord("K"): 1, ord("M"): 2}
"""The opcodes of small numbers, with the bytes that these have."""


class OutlineFault(Exception):
    """A stream that is written in a way in which no part of it can be replaced; what way."""


@dataclass(slots=True, eq=False)
class Fill:
    """Opcodes that give something to an object after it was made: items, a state."""

    code: int
    start: int
    end: int
    parts: list[Made]


@dataclass(slots=True, eq=False)
class Made:
    """An object of the stream: the bytes `start` to `end` make it and give it all that it holds.

    `code` is the opcode that makes it, `parts` are what it is made of. Of what is fetched from the
    memo, the only part is the object that is meant.
    """

    start: int
    end: int
    code: int
    parts: list[Made] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    is_filled_elsewhere: bool = False

    @property
    def made_end(self) -> int:
        """Where it is made, and nothing is in it yet."""
        return self.fills[0].start if self.fills else self.end


@dataclass(slots=True, eq=False)
class Put:
    """An object that goes into the memo."""

    start: int
    end: int
    index: int
    item: Made
    is_numbered: bool


@dataclass(slots=True, eq=False)
class Begun:
    """An object that goes into the memo later begins here, and ends at `end`."""

    start: int
    end: int
    put: Put


@dataclass(slots=True, eq=False)
class Fetched:
    """An object that is fetched from the memo."""

    start: int
    end: int
    put: Put


@dataclass(slots=True, eq=False)
class Frame:
    """A hint at how many bytes to read ahead, which is no content."""

    start: int
    end: int


@dataclass(slots=True, eq=False)
class Stored:
    """A persistent id: the tuple that names a storage."""

    start: int
    end: int
    identity: Made


@dataclass(slots=True, eq=False)
class Skipped:
    """What only torch's legacy stream has: the last part of a persistent id, which is None."""

    start: int
    end: int


Event = Put | Begun | Fetched | Frame | Stored | Skipped


class Outline:
    """Where everything is in a stream that the pickle machine has read. Raises OutlineFault."""

    def __init__(self, data: bytes) -> None:
        scan = _Scan(data)
        self.root = scan.run()
        self.data, self.end, self.events = data, scan.pos, scan.events
        self.has_memoize = any(type(one) is Put and not one.is_numbered for one in self.events)
        self.highest = max((one.index for one in self.events if type(one) is Put), default=-1)
        self._starts = [event.start for event in self.events]

    def events_between(self, start: int, end: int) -> Iterator[Event]:
        """What happens to the memo, frames and storages in a span, in its order."""
        at = bisect_left(self._starts, start)
        while at < len(self.events) and self.events[at].start < end:
            yield self.events[at]
            at += 1

    def with_begins(self, start: int, end: int) -> list[Event]:
        """The same, and where each object begins that goes into the memo, outer ones first."""
        events = list(self.events_between(start, end))
        begins = [Begun(one.item.start, one.item.end, one) for one in events if type(one) is Put]
        return sorted([*events, *begins], key=lambda one: (one.start, -one.end))

    def value(self, item: Made) -> object:
        """A plain value: a text, a number, None."""
        item = resolved(item)
        at = item.start
        if item.code == _BINUNICODE:
            size = int.from_bytes(self.data[at + 1 : at + 5], "little")
            return self.data[at + 5 : at + 5 + size].decode("utf-8", "surrogatepass")
        if item.code in _SMALL:
            return int.from_bytes(self.data[at + 1 : at + 1 + _SMALL[item.code]], "little")
        return PickleMachine(self.data[at : _end_of(self.data, at)] + b".").load("", "")

    def name(self, item: Made) -> str:
        """What a key is called, as `key_text` has it; of one that is no plain value, what no other
        is called.
        """
        item = resolved(item)
        return f"\0{item.start}" if item.parts or item.fills else key_text(self.value(item))

    def storage_key(self, identity: Made) -> str:
        """The key of the storage that a persistent id names."""
        parts = [resolved(part) for part in resolved(identity).parts]
        is_plain = len(parts) == 5 or (len(parts) == 6 and identity.code != GET)
        if not is_plain or parts[0].parts or parts[2].parts or self.value(parts[0]) != "storage":
            raise OutlineFault("names a storage in an unusual way")
        if len(parts) == 6 and parts[5].code != _NONE:
            raise OutlineFault("has storages that are views of others")
        return str(self.value(parts[2]))


def resolved(item: Made) -> Made:
    """The object itself, of one that is fetched from the memo."""
    while item.code == GET:
        item = item.parts[0]
    return item


_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}  # fmt: skip
"""Bytes of the length in front of an argument."""


def _end_of(data: bytes, at: int) -> int:
    """Where the opcode at this byte ends, with its argument."""
    code, size = data[at], _ARGUMENTS[data[at]]
    at += 1
    if size >= 0:
        return at + size
    if size == pickletools.UP_TO_NEWLINE:
        for _ in range(2 if code in b"ci" else 1):
            at = data.index(b"\n", at) + 1
        return at
    width = _LENGTHS[size]
    return at + width + int.from_bytes(data[at : at + width], "little")


class _Scan:
    """One run over a stream."""

    def __init__(self, data: bytes) -> None:
        self.data, self.pos = data, 0
        self.stack: list[Made] = []
        self.marks: list[tuple[int, list[Made]]] = []
        self.memo: dict[int, Put] = {}
        self.events: list[Event] = []

    def run(self) -> Made:
        """The root object. Raises OutlineFault."""
        data, handlers, arguments = self.data, _HANDLERS, _ARGUMENTS
        stop = ord(".")
        try:
            while (code := data[self.pos]) != stop:
                start = self.pos
                size = arguments[code]
                self.pos = start + 1 + size if size >= 0 else _end_of(data, start)
                handlers[code](self, code, start)
        except (KeyError, IndexError, ValueError):
            raise OutlineFault(f"has an opcode at byte {start} that is not expected") from None
        self.pos += 1
        if len(self.stack) != 1 or self.marks:
            raise OutlineFault("makes more than one object")
        return self.stack[0]

    def number(self, start: int) -> int:
        """The argument of an opcode at this byte as a number, in bytes or on a line."""
        raw = self.data[start + 1 : self.pos]
        return (
            int(raw)
            if raw.endswith(b"\n") and self.data[start] in b"gp"
            else int.from_bytes(raw, "little")
        )

    def take(self, count: int) -> list[Made]:
        """The topmost objects, off the stack."""
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError
        del self.stack[-count:]
        return items

    def take_marked(self) -> tuple[int, list[Made]]:
        """Where the mark is, and the objects above it, off the stack."""
        start, below = self.marks.pop()
        items, self.stack = self.stack, below
        return start, items


def _push(scan: _Scan, code: int, start: int) -> None:
    scan.stack.append(Made(start, scan.pos, code))


def _pass(scan: _Scan, code: int, start: int) -> None:
    pass


def _frame(scan: _Scan, code: int, start: int) -> None:
    scan.events.append(Frame(start, scan.pos))


def _mark(scan: _Scan, code: int, start: int) -> None:
    scan.marks.append((start, scan.stack))
    scan.stack = []


def _combine(count: int) -> Callable[[_Scan, int, int], None]:
    def combine(scan: _Scan, code: int, start: int) -> None:
        items = scan.take(count)
        scan.stack.append(Made(items[0].start, scan.pos, code, items))

    return combine


def _combine_marked(scan: _Scan, code: int, start: int) -> None:
    mark, items = scan.take_marked()
    scan.stack.append(Made(mark, scan.pos, code, items))


def _storage(scan: _Scan, code: int, start: int) -> None:
    _combine(1)(scan, code, start)
    identity = scan.stack[-1].parts[0]
    if len(identity.parts) == 6 and identity.parts[5].code == _NONE:
        last = identity.parts[5]
        insort(scan.events, Skipped(last.start, last.end), key=lambda event: event.start)
    scan.events.append(Stored(start, scan.pos, identity))


def _fill(count: int) -> Callable[[_Scan, int, int], None]:
    def fill(scan: _Scan, code: int, start: int) -> None:
        items = scan.take(count)
        _give(scan, Fill(code, items[0].start, scan.pos, items))

    return fill


def _fill_marked(scan: _Scan, code: int, start: int) -> None:
    mark, items = scan.take_marked()
    _give(scan, Fill(code, mark, scan.pos, items))


def _give(scan: _Scan, fill: Fill) -> None:
    target = scan.stack[-1]
    target.fills.append(fill)
    target.end = scan.pos
    if target.code == GET:
        resolved(target).is_filled_elsewhere = True


def _put(scan: _Scan, code: int, start: int) -> None:
    _remember(scan, Put(start, scan.pos, scan.number(start), scan.stack[-1], True))


def _memoize(scan: _Scan, code: int, start: int) -> None:
    _remember(scan, Put(start, scan.pos, len(scan.memo), scan.stack[-1], False))


def _remember(scan: _Scan, put: Put) -> None:
    put.item.end = scan.pos
    scan.memo[put.index] = put
    scan.events.append(put)


def _pop(scan: _Scan, code: int, start: int) -> None:
    scan.take(1)


def _get(scan: _Scan, code: int, start: int) -> None:
    put = scan.memo[scan.number(start)]
    scan.stack.append(Made(start, scan.pos, GET, [put.item]))
    scan.events.append(Fetched(start, scan.pos, put))


_ARGUMENTS = {ord(opcode.code): opcode.arg.n if opcode.arg else 0 for opcode in pickletools.opcodes}
"""By opcode: how many bytes follow; a negative number for one of pickletools' ways to say so."""
_HANDLERS: dict[int, Callable[[_Scan, int, int], None]] = {
    **dict.fromkeys(b"N\x88\x89ILFG\x8a\x8bSTUV\x8c\x8dBC\x8e\x96XJKM]}\x8f)cP", _push),
    ord("("): _mark, 0x80: _pass, 0x95: _frame,
    **dict.fromkeys(b"qrp", _put), MEMOIZE: _memoize, **dict.fromkeys(b"hjg", _get),
    0x85: _combine(1), **dict.fromkeys(b"\x86R\x81\x93", _combine(2)),
    **dict.fromkeys(b"\x87\x92", _combine(3)), **dict.fromkeys(b"tld\x91io", _combine_marked),
    ord("Q"): _storage,
    ord("0"): _pop, **dict.fromkeys(b"ab", _fill(1)), ord("s"): _fill(2),
    **dict.fromkeys(b"eu\x90", _fill_marked),
}  # fmt: skip
"""By opcode. DUP and POP_MARK are missing: no pickler writes them, nor do we."""
