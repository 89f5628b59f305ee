"""A pickle read as data: a machine that never imports and never calls, and describes what the
stream would have made.

Opcodes are those of CPython's `pickletools`, protocols 0 to 5. Unknown names become `Global`, what
they would have been called with becomes `Opaque`; the few calls in `calls.table.KNOWN` are
described as what they make.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from struct import Struct

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import AGAIN, Truncated
from ckpt_tool.formats.limits import (
    ENTRY,
    OBJECT_BYTES,
    PICKLE_CONTAINERS,
    PICKLE_COPIED,
    PICKLE_MARKS,
    PICKLE_MEMORY,
    PICKLE_OPCODES,
    PICKLE_VALUES,
    PickleLimits,
)
from ckpt_tool.formats.pickle.calls.table import COPYING, KNOWN
from ckpt_tool.formats.pickle.names import is_listed, is_part_of_dtensor
from ckpt_tool.formats.pickle.opcodes import MAKING_NOTHING, OPCODES
from ckpt_tool.formats.pickle.state import NeedsMemo, Shortcuts
from ckpt_tool.formats.pickle.tensors import TensorReader
from ckpt_tool.formats.pickle.values import Asked, Global, Opaque, PickleFault, PickleTooLarge

Persistent = Callable[[object], object]

(MARK, STOP, BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET, TUPLE, TUPLE1, TUPLE2, EMPTY_TUPLE,
 BININT, BININT1, BININT2, BINUNICODE, BINPERSID, REDUCE,
 NEWFALSE) = b"(.qr\x94hjt\x85\x86)JKMXQR\x89"  # fmt: skip

STRIDE = 50_000
"""Opcodes between two looks at how much the machine holds."""
OPCODES_OF_A_STEP = 36
"""What a step stands for, when opcodes are counted: those of a tensor."""
OBJECTS_IN_ONE_STEP = 6
"""What stays of what is read in one step. Of a tensor: its name, its reference, its storage with
its place in what finds storages.
"""
_u32 = Struct("<I").unpack_from
_i32 = Struct("<i").unpack_from


def refuse_persistent(identity: object) -> object:
    """For pickles that may not refer to anything outside. Raises PickleFault."""
    raise PickleFault("refers to something outside the pickle")


_FAULTS = (PickleFault, KeyError, IndexError, struct.error, UnicodeDecodeError)
MakesShortcuts = Callable[[bytes, dict[int, object], Persistent], Shortcuts]


class PickleMachine:
    """One run over one pickle. `calls` gathers the names of what unpickling would have called, in
    the order of the calls.
    """

    __slots__ = (
        "calls",
        "copied",
        "data",
        "end",
        "globals",
        "limits",
        "made",
        "makes_shortcuts",
        "marks",
        "memo",
        "persistent",
        "pos",
        "shortcuts",
        "stack",
        "start",
    )

    def __init__(
        self,
        data: bytes,
        start: int = 0,
        persistent: Persistent = refuse_persistent,
        limits: PickleLimits | None = None,
        shortcuts: MakesShortcuts | None = TensorReader,
    ) -> None:
        self.data, self.start, self.end = data, start, len(data)
        self.persistent, self.makes_shortcuts = persistent, shortcuts
        self.limits = limits or PickleLimits(
            PICKLE_OPCODES, PICKLE_MEMORY, PICKLE_VALUES, PICKLE_CONTAINERS, PICKLE_COPIED
        )
        self._reset()

    def _reset(self, *, in_steps: bool = True) -> None:
        self.pos = self.start
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.shortcuts: Shortcuts | None = None
        if in_steps and self.makes_shortcuts:
            self.shortcuts = self.makes_shortcuts(self.data, self.memo, self.persistent)
            self.memo = self.shortcuts.memo
        self.globals: dict[tuple[str, str], Global] = {}
        self.calls: dict[str, None] = {}
        self.made = 0
        self.copied = 0

    def load(self, path: str, place: str) -> object:
        """The object that the pickle describes; `pos` is then the byte after it. Raises
        FormatError.
        """
        try:
            value = self._run_in_steps()
            self.memo.clear()
            return value
        except PickleTooLarge as fault:
            raise FormatError(
                path, f"its pickle {fault}", None, f"{place}, byte {self.pos}"
            ) from None
        except PickleFault as fault:
            fact = str(fault)
        except KeyError as error:
            fact = f"refers to memo {error}, which holds nothing"
        except (IndexError, struct.error):
            if self.pos > self.end - 9:
                raise Truncated(
                    path, "its pickle is cut off", AGAIN, f"{place}, byte {self.pos}"
                ) from None
            fact = "takes from an empty stack"
        except UnicodeDecodeError:
            fact = "has a text that is not UTF-8"
        raise FormatError(path, f"its pickle {fact}", AGAIN, f"{place}, byte {self.pos}")

    def _run_in_steps(self) -> object:
        """The run; once more by single opcodes where steps don't go with the stream, so that what
        is wrong with it is said of the stream itself.
        """
        try:
            return self._run()
        except PickleTooLarge:
            raise
        except (NeedsMemo, *_FAULTS) as fault:
            if not self._is_to_repeat(fault):
                raise
        self._reset(in_steps=False)
        return self._run()

    def _is_to_repeat(self, fault: Exception) -> bool:
        steps = self.shortcuts
        return isinstance(fault, NeedsMemo) or bool(
            steps and steps.keeps_numbers and steps.has_skipped
        )

    @property
    def asked(self) -> Asked:
        """What the pickle asked for by now."""
        foreign = dict.fromkeys(
            found.full_name for found in self.globals.values() if not is_listed(found)
        )
        return Asked(tuple(self.calls), tuple(name for name in foreign if name not in self.calls))

    def find_global(self, module: str, name: str) -> Global:
        """What a name stands for: always the same object, so that it can be a dict key."""
        found = self.globals.get((module, name))
        if found is None:
            self.made += 1
            found = self.globals[module, name] = Global(module, name, KNOWN.get((module, name)))
        return found

    def call(self, callee: object, args: object) -> object:
        """A description of what calling would make."""
        if type(args) is not tuple:
            raise PickleFault("calls something with arguments that are not a tuple")
        if type(callee) is Global and callee.known is not None:
            if callee.known in COPYING:
                self.count_copies(args)
            try:
                made = callee.known(args)
            except (ValueError, TypeError, IndexError, AttributeError, OverflowError):
                raise PickleFault(
                    f"calls {callee.full_name} with arguments that don't fit"
                ) from None
            if made is not NotImplemented:
                return made
        self.made += 2  # it holds a dict and a list
        self.count_copies((args,))
        made = Opaque(callee, args)
        if not is_part_of_dtensor(made.innermost):
            self.note_call(made.type_name)
        return made

    def count_copies(self, values: Iterable[object]) -> None:
        """Notes that all of these will be copied, or gone through, once more: a few bytes could ask
        for gigabytes and hours that way.
        """
        for value in values:
            if isinstance(value, str | bytes):
                self.copied += len(value)
            elif isinstance(value, list | tuple | dict):
                self.copied += ENTRY * len(value)
        if self.copied > self.limits.copied:
            raise PickleFault("copies the same things over and over")

    def need_whole_memo(self) -> None:
        """Begins again with every single opcode, if the memo lacks something."""
        if self.shortcuts and self.shortcuts.has_skipped:
            raise NeedsMemo

    def note_call(self, name: str) -> None:
        """Adds the name of what unpickling would have called, once."""
        self.calls[name] = None

    def _check_size(self, values: int, marks: int, objects: int) -> None:
        """`objects` is how many small ones were made by now: counted, since what the process has is
        that of other threads too.
        """
        limits, steps = self.limits, self.shortcuts.taken if self.shortcuts else 0
        objects += self.made + OBJECTS_IN_ONE_STEP * steps
        if len(self.data) + self.pos - self.start + OBJECT_BYTES * objects > limits.memory:
            raise PickleTooLarge(f"takes more than {limits.memory >> 20} MB of memory")
        if values > limits.values or marks > PICKLE_MARKS or self.made > limits.containers:
            most = f"{limits.values:,} and {limits.containers:,} are the most"
            raise PickleTooLarge(f"makes {values:,} values and {self.made:,} containers; {most}")

    def _run(self) -> object:
        """The hot loop: the opcodes that torch.save writes for each tensor, most frequent first;
        `OPCODES` has the others.
        """
        # One function on purpose: files have millions of opcodes, and each would cost a call more.
        data, pos, memo, stack, marks, persistent = (
            self.data,
            self.pos,
            self.memo,
            self.stack,
            self.marks,
            self.persistent,
        )
        call, shortcuts, objects, most = self.call, self.shortcuts, 0, self.limits.opcodes
        mark = shortcuts.mark if shortcuts else b""
        is_numbered = shortcuts is None or not shortcuts.keeps_numbers
        try:
            for _ in range(most // STRIDE):
                for _ in range(STRIDE):
                    op = data[pos]
                    pos += 1
                    if op == LONG_BINPUT:
                        memo[_u32(data, pos)[0]] = stack[-1]
                        pos += 4
                    elif op == BINGET:
                        if (
                            data[pos + 1 : pos + 3] == mark
                            and shortcuts
                            and (after := shortcuts.read(pos - 1, stack)) >= pos
                        ):
                            pos = after
                            if shortcuts.taken > most // OPCODES_OF_A_STEP:
                                raise PickleTooLarge(f"has more than {most:,} opcodes")
                        else:
                            stack.append(memo[data[pos]])
                            pos += 1
                    elif op == BININT1:
                        stack.append(data[pos])
                        pos += 1
                    elif op == MARK:
                        marks.append(stack)
                        stack = []
                    elif op == TUPLE:
                        items = tuple(stack)
                        stack = marks.pop()
                        stack.append(items)
                        objects += 1
                    elif op == BINUNICODE:
                        size = _u32(data, pos)[0]
                        pos += 4 + size
                        if pos > self.end:
                            raise PickleFault(f"declares {size} bytes where fewer are left")
                        stack.append(data[pos - size : pos].decode("utf-8", "surrogatepass"))
                        objects += 1
                    elif op == REDUCE:
                        args = stack.pop()
                        stack[-1] = call(stack[-1], args)
                        objects += 1
                    elif op == BINPERSID:
                        stack[-1] = persistent(stack[-1])
                    elif op == BINPUT:
                        memo[data[pos]] = stack[-1]
                        pos += 1
                    elif op == TUPLE1:
                        stack[-1] = (stack[-1],)
                        objects += 1
                    elif op == TUPLE2:
                        last = stack.pop()
                        stack[-1] = (stack[-1], last)
                        objects += 1
                    elif op == EMPTY_TUPLE:
                        stack.append(())
                    elif op == NEWFALSE:
                        stack.append(False)
                    elif op == BININT2:
                        stack.append(data[pos] | data[pos + 1] << 8)
                        pos += 2
                        objects += 1
                    elif op == LONG_BINGET:
                        if (
                            data[pos + 4 : pos + 6] == mark
                            and shortcuts
                            and (after := shortcuts.read(pos - 1, stack)) >= pos
                        ):
                            pos = after
                        else:
                            stack.append(memo[_u32(data, pos)[0]])
                            pos += 4
                    elif op == MEMOIZE:
                        if is_numbered:
                            self.need_whole_memo()
                        memo[len(memo)] = stack[-1]
                    elif op == BININT:
                        stack.append(_i32(data, pos)[0])
                        pos += 4
                        objects += 1
                    elif op == STOP:
                        self.pos = pos
                        return stack.pop()
                    else:
                        self.pos, self.stack = pos, stack
                        other = OPCODES.get(op)
                        if other is None:
                            raise PickleFault(f"has the unknown opcode {op:#04x}")
                        other(self)
                        pos, stack = self.pos, self.stack
                        objects += op not in MAKING_NOTHING
                self.pos = pos
                self._check_size(len(stack) + len(memo), len(marks), objects)
            raise PickleTooLarge(f"has more than {most:,} opcodes")
        finally:
            self.pos = max(self.pos, pos)
