"""safetensors files agree with the reference reader, and what the format forbids is refused."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_same_tensor, every_dtype, filled

STORABLE = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint16, torch.bool, torch.complex64]
STORABLE += every_dtype("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn_x2")
TENSORS = st.builds(
    lambda dtype, shape, seed: filled(dtype, *shape, seed=seed),
    st.sampled_from(STORABLE),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.integers(0, 99),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=st.dictionaries(st.text(max_size=6).filter(lambda key: key != "__metadata__"), TENSORS, max_size=5))
def test_files_read_as_the_reference_reads_them(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "a.safetensors", {"made": "here"})
    expected = load_file(tmp_path / "a.safetensors")
    with open_checkpoint(str(tmp_path / "a.safetensors")) as checkpoint:
        assert set(checkpoint.catalog) == set(expected)
        assert checkpoint.metadata == {"made": "here"}
        for key, tensor in expected.items():
            assert_same_tensor(checkpoint, key, tensor)


def write(path: Path, header: object, data: bytes = b"", text: str | None = None) -> str:
    raw = (text if text is not None else json.dumps(header)).encode("utf-8", "surrogatepass")
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return str(path)


def entry(begin: int, end: int, dtype: str = "F32", shape: object = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def test_the_order_of_the_header_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"z": entry(4, 8), "a": entry(0, 4)}, bytes(8))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.catalog) == ["z", "a"]
        assert checkpoint.catalog.is_ordered


def test_the_writers_own_order_is_not_that_of_modules(tmp_path: Path) -> None:
    save_file(
        {"b.weight": torch.ones(2), "a.steps": torch.ones(1, dtype=torch.int64), "a.half": torch.ones(1).half()}, tmp_path / "a.safetensors"
    )
    with open_checkpoint(str(tmp_path / "a.safetensors")) as checkpoint:
        assert not checkpoint.catalog.is_ordered


def test_fields_that_the_format_does_not_know_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"w": {**entry(0, 4), "note": {"deep": [1.5]}}}, bytes(4))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.raw("w") == bytes(4)


@pytest.mark.parametrize("length", [60, 128, 35615])
def test_a_header_length_that_looks_like_another_format_fools_nobody(tmp_path: Path, length: int) -> None:
    text = json.dumps({"w": entry(0, 4)})
    path = write(tmp_path / "a.pth", None, bytes(4), text.ljust(length) if length > len(text) else text)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "safetensors"


W = entry(0, 4)
BROKEN: dict[str, tuple[object, bytes, str]] = {
    "a hole at the start": ({"w": entry(4, 8)}, bytes(8), "begins at byte 4, but the tensor before it ends at 0"),
    "an overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), "begins at byte 4, but the tensor before it ends at 8"),
    "bytes after the last tensor": ({"w": W}, bytes(5), "has 1 bytes after its last tensor"),
    "missing bytes": ({"w": W}, bytes(3), "is cut off: 1 bytes"),
    "a size that is not the shape's": ({"w": entry(0, 4, shape=[2])}, bytes(4), r"has 4 bytes where F32 \[2\] needs 8"),
    "an unknown dtype": ({"w": entry(0, 4, "f32")}, bytes(4), "has no known dtype: 'f32'"),
    "no shape": ({"w": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4), "has no `shape`"),
    "a negative size": ({"w": entry(0, 4, shape=[-1, -1])}, bytes(4), "has a shape that is not a list"),
    "a fraction as a size": ({"w": entry(0, 4, shape=[1.0])}, bytes(4), "has a shape that is not a list"),
    "a truth value as an offset": ({"w": {"dtype": "I8", "shape": [1], "data_offsets": [0, True]}}, bytes(1), "not two numbers"),
    "three offsets": ({"w": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1, 1]}}, bytes(1), "not two numbers"),
    "an entry that is a list": ({"w": []}, b"", "is no JSON object"),
    "metadata that is not a string": ({"__metadata__": {"a": 1}}, b"", "not a mapping of strings to strings"),
    "half of an F4 byte": ({"w": entry(0, 1, "F4", [1])}, bytes(1), "needs 0.5"),
    "65 dimensions": ({"w": entry(0, 4, shape=[1] * 65)}, bytes(4), "at most 64 sizes"),
}


@pytest.mark.parametrize(("header", "data", "fact"), BROKEN.values(), ids=list(BROKEN))
def test_what_the_format_forbids_is_refused(tmp_path: Path, header: object, data: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(write(tmp_path / "a.safetensors", header, data))


ENTRY = json.dumps(W)
TEXTS = {
    "a name twice": ('{"w":' + ENTRY + ',"w":' + ENTRY + "}", "has the name 'w' twice"),
    "a name twice, once escaped": ('{"w":' + ENTRY + ',"\\u0077":' + ENTRY + "}", "has the name 'w' twice"),
    "a field twice": ('{"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "has the name 'dtype' twice"),
    "no number": ('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', "has NaN"),
    "a long number": ('{"w":{"dtype":"F32","shape":[' + "1" * 5000 + '],"data_offsets":[0,4]}}', "has a number of 5000 digits"),
    "deep nesting": ('{"w":' + "[" * 100_000, "is nested too deep"),
    "half of a pair": ('{"\\ud800":' + ENTRY + "}", "half of a surrogate pair"),
    "zeros after the JSON": ('{"w":' + ENTRY + "}\0\0", "is no JSON"),
    "cut JSON": ('{"w":', "is not complete JSON: it ends in the middle, after 5 characters"),
    "a cut name": ('{"w', "is not complete JSON: it ends in the middle, after 3 characters"),
}


@pytest.mark.parametrize(("text", "fact"), TEXTS.values(), ids=list(TEXTS))
def test_json_that_two_readers_could_read_differently_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(write(tmp_path / "a.safetensors", None, bytes(4), text))


def test_a_state_dict_inside_can_not_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"w": W}, bytes(4))
    with pytest.raises(InputError, match="no state dict in the file is named `model`"):
        open_checkpoint(f"{path}#model")


def test_a_file_with_a_hash_mark_in_its_name_is_meant_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors#model", {"w": W}, bytes(4))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]


def test_a_file_that_begins_as_a_zip_is_none(tmp_path: Path) -> None:
    """A header of 67 MB whose length has the letters of a zip: torch would look for an archive in it."""
    length = int.from_bytes(b"PK\3\4", "little")
    with open(tmp_path / "a.safetensors", "wb") as file:
        file.write(struct.pack("<Q", length) + b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length) + b"\7")
    with safe_open(tmp_path / "a.safetensors", "pt") as theirs:
        assert theirs.get_tensor("w") == 7
    with pytest.raises(FormatError, match="a zip archive"):
        open_checkpoint(str(tmp_path / "a.safetensors")).close()


def test_the_header_of_an_open_checkpoint_is_not_read_again_for_one_with_the_same(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_file({"w": torch.full((2,), value)}, tmp_path / name)
    with open_checkpoint(tmp_path / "a") as first, open_checkpoint(tmp_path / "b", first) as second, open_checkpoint(tmp_path / "b") as alone:
        assert second.catalog is first.catalog
        assert alone.catalog is not first.catalog
        assert [float(one.read("w")[0]) for one in (first, second, alone)] == [1.0, 2.0, 2.0]
