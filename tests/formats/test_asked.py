"""What unpickling would call or import is named, called or not, wherever in the file, or in a shard, it stands."""

import json
import os
import pickle
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import open_checkpoint
from tests.formats.pickled_as import As
from tests.hostile.seeds import tars
from tests.running import ckpt

W = torch.ones(2)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that nobody else has."""
    module = types.ModuleType("some_plugin")
    exec("def act(): pass\nclass Cfg: pass\nact.__module__ = Cfg.__module__ = 'some_plugin'", module.__dict__)
    module.Kind = type("Kind", (torch.Tensor,), {"__module__": "some_plugin"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_plugin", module)
    return module


def asked(path: Path) -> tuple[str, ...]:
    with open_checkpoint(path) as checkpoint:
        return checkpoint.asked


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["act", "Cfg", "Kind"])
def test_a_foreign_name_is_told_though_nothing_calls_it(tmp_path: Path, plugin: types.ModuleType, name: str, is_zip: bool) -> None:
    found = getattr(plugin, name)
    value = W.as_subclass(found) if name == "Kind" else found
    torch.save({"w": W, "x": value}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert asked(tmp_path / "a.pth") == (f"some_plugin.{name}",)
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert [extra.kind for extra in checkpoint.extras if extra.kind in ("call", "import")] == ["import"]


def test_what_is_called_is_told_as_called(tmp_path: Path, plugin: types.ModuleType) -> None:
    torch.save({"w": W, "x": plugin.Cfg(), "y": As(os.system, ("true",))}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert [(extra.kind, extra.text) for extra in checkpoint.extras if extra.kind in ("call", "import")] == [
            ("call", "some_plugin.Cfg"), ("call", "posix.system"),
        ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_and_numpy_write_asks_for_nothing(tmp_path: Path, protocol: int) -> None:
    value = {
        "w": W, "p": torch.nn.Parameter(W), "b": torch.nn.Buffer(W), "q": torch.quantize_per_tensor(W, 0.1, 0, torch.qint8),
        "s": torch.eye(2).to_sparse(), "f8": W.to(torch.float8_e4m3fn), "kind": torch.bfloat16, "size": W.shape, "device": W.device,
        "array": np.ones(2), "number": np.float32(1), "type": np.dtype("f4"), "counter": Counter("a"), "ordered": OrderedDict(a=1),
        "default": defaultdict(None, a=1), "set": {1}, "raw": bytearray(b"x"), "complex": 1j, "meta": torch.ones(1, device="meta"),
    }  # fmt: skip
    torch.save(value, tmp_path / "a.pth", pickle_protocol=protocol)
    assert asked(tmp_path / "a.pth") == ()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": W, "a": np.ones(2)}, protocol))
    assert asked(tmp_path / "a.pkl") == ()


def sharded(folder: Path, value: object, *keys: str) -> Path:
    torch.save({"w": W}, folder / "one.bin")
    torch.save(value, folder / "two.bin")
    places = {"w": "one.bin", **dict.fromkeys(keys, "two.bin")}
    (folder / "m.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / "m.bin.index.json"


def test_a_shard_behind_an_index_is_told_of_with_its_name(tmp_path: Path, plugin: types.ModuleType) -> None:
    path = sharded(tmp_path, {"v": W, "x": As(os.system, ("true",)), "y": plugin.Cfg, "n": 3}, "v")
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.asked == ("posix.system", "some_plugin.Cfg")
        assert [(extra.path, extra.kind) for extra in checkpoint.extras][:3] == [("two.bin", "call"), ("two.bin", "import"), ("two.bin#x", "object")]
        assert ("two.bin#n", "value", "3") in [(extra.path, extra.kind, extra.text) for extra in checkpoint.extras]


def test_what_a_shard_holds_besides_is_carried_along(tmp_path: Path) -> None:
    value = {"model": {"v": W, "s": torch.eye(2).to_sparse()}, "ema": {"v": W}, "optimizer": {"state": {0: {"m": W}}, "param_groups": []}}
    with open_checkpoint(sharded(tmp_path, value, "v")) as checkpoint:
        assert [(one.path, one.kind, one.tensors) for one in checkpoint.contents.left_behind] == [
            ("two.bin", "tensors", 1), ("two.bin#ema", "averaged weights", 1), ("two.bin#optimizer", "optimizer", 1),
        ]  # fmt: skip
        assert [info.key for info in checkpoint.contents.elsewhere] == ["two.bin#ema.v", "two.bin#optimizer.state.0.m"]
        assert not checkpoint.catalog.unreadable
    with open_checkpoint(sharded(tmp_path, value, "v", "s")) as checkpoint:
        assert list(checkpoint.catalog) == ["w", "v"]
        assert checkpoint.catalog.unreadable["s"].kind == "sparse"


def test_tensors_that_the_index_does_not_list_are_left_behind(tmp_path: Path) -> None:
    with open_checkpoint(sharded(tmp_path, {"v": W, "stray": W}, "v")) as checkpoint:
        assert [(one.path, one.tensors, one.nbytes) for one in checkpoint.contents.left_behind] == [("two.bin", 1, 8)]


def test_the_small_pickles_of_a_tar_are_looked_through_too(tmp_path: Path) -> None:
    raw = tars()[0]
    evil = b"\x80\x02cos\nsystem\n0K\x01."
    at = raw.index(b"\x80\x02K\x01.")  # a count
    (tmp_path / "a.tar").write_bytes(raw)
    assert asked(tmp_path / "a.tar") == ()
    start = raw.rindex(b"tensors", 0, at) if b"tensors" in raw[:at] else raw.rindex(b"storages", 0, at)
    grown = raw[:at] + evil + raw[at + 5 :]
    size = int(raw[start + 124 : start + 135], 8) + len(evil) - 5
    head = bytearray(grown[start : start + 512])
    head[124:136] = b"%011o\0" % size
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    content = grown[start + 512 : start + 512 + size]
    rest = raw[start + 512 + (size - len(evil) + 5 + 511) // 512 * 512 :]
    (tmp_path / "b.tar").write_bytes(raw[:start] + bytes(head) + content + bytes(-size % 512) + rest)
    assert asked(tmp_path / "b.tar") == ("os.system",)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"little_endianq\x02\x88X", b"little_endianq\x02cos\nsystem\nX"), (b"shortq\x05K\x02", b"shortq\x05)R"), (b"X\x03\0\0\0cpuq", b"X\x02\0\0\0cpuq")],
    ids=["a name", "a call", "a length"],
)
def test_a_storage_s_own_stream_inside_of_a_pickle_can_hide_nothing(tmp_path: Path, old: bytes, new: bytes) -> None:
    raw = pickle.dumps({"w": W, "x": torch.ones(1)}, 3)
    assert old in raw
    (tmp_path / "a.pkl").write_bytes(raw)
    assert asked(tmp_path / "a.pkl") == ()
    stream = raw[raw.index(b"\x80\x02\x8a\nl") :]
    at = raw.index(b"\x80\x02\x8a\nl") - 4
    size = int.from_bytes(raw[at : at + 4], "little")
    changed = stream[:size].replace(old, new)
    (tmp_path / "a.pkl").write_bytes(raw[:at] + len(changed).to_bytes(4, "little") + changed + stream[size:])
    assert "torch.storage._load_from_bytes" in told(tmp_path / "a.pkl")


def told(path: Path) -> str:
    try:
        return " ".join(asked(path))
    except FormatError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["alone", "index", "clean"])
def test_strict_exits_with_one_and_names_it(tmp_path: Path, kind: str) -> None:
    path = sharded(tmp_path, {"v": W, "x": As(os.system, ("true",))}, "v")
    name = {"alone": "two.bin", "index": path.name, "clean": "one.bin"}[kind]
    ran = ckpt("show", "--strict", name, cwd=tmp_path)
    assert (ran.status, "posix.system" in ran.out) == ((0, False) if kind == "clean" else (1, True))


@pytest.mark.parametrize("is_right", [True, False])
def test_verify_says_what_the_output_would_call(tmp_path: Path, is_right: bool) -> None:
    torch.save({"state_dict": {"w": W if is_right else W + 1}, "x": As(os.system, ("true",))}, tmp_path / "out.pth")
    torch.save({"w": W}, tmp_path / "a.pth")
    ran = ckpt("verify", "out.pth", "a.pth", "a.pth", cwd=tmp_path)
    assert ran.status == (0 if is_right else 1)
    assert "note: unpickling out.pth would call or import posix.system; the tensors alone were compared" in ran.err
    assert json.loads(ckpt("verify", "out.pth", "a.pth", "a.pth", "--json", cwd=tmp_path).out)["asked"] == ["posix.system"]
