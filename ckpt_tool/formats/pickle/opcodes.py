"""The pickle opcodes outside the machine's hot loop that put values together, and the table of them
all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ckpt_tool.formats.pickle.arrays import give_array_state, give_type_state
from ckpt_tool.formats.pickle.literals import LITERALS, memo_number, take_line, text
from ckpt_tool.formats.pickle.state import Machine
from ckpt_tool.formats.pickle.tensor_states import give_tensor_state
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    ArrayType,
    Global,
    ObjectDict,
    Opaque,
    OpaqueTensor,
    PickleFault,
    SetValue,
    TensorRef,
    set_items,
    type_text,
)

_DICT_ATTRIBUTES = frozenset(dir(OrderedDict))


def get(m: Machine) -> None:
    """GET: the value at a place of the memo."""
    m.need_whole_memo()
    m.stack.append(m.memo[memo_number(m)])


def put(m: Machine) -> None:
    """PUT: the top of the stack into the memo."""
    m.memo[memo_number(m)] = m.stack[-1]


def pop(m: Machine) -> None:
    """POP: drops the top of the stack."""
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
    """TUPLE3: the three topmost values as a tuple."""
    m.stack[-3:] = [(m.stack[-3], m.stack[-2], m.stack[-1])]


def make_list(m: Machine) -> None:
    """LIST: the values above the mark."""
    values = pop_mark(m)
    m.stack.append(values)


def make_dict(m: Machine) -> None:
    """DICT: keys and values above the mark, alternating."""
    values = pop_mark(m)
    made: dict[object, object] = {}
    set_items(made, values)
    m.stack.append(made)


def make_frozenset(m: Machine) -> None:
    """FROZENSET: the values above the mark."""
    values = pop_mark(m)
    m.stack.append(SetValue(values))


def append(m: Machine) -> None:
    """APPEND: one value to the list below it."""
    value = m.stack.pop()
    extend(m.stack[-1], [value])


def appends(m: Machine) -> None:
    """APPENDS: the values above the mark to the list below it."""
    values = pop_mark(m)
    extend(m.stack[-1], values)


def extend(target: object, values: list[object]) -> None:
    """Gives values to a list, or to an object that was made by an unknown call."""
    if type(target) is list:
        target.extend(values)
    elif type(target) is Opaque:
        target.appended.extend(values)
    else:
        raise PickleFault(f"appends to {type_text(target)}")


def add_items(m: Machine) -> None:
    """ADDITEMS: the values above the mark to the set below it."""
    values = pop_mark(m)
    target = m.stack[-1]
    if type(target) is SetValue:
        target.members.extend(values)
    else:
        extend(target, values)


def set_item(m: Machine) -> None:
    """SETITEM: one key and value to the dict below them."""
    value, key = m.stack.pop(), m.stack.pop()
    assign(m, [key, value])


def set_all(m: Machine) -> None:
    """SETITEMS: keys and values above the mark to the dict below it."""
    assign(m, pop_mark(m))


def assign(m: Machine, values: list[object]) -> None:
    """Gives keys and values to the dict or the object on the stack."""
    target = m.stack[-1]
    if type(target) is dict or type(target) is ObjectDict:
        set_items(target, values)
    elif type(target) is Opaque:
        set_items(target.items, values)
    elif type(target) is Global:
        m.note_call(f"{target.full_name}.__setitem__")
    else:
        raise PickleFault(f"sets an item of {type_text(target)}")


def global_line(m: Machine) -> None:
    """GLOBAL: module and name on two lines."""
    module, name = take_line(m), take_line(m)
    m.stack.append(m.find_global(text(module), text(name)))


def stack_global(m: Machine) -> None:
    """STACK_GLOBAL: module and name from the stack."""
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise PickleFault("names a global with what is not a string")
    m.stack.append(m.find_global(module, name))


def instance(m: Machine) -> None:
    """INST: a call of the global on two lines with the values above the mark."""
    global_line(m)
    callee = m.stack.pop()
    args = tuple(pop_mark(m))
    m.stack.append(m.call(callee, args))


def make_object(m: Machine) -> None:
    """OBJ: a call of the first value above the mark with the others."""
    values = pop_mark(m)
    if not values:
        raise PickleFault("makes an object of no class")
    m.stack.append(m.call(values[0], tuple(values[1:])))


def new_object(m: Machine) -> None:
    """NEWOBJ: a call with a tuple of arguments."""
    args = m.stack.pop()
    m.stack[-1] = m.call(m.stack[-1], args)


def new_object_ex(m: Machine) -> None:
    """NEWOBJ_EX: a call with a tuple of arguments and a dict of keywords."""
    keywords, args = m.stack.pop(), m.stack.pop()
    made = m.call(m.stack[-1], args)
    if type(made) is Opaque and isinstance(keywords, dict) and keywords:
        made.args = (*made.args, keywords)
    m.stack[-1] = made


def persistent_line(m: Machine) -> None:
    """PERSID: what stands for the persistent id on a line."""
    m.stack.append(m.persistent(text(take_line(m))))


def build(m: Machine) -> None:
    """BUILD: gives a state to the object on the stack, as its `__setstate__` would take it."""
    state = m.stack.pop()
    target = m.stack[-1]
    m.count_copies((state,))
    parts = state if type(state) is tuple else (state,)
    if type(target) is Opaque:
        m.count_copies((target.state, *parts))
        give_state(target, state)
    elif type(target) is ObjectDict:
        give_attributes(m, target, parts)
    elif isinstance(target, ArrayRef | ArrayType):
        m.count_copies(part for part in parts if not isinstance(part, bytes))
        give_array(target, state)
    elif isinstance(target, TensorRef | OpaqueTensor):
        give_tensor_state(target, state)
    elif type(target) is Global:
        m.note_call(f"{target.full_name}.__setstate__")
    else:
        raise PickleFault(f"gives a state to {type_text(target)}")


def give_attributes(m: Machine, target: ObjectDict, parts: tuple[object, ...]) -> None:
    """Gives a dict those parts of a state that are dicts. Raises PickleFault for names it has."""
    for part in parts:
        if isinstance(part, dict):
            m.count_copies((target.attributes, part))
            if not _DICT_ATTRIBUTES.isdisjoint(name for name in part if type(name) is str):
                raise PickleFault("gives a dict attributes that would hide what is in it")
            target.give_attributes(part)


def give_state(target: Opaque, state: object) -> None:
    """Gives a state to an object of an unknown class; a dict adds to the one that it has."""
    if isinstance(target.state, dict) and isinstance(state, dict):
        target.state = target.state | state
    else:
        target.state = state if target.state is None else (target.state, state)


def give_array(target: ArrayRef | ArrayType, state: object) -> None:
    """Gives a state to an array or its type. Raises PickleFault for no tuple."""
    if type(state) is not tuple:
        raise PickleFault("gives an array a state that numpy never writes")
    if type(target) is ArrayRef:
        give_array_state(target, state)
    elif type(target) is ArrayType:
        give_type_state(target, state)


def duplicate(m: Machine) -> None:
    """DUP: the top of the stack once more."""
    m.stack.append(m.stack[-1])


def drop_marked(m: Machine) -> None:
    """POP_MARK: drops the values above the mark."""
    pop_mark(m)


def read_only(m: Machine) -> None:
    """NEXT_BUFFER, READONLY_BUFFER: refused."""
    raise PickleFault("uses buffers from outside the file")


OPCODES: dict[int, Callable[[Machine], None]] = LITERALS | {
    ord("0"): pop, ord("1"): drop_marked, ord("2"): duplicate, ord("g"): get, ord("p"): put,
    0x87: tuple3, ord("l"): make_list, ord("d"): make_dict, 0x91: make_frozenset,
    ord("a"): append, ord("e"): appends, 0x90: add_items, ord("s"): set_item, ord("u"): set_all,
    ord("c"): global_line, 0x93: stack_global, ord("i"): instance, ord("o"): make_object,
    0x81: new_object, 0x92: new_object_ex,
    ord("P"): persistent_line, ord("b"): build, 0x97: read_only, 0x98: read_only,
}  # fmt: skip
"""By opcode. EXT1 to EXT4 are missing on purpose: what they mean is registered in the process that
wrote the file.
"""

MAKING_NOTHING = frozenset(b"N\x88\x80\x95012gpaesub\x90")
"""Of these, the opcodes that make no new object."""
