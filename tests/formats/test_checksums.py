"""Checksums of many byte ranges: every way of reading them finds the one wrong byte."""

import os
import random
from pathlib import Path

import pytest

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.checksums import check_all
from ckpt_tool.formats.placements.crc import crc32

SIZES = (0, 1, 4095, 300_000, 5_000_001, 20_000_000, 12_345_678)


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(0).randbytes(sum(SIZES) + 17)


def extents_of(file: SourceFile, content: bytes) -> list[Extent]:
    made, offset = [], 17
    for size in SIZES:
        made.append(Extent(file, offset, size, crc32(content[offset : offset + size])))
        offset += size
    return made


@pytest.mark.parametrize("threads", [1, 3])
def test_each_wrong_byte_is_found(tmp_path: Path, content: bytes, threads: int) -> None:
    path = tmp_path / "content"
    path.write_bytes(content)
    with SourceFile(path) as file:
        extents = extents_of(file, content)
        check_all(extents, threads)
        for extent in extents:
            if not extent.length:
                continue
            for at in {extent.offset, extent.offset + extent.length // 2, extent.offset + extent.length - 1}:
                with path.open("r+b") as changed:
                    os.pwrite(changed.fileno(), bytes([content[at] ^ 1]), at)
                    with pytest.raises(FormatError, match="don't match their checksum"):
                        check_all(extents, threads)
                    os.pwrite(changed.fileno(), content[at : at + 1], at)
        check_all(extents, threads)


def test_a_file_that_was_cut_is_an_error_not_a_signal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "content"
    path.write_bytes(content)
    with SourceFile(path) as file:
        extents = extents_of(file, content)
        os.truncate(path, len(content) // 2)
        with pytest.raises(FormatError, match="cut"):
            check_all(extents, 2)
