"""npz, npy, GGUF; files that are no checkpoints; and that none of it needs torch or numpy."""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.archives import zip_directory
from ckpt_tool.tensors import DType
from tests.formats.oracles import assert_agrees

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.array([1, 2, 3], ">i4"),
    "scalar": np.array(7),
    "truth": np.array([True, False]),
    "complex": np.array([1 + 2j], ">c16"),
}
TENSORS = {key: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for key, array in ARRAYS.items()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numpy_are_tensors(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    assert_agrees(tmp_path / "a.npz", TENSORS)


EXTENSIONS = {
    "bfloat16": DType.BF16,
    "float8_e4m3fn": DType.F8_E4M3,
    "float8_e4m3fnuz": DType.F8_E4M3FNUZ,
    "float8_e5m2": DType.F8_E5M2,
    "float8_e5m2fnuz": DType.F8_E5M2FNUZ,
    "float8_e8m0fnu": DType.F8_E8M0,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", [name for name in EXTENSIONS if hasattr(torch, name)])
def test_a_pickle_of_jax_arrays_has_their_types(tmp_path: Path, name: str, protocol: int) -> None:
    array = np.arange(1, 13).reshape(3, 4).astype(getattr(ml_dtypes, name))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"encoder": {"w": array}, "decoder": {"t": array.T}}, protocol))
    dtype, theirs = EXTENSIONS[name], getattr(torch, name)
    with open_checkpoint(str(tmp_path / "a.pkl")) as checkpoint:
        assert [(info.key, info.dtype, info.shape) for info in checkpoint.catalog.values()] == [
            ("encoder.w", dtype, (3, 4)), ("decoder.t", dtype, (4, 3)),
        ]  # fmt: skip
        w, t = (torch.frombuffer(bytearray(checkpoint.raw(key)), dtype=theirs).float() for key in checkpoint.catalog)
    assert torch.equal(w, torch.from_numpy(array.astype(np.float32)).flatten())
    assert torch.equal(t, torch.from_numpy(array.T.astype(np.float32)).flatten())


