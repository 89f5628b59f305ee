"""Each process of a sharded model reads its own part of the file and nothing is sent: the same values as torch's distribute_tensor, and counted bytes."""

import itertools
import warnings
from functools import partial

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import ckpt_tool
from ckpt_tool.errors import CkptError
from ckpt_tool.formats import SourceFile
from ckpt_tool.torch_bridge import local_part, whole_tensor
from tests.training.sharded import on_processes

RULES = """rules:
  - attn.qkv.* -> {q,k,v}.*: {split: 0}
  - mlp.weight -> up.weight: transpose
  - mlp.bias -> up.bias
  - head.* -> down.*
"""


class Net(nn.Module):
    """33 rows, which no number of processes divides, and 5, of which some processes have none."""

    def __init__(self):
        super().__init__()
        for name, sizes in {"q": (8, 33), "k": (8, 33), "v": (8, 33), "up": (33, 64), "down": (64, 5)}.items():
            setattr(self, name, nn.Linear(*sizes))


def source():
    generator = torch.Generator().manual_seed(7)
    shapes = {
        "attn.qkv.weight": (99, 8), "attn.qkv.bias": (99,), "mlp.weight": (33, 64), "mlp.bias": (64,),
        "head.weight": (5, 64), "head.bias": (5,),
    }  # fmt: skip
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def whole():
    given = source()
    made = {"up.weight": given["mlp.weight"].t().contiguous(), "up.bias": given["mlp.bias"]}
    made |= {"down.weight": given["head.weight"], "down.bias": given["head.bias"]}
    for kind in ("weight", "bias"):
        made |= {f"{name}.{kind}": part for name, part in zip("qkv", given[f"attn.qkv.{kind}"].chunk(3), strict=True)}
    return made


