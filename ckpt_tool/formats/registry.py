"""The formats, in the order in which they are tried: how each is recognised by its first bytes, and
which module reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from ckpt_tool.formats.limits import HEADER_BYTES
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.formats.checkpoint import Contents
    from ckpt_tool.formats.files import SourceFile

HEAD = 512
"""The bytes that recognising looks at."""
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""The first number of torch's legacy stream, 0x1950a86a20f9469cfc6c, after the pickle's protocol.
"""
_LEGACY_MAGIC_TEXT = b"L%dL\n" % int.from_bytes(LEGACY_MAGIC[2:], "little")
"""The same in the pickles of protocol 1."""
_OLD_PICKLES = (
    b"(dp",
    b"(lp",
    b"}q\0",
    b"]q\0",
    b"}q\1",
    b"]q\1",
    b"ccollections\n",
    b"ccopy_reg\n",
    b"ccopyreg\n",
    b"cnumpy",
)

_GLOBAL = re.compile(rb"[ci][A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")
"""The opcode that names a module and what is in it, in protocols 0 and 1."""


@frozen
class Format:
    """One container. `module` has `read(file, wanted) -> Contents`; it is imported when a file of
    the format is met.

    `has_names` says whether its state dicts may have names, of which one can be `wanted`;
    `takes_earlier`, whether `read` also takes what an earlier file's contents keep;
    `has_description`, whether what describes the tensors lies together, so that a part of a file
    tells it.
    """

    name: str
    recognise: Callable[[bytes, int], bool]
    module: str
    has_names: bool = False
    takes_earlier: bool = False
    has_description: bool = False

    def read(self, file: SourceFile, wanted: str, earlier: object = None) -> Contents:
        """What the module reads from the file; `wanted` is the path of a state dict, or empty.

        `earlier` is the `kept` of another file's contents, for a module that takes it.
        """
        if file.is_here or not self.has_description:
            return self._read(file.whole(), wanted, earlier)
        from ckpt_tool.formats.remote.deferred import deferred

        described = self._read(file, wanted, earlier)
        return deferred(described, file, lambda it: self._read(it, wanted, described.kept))

    def _read(self, file: SourceFile, wanted: str, earlier: object) -> Contents:
        module = import_module(f"ckpt_tool.formats.{self.module}")
        arguments = (wanted, earlier) if self.takes_earlier else (wanted,)
        contents: Contents = module.read(file, *arguments)
        return contents


def is_safetensors(head: bytes, size: int) -> bool:
    """The length may have any first byte, so that this is asked before all other signatures; but
    for the zip's, which torch goes by.
    """
    length = int.from_bytes(head[:8], "little")
    return (
        not head.startswith(b"PK\3\4")
        and head[8:9] == b"{"
        and length <= HEADER_BYTES
        and 8 + length <= size
    )


def is_legacy_stream(head: bytes, size: int) -> bool:
    """By its first number in any protocol."""
    starts = (b"\x80\x02\x8a\x0a", b"\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\x0a", _LEGACY_MAGIC_TEXT)
    return LEGACY_MAGIC in head[:32] or head.startswith(starts)


def is_pickle(head: bytes, size: int) -> bool:
    """By the protocol's number; or by how pickles of protocols 0 and 1 begin with a dict, a list or
    an array, or by their opcodes where they name something.
    """
    if head[:1] == b"\x80":
        return head[1:2] <= b"\x05"
    return head.startswith(_OLD_PICKLES) or _names_a_global(head)


def _names_a_global(head: bytes) -> bool:
    """Whether all that is seen of a file are a pickle's opcodes, of which one names what unpickling
    would import; protocols 0 and 1 begin with any opcode.
    """
    if not _GLOBAL.search(head):
        return False
    from pickletools import genops

    is_named = False
    try:
        for opcode, _, _ in genops(head):
            is_named |= opcode.name in ("GLOBAL", "INST")
    except ValueError as error:
        return is_named and len(head) == HEAD and "unknown" not in str(error)
    return is_named


def is_npz(head: bytes, size: int) -> bool:
    """A zip archive whose first member is an array of numpy; its name is in the first local header.

    A name that goes on behind the head is no member of torch's: those begin with the name of a
    file.
    """
    end = 30 + int.from_bytes(head[26:28], "little")
    return head[:4] == b"PK\3\4" and (end > HEAD or head[30:end].endswith(b".npy"))


def is_tar(head: bytes, size: int) -> bool:
    """By its first header's checksum, as tarfile does; by the mark of the newer tars alone where
    nothing else begins like this.
    """
    if len(head) == HEAD and tar_checksum(head) == head[148:156].strip(b" \0").lstrip(b"0"):
        return True
    return head[257:262] == b"ustar" and not (is_legacy_stream(head, size) or is_pickle(head, size))


def tar_checksum(header: bytes) -> bytes:
    """The sum of a header's bytes in octal digits, with blanks in the place where it stands."""
    return b"%o" % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))


def starts_with(*signatures: bytes) -> Callable[[bytes, int], bool]:
    """A recogniser of files that begin with one of these."""
    return lambda head, size: head.startswith(signatures)


FORMATS = (
    Format(
        "safetensors",
        is_safetensors,
        "flat_files.safetensors",
        takes_earlier=True,
        has_description=True,
    ),
    Format("npz", is_npz, "flat_files.npz"),
    Format(
        "torch zip", starts_with(b"PK\3\4", b"PK\5\6"), "torch_files.zip_archive", True, True, True
    ),
    Format("gguf", starts_with(b"GGUF"), "flat_files.gguf", has_description=True),
    Format("npy", starts_with(b"\x93NUMPY"), "flat_files.npy", has_description=True),
    Format("torch tar", is_tar, "torch_files.legacy_tar", True),
    Format(
        "torch legacy",
        is_legacy_stream,
        "torch_files.legacy_stream",
        True,
        has_description=True,
    ),
    Format("pickle", is_pickle, "torch_files.bare_pickle", True),
)
"""Never by suffix: files are renamed by people and by malware alike."""
