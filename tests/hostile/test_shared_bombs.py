"""Small pickles that ask for gigabytes or hours by sharing: many copies of one text, long names over many tensors, calls of calls."""

import struct
from pathlib import Path

import pytest
import torch

from ckpt_tool import FormatError, MappingOptions
from ckpt_tool.api import map_checkpoint
from ckpt_tool.formats import open_checkpoint
from tests.hostile.broken_files import archive, records, tensor_pickle

TENSOR = tensor_pickle()[len(b"\x80\x02}X\x01\0\0\0w") : -2]
AGAIN = "over and over"


def text(size: int) -> bytes:
    return b"X" + struct.pack("<I", size) + b"a" * size


def number(value: int) -> bytes:
    return b"M" + struct.pack("<H", value)


def dict_of(count: int, value: bytes) -> bytes:
    return b"}(" + b"".join(number(key) + value for key in range(count)) + b"u"


LIST = b"](" + b"N" * 10_000 + b"eq\0"
DICT = dict_of(10_000, b"N") + b"q\0"
TENSORS = b"}(N" + TENSOR + b"q\1" + b"".join(number(key) + b"h\1" for key in range(1500)) + b"uq\2"
SHARED = {
    "texts as bytes": (b"](" + text(3 << 20) + b"q\0" + b"c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R" * 100 + b"e.", AGAIN),
    "contents of arrays": (b"](" + text(3 << 20) + b"q\0" + b"cnumpy._core.numeric\n_frombuffer\n(h\0N)NtR" * 100 + b"e.", AGAIN),
    "sets": (b"](" + LIST + b"cbuiltins\nset\nh\0\x85R" * 300 + b"e.", AGAIN),
    "sizes": (b"](" + LIST + b"ctorch\nSize\nh\0\x85R" * 300 + b"e.", AGAIN),
    "dicts": (b"](" + DICT + b"ccollections\nOrderedDict\nh\0\x85R" * 300 + b"e.", AGAIN),
    "attributes": (b"](" + DICT + b"ccollections\nOrderedDict\n)Rh\0b" * 300 + b"e.", AGAIN),
    "states": (b"](" + DICT + b"cx\ny\n)\x81h\0b" * 300 + b"e.", AGAIN),
    "attributes one by one": (b"ccollections\nOrderedDict\n)R" + b"".join(b"}" + number(key) + b"Nsb" for key in range(5000)) + b".", AGAIN),
    "arguments": (b"((" + b"N" * 10_000 + b"tq\0" + b"cx\ny\nh\0R" * 300 + b"t.", AGAIN),
    "objects with the same tensors": (b"](" + TENSORS + b"cx\ny\n)\x81h\2b" * 2000 + b"e.", AGAIN),
    "modules with the same parameters": (
        b"](}(X\x0b\0\0\0_parameters" + TENSORS + b"X\x08\0\0\0_modules}uq\3" + b"cx\ny\n)\x81h\3b" * 1500 + b"e.", AGAIN,
    ),
    "lists of one dict": (b"](" + TENSORS + b"h\2" * 500 + b"e.", AGAIN),
    "state dicts inside of objects": (b"}(N" + TENSORS + b"".join(number(key) + b"}X\x05\0\0\0modelh\2s" for key in range(1500)) + b"u.", AGAIN),
    "a long name over many tensors": (b"}" + text(1 << 20) + b"}(N" + TENSOR + b"q\1" + b"".join(number(key) + b"h\1" for key in range(200)) + b"us.", "long names"),
    "long names in long names": (b"}" + (text(10_000) + b"}") * 150 + text(1) + TENSOR + b"s" * 151 + b".", "long names"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_a_bomb_of_shared_things_is_refused(tmp_path: Path, name: str) -> None:
    raw, fact = SHARED[name]
    path = tmp_path / "model.pth"
    path.write_bytes(archive(records() | {"data.pkl": b"\x80\x04" + raw, "data/0": bytes(16)}))
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(path)


def test_calls_of_calls_cost_as_much_as_calls(tmp_path: Path) -> None:
    """A hundred thousand in a chain took squared time: minutes."""
    path = tmp_path / "model.pth"
    path.write_bytes(archive(records() | {"data.pkl": b"\x80\x02](cx\ny\n" + b")R" * 100_000 + tensor_pickle()[2:-1] + b"e."}))
    with open_checkpoint(path) as checkpoint:
        assert [extra.text for extra in checkpoint.extras if extra.kind == "call"] == ["x.y"]


@pytest.mark.parametrize("output", ["out.pth", "out.safetensors"])
def test_many_views_of_one_storage_are_mapped_in_linear_time(tmp_path: Path, output: str) -> None:
    storage = torch.zeros(30_100)
    torch.save({f"a.{i}": storage[i : i + 5] for i in range(30_000)}, tmp_path / "a.pth")
    # Compared with each other they would take an hour.
    assert map_checkpoint(tmp_path / "a.pth", None, tmp_path / output, MappingOptions(inline="a.{i} -> b.{i}")).tensors == 30_000


def test_what_a_model_really_shares_is_read(tmp_path: Path) -> None:
    """A layer that is used a hundred times, each with ten tensors."""
    layer = dict_of(10, TENSOR) + b"q\0"
    path = tmp_path / "model.pth"
    path.write_bytes(archive(records() | {"data.pkl": b"\x80\x02](" + layer + b"h\0" * 99 + b"e.", "data/0": bytes(16)}))
    with open_checkpoint(path) as checkpoint:
        assert len(checkpoint.catalog) + len(checkpoint.contents.elsewhere) == 1000
