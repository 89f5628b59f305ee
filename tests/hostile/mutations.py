"""Changes to inputs: bytes of any file, the opcodes of a pickle, the words of a text, the numbers of a JSON header."""

import json
import pickletools
import re
import struct
from contextlib import suppress
from itertools import pairwise
from random import Random

NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
WORDS = (
    b"", b"-1", b"0", b"1e9", b"1.5", b"true", b"null", b"NaN", b"[]", b"{}", b"99999999999999999999", b"\x00", b"\x1b[31m", b"\xff", b"..", b"/",
    b"\\", b'"', b"'", b"\n", b"\t", b"*", b"**", b"{", b"}", b"{n}", b"{n=0..9}", b"->", b": ", b"- ", b"&a", b"*a", b"!!python/object", b"\xe2\x80\xae",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"a" * 300, b"9" * 30, b"{9**9*n}", b"{0..99999}",
)  # fmt: skip


def change_bytes(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        _change_once(changed, others, chance)
    return bytes(changed)


def _change_once(raw: bytearray, others: list[bytes], chance: Random) -> None:
    at = chance.randrange(len(raw) + 1)
    size = chance.choice((1, 1, 2, 4, 8, 16, 64, 512))
    match chance.randrange(8):
        case 0:
            raw[at : at + 1] = bytes([chance.randrange(256)])
        case 1 if at < len(raw):
            raw[at] ^= 1 << chance.randrange(8)
        case 2:
            del raw[at : at + size]
        case 3:
            raw[at:at] = raw[at : at + size] * chance.choice((1, 2, 5))
        case 4:
            del raw[at:]
        case 5:
            width = chance.choice(("<B", "<H", "<I", "<Q", ">I"))
            number = chance.choice(NUMBERS) & ((1 << 8 * struct.calcsize(width)) - 1)
            raw[at : at + struct.calcsize(width)] = struct.pack(width, number)
        case 6:
            raw[at : at + chance.choice((0, size))] = chance.choice(WORDS)
        case _:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            raw[at : at + chance.choice((0, size))] = other[start : start + size]


def change_opcodes(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A pickle with opcodes left out, doubled, moved, or taken from another one."""
    mine, theirs = _opcodes(raw), _opcodes(chance.choice(others))
    for _ in range(chance.choice((1, 1, 2, 4, 10))):
        at, size = chance.randrange(len(mine) + 1), chance.choice((1, 1, 1, 3, 8))
        match chance.randrange(5):
            case 0:
                del mine[at : at + size]
            case 1:
                mine[at:at] = mine[at : at + size] * chance.choice((1, 2, 40))
            case 2:
                start = chance.randrange(len(theirs) + 1)
                mine[at:at] = theirs[start : start + size]
            case 3:
                mine[at : at + 1] = [_random_opcode(chance)]
            case _:
                if at < len(mine):
                    mine[at] = change_bytes(mine[at], [raw], chance)
    return b"".join(mine)


STATES = (
    b"}", b")", b"N", b"N}\x86", b"}}\x86", b"K\x01", b"\x88", b"\x88\x89}\x87", b"2\x85", b"(2K\0K\x04\x85K\x01\x85t", b"(2N}\x89Nt",
    *(b"}X" + struct.pack("<I", len(name)) + name + value + b"s" for name in (b"data", b"real", b"imag", b"tag", b"grad", b"__class__", b"conj", b"neg")
      for value in (b"K\x01", b"\x88", b"\x89", b"h\x00", b"h\x10", b"2")),
)  # fmt: skip
"""Opcodes that make a state, some of them of the object on the top of the stack or of the memo."""


def change_states(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A pickle in which an object is given a state, or a call's last argument is another state; or with other changes of its opcodes."""
    mine = _opcodes(raw)
    made = [at for at, opcode in enumerate(mine) if opcode[:1] in (b"R", b"\x81")]
    if not made or chance.random() < 0.3:
        return change_opcodes(raw, others, chance)
    for _ in range(chance.choice((1, 1, 2))):
        at, state = chance.choice(made), chance.choice(STATES)
        if chance.random() < 0.6:
            mine[at] += state + b"b"
        elif at > 1:
            mine[at - chance.choice((1, 1, 2))] += chance.choice((state, state + b"b"))
    return b"".join(mine)


def _random_opcode(chance: Random) -> bytes:
    one = chance.choice(pickletools.opcodes)
    argument = b""
    if one.arg is not None:
        number = chance.choice(NUMBERS) if chance.random() < 0.3 else chance.randrange(8)
        text = chance.choice(
            (
                b"a",
                b"torch\nFloatStorage\n",
                b"collections\nOrderedDict\n",
                b"torch._utils\n_rebuild_tensor_v2\n",
                b"torch._utils\n_rebuild_parameter\n",
                b"torch._utils\n_rebuild_parameter_with_state\n",
                b"torch._tensor\n_rebuild_from_type_v2\n",
                b"torch.nn.parameter\nParameter\n",
                b"torch\nTensor\n",
                b"1\n",
                b"'x'\n",
                b"0x1\n",
            )
        )
        width = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}.get(one.arg.n)
        argument = struct.pack(width, number & ((1 << 8 * one.arg.n) - 1)) if width else text
        if not width and one.arg.n in (-3, -4, -5, -2):
            argument = bytes([1]) + b"a" if one.arg.n == -2 else struct.pack("<I", 1) + b"a"
    return one.code.encode("latin-1") + argument


def _opcodes(raw: bytes) -> list[bytes]:
    """The opcodes of a pickle with their arguments, as far as it can be followed; what comes after them as one."""
    ends = [0]
    with suppress(Exception):  # whatever pickletools says of what was broken
        ends += [place for _, _, place in pickletools.genops(raw) if place]
    ends.append(len(raw))
    return [raw[start:end] for start, end in pairwise(ends) if end > start]


def change_header(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A safetensors file whose header is changed as text, with a length that fits."""
    size = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + size]
    if chance.random() < 0.5:
        header = re.sub(rb"\d+", lambda found: str(chance.choice(NUMBERS)).encode() if chance.random() < 0.2 else found[0], header)
    else:
        header = change_bytes(header, [one[8:200] for one in others], chance)
    return struct.pack("<Q", len(header)) + header + (raw[8 + size :] if chance.random() < 0.8 else raw[9 + size :])


def change_fields(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A safetensors file with values of its header replaced by other JSON values."""
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    for entry in header.values():
        for name in list(entry):
            if chance.random() < 0.3:
                entry[name] = chance.choice(
                    (None, [], [0], [-1], [0, 4], [1.5], [True], "F32", "F4", "C64", 3, {}, [1 << 63, 0], [1 << 32, 1 << 32])
                )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + size :]


def change_words(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A text with words and lines exchanged, doubled, or replaced by troublesome ones."""
    parts = re.split(rb"(\W)", raw)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(parts))
        match chance.randrange(5):
            case 0:
                parts[at] = chance.choice(WORDS)
            case 1:
                parts[at] = chance.choice(re.split(rb"(\W)", chance.choice(others)))
            case 2:
                parts[at : at + chance.choice((1, 5))] = []
            case 3:
                parts[at:at] = parts[at : at + chance.choice((1, 6))] * chance.choice((1, 3, 50))
            case _:
                other = chance.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
    return b"".join(parts)
