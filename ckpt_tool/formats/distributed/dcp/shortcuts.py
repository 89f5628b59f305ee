"""The objects that a `.metadata` has for each part of a tensor, about twenty opcodes each, taken in
one step.

What a step puts into the memo is left out where the rest of the pickle can't ask for it; any other
stream, and any other object, is left to the machine's opcodes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from struct import Struct

from ckpt_tool.formats.distributed.dcp.saved import SavedChunk, SavedIndex, SavedRange
from ckpt_tool.formats.pickle.calls.containers import size
from ckpt_tool.formats.pickle.state import NeedsMemo
from ckpt_tool.formats.pickle.values import Global

_REF = rb"(?:h.|j.{4})"
_INTEGER = rb"(?:K.|M..|J.{4}|\x8a\x05.{5}|\x8a\x06.{6}|\x8a\x07.{7}|\x8a\x08.{8})"
_SIZE = (
    rb"%(r)s(?:\)|(?:%(i)s(?:\x85|%(i)s(?:\x86|%(i)s\x87))|\((?:%(i)s){4,64}t)\x94)\x85\x94R\x94"
    % {
        b"r": _REF,
        b"i": _INTEGER,
    }
)
_VALUE = rb"(%s|%s|%s|N|\x8c.[ -~]*\x94)" % (_SIZE, _INTEGER, _REF)
_FIELD = rb"(%s)%s" % (_REF, _VALUE)
_OBJECT = re.compile(
    rb"(%s)\)\x81\x94\}\x94\(%s%s(?:%s)?ub" % (_REF, _FIELD, _FIELD, _FIELD), re.DOTALL
)
"""class.__new__(class), then its two or three attributes, all memoized in turn."""
_INTEGERS = re.compile(_INTEGER, re.DOTALL)
_ASKED = re.compile(rb"j(?=(.{4}))", re.DOTALL)
_PUTS_OF_AN_OBJECT = 2
_METADATA = "torch.distributed.checkpoint.metadata"
Makes = type[SavedChunk] | type[SavedIndex] | type[SavedRange]
Kind = tuple[Makes, tuple[int | None, ...]]
"""What an object is made into, and at which places its attributes stand."""
_FIELDS: dict[Makes, tuple[str, ...]] = {
    SavedChunk: ("offsets", "sizes"),
    SavedIndex: ("fqn", "offset"),
    SavedRange: ("relative_path", "offset", "length"),
}
"""What each is made of; the last may be missing."""
_CLASSES: tuple[tuple[tuple[str, str], Makes, frozenset[str], frozenset[str]], ...] = (
    ((_METADATA, "ChunkStorageMetadata"), SavedChunk, frozenset(_FIELDS[SavedChunk]), frozenset()),
    (
        (_METADATA, "MetadataIndex"),
        SavedIndex,
        frozenset(("fqn",)),
        frozenset(("offset", "index")),
    ),
    (
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        SavedRange,
        frozenset(_FIELDS[SavedRange]),
        frozenset(),
    ),
)
"""By module and name: the attributes that each must have, and those that it may have."""
_MAX_AT_ONCE = 2000
"""Objects in one go: as many as CPython puts into a dict at a time."""
_ALWAYS_KEPT = 256
"""Numbers below it can be asked for by BINGET, and stay."""
_BLOCK = 4 << 20
_MISSING = object()
_u32 = Struct("<I").unpack_from
Value = tuple[object, int]
"""What a field holds, and how many values it put into the memo."""


class CountingMemo(dict[int, object]):
    """A memo whose length counts what was left out, too: MEMOIZE goes by it."""

    skipped = 0

    def __len__(self) -> int:
        return dict.__len__(self) + self.skipped

    def __setitem__(self, number: int, value: object) -> None:
        if number != len(self):
            raise NeedsMemo
        dict.__setitem__(self, number, value)


class ChunkReader:
    """Reads chunks, and the names and places of their bytes, of one `.metadata`."""

    mark = b")\x81"
    keeps_numbers = True
    __slots__ = (
        "_asked",
        "_at",
        "_counting",
        "_data",
        "_kinds",
        "_sizes",
        "_texts",
        "has_skipped",
        "memo",
        "taken",
    )

    def __init__(
        self, data: bytes, memo: dict[int, object], persistent: Callable[[object], object]
    ) -> None:
        self._data = data
        self._counting = CountingMemo(memo)
        self.memo: dict[int, object] = self._counting
        self._asked: list[int] | None = None
        self._at = 0
        self._kinds: dict[tuple[bytes | None, ...], Kind] = {}
        self._sizes: dict[bytes, Value] = {}
        self._texts: dict[str, str] = {}
        self.has_skipped = False
        self.taken = 0

    def read(self, position: int, stack: list[object]) -> int:
        """Puts the objects from this byte on onto the stack, as many as follow each other; where it
        stopped.
        """
        if self._asked is None:
            self._asked = asked_numbers(self._data)
        data, match = self._data, _OBJECT.match
        for _ in range(_MAX_AT_ONCE):
            found = match(data, position)
            made = self._make(found.groups()) if found else None
            if found is None or made is None:
                break
            stack.append(made)
            self.taken += 1
            position = found.end()
        return position

    def _make(self, parts: tuple[bytes | None, ...]) -> object | None:
        """The object; None for one that somebody may refer to, or that is none of these."""
        names = (parts[0], parts[1], parts[3], parts[5])
        kind = self._kinds.get(names) or self._kind(names)
        if kind is None:
            return None
        first, puts = len(self.memo), _PUTS_OF_AN_OBJECT
        values: list[object] = []
        kept: list[tuple[int, object]] = []
        for raw in parts[2::2]:
            if raw is None:
                break
            found = self._value(raw)
            if found is None:
                return None
            value, count = found
            values.append(value)
            if count:
                puts += count
                kept.append((first + puts - 1, value))
        if not self._may_skip(first, puts, kept):
            return None
        self._note(first, puts, kept)
        make, order = kind
        return make(*[None if at is None else values[at] for at in order])

    def _kind(self, names: tuple[bytes | None, ...]) -> Kind | None:
        """What an object of this class with these attributes is made into, kept for all others that
        refer to the same names; None where it is none of these.
        """
        known = [self._asked_for(name) for name in names if name is not None]
        kind, labels = known[0], known[1:]
        if type(kind) is not Global or len(set(map(id, labels))) < len(labels):
            return None
        for name, make, needed, others in _CLASSES:
            fits = needed <= set(map(_text_or_none, labels)) <= needed | others
            if name == (kind.module, kind.name) and fits:
                fields = _FIELDS[make]
                order = tuple(labels.index(one) if one in labels else None for one in fields)
                self._kinds[names] = make, order
                return self._kinds[names]
        return None

    def _value(self, raw: bytes) -> Value | None:
        """The value of a field's opcodes; None for one that is not read here."""
        op = raw[:1]
        if op in b"hj":
            if len(raw) == (2 if op == b"h" else 5):
                value = self._asked_for(raw)
                return None if value is _MISSING else (value, 0)
            return self._sizes.get(raw) or self._size(raw)
        if op == b"N":
            return None, 0
        if op == b"\x8c":
            return self._text(raw)
        return _integer(raw), 0

    def _asked_for(self, raw: bytes) -> object:
        """What a reference to the memo means, as far as the memo has it by now: an object may refer
        to its own parts.
        """
        return self.memo.get(raw[1] if raw[:1] == b"h" else _u32(raw, 1)[0], _MISSING)

    def _size(self, raw: bytes) -> Value | None:
        """A `torch.Size` of integers."""
        end = 2 if raw[:1] == b"h" else 5
        kind = self._asked_for(raw[:end])
        if type(kind) is not Global or kind.known is not size:
            return None
        inside = raw[end:-4]
        if inside[:1] == b")":
            found: Value = ((), 2)
        else:
            found = (tuple(_integer(one) for one in _INTEGERS.findall(inside.lstrip(b"("))), 3)
        self._sizes[raw] = found
        return found

    def _text(self, raw: bytes) -> Value | None:
        """A text that is written out; one whose length says otherwise is not read here."""
        if raw[1] != len(raw) - 3:
            return None
        text = raw[2:-1].decode("ascii")
        return self._texts.setdefault(text, text), 1

    def _may_skip(self, first: int, puts: int, kept: list[tuple[int, object]]) -> bool:
        """Whether nothing of what an object puts into the memo is asked for, but for the values of
        its fields.
        """
        asked, at = self._asked or [], self._at
        if at < len(asked) and asked[at] < first:
            at = self._at = bisect_left(asked, first, at)
        if first < _ALWAYS_KEPT:
            return False
        if at >= len(asked) or asked[at] >= first + puts:
            kept.clear()
            return True
        inside = asked[at : bisect_left(asked, first + puts, at)]
        known = {number for number, _ in kept}
        return all(number in known for number in inside)

    def _note(self, first: int, puts: int, kept: list[tuple[int, object]]) -> None:
        memo = self._counting
        for number, value in kept:
            dict.__setitem__(memo, number, value)
        memo.skipped += puts - len(kept)
        self.has_skipped = True