def test_types_that_no_tensor_has_here_are_named(tmp_path: Path) -> None:
    """ml_dtypes' int4 has a byte for each element; its bfloat16 loses its name in a `.npy`."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.zeros(3, ml_dtypes.int4)}))
    np.save(tmp_path / "a.npy", np.zeros((2, 3), ml_dtypes.bfloat16))
    texts = []
    for name in ("a.pkl", "a.npy"):
        with open_checkpoint(str(tmp_path / name)) as checkpoint:
            assert not checkpoint.catalog
            texts += [extra.text for extra in checkpoint.extras]
    assert texts == ["array ml_dtypes.int4 3", "array <V2 2×3; as numpy writes bfloat16 and the like, whose names it loses"]


@pytest.mark.parametrize("key", ARRAYS)
def test_a_lone_array_has_an_empty_key(tmp_path: Path, key: str) -> None:
    np.save(tmp_path / "a.npy", ARRAYS[key])
    assert_agrees(tmp_path / "a.npy", {"": TENSORS[key]})


def test_what_inflates_beyond_the_limit_is_checked_only_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000), b=np.arange(1000.0))
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        raw[archive.filelist[1].header_offset + archive.filelist[1].compress_size] ^= 1
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(FormatError, match="a compressed member is damaged"):
        open_checkpoint(str(tmp_path / "a.npz"))
    monkeypatch.setattr(zip_directory, "INFLATE_ON_OPEN", 10_000)
    with open_checkpoint(str(tmp_path / "a.npz")) as checkpoint:
        assert checkpoint.raw("a") == bytes(8000)
        with pytest.raises(FormatError, match="a compressed member is damaged"):
            checkpoint.raw("b")


def test_texts_are_extras_and_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2), names=np.array(["a", "bc"]))
    with open_checkpoint(str(tmp_path / "a.npz")) as checkpoint:
        assert [(extra.path, extra.kind, extra.text) for extra in checkpoint.extras] == [("names", "tensor", "array <U2 2")]
    np.savez(tmp_path / "b.npz", w=np.array([{}], dtype=object))
    with pytest.raises(FormatError, match="`w` is an array of Python objects"):
        open_checkpoint(str(tmp_path / "b.npz"))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': True, 'shape': (2L, 3L), }",
        "{'shape': (2, 3), 'fortran_order': True, 'descr': '<f8'}",
        '{"descr": "<f8", "fortran_order": True, "shape": (2, 3)}',
        "{'descr':'<f8','shape':(2,3,),'fortran_order':True,}",
    ],
)
@pytest.mark.filterwarnings("ignore:Reading:UserWarning")
def test_headers_of_other_writers_are_read_as_numpy_reads_them(tmp_path: Path, header: str) -> None:
    text = header.encode() + b" " * 7 + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + np.arange(6.0).tobytes())
    with open_checkpoint(str(tmp_path / "a.npy")) as checkpoint:
        assert np.array_equal(checkpoint.read("").numpy(), np.load(tmp_path / "a.npy", max_header_size=10_000))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False}", "{'descr': '<f8', 'fortran_order': False, 'shape': (1 2)}", "{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': (,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': [2]}", "{'descr': '<f8', 'fortran_order': False, 'shape': (2)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), 'shape': (3,)}", "{'descr': '<f8', 'descr': '<f8', 'shape': (2,)}", "{'descr': f(), 'fortran_order': False, 'shape': (2,)}",
        "{'descr\": '<f8', 'fortran_order': False, 'shape': (2,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), 'more': 1}", "{}", "", "(" * 9000, " " * 9000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)" + " " * 9000, "{'descr': " + "[" * 9000, "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 40 + ",)}",
    ],
)  # fmt: skip
def test_other_headers_are_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(16))
    with pytest.raises(FormatError, match="the header of the file is not as numpy writes it"):
        open_checkpoint(str(tmp_path / "a.npy"))


def test_dates_and_structures_are_named_and_only_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.array(["2020"], "M8[s]"), s=np.zeros(2, [("Offset", "<f4"), ("o", "<i8")]))
    np.savez(tmp_path / "b.npz", s=np.zeros(2, [("x", "O")]))
    with open_checkpoint(str(tmp_path / "a.npz")) as checkpoint:
        texts = [extra.text for extra in checkpoint.extras]
    assert texts == ["array <M8[s] 1", "array [('Offset', '<f4'), ('o', '<i8')] 2"]
    with pytest.raises(FormatError, match="`s` is an array of Python objects"):
        open_checkpoint(str(tmp_path / "b.npz"))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))}
    for name, value in (("dict", arrays), ("list", [*arrays.values()]), ("array", arrays["a"])):
        (tmp_path / name).write_bytes(pickle.dumps(value, protocol))
        with open_checkpoint(str(tmp_path / name)) as checkpoint:
            wanted = value if name == "dict" else dict(enumerate(value)) if name == "list" else {"": value}
            assert {key: checkpoint.read(key).tolist() for key in checkpoint.catalog} == {
                str(key): array.tolist() for key, array in wanted.items()
            }


def gguf(
    path: Path, pairs: bytes = b"", count: int = 0, tensors: tuple[tuple[str, tuple[int, ...], int, int], ...] = (), data: bytes = b""
) -> str:
    raw = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + pairs
    for name, sizes, kind, offset in tensors:
        raw += struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)
    path.write_bytes(raw + bytes(-len(raw) % 32) + data)
    return str(path)


def pair(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def test_gguf_gives_plain_tensors_names_quantised_ones_and_shows_its_values(tmp_path: Path) -> None:
    pairs = pair("general.name", 8, struct.pack("<Q", 2) + b"me") + pair("sizes", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3))
    path = gguf(tmp_path / "a.gguf", pairs, 2, (("w", (3, 2), 0, 0), ("q", (32,), 8, 32)), bytes(range(24)) + bytes(42))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.catalog["w"].shape == (2, 3)
        assert checkpoint.raw("w") == bytes(range(24))
        assert [(extra.path, extra.text) for extra in checkpoint.extras] == [("q", "quantised Q8_0 32")]
        assert checkpoint.metadata == {"general.name": "me", "sizes": "3 values: 1, 2, 3"}


@pytest.mark.parametrize(
    ("pairs", "tensors", "fact"),
    [
        (pair("a", 77, b""), (), "has a value of the unknown type 77"),
        (pair("a", 8, struct.pack("<Q", 1 << 62)), (), "announces 4611686018427387904 things"),
        (pair("general.alignment", 4, struct.pack("<I", 7)), (), "aligns its tensors to 7 bytes"),
        (pair("a", 9, struct.pack("<IQ", 9, 1) * 20), (), "unknown type 9"),
        (pair("a", 4, bytes(4)), (("w", (8,), 0, 0), ("w", (8,), 0, 32)), "has the tensor `w` twice"),
        (pair("a", 4, bytes(4)), (("w", (16,), 0, 0), ("v", (8,), 0, 32)), "overlaps another tensor"),
        (pair("a", 4, bytes(4)), (("w", (999,), 0, 0),), "is cut off"),
        (pair("a", 4, bytes(4)), (("w", (8,), 0, 5),), "is not aligned to 32"),
        (pair("a", 4, bytes(4)), (("w", (8,), 99, 0),), "has the unknown type 99"),
        (pair("a", 4, bytes(4)), (("q", (64,), 8, 0),), "is cut off: 4 bytes of at least"),
        (pair("a", 4, bytes(4)), (("q", (32,), 8, 0), ("w", (2,), 0, 32)), "`w` overlaps another tensor"),
        (pair("a", 4, bytes(4)), (("q", (48,), 2, 0),), "`q` is Q4_0 48, whose rows are not blocks of 32"),
        (pair("a", 4, bytes(4)), (("q", (32,), 2, 0), ("q", (8,), 0, 32)), "has the tensor `q` twice"),
    ],
)
def test_lies_in_gguf_are_errors(tmp_path: Path, pairs: bytes, tensors: tuple, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(gguf(tmp_path / "a.gguf", pairs, 1, tensors, bytes(64)))


def test_gguf_of_other_machines_is_told(tmp_path: Path) -> None:
    for version, fact in (
        (b"\0\0\0\3", "is GGUF for machines whose numbers are big-endian"),
        (b"\1\0\0\0", "is GGUF of version 1; 2 and 3 are read"),
    ):
        (tmp_path / "a.gguf").write_bytes(b"GGUF" + version + bytes(100))
        with pytest.raises(FormatError, match=fact):
            open_checkpoint(str(tmp_path / "a.gguf"))


FOREIGN = {
    "an empty file": (b"", "is empty"),
    "a gzip file": (gzip.compress(b"a" * 100), "gzip"),
    "a 7z archive": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z archive"),
    "a zstd file": (b"\x28\xb5\x2f\xfd" + bytes(40), "zstd"),
    "a web page": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git-lfs pointer"),
    "an error message": (json.dumps({"error": "not found"}).encode(), "an error message in JSON"),
    "other JSON": (json.dumps({"a": 1}).encode(), "no index of a checkpoint"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "msgpack": (b"\x81\xa6params\x80" + bytes(40), "msgpack"),
    "zeros": (bytes(1000), "nothing but zeros"),
    "a git-lfs pointer behind a mark": (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    "a git-annex pointer": (b"/annex/objects/SHA256E-s5--00.pth\n", "git-annex pointer.*; git annex get"),
    "a copied git-annex link": (b"../.git/annex/objects/Xx/Yy/SHA256E-s5--00.pth/SHA256E-s5--00.pth", "git-annex pointer"),
    "a web page behind a mark": (b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
    "a server's answer": (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(40), "begins with the server's answer"),
    "a text of other letters": ("conv\tF32\t3".encode("utf-16"), "UTF-16.*; save it as UTF-8"),
    "a photograph": (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(40), "is an image"),
    "an lz4 file": (b"\x04\x22\x4d\x18" + bytes(40), "lz4"),
    "an HDF5 file far behind other bytes": (bytes(2048) + b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "safetensors that begin as gzip does": (
        struct.pack("<Q", 0x8B1F) + b'{"w":' + bytes(40),
        "is cut off: ",
    ),
    "high bytes": (b"\xf0\xff" * 50, "has an unknown format|is not UTF-8"),
    "an ONNX model": (b"\x08\x08\x12\x07pytorch" + bytes(40), "ONNX"),
    "an ONNX model without a producer": (b"\x08\x0a:\x20" + bytes(40), "ONNX"),
    "a Core ML model": (b"\x08\x05\x12\x80\x01\x0a" + bytes(40), "Core ML"),
    "a SavedModel": (b"\x08\x01\x12\xa0\x04\x0a" + bytes(40), "TensorFlow SavedModel"),
    "a TensorFlow Lite model": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite"),
    "an HDF5 file behind other bytes": (bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "an old GGML file": (b"tjgg" + bytes(40), "old GGML"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(40), "image"),
    "the start of a model": (b"\x08\x03", "has an unknown format|is a text file|is cut off: 8 bytes of at least 10"),
    "white space first": (
        b"\x40" + bytes(7) + b' {"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + bytes(4),
        "begins its safetensors header with white space",
    ),
    "a safetensors file without most of its header": (b"\xff\0\0\0\0\0\0\0{" + bytes(40), "is cut off: 214 bytes of at least 263 are missing"),
    "anything": (b"\x01\x02\x03\x04" * 20, "has an unknown format"),
}


@pytest.mark.parametrize(("raw", "fact"), FOREIGN.values(), ids=list(FOREIGN))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_files_that_are_no_checkpoints_are_named(tmp_path: Path, raw: bytes, fact: str, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(raw)
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(str(tmp_path / f"a{suffix}"))


def test_a_text_is_told_with_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"Entry not found\n\x1b")
    (tmp_path / "b.safetensors").write_bytes(b"\n Access to the model is restricted.\r\nLog in.")
    with pytest.raises(FormatError, match="has an unknown format"):
        open_checkpoint(str(tmp_path / "a.safetensors"))
    with pytest.raises(FormatError, match=r"it begins `Access to the model is restricted\.`; download the checkpoint again"):
        open_checkpoint(str(tmp_path / "b.safetensors"))


def test_a_link_to_nothing_is_told_from_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").symlink_to("../blobs/0123")
    (tmp_path / "b.pth").symlink_to(".git/annex/objects/Xx/Yy/SHA256E-s5--00.pth")
    with pytest.raises(InputError, match=r"a\.pth: is a link to \.\./blobs/0123, where nothing is; download"):
        open_checkpoint(str(tmp_path / "a.pth"))
    with pytest.raises(InputError, match="where nothing is; git annex get"):
        open_checkpoint(str(tmp_path / "b.pth"))


def test_an_array_is_told_to_be_cut_off_with_what_is_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0))
    whole = (tmp_path / "a.npy").read_bytes()
    for end, fact in (
        (50, "is cut off inside its header, 78 bytes"),
        (128, "is cut off: 48 bytes of at least 176"),
        (175, "is cut off: 1 bytes"),
    ):
        (tmp_path / "b.npy").write_bytes(whole[:end])
        with pytest.raises(FormatError, match=fact):
            open_checkpoint(str(tmp_path / "b.npy"))


def test_gguf_is_told_to_be_cut_off_wherever_it_ends(tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf", pair("general.name", 8, struct.pack("<Q", 2) + b"me"), 1, (("w", (3, 2), 0, 0),), bytes(24))
    whole = (tmp_path / "a.gguf").read_bytes()
    for end in range(4, len(whole)):
        (tmp_path / "a.gguf").write_bytes(whole[:end])
        with pytest.raises(FormatError, match=r"is cut off: [0-9,]+ bytes of at least [0-9,]+ are missing"):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("head", "fact"),
    [
        (struct.pack("<IQQ", 3, 0, 60_000), "has 60000 values by name; at most 50000 are read"),
        (struct.pack("<IQQ", 3, 310_000, 0), "has 310000 tensors; at most 300000 are read"),
        (struct.pack("<IQQ", 3, 0, 1) + pair("a", 9, struct.pack("<IQ", 8, 3_100_000)), "has more than 3000000 values in its header"),
        (struct.pack("<IQQ", 3, 0, 1) + pair("a", 9, struct.pack("<IQ", 9, 3_100_000)), "has more than 3000000 values in its header"),
    ],
)
def test_gguf_of_more_values_than_can_soon_be_read_is_refused(tmp_path: Path, head: bytes, fact: str) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + head)
    os.truncate(tmp_path / "a.gguf", 26_000_000)
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(str(tmp_path / "a.gguf"))


def test_an_archive_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    for name, fact in {"model.weights.h5": "Keras", "[Content_Types].xml": "office document", "a/archive_format": "torch.export", "a/b.txt": "no data.pkl"}.items():
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr(name, "x")
        with pytest.raises(FormatError, match=fact):
            open_checkpoint(str(tmp_path / "a.pth"))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_checkpoint(str(tmp_path / "none.pth"))
    with pytest.raises(InputError, match="is a device, not a file"):
        open_checkpoint("/dev/zero")
    with pytest.raises(InputError):
        open_checkpoint("a\0b")


def test_a_distributed_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"\x80\x04N.")
    with pytest.raises(FormatError, match="not a distributed checkpoint's `Metadata`"):
        open_checkpoint(str(tmp_path))


def test_a_file_of_a_distributed_checkpoint_is_several_archives(tmp_path: Path) -> None:
    """torch.load takes the first of two tensors that were saved alike, zipfile the second."""
    parts = []
    for value in (1.0, 2.0):
        buffer = io.BytesIO()
        torch.save(torch.full((2,), value), buffer)
        parts.append(buffer.getvalue())
    (tmp_path / "__0_0.distcp").write_bytes(b"".join(parts))
    assert torch.load(tmp_path / "__0_0.distcp").tolist() == [1, 1]
    (tmp_path / "renamed.pth").write_bytes(b"".join(parts))
    with pytest.raises(FormatError, match="several archives one behind the other"):
        open_checkpoint(str(tmp_path / "renamed.pth"))
    with pytest.raises(FormatError, match="a data file of a distributed checkpoint"):
        open_checkpoint(str(tmp_path / "__0_0.distcp"))


OPEN_ALL = """
import sys
from ckpt_tool.formats import open_checkpoint
heavy = {"torch", "numpy", "zipfile", "tarfile", "pickle"}
light = set(sys.modules)
opened = [open_checkpoint(path) for path in sys.argv[1:]]
print(sorted(heavy & set(sys.modules)), "json" in light)
for checkpoint in opened:
    for key in checkpoint.catalog:
        checkpoint.raw(key)
print("torch" in sys.modules)
"""


def test_opening_files_of_every_format_needs_neither_torch_nor_numpy_and_reading_values_no_torch(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3).conj()}, tmp_path / "a.pth")
    torch.save({"w": torch.ones(2, 3).t()}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    np.savez_compressed(tmp_path / "c.npz", **ARRAYS)
    gguf(tmp_path / "d.gguf", tensors=(("w", (2,), 0, 0),), data=bytes(8))
    paths = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, *paths], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "[] False\nFalse\n"


def test_gguf_tensors_have_our_types(tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf", tensors=(("w", (2,), 30, 0),), data=bytes(4))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.catalog["w"].dtype is DType.BF16


def test_a_folder_of_other_kinds_names_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "flax_model.msgpack").write_bytes(b"\x81\xa6params\x80")
    with pytest.raises(InputError, match=r"without a known checkpoint file, but with flax_model\.msgpack; name one of them"):
        open_checkpoint(str(tmp_path))


def test_the_data_of_a_tensorflow_checkpoint_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(b"\x01\x02\x03\x04" * 20)
    with pytest.raises(FormatError, match="data of a TensorFlow checkpoint"):
        open_checkpoint(str(tmp_path / "model.ckpt.data-00000-of-00001"))
