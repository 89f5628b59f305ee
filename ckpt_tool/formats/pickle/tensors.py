"""A tensor of a state dict as `torch.save` writes it, about forty opcodes, taken in one step.

What the step puts into the memo is left out where the rest of the pickle can't ask for it; any
other stream, and any other tensor, is left to the machine's opcodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import Struct

from ckpt_tool.formats.pickle.calls.containers import ordered_dict
from ckpt_tool.formats.pickle.calls.tensors import rebuild_tensor_v2
from ckpt_tool.formats.pickle.values import Global, StorageRef, TensorRef
from ckpt_tool.tensors import DType

_PUT = rb"r((?!.\0\0\0).{4})"
"""Numbers below 256, which BINGET could ask for, are left to the machine; CPython writes them with
BINPUT.
"""
_INTEGER = rb"K.|M..|J...[\0-\x7f]|\x8a\x05....[\0-\x7f]"
_TUPLE = rb"(\)|(?:%(n)s)(?:\x85|(?:%(n)s)(?:\x86|(?:%(n)s)\x87))|\((?:%(n)s){4,8}t)(?:%(p)s)?" % {
    b"n": _INTEGER,
    b"p": _PUT,
}
_TENSOR = re.compile(
    rb"h(.)\(\(h(.)h(.)X(.)\0\0\0([0-9]{1,19})%(p)sh(.)(%(n)s)t%(p)sQ(%(n)s)%(t)s%(t)s([\x88\x89])h(.)\)R%(p)st%(p)sR%(p)s"
    % {b"n": _INTEGER, b"t": _TUPLE, b"p": _PUT},
    re.DOTALL,
)
"""rebuild((("storage", type, key, location, count), offset, shape, stride, requires_grad,
OrderedDict())), all parts put into the memo.
"""
_ASKED = re.compile(rb"j(?=(.{4}))", re.DOTALL)
_INTEGERS = re.compile(_INTEGER, re.DOTALL)
BINUNICODE, NEWTRUE = ord("X"), b"\x88"

_MAX_TENSORS = 1000
"""Tensors in one go: as many as `torch.save` puts into a dict at a time."""
_MAX_ASKED = 2_000_000
_u32 = Struct("<I").unpack_from


class TensorReader:
    """Reads the tensors of one pickle. `taken` counts them; `has_skipped`: whether the memo
    lacks what was put there.
    """

    mark = b"(("
    keeps_numbers = False
    __slots__ = ("asked", "data", "has_skipped", "is_off", "memo", "numbers", "persistent", "taken")

    def __init__(
        self, data: bytes, memo: dict[int, object], persistent: Callable[[object], object]
    ) -> None:
        self.data, self.memo, self.persistent = data, memo, persistent
        self.asked: frozenset[bytes] | None = None
        self.numbers = _Numbers()
        self.has_skipped = False
        self.is_off = False
        self.taken = 0

    def read(self, position: int, stack: list[object]) -> int:
        """Puts the tensor at this byte on the stack, then the key and the tensor after it, and so
        on; where it stopped.
        """
        if self.asked is None:
            self._find_asked()
        if self.is_off:
            return position
        for _ in range(_MAX_TENSORS):
            found = _TENSOR.match(self.data, position)
            tensor = found and self._make(found.groups())
            if not tensor or not found:
                break
            stack.append(tensor)
            self.taken += 1
            after = self._read_key(found.end(), stack)
            if not after:
                return found.end()
            position = after
        return position

    def _find_asked(self) -> None:
        """Looks through the pickle for whatever may ask the memo; one with so many that this would
        take long is left alone.
        """
        self.is_off = self.data.count(b"j") > _MAX_ASKED
        self.asked = (
            frozenset()
            if self.is_off
            else frozenset(found[1] for found in _ASKED.finditer(self.data))
        )

    def _make(self, parts: tuple[bytes, ...]) -> TensorRef | None:
        """The tensor; None for one that somebody may refer to, or that calls something else."""
        (call, storage, kind, length, key, put0, location, count, put1, offset, shape, put2, stride,
         put3,
         flag, hooks, put4, put5, put6) = parts  # fmt: skip
        memo, numbers = self.memo, self.numbers
        if (
            self.asked is None
            or not self.asked.isdisjoint((put0, put1, put2, put3, put4, put5, put6))
            or length[0] != len(key)
        ):
            return None
        if not self._rebuilds(call, hooks):
            return None
        made = self.persistent(
            (memo[storage[0]], memo[kind[0]], key.decode(), memo[location[0]], numbers[count][0])
        )
        if type(made) is not StorageRef or made.dtype is None:
            return None
        if flag == NEWTRUE and not _may_require_gradients(made.dtype):
            return None
        self.has_skipped = True
        return TensorRef(made, made.dtype, numbers[shape], numbers[stride], numbers[offset][0])

    def _rebuilds(self, call: bytes, hooks: bytes) -> bool:
        """Whether this calls `_rebuild_tensor_v2` with an OrderedDict."""
        rebuild, hook = self.memo[call[0]], self.memo[hooks[0]]
        if type(rebuild) is not Global or type(hook) is not Global:
            return False
        return rebuild.known is rebuild_tensor_v2 and hook.known is ordered_dict

    def _read_key(self, position: int, stack: list[object]) -> int:
        """Where the text at this byte ends that nobody refers to; it is on the stack then. 0 for
        anything else.
        """
        data, asked = self.data, self.asked
        if data[position] != BINUNICODE or asked is None:
            return 0
        size: int = _u32(data, position + 1)[0]
        end = position + 5 + size
        if (
            data[end : end + 1] != b"r"
            or len(put := data[end + 1 : end + 5]) < 4
            or put in asked
            or put[1:] == b"\0\0\0"
        ):
            return 0
        stack.append(data[position + 5 : end].decode("utf-8", "surrogatepass"))
        return end + 5


def _integers(raw: bytes) -> tuple[int, ...]:
    """The integers of a tuple, or of one that stands alone."""
    found = _INTEGERS.findall(raw[1:-1] if raw[:1] == b"(" else raw)
    return tuple(
        int.from_bytes(one[2:] if one[:1] == b"\x8a" else one[1:], "little") for one in found
    )


class _Numbers(dict[bytes, tuple[int, ...]]):
    """The integers of a tuple, or of one that stands alone, by their opcodes; each decoded once."""

    def __missing__(self, raw: bytes) -> tuple[int, ...]:
        numbers = self[raw] = _integers(raw)
        return numbers


def _may_require_gradients(dtype: DType) -> bool:
    return dtype.is_floating or dtype.is_complex
