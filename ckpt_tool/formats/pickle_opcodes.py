"""The pickle opcodes outside the machine's hot loop, as a table of small functions."""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import TYPE_CHECKING

from ckpt_tool.formats.limits import PICKLE_LONG_BYTES
from ckpt_tool.formats.pickle_values import (
    ArrayRef,
    ArrayType,
    Bag,
    Global,
    ObjectDict,
    OddKey,
    OddTensor,
    Opaque,
    PickleFault,
    StorageRef,
    TensorRef,
)

if TYPE_CHECKING:
    from ckpt_tool.formats.pickle_machine import PickleMachine as Machine

SMALL_INTEGER = 1 << 60
"""Integers below it hash to themselves; of larger ones a file could choose any number with the same hash."""


def proto(m: Machine) -> None:
    version = m.data[m.pos]
    m.pos += 1
    if version > 5:
        raise PickleFault(f"is of protocol {version}; 5 is the newest")


def frame(m: Machine) -> None:
    # A frame is only a hint for buffered reading; its length must still be possible.
    if unpack_from("<Q", m.data, m.pos)[0] > m.end - m.pos - 8:
        raise PickleFault("declares a frame longer than the file")
    m.pos += 8


def push(value: object) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(value)


def push_new(make: Callable[[], object]) -> Callable[[Machine], None]:
    def push_made(m: Machine) -> None:
        m.made += 1
        m.stack.append(make())

    return push_made


def push_sized(layout: str, decode: Callable[[bytes], object]) -> Callable[[Machine], None]:
    """An opcode whose argument is a length and that many bytes."""
    return lambda m: m.stack.append(decode(take(m, read_number(m, layout))))


def read_number(m: Machine, layout: str) -> int:
    value: int = unpack_from(layout, m.data, m.pos)[0]
    m.pos += {"B": 1, "H": 2, "i": 4, "I": 4, "Q": 8}[layout[-1]]
    return value


def take(m: Machine, size: int) -> bytes:
    if size < 0 or size > m.end - m.pos:
        raise PickleFault(f"declares {size} bytes where {m.end - m.pos} are left")
    m.pos += size
    return m.data[m.pos - size : m.pos]


def take_line(m: Machine) -> bytes:
    end = m.data.find(b"\n", m.pos)
    if end < 0:
        raise PickleFault("has a line without an end")
    line = m.data[m.pos : end]
    m.pos = end + 1
    return line


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def python2_text(raw: bytes) -> object:
    """Python 2's `str`: text where it is ASCII, bytes otherwise."""
    return raw.decode("ascii") if raw.isascii() else raw


def long_bytes(raw: bytes) -> int:
    if len(raw) > PICKLE_LONG_BYTES:
        raise PickleFault(f"has an integer of {len(raw)} bytes")
    return int.from_bytes(raw, "little", signed=True)


def integer_line(m: Machine) -> None:
    line = take_line(m)
    if line in (b"00", b"01"):
        m.stack.append(line == b"01")
        return
    digits = line.rstrip(b"L")
    if len(digits) > PICKLE_LONG_BYTES or not digits.strip().lstrip(b"+-").isdigit():
        raise PickleFault("has an integer that is none" if len(digits) < 100 else f"has an integer of {len(digits)} digits")
    m.stack.append(int(digits))


def float_line(m: Machine) -> None:
    try:
        m.stack.append(float(take_line(m)))
    except ValueError:
        raise PickleFault("has a number that is none") from None


def string_line(m: Machine) -> None:
    line = take_line(m).strip()
    if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1]:
        raise PickleFault("has a text without quotes")
    try:
        m.stack.append(python2_text(line[1:-1].decode("unicode_escape").encode("latin-1")))
    except UnicodeError:
        raise PickleFault("has a text that can't be decoded") from None


def unicode_line(m: Machine) -> None:
    m.stack.append(take_line(m).decode("raw_unicode_escape"))


def binary_float(m: Machine) -> None:
    m.stack.append(unpack_from(">d", m.data, m.pos)[0])
    m.pos += 8


def memo_number(m: Machine) -> int:
    line = take_line(m)
    if not line.isdigit() or len(line) > 18:
        raise PickleFault("numbers its memo with what is no number")
    return int(line)


def get(m: Machine) -> None:
    m.stack.append(m.memo[memo_number(m)])


def put(m: Machine) -> None:
    m.memo[memo_number(m)] = m.stack[-1]


def pop(m: Machine) -> None:
    # On an empty stack above a mark, POP takes the mark itself.
    if m.stack:
        m.stack.pop()
    else:
        m.stack = m.marks.pop()


def pop_mark(m: Machine) -> list[object]:
    """The values above the mark."""
    values, m.stack = m.stack, m.marks.pop()
    return values


def tuple3(m: Machine) -> None:
    m.stack[-3:] = [(m.stack[-3], m.stack[-2], m.stack[-1])]


def make_list(m: Machine) -> None:
    values = pop_mark(m)
    m.stack.append(values)


def make_dict(m: Machine) -> None:
    values = pop_mark(m)
    made: dict[object, object] = {}
    set_items(made, values)
    m.stack.append(made)


def make_frozenset(m: Machine) -> None:
    values = pop_mark(m)
    m.stack.append(Bag(values))


def append(m: Machine) -> None:
    value = m.stack.pop()
    extend(m.stack[-1], [value])


def appends(m: Machine) -> None:
    values = pop_mark(m)
    extend(m.stack[-1], values)


def extend(target: object, values: list[object]) -> None:
    if type(target) is list:
        target.extend(values)
    elif type(target) is Opaque:
        target.appended.extend(values)
    else:
        raise PickleFault(f"appends to {_kind(target)}")


