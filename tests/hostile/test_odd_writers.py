"""What writers do that hardly anybody knows, and torch or numpy read: we read the same."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckpt_tool import FormatError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_agrees
from tests.hostile.broken_files import archive, records, tensor_pickle, torch_file

W = torch.arange(4.0)


def put(folder: Path, raw: bytes) -> Path:
    path = folder / "model.pth"
    path.write_bytes(raw)
    return path


def saved(value: object, **options: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.float16, torch.complex64])
def test_a_negative_view_is_negated_as_torch_does(tmp_path: Path, dtype: torch.dtype) -> None:
    view = torch._neg_view(torch.tensor([0, 1, 2, 100, -128 if dtype.is_signed else 200], dtype=dtype))
    path = put(tmp_path, saved({"w": view}))
    assert_agrees(path, {"w": torch.load(path, weights_only=True)["w"].resolve_neg()})


def test_a_negative_view_of_booleans_is_refused(tmp_path: Path) -> None:
    pickled = tensor_pickle(count=16, kind="BoolStorage").replace(b"\x89}t", b"\x89}}X\x03\0\0\0neg\x88st")
    with pytest.raises(FormatError, match="has a negative view of BOOL"):
        open_checkpoint(put(tmp_path, archive(records() | {"data.pkl": pickled, "data/0": bytes(16)})))


def test_python_2_wrote_arrays_as_texts(tmp_path: Path) -> None:
    """The bytes of zeros are ASCII, which reads as a text."""
    kind = b"cnumpy\ndtype\n(U\x02f4K\0K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K\x04\x85"
        + kind
        + b"\x89U\x10"
        + bytes(16)
        + b"tb"
    )
    raw = b"\x80\x02}(U\x04bias" + array + b"U\x05\xd0\xb2\xd0\xb5s" + array + b"u."
    theirs = pickle.loads(raw, encoding="latin1")
    with open_checkpoint(put(tmp_path, raw)) as checkpoint:
        assert list(checkpoint.catalog) == ["bias", "веs"]
        assert checkpoint.raw("bias") == theirs["bias"].tobytes()


def test_keys_of_python_2_are_utf_8(tmp_path: Path) -> None:
    raw = archive(
        records() | {"data.pkl": tensor_pickle().replace(b"X\x01\0\0\0w", b"U\x04\xd1\x84\xd1\x84", 1), "data/0": W.numpy().tobytes()}
    )
    path = put(tmp_path, raw)
    assert_agrees(path, torch.load(path, weights_only=True))


def test_storages_whose_bytes_come_later_have_no_checksum(tmp_path: Path) -> None:
    with torch.serialization.skip_data():
        raw = saved({"a": W, "b": torch.ones(100)})
    path = put(tmp_path, raw)
    assert_agrees(path, torch.load(path, weights_only=True))


def test_a_checksum_of_zero_counts_where_the_descriptor_has_one(tmp_path: Path) -> None:
    raw = bytearray(torch_file({"w": W}))
    entry = raw.index(b"archive/data/0", raw.index(b"PK\1\2")) - 46
    raw[entry + 16 : entry + 20] = bytes(4)
    with pytest.raises(FormatError, match="checksum"):
        open_checkpoint(put(tmp_path, bytes(raw)))


def test_masks_and_zeros_may_be_deflated(tmp_path: Path) -> None:
    value = {"mask": torch.ones(600, 600).tril(), "zeros": torch.zeros(300_000)}
    with zipfile.ZipFile(io.BytesIO(saved(value))) as made:
        members = {name.split("/", 1)[1]: made.read(name) for name in made.namelist()}
    assert_agrees(put(tmp_path, archive(members, zipfile.ZIP_DEFLATED)), value)


@pytest.mark.parametrize("folder", [b"arch\x82ve", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9"])
def test_the_folder_of_an_archive_may_be_named_in_any_encoding(tmp_path: Path, folder: bytes) -> None:
    path = put(tmp_path, archive(records() | {"data/0": W.numpy().tobytes()}).replace(b"archive/", folder + b"/"))
    assert_agrees(path, torch.load(path, weights_only=True))


def test_a_name_that_says_that_it_is_utf_8_must_be(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not UTF-8, though it says so"):
        open_checkpoint(put(tmp_path, torch_file({"w": W}).replace(b"archive/", b"arch\xffve/")))


def test_a_legacy_stream_in_pickles_of_protocol_1(tmp_path: Path) -> None:
    assert_agrees(put(tmp_path, saved({"w": W}, _use_new_zipfile_serialization=False, pickle_protocol=1)), {"w": W})


def test_the_mark_of_a_tar_archive_inside_a_pickle_is_nothing(tmp_path: Path) -> None:
    key = lambda before: "a" * before + "ustar" + "a" * 300  # noqa: E731
    start = saved({key(0): W}, _use_new_zipfile_serialization=False).index(b"ustar")
    raw = saved({key(257 - start): W}, _use_new_zipfile_serialization=False)
    assert raw[257:262] == b"ustar"
    path = put(tmp_path, raw)
    assert_agrees(path, torch.load(path, weights_only=True))


def test_a_variable_of_torch_0_3_is_its_tensor(tmp_path: Path) -> None:
    pickled = tensor_pickle().replace(b"ctorch._utils", b"ctorch.autograd.variable\nVariable\nctorch._utils").replace(b"Rs.", b"R\x85Rs.")
    assert_agrees(put(tmp_path, archive(records() | {"data.pkl": pickled, "data/0": W.numpy().tobytes()})), {"w": W})


def test_bytes_and_eights_of_floats_may_share_a_storage(tmp_path: Path) -> None:
    whole = torch.arange(8, dtype=torch.uint8)
    for new in (True, False):
        path = put(tmp_path, saved({"a": whole, "b": whole.view(torch.float8_e5m2)}, _use_new_zipfile_serialization=new))
        assert_agrees(path, {"a": whole, "b": whole.view(torch.float8_e5m2)})


def test_one_storage_of_two_types_is_refused_since_torch_gives_both_as_the_first(tmp_path: Path) -> None:
    one, other = tensor_pickle(), tensor_pickle(kind="IntStorage")
    pickled = one[:-2] + b"s" + other[3:].replace(b"X\x01\0\0\0w", b"X\x01\0\0\0v", 1)
    with pytest.raises(FormatError, match="two different storages of the key 0"):
        open_checkpoint(put(tmp_path, archive(records() | {"data.pkl": pickled, "data/0": W.numpy().tobytes()})))


def many_tensors(change: Callable[[bytes, int], bytes]) -> tuple[bytes, dict[str, torch.Tensor]]:
    """A file of so many tensors that they are read in one step, and its pickle changed by the byte of the last tensor's memo."""
    value = {f"k{number}": torch.full((2,), float(number)) for number in range(100)}
    with zipfile.ZipFile(io.BytesIO(saved(value))) as made:
        members = {name.split("/", 1)[1]: made.read(name) for name in made.namelist()}
    pickled = members["data.pkl"]
    return archive(members | {"data.pkl": change(pickled, pickled.rindex(b"Rr") + 1)}), value


def test_a_tensor_put_into_the_memo_by_a_long_opcode_and_asked_for_by_a_short_one(tmp_path: Path) -> None:
    asked = lambda raw, at: raw[:at] + b"r" + struct.pack("<I", 3) + raw[at + 5 : -2] + b"uX\x03\0\0\0tieh\x03s."  # noqa: E731
    raw, value = many_tensors(asked)
    path = put(tmp_path, raw)
    theirs = torch.load(path, weights_only=True)
    assert torch.equal(theirs["tie"], value["k99"])
    assert_agrees(path, theirs)
