"""Folders that `map --to dcp` writes, read by torch.distributed.checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

import ckpt_tool
from ckpt_tool.errors import InputError, OutputError
from tests.formats.oracles import assert_agrees, every_dtype, filled
from tests.running import ckpt


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(33, 12)
    return {"model.embed": base, "model.tied": base, "model.up.weight": torch.randn(20, 7).bfloat16(), "model.cut": torch.randn(3, 5),
            "model.step": torch.tensor(3), "model.empty": torch.zeros(0, 4), "model.mask": torch.tensor([True, False]),
            "model.mapped": torch.randn(5, 4).t(), "model.é": torch.randn(2, 2, 2)}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(state(), tmp_path / "a.pth")
    return tmp_path / "a.pth"


def test_torch_loads_it_in_any_number_of_processes(tmp_path: Path, source: Path) -> None:
    assert ckpt("map", source, "-e", "** -> **", "-o", tmp_path / "out", "--to", "dcp", "--max-shard-size", "1kB").status == 0
    assert len(list((tmp_path / "out").glob("*.distcp"))) > 1
    script = Path(__file__).parent / "dcp_loads.py"
    ran = subprocess.run([sys.executable, "-W", "ignore", str(script), str(tmp_path / "out"), str(source)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_every_dtype_comes_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {str(dtype).removeprefix("torch."): filled(dtype, 3, 4) for dtype in every_dtype()}
    tensors |= {f"scalar {name}": filled(tensor.dtype) for name, tensor in tensors.items() if "x2" not in name}
    ckpt_tool.map(tensors, None, tmp_path / "out", rules="** -> **", to="dcp")
    dcp_to_torch_save(tmp_path / "out", tmp_path / "whole.pth")
    whole = torch.load(tmp_path / "whole.pth")
    assert whole.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert whole[name].dtype == tensor.dtype
        assert whole[name].shape == tensor.shape
        assert torch.equal(bits(whole[name]), bits(tensor)), name
    assert_agrees(tmp_path / "out", tensors)


def test_ties_are_told(tmp_path: Path, source: Path) -> None:
    ran = ckpt("map", source, "-e", "** -> **", "-o", tmp_path / "out", "--to", "dcp")
    assert "note: a distributed checkpoint has no shared tensors; these are written twice: model.tied = model.embed" in ran.out


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_nested_dicts_load_by_their_dotted_keys(tmp_path: Path, source: Path) -> None:
    ckpt_tool.map(str(source), None, tmp_path / "out", rules="** -> **", to="dcp")
    nested = {"model": {key.removeprefix("model."): torch.zeros_like(tensor) for key, tensor in state().items()}}
    dcp_load(nested, checkpoint_id=tmp_path / "out")
    for key, tensor in state().items():
        assert torch.equal(nested["model"][key.removeprefix("model.")], tensor)


def test_what_ops_compute_is_written_too(tmp_path: Path, source: Path) -> None:
    ckpt_tool.map(str(source), None, tmp_path / "out", rules=["model.up.weight -> up: transpose"], partial=True, to="dcp")
    dcp_to_torch_save(tmp_path / "out", tmp_path / "whole.pth")
    assert torch.equal(torch.load(tmp_path / "whole.pth")["up"], state()["model.up.weight"].t())


def test_it_is_read_verified_and_compared_here_too(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    ran = ckpt("map", source, "-e", "** -> **", "-o", out, "--to", "dcp", "--json", "--checksum")
    written = json.loads(ran.out)["output"]
    assert (written["format"], written["shards"], list(written["sha256"])) == ("dcp", ["__0_0.distcp"], ["__0_0.distcp"])
    assert ckpt("verify", source, out, "-e", "** -> **").status == 0
    assert ckpt("diff", source, out, "--values").status == 0
    assert ckpt("map", out, "-e", "** -> **", "-o", tmp_path / "back.safetensors").status == 0
    assert ckpt("diff", source, tmp_path / "back.safetensors", "--values").status == 0


def test_a_checkpoint_that_is_there_is_replaced_by_force_alone(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    words = ("map", source, "-e", "** -> **", "-o", out, "--to", "dcp")
    assert ckpt(*words, "--max-shard-size", "100B").status == 0
    (out / "config.json").write_text("{}")
    ran = ckpt(*words)
    assert (ran.status, "already" in ran.err) == (2, True)
    assert ckpt(*words, "--force").status == 0
    assert sorted(path.name for path in out.iterdir()) == [".metadata", "__0_0.distcp", "config.json"]


def test_a_folder_with_other_weights_is_left_alone(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"")
    with pytest.raises(OutputError, match=r"would be taken for a part"):
        ckpt_tool.map(str(source), None, out, rules="** -> **", to="dcp", force=True)


def test_it_is_no_input_of_itself(tmp_path: Path, source: Path) -> None:
    ckpt_tool.map(str(source), None, tmp_path / "out", rules="** -> **", to="dcp")
    with pytest.raises(OutputError, match=r"is one of the inputs"):
        ckpt_tool.map(str(tmp_path / "out"), None, tmp_path / "out", rules="** -> **", to="dcp", force=True)


@pytest.mark.parametrize(("to", "name"), [("torch", "weights"), ("safetensors", "weights"), ("torch", "a.bin"), ("safetensors", "a.v2")])
def test_a_name_that_says_nothing_is_written_as_it_is_told(tmp_path: Path, source: Path, to: str, name: str) -> None:
    assert ckpt("map", source, "-e", "** -> **", "-o", tmp_path / name, "--to", to).status == 0
    assert ckpt("diff", source, tmp_path / name, "--values").status == 0


def test_a_name_that_says_something_else_is_refused(tmp_path: Path, source: Path) -> None:
    ran = ckpt("map", source, "-e", "** -> **", "-o", tmp_path / "w.pth", "--to", "safetensors")
    assert ran.status == 2
    assert "has the name of a torch file, and safetensors is asked for" in ran.err
    with pytest.raises(InputError, match="`to=`: torch files are not written in shards"):
        ckpt_tool.map(str(source), None, tmp_path / "out", rules="** -> **", to="torch", max_shard_size=100)
    with pytest.raises(InputError, match="is not a format"):
        ckpt_tool.map(str(source), None, tmp_path / "out", rules="** -> **", to="onnx")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("options", [["--max-shard-size", "1KB"], ["--to", "dcp"], ["--to", "dcp", "--max-shard-size", "1KB"]])
def test_a_new_folder_has_no_name_of_a_file(tmp_path: Path, source: Path, name: str, options: list[str]) -> None:
    args = ["map", source, "-e", "** -> **", "-o", tmp_path / name, *options]
    ran = ckpt(*args)
    option = "--max-shard-size" if "--max-shard-size" in options else "--to dcp"
    assert (ran.status, (tmp_path / name).exists()) == (2, False)
    assert f"file, and {option} writes a folder; name a folder, or leave out {option}" in ran.err
    (tmp_path / name).mkdir()
    assert ckpt(*args).status == 0


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("most", [40, 200, 10**6])
@pytest.mark.parametrize("kind", ["pth", "safetensors", "memory", "folder"])
def test_large_tensors_are_stored_in_slices(tmp_path: Path, kind: str, most: int) -> None:
    tensors = {"one.row": torch.randn(1, 64), "column": torch.randn(70, 1).half(), "cube": torch.randn(3, 7, 9), "scalar": torch.tensor(2.0),
               "empty": torch.zeros(0, 5), "bytes": torch.arange(255, dtype=torch.uint8), "turned": torch.randn(6, 8).t().contiguous()}  # fmt: skip
    given: object = tensors
    if kind != "memory":
        given = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth" if kind == "pth" else "a")
        ckpt_tool.map(tensors, None, given, rules="** -> **", to="dcp" if kind == "folder" else None, max_shard_size=100 if kind == "folder" else None)
    rules = ["turned -> turned: transpose", "cube -> {a,b,c}: {unstack: 0}", "** -> **"]
    written = ckpt_tool.map(given, None, tmp_path / "out", rules=rules, to="dcp", max_shard_size=most)
    wanted = {**tensors, **dict(zip("abc", tensors["cube"], strict=True)), "turned": tensors["turned"].t()}
    del wanted["cube"]
    dcp_to_torch_save(tmp_path / "out", tmp_path / "whole.pth")
    whole = torch.load(tmp_path / "whole.pth")
    assert whole.keys() == wanted.keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in wanted.items())
    with ckpt_tool.open(tmp_path / "out") as opened:
        assert {*opened} == {*wanted}
        assert all(torch.equal(opened[name][:] if tensor.dim() else opened[name].read(), tensor) for name, tensor in wanted.items())
    chunks = FileSystemReader(tmp_path / "out").read_metadata().state_dict_metadata
    assert [len(chunks[name].chunks) for name in ("one.row", "bytes", "a")] == {40: [7, 7, 7], 200: [2, 2, 2], 10**6: [1, 1, 1]}[most]
    sizes = [(tmp_path / "out" / name).stat().st_size for name in written.shards]
    assert len(sizes) > 1 or most > 1000


def test_a_checksum_that_is_wrong_is_found_though_the_tensor_is_cut(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "a.pth")
    raw = bytearray((tmp_path / "a.pth").read_bytes())
    raw[raw.find(torch.tensor([7.0, 8.0]).numpy().tobytes())] ^= 1
    (tmp_path / "a.pth").write_bytes(raw)
    with pytest.raises(InputError, match="checksum"):
        ckpt_tool.map(tmp_path / "a.pth", None, tmp_path / "out", rules="** -> **", to="dcp", max_shard_size=1000)
    assert not (tmp_path / "out").exists()