def add_items(m: Machine) -> None:
    values = pop_mark(m)
    target = m.stack[-1]
    if type(target) is Bag:
        target.members.extend(values)
    else:
        extend(target, values)


def set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    assign(m, [key, value])


def set_all(m: Machine) -> None:
    assign(m, pop_mark(m))


def assign(m: Machine, values: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is dict or type(target) is ObjectDict:
        set_items(target, values)
    elif type(target) is Opaque:
        set_items(target.items, values)
    elif type(target) is Global:
        m.note_call(f"{target.full_name}.__setitem__")
    else:
        raise PickleFault(f"sets an item of {_kind(target)}")


def set_items(target: dict[object, object], values: list[object]) -> None:
    if len(values) % 2:
        raise PickleFault("has a key without a value")
    keys = values[::2]
    if set(map(type, keys)) != {str}:
        keys = [key if type(key) is str else plain_key(key) for key in keys]
    target.update(zip(keys, values[1::2], strict=True))


def plain_key(key: object) -> object:
    """A dict key whose hash and comparison are harmless. Raises PickleFault for what can't be one in Python either."""
    if isinstance(key, list | dict | ArrayRef):
        raise PickleFault(f"has {_kind(key)} as a dict key")
    is_odd = isinstance(key, tuple) or (isinstance(key, int) and abs(key) >= SMALL_INTEGER)
    return OddKey(key) if is_odd else key


def global_line(m: Machine) -> None:
    module, name = take_line(m), take_line(m)
    m.stack.append(m.find_global(text(module), text(name)))


def stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise PickleFault("names a global with what is no text")
    m.stack.append(m.find_global(module, name))


def instance(m: Machine) -> None:
    global_line(m)
    callee = m.stack.pop()
    args = tuple(pop_mark(m))
    m.stack.append(m.call(callee, args))


def make_object(m: Machine) -> None:
    values = pop_mark(m)
    if not values:
        raise PickleFault("makes an object of no class")
    m.stack.append(m.call(values[0], tuple(values[1:])))


def new_object(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.call(m.stack[-1], args)


def new_object_ex(m: Machine) -> None:
    keywords, args = m.stack.pop(), m.stack.pop()
    made = m.call(m.stack[-1], args)
    if type(made) is Opaque and isinstance(keywords, dict) and keywords:
        made.args = (*made.args, keywords)
    m.stack[-1] = made


def persistent_line(m: Machine) -> None:
    m.stack.append(m.persistent(text(take_line(m))))


def build(m: Machine) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if type(target) is Opaque:
        give_state(target, state)
    elif type(target) is ObjectDict:
        for part in state if type(state) is tuple else (state,):
            if isinstance(part, dict):
                target.give_attributes(part)
    elif isinstance(target, TensorRef | ArrayRef | ArrayType):
        give_known_state(target, state)
    elif type(target) is Global:
        m.note_call(f"{target.full_name}.__setstate__")
    elif not isinstance(target, OddTensor | StorageRef):
        raise PickleFault(f"gives a state to {_kind(target)}")


def give_state(target: Opaque, state: object) -> None:
    if isinstance(target.state, dict) and isinstance(state, dict):
        target.state = target.state | state
    else:
        target.state = state if target.state is None else (target.state, state)


def give_known_state(target: TensorRef | ArrayRef | ArrayType, state: object) -> None:
    from ckpt_tool.formats.pickle_arrays import give_array_state, give_type_state

    if type(state) is not tuple:
        return  # attributes of a Parameter
    if type(target) is ArrayRef:
        give_array_state(target, state)
    elif type(target) is ArrayType:
        give_type_state(target, state)
    elif type(target) is TensorRef and len(state) >= 4 and type(state[0]) is StorageRef and state[0].dtype:
        # torch 0.2 and 0.3: torch.FloatTensor, then (storage, offset, size, stride).
        target.storage, target.dtype = state[0], state[0].dtype
        target.offset, target.shape, target.stride = state[1:4]


def duplicate(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def drop_marked(m: Machine) -> None:
    pop_mark(m)


def read_only(m: Machine) -> None:
    raise PickleFault("uses buffers from outside the file")


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


OPCODES: dict[int, Callable[[Machine], None]] = {
    0x80: proto, 0x95: frame, ord("0"): pop, ord("1"): drop_marked, ord("2"): duplicate,
    ord("N"): push(None), 0x88: push(True), ord("]"): push_new(list), ord("}"): push_new(dict), 0x8F: push_new(lambda: Bag([])),
    ord("I"): integer_line, ord("L"): integer_line, ord("F"): float_line, ord("G"): binary_float,
    0x8A: push_sized("<B", long_bytes), 0x8B: push_sized("<i", long_bytes),
    ord("S"): string_line, ord("T"): push_sized("<i", python2_text), ord("U"): push_sized("<B", python2_text),
    ord("V"): unicode_line, 0x8C: push_sized("<B", text), 0x8D: push_sized("<Q", text),
    ord("B"): push_sized("<I", bytes), ord("C"): push_sized("<B", bytes), 0x8E: push_sized("<Q", bytes), 0x96: push_sized("<Q", bytes),
    ord("g"): get, ord("p"): put, 0x87: tuple3, ord("l"): make_list, ord("d"): make_dict, 0x91: make_frozenset,
    ord("a"): append, ord("e"): appends, 0x90: add_items, ord("s"): set_item, ord("u"): set_all,
    ord("c"): global_line, 0x93: stack_global, ord("i"): instance, ord("o"): make_object, 0x81: new_object, 0x92: new_object_ex,
    ord("P"): persistent_line, ord("b"): build, 0x97: read_only, 0x98: read_only,
}  # fmt: skip
"""By opcode. EXT1 to EXT4 are missing on purpose: what they mean is registered in the process that wrote the file."""
