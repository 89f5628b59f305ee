"""Key lists: what is written is read back; what is no key list is refused with its line."""

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import format_key_list, open_checkpoint
from ckpt_tool.formats.key_list import read_key_list
from ckpt_tool.tensors import Catalog, DType, TensorInfo

SHAPES = st.lists(st.integers(0, 1 << 40), max_size=5).map(tuple)
INFOS = st.builds(TensorInfo, st.text(), st.sampled_from(DType), SHAPES)


@given(infos=st.lists(INFOS, min_size=1, unique_by=lambda info: info.key))
def test_what_is_written_is_read_back(infos: list[TensorInfo]) -> None:
    text = format_key_list(Catalog(infos))
    assert list(read_key_list(io.BytesIO(text.encode("utf-8")), "keys").catalog.values()) == infos


def test_keys_with_control_characters_stand_as_json() -> None:
    assert format_key_list(Catalog([TensorInfo('a\tb"', DType.F32, (2, 3))])) == '"a\\tb\\""\tF32\t2x3\n'


def test_a_key_list_has_no_values(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("conv.weight\tF32\t64x3x7x7\r\n\nsteps\tI64\tscalar\n")
    with open_checkpoint(str(tmp_path / "keys.txt")) as checkpoint:
        assert checkpoint.format == "key list"
        assert not checkpoint.has_values
        assert list(checkpoint.catalog.values()) == [
            TensorInfo("conv.weight", DType.F32, (64, 3, 7, 7)),
            TensorInfo("steps", DType.I64, ()),
        ]


def test_a_dash_is_a_key_list_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\tF32\t2\n")))
    with open_checkpoint("-") as checkpoint:
        assert list(checkpoint.catalog) == ["a"]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("a\tF32\t2\nb F32 2\n", "line 2: `b F32 2` is not key, dtype and shape"),
        ("a\tfloat32\t2\n", "line 1: `float32` is not a dtype"),
        ("a\tF32\t2,3\n", "line 1: `2,3` is not a shape"),
        ("a\tF32\t-2\n", "line 1: `-2` is not a shape"),
        ("a\tF32\t2\na\tF32\t2\n", "line 2: `a` is listed twice"),
        ('"a\tF32\t2\n', "line 1: .* is no JSON string"),
        ("\n", "has no line of a key list"),
    ],
)
def test_what_is_no_key_list_is_refused_with_its_line(tmp_path: Path, text: str, fact: str) -> None:
    (tmp_path / "keys.txt").write_text(text)
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(str(tmp_path / "keys.txt"))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".bin", ".ckpt", ".safetensors", ".PTH"])
def test_a_text_named_like_a_checkpoint_is_never_a_key_list(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text("a\tF32\t2\n")
    with pytest.raises(FormatError, match="is a text file, not a checkpoint"):
        open_checkpoint(str(tmp_path / f"a{suffix}"))


def test_sorted_keys_are_not_in_module_order(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("a.bias\tF32\t2\na.weight\tF32\t2\n")
    with open_checkpoint(str(tmp_path / "keys.txt")) as checkpoint:
        assert not checkpoint.catalog.is_ordered


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes(b"\xef\xbb\xbfconv1.weight\tF32\t3\r\nbn\tF32\t3\r\n")
    with open_checkpoint(str(tmp_path / "keys.txt")) as checkpoint:
        assert list(checkpoint.catalog) == ["conv1.weight", "bn"]
