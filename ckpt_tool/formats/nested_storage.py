"""A storage inside a pickle: what `pickle.dump` of a tensor writes, `torch.storage._load_from_bytes(a whole legacy stream)`.

torch writes these streams one way only, so that they are matched as a whole: nothing in them is interpreted.
"""

from __future__ import annotations

import re

_NUMBER = rb"(?:K(.)|M(..)|J(....)|\x8a\x05(.....))"
_KEY = rb"X(....)([0-9]{1,20})"
_SYSTEM = (
    rb"}q\0\(X\x10\0\0\0protocol_versionq\x01M\xe9\x03X\r\0\0\0little_endianq\x02[\x88\x89]"
    rb"X\n\0\0\0type_sizesq\x03}q\x04\(X\x05\0\0\0shortq\x05K.X\x03\0\0\0intq\x06K.X\x04\0\0\0longq\x07K.uu\."
)
_STREAM = re.compile(
    rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.\x80\x02M\xe9\x03\.\x80\x02" + _SYSTEM +
    rb"\x80\x02\(X\x07\0\0\0storageq\0ctorch(?:\.cuda|\.storage)?\n([A-Za-z0-9]+)\nq\x01"
    + _KEY + rb"q\x02X(....)([a-z0-9:]{1,30})q\x03" + _NUMBER + rb"Ntq\x04Q\."
    rb"\x80\x02\]q\0" + _KEY + rb"q\x01a\.(.{8})",
    re.DOTALL,
)  # fmt: skip
"""The five pickles of the stream, and the count in front of the bytes; groups: class, a length and the text of that length for the key,
the location and the key again, with the number of elements between them, and the count. What could be read otherwise could run something.
"""


def read_nested_storage(raw: bytes) -> tuple[str, str, int, bytes] | None:
    """(class, location, number of elements, bytes) of the storage in a stream, or None where it is not as torch writes it."""
    found = _STREAM.match(raw)
    if found is None:
        return None
    groups = found.groups()
    if any(int.from_bytes(groups[at], "little") != len(groups[at + 1]) for at in (1, 3, 9)):
        return None
    count = int.from_bytes(next(number for number in groups[5:9] if number is not None), "little")
    if count != int.from_bytes(groups[11], "little"):
        return None
    return groups[0].decode(), groups[4].decode(), count, raw[found.end() :]
