"""The CRC-32 of zip files, by the fastest library that is installed: Intel's ISA-L has about six
times zlib's speed.
"""

import zlib
from collections.abc import Callable
from functools import cache
from typing import cast

Buffer = bytes | bytearray | memoryview
LITTLE = 1 << 17
"""Up to here zlib is done before ISA-L is loaded."""


def crc32(content: Buffer, start: int = 0) -> int:
    """The checksum of these bytes, after those whose checksum is `start`."""
    return (zlib.crc32 if len(content) < LITTLE else _fastest())(content, start)


@cache
def _fastest() -> Callable[[Buffer, int], int]:
    try:
        from isal.isal_zlib import crc32
    except ImportError:
        return zlib.crc32
    return cast(Callable[[Buffer, int], int], crc32)