def built(kind, device, count):
    with torch.device(device):
        model = Net()
    if kind == "rows":
        mesh = init_device_mesh("cpu", (count,))
        for layer in model.children():
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    mesh = init_device_mesh("cpu", (2, count // 2), mesh_dim_names=("outer", "inner"))
    if kind == "hybrid":
        return fully_shard(model, mesh=mesh)
    styles = {"q": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
    parallelize_module(model, mesh["inner"], styles)
    return model if kind == "tensor" else fully_shard(model, mesh=mesh["outer"])


def load(folder, kind):
    """Whether each tensor is what torch would have made, on the CPU and from the meta device."""
    path = folder / ("source.pth" if kind == "hybrid" else "source.safetensors")
    for device in ("cpu", "meta"):
        model = built(kind, device, torch.distributed.get_world_size())
        ckpt_tool.load_into(model, path, rules=folder / "rules.yaml")
        for key, tensor in model.state_dict().items():
            expected = whole()[key]
            if hasattr(tensor, "device_mesh"):
                if kind != "strided":  # torch's own function refuses some of these
                    local = distribute_tensor(expected, tensor.device_mesh, tensor.placements).to_local()
                    yield torch.equal(tensor.to_local(), local)
                tensor = tensor.full_tensor()
            yield torch.equal(tensor, expected)


def count_bytes(path, layout):
    read = 0
    own = SourceFile.read_into

    def counted(self, buffer, offset):
        nonlocal read
        read += len(buffer)
        own(self, buffer, offset)

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    model = nn.Linear(1024, 4096, bias=False, device="meta")
    model.weight = nn.Parameter(distribute_tensor(model.weight, mesh, layout))
    SourceFile.read_into = counted
    try:
        ckpt_tool.load_into(model, path)
    finally:
        SourceFile.read_into = own
    return read, torch.equal(whole_tensor(model.weight), values())


def lie_together(folder):
    """Whether parts lie one behind the other, as in one allocation: many small ones would cost as many first touches."""
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    with torch.device("meta"):
        model = Net()
    for layer in model.children():
        layer.weight = nn.Parameter(distribute_tensor(layer.weight, mesh, [Shard(0)]))
    ckpt_tool.load_into(model, folder / "whole.safetensors")
    parts = [local_part(layer.weight) for layer in model.children()]
    some = sorted((part for part in parts if part.nbytes), key=torch.Tensor.data_ptr)
    return [0 <= after.data_ptr() - one.data_ptr() - one.nbytes < BESIDE for one, after in itertools.pairwise(some)]


BESIDE = 4096  # biases lie between


def values():
    return torch.randn(4096, 1024, generator=torch.Generator().manual_seed(3))


LAYOUTS = {"rows": [Shard(0)], "columns": [Shard(1)], "all": [Replicate()]}
IS_OLD = not hasattr(torch.cpu.Stream, "record_event")  # torch 2.6: parts of unequal size can't be strided
KINDS = ("rows", "hybrid", "tensor") if IS_OLD else ("rows", "hybrid", "tensor", "strided")


def load_distributed(folder):
    """From a distributed checkpoint that is cut in another way than the model."""
    saved = built("rows", "cpu", torch.distributed.get_world_size())
    ckpt_tool.load_into(saved, folder / "whole.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(saved.state_dict(), checkpoint_id=folder / "dcp")  # type: ignore[attr-defined]
    for kind in KINDS[1::2]:
        model = built(kind, "meta", torch.distributed.get_world_size())
        ckpt_tool.load_into(model, folder / "dcp")
        yield from (torch.equal(whole_tensor(tensor), whole()[key]) for key, tensor in model.state_dict().items())


def on_each(folder, rank):
    return (
        list(load_distributed(folder)),
        {kind: list(load(folder, kind)) for kind in KINDS},
        {name: count_bytes(folder / "w.safetensors", layout) for name, layout in LAYOUTS.items()},
        lie_together(folder),
    )


def test_each_process_reads_its_part_and_has_what_torch_would_have_sent(tmp_path):
    save_file(source(), tmp_path / "source.safetensors")
    torch.save(source(), tmp_path / "source.pth")
    (tmp_path / "rules.yaml").write_text(RULES)
    save_file({"weight": values()}, tmp_path / "w.safetensors")
    size = 4096 * 1024 * 4
    save_file(whole(), tmp_path / "whole.safetensors")
    for from_dcp, loaded, counted, together in on_processes(4, partial(on_each, tmp_path), tmp_path):
        assert together
        assert all(together)
        assert from_dcp == [True] * (10 * len(KINDS[1::2]))
        for kind in KINDS:
            assert len(loaded[kind]) >= 20
            assert all(loaded[kind]), kind
        assert counted["rows"] == (size // 4, True)
        assert counted["all"] == (size, True)
        assert counted["columns"][1]
        assert counted["columns"][0] <= size  # short runs are read with what lies between them


def load_refused(path):
    model = built("rows", "cpu", 2)
    before = {key: local_part(value).clone() for key, value in model.state_dict().items()}
    try:
        ckpt_tool.load_into(model, path)
    except CkptError as error:
        return str(error), all(torch.equal(local_part(value), before[key]) for key, value in model.state_dict().items())
    return "loaded", False


def refused(folder, rank):
    return load_refused(folder / f"{rank}.safetensors"), load_refused(folder / "damaged.pth")


def test_processes_that_disagree_or_find_damage_load_nothing(tmp_path):
    state = whole()
    save_file(state, tmp_path / "0.safetensors")
    save_file({**state, "up.bias": state["up.bias"].half()}, tmp_path / "1.safetensors")
    torch.save(state, tmp_path / "damaged.pth")
    raw = bytearray((tmp_path / "damaged.pth").read_bytes())
    raw[raw.find(bytes(state["down.weight"].view(-1).view(torch.uint8)[:64].tolist()))] ^= 1
    (tmp_path / "damaged.pth").write_bytes(raw)
    for other_files, damage in on_processes(2, partial(refused, tmp_path), tmp_path):
        assert "F16" in other_files[0] or "no process has loaded anything" in other_files[0]
        assert "checksum" in damage[0]
        assert other_files[1]
        assert damage[1]
