"""How much a checkpoint may ask of its reader. A file beyond one of these is refused, with the
number in the message.
"""

from __future__ import annotations

from ckpt_tool.frozen import frozen

MiB = 1 << 20
GiB = 1 << 30

HEADER_BYTES = 100_000_000
"""A safetensors header; the reference reader's own limit."""
PICKLE_BYTES = 256 * MiB
"""One pickle stream."""
PICKLE_OPCODES = 9_000_000
"""About 35 describe a tensor."""
PICKLE_MEMORY, OBJECT_BYTES = 512 * MiB, 80
"""What a pickle may take: its own bytes, those that were copied from it, and so many for each
object that it made.
"""
PICKLE_VALUES = 4_000_000
"""Values on the machine's stack or in its memo; about 12 of a tensor stay in the memo."""
PICKLE_CONTAINERS = 2_000_000
"""Lists, dicts, sets and objects of unknown classes."""
PICKLE_COPIED = 256 * MiB
"""What calls and states may copy of what was there before: a byte for each of a text, `ENTRY` for
each member of a container.
"""
ENTRY = 128
LISTED_AGAIN = 500_000
"""Members of containers that were listed before: of modules that share others, and of state dicts
inside of others.
"""
NAME_CHARACTERS = 64 * MiB
"""What the names of a pickle's tensors repeat of the names of what they are in."""
PICKLE_MARKS = 100_000
"""Open marks: containers inside containers, of which no writer opens more than a few hundred."""
PICKLE_LONG_BYTES = 4096
"""The bytes of one integer (LONG4, LONG, INT)."""
NESTING = 200
"""Containers inside containers, while looking for tensors."""
NODES = 2_000_000
"""Objects visited while looking for tensors."""
LISTINGS = 50
"""How often the containers of a file may be listed on average, each time under another path; more
is a bomb of references.
"""
EXTRAS = 1000
"""Things besides the tensors that are listed one by one."""
JSON_INTEGER_DIGITS = 20
JSON_MARKS = 4_000_000
"""Commas, colons and brackets in one JSON text; a safetensors header has about 12 a tensor, an
index 2.
"""
GGUF_VALUES = 3_000_000
"""Texts and arrays in the arrays of a GGUF file's header; a large vocabulary with its merges has a
million.
"""
GGUF_PAIRS = 50_000
GGUF_TENSORS = 300_000
DIMENSIONS = 64
TENSOR_BYTES = 1 << 50
"""What one tensor may declare; nothing is allocated by a number of the file."""
INFLATE_RATIO = 200
"""Inflated bytes for one deflated byte, beyond which a zip member holds next to nothing."""
INFLATED_BYTES = 48 * MiB
"""What all members of an archive together may inflate to that are beyond that ratio: masks and
zeros of a real model, but no bomb.
"""
EXPANSION = 64 * MiB
"""Bytes that a view with overlapping strides may have beyond those of its storage, when its values
are asked for.
"""
ZIP_ENTRIES = 600_000
ZIP_DIRECTORY_BYTES = 96 * MiB
NPZ_ARRAYS = 100_000
CODE_BYTES = 32 * MiB
"""The code of all classes of a TorchScript program."""
TAR_MEMBERS = 1000
TAR_RECORDS = 200_000
"""Storages, and tensors, of torch's tar archives; models of that time had hundreds."""
CHECK_ON_OPEN = 16 * MiB
"""Files up to this size have all their checksums verified when they are opened; larger ones as
their bytes are read.
"""
INFLATE_ON_OPEN = 128 * MiB
"""What is inflated for that."""
KEY_LIST_BYTES = 64 * MiB
KEY_LIST_LINES = 500_000
OPEN_SHARDS = 200
"""Files of one checkpoint that stay open; the others are opened again when they are read."""
DCP_METADATA_BYTES = 512 * MiB
"""The `.metadata` of a distributed checkpoint: 140 to 170 bytes for each part of a tensor."""
DCP_CHECKED_ON_OPEN = 256
"""Parts of a distributed checkpoint's tensors up to which each is looked into when it is opened;
those of larger ones are as their bytes are read.
"""


@frozen
class PickleLimits:
    """What one pickle may ask for."""

    opcodes: int
    memory: int
    values: int
    containers: int
    copied: int

    @classmethod
    def of_size(cls, size: int) -> PickleLimits:
        """The limits of a pickle that describes as much as it has bytes: those of a distributed
        checkpoint, whose parts have no bound.
        """
        return cls(
            max(PICKLE_OPCODES, 2 * size),
            max(PICKLE_MEMORY, 8 * size),
            max(PICKLE_VALUES, size),
            max(PICKLE_CONTAINERS, size // 8),
            max(PICKLE_COPIED, 32 * size),
        )
