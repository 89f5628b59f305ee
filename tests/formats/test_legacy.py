"""torch's formats from before the zip archive: the stream and the tar archive."""

import io
import pickle
import struct
import tarfile
from pathlib import Path

import pytest
import torch

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_agrees


def save(path: Path, value: object) -> bytes:
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_many_storages_are_found_behind_the_pickles(tmp_path: Path) -> None:
    tensors = {f"w{i}": torch.arange(float(i)) for i in range(300)}
    save(tmp_path / "a.pth", tensors)
    assert_agrees(tmp_path / "a.pth", tensors)


def test_tied_tensors_share_their_storage(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    save(tmp_path / "a.pth", {"a": weight, "b": weight, "c": weight.view(2, 3).t()})
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert [info.shared_storage_with for info in checkpoint.catalog.values()] == [None, "a", "a"]
        assert [info.tied_to for info in checkpoint.catalog.values()] == [None, "a", None]
        assert checkpoint.format == "torch legacy"


def test_a_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    raw = save(tmp_path / "a.pth", {"w": torch.arange(4.0)})
    for size in range(1, len(raw)):
        (tmp_path / "b.pth").write_bytes(raw[:size])
        with pytest.raises(FormatError):
            open_checkpoint(str(tmp_path / "b.pth"))


def stream(keys: list[str], count: int, identity: tuple[object, ...] = (), data: bytes = bytes(16)) -> bytes:
    """A stream of one tensor `w` of two elements, put together by hand."""
    out = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, out, 2)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return identity or ("storage", torch.FloatStorage, "k", "cpu", 4, None) if isinstance(value, torch.UntypedStorage) else None

    class Stand:
        def __reduce__(self) -> object:
            return torch._utils._rebuild_tensor_v2, (torch.UntypedStorage(0), 0, (2,), (1,), False, {})

    Pickler(out, 2).dump({"w": Stand()})
    pickle.dump(keys, out, 2)
    return out.getvalue() + b"".join(struct.pack("<q", count) + data for _ in keys)


@pytest.mark.parametrize(
    ("raw", "fact"),
    [
        (stream([], 4), "the storage k is missing"),
        (stream(["k", "x"], 4), "has the storage x, which the object does not use"),
        (stream(["k", "k"], 4), "not a list of different keys"),
        (stream(["k"], 5), "has 5 elements; the pickle says 4"),
        (stream(["k"], -1), "has -1 elements"),
        (stream(["k"], 4, ("storage", torch.FloatStorage, "k", "cpu", 4, ("v", -1, 2))), "a view outside of its storage"),
        (stream(["k"], 4, ("storage", torch.FloatStorage, "k", "cpu", 4, ("v", 3, 2))), "a view outside of its storage"),
        (stream(["k"], 4, ("storage", torch.nn.Linear, "k", "cpu", 4, None)), "of a type that torch does not have"),
        (stream(["k"], 4, ()).replace(struct.pack("<H", 1001), struct.pack("<H", 1002)), "of an unknown protocol"),
    ],
)
def test_lies_about_storages_are_errors(tmp_path: Path, raw: bytes, fact: str) -> None:
    (tmp_path / "a.pth").write_bytes(raw)
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(str(tmp_path / "a.pth"))


def test_views_of_storages_begin_inside_of_them(tmp_path: Path) -> None:
    data = torch.arange(4.0).numpy().tobytes()
    identity = ("storage", torch.FloatStorage, "k", "cpu", 4, ("v", 1, 3))
    (tmp_path / "a.pth").write_bytes(stream(["k"], 4, identity, data))
    assert_agrees(tmp_path / "a.pth", {"w": torch.tensor([1.0, 2.0])})


def tar(path: Path, **members: bytes) -> str:
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in {"sys_info": b"", "pickle": PICKLE, "tensors": TENSORS, "storages": STORAGES, **members}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5  # type: ignore[assignment]
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def dumps(*values: object) -> bytes:
    return b"".join(pickle.dumps(value, 2) for value in values)


STORAGES = (
    dumps(2, (7, "cpu", torch.FloatStorage)) + struct.pack("<q4f", 4, 0, 1, 2, 3)
    + dumps((8, "cpu", torch.LongStorage)) + struct.pack("<qq", 1, 9) + dumps([(5, 7, 1, 3)])
)  # fmt: skip
TENSORS = (
    dumps(2, (1, 5, torch.FloatTensor)) + struct.pack("<ii2q2qq", 2, 0, 1, 2, 2, 1, 1)
    + dumps((2, 8, torch.LongTensor)) + struct.pack("<iiq", 0, 0, 0)
)  # fmt: skip
PICKLE = b"\x80\x02}(X\x01\x00\x00\x00wK\x01QX\x01\x00\x00\x00nK\x02Qu."


def test_the_tar_archives_of_the_first_torch_are_read(tmp_path: Path) -> None:
    assert_agrees(tar(tmp_path / "a.pth"), {"w": torch.tensor([[2.0, 3.0]]), "n": torch.tensor(9)})


def test_tar_archives_that_were_packed_again_are_read(tmp_path: Path) -> None:
    """`tar -cf` puts `./` before names and a folder first; the oldest tars have no mark of their kind."""
    with tarfile.open(tar(tmp_path / "a.pth")) as archive, tarfile.open(tmp_path / "b.pth", "w:", format=tarfile.GNU_FORMAT) as again:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        again.addfile(folder)
        for member in archive:
            again.addfile(member.replace(name=f"./{member.name}", deep=False), archive.extractfile(member))
    raw = bytearray((tmp_path / "b.pth").read_bytes())
    at = 0
    while raw[at : at + 100].strip(b"\0"):
        raw[at + 257 : at + 265] = bytes(8)
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
        at += 512 + -(-int(raw[at + 124 : at + 135], 8) // 512) * 512
    (tmp_path / "c.pth").write_bytes(raw)
    for name in ("b.pth", "c.pth"):
        assert_agrees(tmp_path / name, {"w": torch.tensor([[2.0, 3.0]]), "n": torch.tensor(9)})


@pytest.mark.parametrize(
    ("members", "fact"),
    [
        ({"storages": dumps(10**9)}, "announces more than it can hold"),
        ({"storages": STORAGES[:60]}, "is cut off"),
        ({"storages": dumps(0, [])}, "in a storage that the archive does not have"),
        ({"tensors": dumps(0)}, "refers to a tensor that the archive does not have"),
        ({"tensors": dumps(1, (1, 7, 0)) + struct.pack("<ii", 99, 0)}, "has a tensor of 99 dimensions"),
    ],
)
def test_lies_in_tar_archives_are_errors(tmp_path: Path, members: dict[str, bytes], fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(tar(tmp_path / "a.pth", **members))


def test_links_in_tar_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:") as archive:
        info = tarfile.TarInfo("storages")
        info.type, info.linkname = tarfile.LNKTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(FormatError, match="is a link, a device or the like"):
        open_checkpoint(str(tmp_path / "a.tar"))


def test_another_tar_archive_is_named_as_such(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:") as archive:
        archive.addfile(tarfile.TarInfo("readme"))
    with pytest.raises(FormatError, match="is a tar archive without `storages`"):
        open_checkpoint(str(tmp_path / "a.tar"))
