"""Folders of parts that lie: each is refused with its reason, and nothing of it is executed."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from tests.formats.test_zero import change_models, change_optimizers
from tests.formats.zero_folders import Zero, random_tensors
from tests.hostile.promises import check_error

HUGE = 1 << 62
Change = Callable[[Path], object]
SECONDS = 10


class Runs:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def optimizers(**changed: object) -> Change:
    """Members of every optimizer's file."""
    return lambda folder: change_optimizers(folder, lambda states, rank: states | changed)


def one_optimizer(**changed: object) -> Change:
    """Those of rank 1's."""
    return lambda folder: change_optimizers(folder, lambda states, rank: states | (changed if rank == 1 else {}))


def models(**changed: object) -> Change:
    return lambda folder: change_models(folder, lambda saved: saved | changed)


def latest(text: str) -> Change:
    return lambda folder: (folder / "latest").write_text(text)


def link(name: str) -> Change:
    """A file that leads out of its folder."""

    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere.pt")
        (folder / name).symlink_to(folder.parent / "elsewhere.pt")

    return change


OPTIMIZER_1, MODEL = "zero_pp_rank_1_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"
FLAT = "single_partition_of_fp32_groups"
ZERO: dict[str, tuple[int, Change, str]] = {
    "too few elements": (2, one_optimizer(**{FLAT: [torch.ones(3)]}), r"the parameters of group 0 have 31 elements, the partitions of its 2 ranks have 19"),
    "too many elements": (2, optimizers(**{FLAT: [torch.ones(33)]}), r"the parameters of group 0 have 31 elements, the partitions of its 2 ranks have 66"),
    "the longer one last": (2, one_optimizer(**{FLAT: [torch.ones(50)]}), "has 16 elements of a group, and the rank after it has 50; were files of ranks exchanged"),
    "another share": (3, one_optimizer(fp32_flat_groups=[torch.ones(15)]), r"its flat groups have 15 elements; a rank's share of the parameters is 17"),
    "a matrix": (2, one_optimizer(**{FLAT: [torch.ones(4, 4)]}), "is a tensor of 4×4, where a flat one belongs"),
    "strides": (2, one_optimizer(**{FLAT: [torch.ones(32)[::2]]}), "is not stored as a plain vector"),
    "expanded": (2, one_optimizer(**{FLAT: [torch.ones(1).expand(1 << 40)]}), "is not stored as a plain vector|elements"),
    "other types": (2, one_optimizer(**{FLAT: [torch.ones(16).half()]}), "its flat `groups` are of different types: F16 and F32"),
    "groups of a text": (2, one_optimizer(**{FLAT: "all of it"}), "where a list of flat tensors belongs"),
    "groups of numbers": (2, one_optimizer(**{FLAT: [7]}), "is .*7.*, not a tensor"),
    "groups that call": (2, one_optimizer(**{FLAT: [Runs()]}), "not a tensor"),
    "more groups": (2, optimizers(**{FLAT: [torch.ones(16)] * 3}), r"`param_shapes` has 1 group, the optimizer's files have 3"),
    "groups in one alone": (2, one_optimizer(**{FLAT: [torch.ones(16)] * 3}), "its number of groups is 3; that of .* is 1"),
    "a stage of another": (2, one_optimizer(zero_stage=1), "its zero_stage is 1; that of .* is 2"),
    "stage 9": (2, optimizers(zero_stage=9), "its `zero_stage` is 9, where 1, 2 or 3 belongs"),
    "a stage that calls": (2, optimizers(zero_stage=Runs()), "its `zero_stage` is .*, where 1, 2 or 3 belongs"),
    "a count of another": (2, one_optimizer(partition_count=[4]), r"its partition_count is \[4\]; that of .* is \[2\]"),
    "a count of more": (2, optimizers(partition_count=[4]), "has 2 of the files of 4 ranks; zero_pp_rank_2_mp_rank_00_optim_states.pt, zero_pp_rank_3_mp_rank_00_optim_states.pt are missing"),
    "a count of fewer": (2, optimizers(partition_count=1), "its partition_count is 1; there are files of 2 ranks"),
    "a huge count": (2, optimizers(partition_count=HUGE), "not a number of ranks"),
    "a count below 0": (2, optimizers(partition_count=-2), "not a number of ranks"),
    "counts of experts": (2, optimizers(partition_count=[2, 1]), "experts are spread over some of the ranks"),
    "a padding below 0": (2, optimizers(param_alignment_paddings=[[-1, 1, 0]]), "not numbers by group"),
    "paddings of fewer": (2, optimizers(param_alignment_paddings=[[1]]), "has 1 numbers for group 0 of 3 parameters"),
    "huge paddings": (2, optimizers(param_alignment_paddings=[[HUGE, 0, 0]]), "the parameters of group 0 have 4,611,686,018,427,387,935 elements"),
    "no shapes": (2, models(param_shapes=None), "its `param_shapes` is None, where a dict belongs"),
    "huge shapes": (2, models(param_shapes=[{"a": (HUGE, HUGE)}]), "the parameters of group 0 have"),
    "shapes below 0": (3, models(param_shapes=[{"a": (-4, -4)}]), "which is not a shape"),
    "shapes that call": (2, models(param_shapes=[{"a": Runs()}]), "which is not a shape"),
    "names twice": (2, models(shared_params={"a": "b"}), "has two tensors named `a`"),
    "a tie to nothing": (2, models(shared_params={"x": "../y"}), r"ties `x` to `\.\./y`, which isn't there"),
    "a tie to itself": (2, models(shared_params={"x": "x"}), "ties `x` to `x`, which isn't there"),
    "ties of numbers": (2, models(shared_params={1: 2}), "its `shared_params` has something other than names"),
    "frozen without a part": (3, models(frozen_param_shapes={"f": torch.Size((4,))}, frozen_param_fragments={}), "`frozen_param_fragments` lacks `f`"),
    "frozen of another size": (3, models(frozen_param_shapes={"f": torch.Size((4,))}, frozen_param_fragments={"f": torch.ones(3)}), "has 3 elements of F32; 2 of F32 are a rank's share"),
    "frozen of another shape": (2, models(frozen_param_shapes={"f": torch.Size((4,))}, frozen_param_fragments={"f": torch.ones(2, 2)}), "is 2×2; its shape is said to be 4"),
    "buffers that are none": (2, models(buffer_names=["a"], module={"a": 3}), "not a tensor"),
    "no buffers' names": (2, models(buffer_names=3), "its `buffer_names` is 3, not a list"),
    "experts": (2, models(ds_autoep_layers=[{}]), "whose experts are spread over the ranks"),
    "a file of nothing": (2, lambda folder: (folder / OPTIMIZER_1).write_bytes(b""), "is empty"),
    "a pickle alone": (2, lambda folder: (folder / OPTIMIZER_1).write_bytes(b"cos\nsystem\n(S'touch executed'\ntR."), "is not an archive of torch"),
    "a file that is cut": (2, lambda folder: (folder / OPTIMIZER_1).write_bytes((folder / OPTIMIZER_1).read_bytes()[:-200]), "cut"),
    "a list": (2, lambda folder: torch.save([torch.ones(2)], folder / OPTIMIZER_1), "the file is .*, where a dict belongs"),
    "an object": (2, lambda folder: torch.save(Runs(), folder / OPTIMIZER_1), "where a dict belongs"),
    "a link": (2, link(OPTIMIZER_1), "is a link out of its folder"),
    "a linked model": (2, link(MODEL), "is a link out of its folder"),
    "two of one rank": (2, lambda folder: (folder / f"bf16_{OPTIMIZER_1}").write_bytes(b""), "has two files of one rank"),
    "ranks without end": (2, lambda folder: (folder / OPTIMIZER_1).rename(folder / OPTIMIZER_1.replace("1", "99999", 1)), "has 2 of the files of .* are missing|files of one run"),
}  # fmt: skip
LATEST = {
    "latest of a path": latest("../run"), "latest of the root": latest("/"), "latest of nothing": latest(""), "latest of itself": latest("."),
    "latest of what isn't there": latest("global_step9"), "latest of bytes": lambda folder: (folder / "latest").write_bytes(b"\xff\0\x1b[2J"),
    "latest without end": lambda folder: (folder / "latest").write_text("a" * 10_000),
    "latest of a link": lambda folder: ((folder / "step").symlink_to(folder.parent), (folder / "latest").write_text("step")),
}  # fmt: skip


