"""Files of gigabytes, most of them holes: whatever they declare, little is read of them, and little is held."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import limits, open_checkpoint
from tests.hostile import seeds
from tests.hostile.test_long_names import ckpt_in_bounds
from tests.hostile.variants_others import tar, tar_members
from tests.hostile.variants_zip import Entry, build, entries

GIGABYTES = 6_000_000_000
KINDS = ("safetensors", "torch_zip", "torchscript", "legacy", "pickles", "pickled_arrays", "tars", "arrays", "gguf", "key_lists", "indexes")


def sparse(path: Path, head: bytes, tail: bytes = b"") -> str:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(GIGABYTES)
        file.seek(GIGABYTES)
        file.write(tail)
    return path.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_hole_of_gigabytes_behind_or_inside_a_file(tmp_path: Path, kind: str) -> None:
    raw = getattr(seeds, kind)()[0]
    for head, tail in ((raw, b""), (raw[: len(raw) // 2], raw[len(raw) // 2 :])):
        ran = ckpt_in_bounds("show", sparse(tmp_path / "a", head, tail), cwd=tmp_path)
        assert (ran.returncode in (0, 2), "internal error" in ran.stderr, "Traceback" in ran.stderr) == (True, False, False)


def end_of_zip(count: int, size: int, start: int) -> bytes:
    """End records of a zip archive of more than 4 GB."""
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    return end + struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1) + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, *(0xFFFF,) * 2, *(0xFFFFFFFF,) * 2, 0)


def test_a_zip_directory_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    name = sparse(tmp_path / "a.pth", b"PK\3\4", end_of_zip(1, GIGABYTES - 4, 4))
    ran = ckpt_in_bounds("show", name, cwd=tmp_path)
    limit = "at most 600,000 entries in 96 MB are read"
    assert ran.stderr == f"error: a.pth: its zip directory declares 1 entries in 5,999,999,996 bytes; {limit}\n"


def test_gigabytes_that_are_said_to_be_a_compressed_pickle_are_not_read(tmp_path: Path) -> None:
    said = {"method": 8, "crc": 0, "stored": 3_000_000_000, "size": 100}
    whole = build([Entry(b"archive/data.pkl", b"", local=said, central=said)])
    at = whole.index(b"PK\1\2")
    directory, start = whole[at : whole.index(b"PK\5\6")], GIGABYTES
    name = sparse(tmp_path / "a.pth", whole[:at], directory + end_of_zip(1, len(directory), start))
    ran = ckpt_in_bounds("show", name, cwd=tmp_path)
    assert ran.stderr == "error: a.pth: `archive/data.pkl` is compressed from 100 to 3000000000 bytes, as nobody does\n"


def pickle_of(items: bytes) -> bytes:
    return b"\x80\x04](" + items + b"e."


def tuples() -> Iterator[bytes]:
    return (b"J" + struct.pack("<i", 100_000 + i) + b"\x85" for i in range(3_500_000))


@pytest.mark.parametrize("items", [lambda: b"".join(b"X\5\0\0\0%05x" % i for i in range(1_000_000)) * 7, lambda: b"".join(tuples())], ids=["texts", "tuples"])
def test_a_pickle_of_millions_of_small_things_is_refused_before_it_fills_the_memory(tmp_path: Path, items) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle_of(b"](" + items() + b"e"))
    ran = ckpt_in_bounds("show", "a.pkl", cwd=tmp_path)
    assert "takes more than 512 MB of memory" in ran.stderr or "are the most" in ran.stderr
    assert ran.returncode == 2


def test_what_is_not_listed_is_not_described(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), **dict.fromkeys(range(5000), "abc")}, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert len(checkpoint.extras) == limits.EXTRAS + 1
        assert checkpoint.extras[-1].text == "4000 more things besides the tensors are not listed"


def test_more_members_than_anybody_writes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TAR_MEMBERS", 9), ("ZIP_ENTRIES", 9), ("NPZ_ARRAYS", 2)):
        for module in ("archives.tar_directory", "archives.zip_directory", "flat_files.npz"):
            monkeypatch.setattr(f"ckpt_tool.formats.{module}.{name}", value, raising=False)
    arrays = BytesIO()
    np.savez(arrays, a=1, b=2, c=3)
    made = {
        "more than 9 members": tar([*tar_members(), *((f"x{i}", b"") for i in range(6))]),
        "declares 16 entries": build([*entries(), *(Entry(b"archive/x%d" % i, b"") for i in range(16 - len(entries())))]),
        "3 arrays; at most 2": arrays.getvalue(),
    }
    for fact, raw in made.items():
        (tmp_path / "a").write_bytes(raw)
        with pytest.raises(FormatError, match=fact):
            open_checkpoint(str(tmp_path / "a")).close()


def test_the_code_of_a_program_is_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckpt_tool.formats.torch_files.torchscript.CODE_BYTES", 100)
    (tmp_path / "a.pt").write_bytes(seeds.torchscript()[1])
    with pytest.raises(FormatError, match="at most 100 are read"):
        open_checkpoint(str(tmp_path / "a.pt")).close()
