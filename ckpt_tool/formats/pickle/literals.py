"""The pickle opcodes that stand for themselves: numbers, texts, bytes, empty containers. Lengths
are checked before anything is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import unpack_from

from ckpt_tool.formats.limits import PICKLE_LONG_BYTES
from ckpt_tool.formats.pickle.state import Machine
from ckpt_tool.formats.pickle.values import PickleFault, SetValue

_ESCAPE = rb"\\(?:[\\'\"abfnrtv]|x[0-9A-Fa-f]{2}|[0-3][0-7]{2}|[0-7]{1,2}(?![0-7]))"
_INTEGER = rb"\s*[+-]?[0-9]+\s*"


def proto(m: Machine) -> None:
    """PROTO. Raises PickleFault above 5."""
    version = m.data[m.pos]
    m.pos += 1
    if version > 5:
        raise PickleFault(f"is of protocol {version}; 5 is the newest")


def frame(m: Machine) -> None:
    """FRAME: skips its length. Raises PickleFault for one longer than the file."""
    # A frame is only a hint for buffered reading; its length must still be possible.
    if unpack_from("<Q", m.data, m.pos)[0] > m.end - m.pos - 8:
        raise PickleFault("declares a frame longer than the file")
    m.pos += 8


def push(value: object) -> Callable[[Machine], None]:
    """An opcode that puts this very value on the stack."""
    return lambda m: m.stack.append(value)


def push_new(make: Callable[[], object]) -> Callable[[Machine], None]:
    """An opcode that puts a new object on the stack, and counts it."""

    def push_made(m: Machine) -> None:
        m.made += 1
        m.stack.append(make())

    return push_made


def push_sized(layout: str, decode: Callable[[bytes], object]) -> Callable[[Machine], None]:
    """An opcode whose argument is a length and that many bytes."""
    return lambda m: m.stack.append(decode(take(m, read_number(m, layout))))


def read_number(m: Machine, layout: str) -> int:
    """The number at the next bytes, in a struct's layout."""
    value: int = unpack_from(layout, m.data, m.pos)[0]
    m.pos += {"B": 1, "H": 2, "i": 4, "I": 4, "Q": 8}[layout[-1]]
    return value


def take(m: Machine, size: int) -> bytes:
    """The next `size` bytes. Raises PickleFault where fewer are left."""
    if size < 0 or size > m.end - m.pos:
        raise PickleFault(f"declares {size} bytes where {m.end - m.pos} are left")
    m.pos += size
    return m.data[m.pos - size : m.pos]


def take_line(m: Machine) -> bytes:
    """The bytes up to the next line feed, which is skipped."""
    end = m.data.find(b"\n", m.pos)
    if end < 0:
        raise PickleFault("has a line without an end")
    line = m.data[m.pos : end]
    m.pos = end + 1
    return line


def text(raw: bytes) -> str:
    """UTF-8 as pickle writes it, with surrogates."""
    return raw.decode("utf-8", "surrogatepass")


def python2_text(raw: bytes) -> object:
    """Python 2's `str`: text where it is ASCII, bytes otherwise."""
    return raw.decode("ascii") if raw.isascii() else raw


def long_bytes(raw: bytes) -> int:
    """LONG1, LONG4: a little-endian integer. Raises PickleFault for one that is too long."""
    if len(raw) > PICKLE_LONG_BYTES:
        raise PickleFault(f"has an integer of {len(raw)} bytes")
    return int.from_bytes(raw, "little", signed=True)


def integer_line(m: Machine) -> None:
    """INT, LONG: a decimal integer on a line, where `00` and `01` are booleans."""
    line = take_line(m)
    if line in (b"00", b"01"):
        m.stack.append(line == b"01")
        return
    digits = line.rstrip(b"L")
    if len(digits) > PICKLE_LONG_BYTES or not re.fullmatch(_INTEGER, digits):
        raise PickleFault(
            "has an invalid integer"
            if len(digits) < 100
            else f"has an integer of {len(digits)} digits"
        )
    m.stack.append(int(digits))


def float_line(m: Machine) -> None:
    """FLOAT: a number on a line."""
    try:
        m.stack.append(float(take_line(m)))
    except ValueError:
        raise PickleFault("has an invalid number") from None


def string_line(m: Machine) -> None:
    """STRING: Python 2's text in quotes, with the escapes that it writes."""
    line = take_line(m).strip()
    if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1]:
        raise PickleFault("has a text without quotes")
    inner = line[1:-1]
    if b"\\" in re.sub(_ESCAPE, b"", inner):
        raise PickleFault("has a text with an escape that Python 2 does not write")
    m.stack.append(python2_text(inner.decode("unicode_escape").encode("latin-1")))


def unicode_line(m: Machine) -> None:
    """UNICODE: a text on a line, with raw Unicode escapes."""
    m.stack.append(take_line(m).decode("raw_unicode_escape"))


def binary_float(m: Machine) -> None:
    """BINFLOAT: a big-endian double."""
    m.stack.append(unpack_from(">d", m.data, m.pos)[0])
    m.pos += 8


def memo_number(m: Machine) -> int:
    """A place in the memo on a line. Raises PickleFault for what is no number."""
    line = take_line(m)
    if not line.isdigit() or len(line) > 18:
        raise PickleFault("numbers its memo with what is not a number")
    return int(line)


LITERALS: dict[int, Callable[[Machine], None]] = {
    0x80: proto, 0x95: frame, ord("N"): push(None), 0x88: push(True),
    ord("]"): push_new(list), ord("}"): push_new(dict), 0x8F: push_new(lambda: SetValue([])),
    ord("I"): integer_line, ord("L"): integer_line, ord("F"): float_line, ord("G"): binary_float,
    0x8A: push_sized("<B", long_bytes), 0x8B: push_sized("<i", long_bytes),
    ord("S"): string_line,
    ord("T"): push_sized("<i", python2_text), ord("U"): push_sized("<B", python2_text),
    ord("V"): unicode_line, 0x8C: push_sized("<B", text), 0x8D: push_sized("<Q", text),
    ord("B"): push_sized("<I", bytes), ord("C"): push_sized("<B", bytes),
    0x8E: push_sized("<Q", bytes), 0x96: push_sized("<Q", bytes),
}  # fmt: skip
"""By opcode."""