def read_all(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        for key in checkpoint.catalog:
            checkpoint.raw(key)


def refused(folder: Path) -> str:
    """The reason, for which nothing was executed."""
    before, start = os.getcwd(), time.monotonic()
    os.chdir(folder)
    try:
        with pytest.raises(InputError) as raised:
            read_all(folder)
    finally:
        os.chdir(before)
    assert time.monotonic() - start < SECONDS
    assert not list(folder.rglob("executed"))
    check_error(raised.value)
    assert str(folder) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", ZERO)
def test_a_deepspeed_folder_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    stage, change, reason = ZERO[name]
    folder = tmp_path / "run"
    Zero([random_tensors(1, {"a": (5, 3), "b": (11,), "c": (5,)})], stage, 2).write(folder)
    change(folder)
    assert re.search(reason, refused(folder))


@pytest.mark.parametrize("name", LATEST)
def test_latest_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    LATEST[name](folder)
    assert "latest" in refused(folder) or "link" in refused(folder)


def two_ranks(folder: Path, change: Callable[[DTensor, int], object], *places: Any, world: int = 2) -> None:
    """The files of ranks, each with a tensor of 6×4 that is cut and then changed."""
    whole = torch.arange(24.0).reshape(6, 4)
    folder.mkdir(exist_ok=True)
    for rank in range(world):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
        try:
            mesh = init_device_mesh("cpu", (world,))
            tensor = DTensor.from_local(whole[3 * rank : 3 * rank + 3].clone(), mesh, list(places) or [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())
            changed = change(tensor, rank)
            torch.save({"w": tensor if changed is None else changed, "b": torch.ones(2)}, folder / f"model_rank_{rank}.pt")
        finally:
            dist.destroy_process_group()


def spec(tensor: DTensor, rank: int, name: str, value: object) -> None:
    if rank:
        object.__setattr__(tensor._spec, name, value)


def mesh(tensor: DTensor, rank: int, **changed: object) -> None:
    if rank:
        for name, value in changed.items():
            setattr(tensor._spec.mesh, name, value)


RANKS: dict[str, tuple[Callable[[DTensor, int], object], str]] = {
    "a dimension that isn't there": (lambda t, r: spec(t, r, "placements", (Shard(7),)), "is cut along dimension 7 of 2"),
    "more placements than dimensions": (lambda t, r: spec(t, r, "placements", (Shard(0), Shard(1))), "has placements for another mesh than its own of 1 dimensions"),
    "no placements": (lambda t, r: spec(t, r, "placements", None), "is not known here|in place of its local part|has placements|can't be placed"),
    "a partial sum": (lambda t, r: spec(t, r, "placements", (Partial(),)), "is a partial sum"),
    "a placement that calls": (lambda t, r: spec(t, r, "placements", (Runs(),)), "is placed as .*system"),
    "a huge factor": (lambda t, r: spec(t, r, "placements", (_StridedShard(0, split_factor=HUGE),)), "has a _StridedShard with the split factor 4611686018427387904"),
    "a large factor": (lambda t, r: spec(t, r, "placements", (_StridedShard(0, split_factor=60000),)), "is cut in more than 512 pieces"),
    "copies of other shapes": (lambda t, r: spec(t, r, "placements", (Replicate(),)), "has a local part of 3×4, where its mesh and placements give 6×4"),
    "another dimension": (lambda t, r: spec(t, r, "placements", (Shard(1),)), "has a local part of 3×4, where its mesh and placements give 6×2 of 6×4"),
    "the place of another": (lambda t, r: mesh(t, r, _coordinate_on_dim=(0,)), r"has 12 of its 24 elements; a part of it is missing"),
    "a place outside": (lambda t, r: mesh(t, r, _coordinate_on_dim=(2,)), r"has a place \[2\] outside of its mesh"),
    "a place below 0": (lambda t, r: mesh(t, r, _coordinate_on_dim=(-1,)), r"has a place \[-1\] outside of its mesh"),
    "a place of texts": (lambda t, r: mesh(t, r, _coordinate_on_dim=("x",)), "outside of its mesh"),
    "a place that calls": (lambda t, r: mesh(t, r, _coordinate_on_dim=(Runs(),)), "outside of its mesh"),
    "ranks without end": (lambda t, r: mesh(t, r, _rank_map=torch.zeros(1, dtype=torch.int32).expand(1 << 40)), "not a plain list of numbers|a mesh"),
    "huge ranks": (lambda t, r: mesh(t, r, _rank_map=torch.tensor([0, 1 << 40])), "has a mesh with ranks that no run has"),
    "ranks of halves": (lambda t, r: mesh(t, r, _rank_map=torch.ones(2)), "not a plain list of numbers"),
    "no ranks": (lambda t, r: mesh(t, r, _rank_map=torch.ones(0, dtype=torch.int32)), "leads out of its list of ranks"),
    "a mesh that calls": (lambda t, r: spec(t, r, "mesh", Runs()), "has a mesh"),
    "another spec": (lambda t, r: setattr(t, "_spec", Runs()) if r else None, "in place of its local part and its spec|has a mesh without a layout"),
    "another local part": (lambda t, r: setattr(t, "_local_tensor", Runs()) if r else None, "in place of its local part and its spec|has a mesh without a layout"),
    "a smaller local part": (lambda t, r: setattr(t, "_local_tensor", torch.ones(2, 4)) if r else None, "has a local part of 2×4, where its mesh and placements give 3×4"),
    "a local part of another type": (lambda t, r: setattr(t, "_local_tensor", torch.ones(3, 4).half()) if r else None, "`w` is F16 and F32 in different files"),
    "a plain tensor of the part": (lambda t, r: torch.ones(3, 4) if r else None, "`w` is 3×4 here, and 6×4 in another rank's file"),
    "a plain tensor over the parts": (lambda t, r: torch.ones(6, 4) if r else None, "elements in its parts|lie over each other"),
    "a number": (lambda t, r: 3 if r else None, "a part of it is missing"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", RANKS)
def test_a_rank_s_file_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    change, reason = RANKS[name]
    folder = tmp_path / "run"
    two_ranks(folder, change)
    assert re.search(reason, refused(folder))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_files_before_they_lie_are_read(tmp_path: Path) -> None:
    two_ranks(tmp_path, lambda tensor, rank: None)
    with open_checkpoint(tmp_path) as checkpoint:
        assert torch.equal(checkpoint.read("w"), torch.arange(24.0).reshape(6, 4))


def info(**offsets: object) -> dict[str, str]:
    return {"DCP_SHARDING_INFO": json.dumps({key: {"saved_offsets": value} for key, value in offsets.items()})}


W = torch.ones(2, 3)
SHARDS: dict[str, tuple[dict[int, tuple[torch.Tensor, dict[str, str]]], str]] = {
    "a gap": ({1: (W, info(w=[0, 0])), 2: (W, info(w=[4, 0]))}, "`w` has 12 of its 18 elements; a part of it is missing"),
    "an overlap": ({1: (W, info(w=[0, 0])), 2: (W, info(w=[1, 0])), 3: (W, info(w=[2, 0]))}, "elements in its parts|lie over each other"),
    "the same twice": ({1: (W, info(w=[0, 0])), 2: (W, info(w=[0, 0]))}, "lie over each other"),
    "a file that is missing": ({1: (W, info(w=[0, 0])), 3: (W, info(w=[4, 0]))}, "shard-00002-model-00001-of-00001.safetensors may be missing"),
    "huge offsets": ({1: (W, info(w=[0, 0])), 2: (W, info(w=[HUGE, HUGE]))}, "a part of it is missing"),
    "offsets beyond": ({1: (W, info(w=[1 << 64, 0]))}, "has no `saved_offsets` for `w`"),
    "offsets below 0": ({1: (W, info(w=[-2, 0]))}, "has no `saved_offsets` for `w`"),
    "offsets of texts": ({1: (W, info(w=["0", 0]))}, "has no `saved_offsets` for `w`"),
    "fewer offsets": ({1: (W, info(w=[0]))}, "has 1 offset for `w` of 2 dimensions"),
    "other dimensions": ({1: (W, info(w=[0, 0])), 2: (torch.ones(3), info(w=[2]))}, "`w` has 1 and 2 dimensions in its parts"),
    "other types": ({1: (W, info(w=[0, 0])), 2: (W.half(), info(w=[2, 0]))}, "`w` is F16 and F32 in different files"),
    "no offsets": ({1: (W, {}), 2: (W, {})}, "lie over each other"),
    "no JSON": ({1: (W, {"DCP_SHARDING_INFO": "{"})}, "its DCP_SHARDING_INFO"),
    "a list": ({1: (W, {"DCP_SHARDING_INFO": "[]"})}, "is not an object of tensors"),
    "nested without end": ({1: (W, {"DCP_SHARDING_INFO": "[" * 100_000})}, "its DCP_SHARDING_INFO"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARDS)
def test_safetensors_parts_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    files, reason = SHARDS[name]
    folder = tmp_path / "run"
    folder.mkdir()
    for rank, (tensor, metadata) in files.items():
        save_file({"w": tensor}, folder / f"shard-{rank:05d}-model-00001-of-00001.safetensors", metadata)
    assert re.search(reason, refused(folder))


def test_a_link_of_a_safetensors_part_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    name = "shard-00001-model-00001-of-00001.safetensors"
    save_file({"w": W}, folder / name, info(w=[0, 0]))
    link(name)(folder)
    assert "is a link out of its folder" in refused(folder)
