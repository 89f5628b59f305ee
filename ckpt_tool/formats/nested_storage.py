"""A storage inside a pickle: what `pickle.dump` of a tensor writes, `torch.storage._load_from_bytes(a whole legacy stream)`.

torch writes these streams one way only, so that they are matched as a whole: nothing in them is interpreted.
"""

from __future__ import annotations

import re

_NUMBER = rb"(?:K(.)|M(..)|J(....)|\x8a\x05(.....))"
_KEY = rb"X....[0-9]{1,20}"
_STREAM = re.compile(
    rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.\x80\x02M\xe9\x03\.\x80\x02}.{40,300}?u\."
    rb"\x80\x02\(X\x07\0\0\0storageq\0ctorch(?:\.cuda|\.storage)?\n([A-Za-z0-9]+)\nq\x01"
    + _KEY + rb"q\x02X....[a-z0-9:]{1,30}q\x03" + _NUMBER + rb"Ntq\x04Q\."
    rb"\x80\x02\]q\0" + _KEY + rb"q\x01a\.(.{8})",
    re.DOTALL,
)  # fmt: skip
"""The five pickles of the stream, and the count in front of the bytes; groups: class, number of elements, count."""


def read_nested_storage(raw: bytes) -> tuple[str, int, bytes] | None:
    """(class, number of elements, bytes) of the storage in a stream, or None where it is not as torch writes it."""
    found = _STREAM.match(raw)
    if found is None:
        return None
    name = found[1].decode()
    count = int.from_bytes(next(number for number in found.groups()[1:5] if number is not None), "little")
    return (name, count, raw[found.end() :]) if count == int.from_bytes(found[6], "little") else None