def _text_or_none(label: object) -> str | None:
    return label if type(label) is str else None


def _integer(raw: bytes) -> int:
    op = raw[0]
    if op == 0x4A:  # BININT, the one with a sign
        return int.from_bytes(raw[1:], "little", signed=True)
    if op == 0x8A:
        return int.from_bytes(raw[2:], "little", signed=True)
    return int.from_bytes(raw[1:], "little")


def asked_numbers(data: bytes) -> list[int]:
    """Every number of the memo that LONG_BINGET may ask for, sorted: what stands behind its byte
    anywhere, so that none is missed.
    """
    if len(data) <= _BLOCK:
        found = {_u32(one[1])[0] for one in _ASKED.finditer(data)}
        return sorted(number for number in found if number < len(data))
    return _asked_of_many(data)


def _asked_of_many(data: bytes) -> list[int]:
    """The same of a stream with millions of them."""
    import numpy as np

    found = np.empty(0, np.uint32)
    whole = np.frombuffer(data, np.uint8)
    for start in range(0, len(data) - 4, _BLOCK):
        block = whole[start : start + _BLOCK + 4]
        at = np.flatnonzero(block[:-4] == ord("j"))
        numbers = sum(block[at + 1 + place].astype(np.uint32) << (8 * place) for place in range(4))
        found = np.union1d(found, np.asarray(numbers, np.uint32))
    return [int(number) for number in found[found < len(data)]]
