"""Rank files that torch wrote are the model that it had."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard, _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

import ckpt_tool
from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.distributed.ranks.local_parts import Boxes, Cut, PartFault, boxes_by_law
from tests.formats.rank_writers import RANKS, net, values, write_all
from tests.running import ckpt

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch.distributed.checkpoint.hf_storage")  # torch 2.6 has none
    folder = tmp_path_factory.mktemp("ranks")
    write_all(folder)
    return folder


def read(path: object) -> Tensors:
    with ckpt_tool.open(str(path)) as checkpoint:
        return checkpoint.state_dict()


def assert_same(got: Tensors, wanted: Tensors) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype is tensor.dtype, name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("layout", ["fsdp2", "nested", "hsdp", "tp", "safetensors", "several"])
def test_the_parts_of_all_ranks_are_the_model(written: Path, layout: str) -> None:
    assert_same(read(written / layout), of_layout(layout))


def of_layout(layout: str) -> Tensors:
    """The model's state dict; safetensors has no ties."""
    return {key: tensor for key, tensor in net().state_dict().items() if key != "head.weight" or layout not in ("safetensors", "several")}


def test_tensors_placed_in_any_way_are_whole(written: Path) -> None:
    wanted = values()
    wanted["low"] = wanted["low"].to(torch.bfloat16)
    assert_same(read(written / "placed"), wanted)
    assert_same(read(written / "two"), {"rows": wanted["rows"]})


def test_sharded_tensors_stand_where_their_metadata_says(written: Path) -> None:
    assert_same(read(written / "sharded_tensors"), {"w": values()["rows"][:, :, 0], "b": torch.arange(3.0)})


def test_the_optimizer_s_files_are_asked_for_by_their_name(written: Path) -> None:
    got = read(f"{written / 'fsdp2'}#optim")
    assert_same(got, {f"state.{at}.exp_avg": one.detach() for at, one in enumerate(net().parameters())})


def test_ties_and_order_are_those_of_the_model(written: Path) -> None:
    with open_checkpoint(written / "fsdp2") as checkpoint:
        assert list(checkpoint.catalog) == list(net().state_dict())
        assert checkpoint.catalog["head.weight"].tied_to == "embedding.weight"
        assert checkpoint.versions["norm"] == {"version": 2}
        assert checkpoint.contents.is_whole


def test_show_says_what_was_joined(written: Path) -> None:
    shown = ckpt("show", written / "hsdp")
    assert "the sharded state dict of 4 ranks (DTensors), joined" in shown.out
    assert "tensors that several ranks hold alike: the first one's were taken, the others not compared" in shown.out
    shown = ckpt("show", written / "several")
    assert "the parts of 4 processes (DCP's safetensors), joined; no file says how many there were" in shown.out
    shown = ckpt("show", written / "fsdp2" / "model_world_size_4_rank_1.pt")
    assert "a process's part of a model" in shown.out
    assert "open its folder, which is read as the whole when the files of all ranks are in it" in shown.out


def test_map_diff_and_load_into_take_the_folder(written: Path, tmp_path: Path) -> None:
    for layout in ("tp", "several"):
        wanted = of_layout(layout)
        torch.save({name: torch.zeros_like(tensor) for name, tensor in wanted.items()}, tmp_path / "init.pth")
        out = tmp_path / f"{layout}.pth"
        mapped = ckpt("map", written / layout, tmp_path / "init.pth", "-o", out, "--force")
        assert mapped.status == 0, mapped.err
        assert_same(read(out), wanted)
        assert ckpt("diff", "--values", written / layout, out).status == 0
    model = net()
    with torch.no_grad():
        model.up.weight.zero_()
    ckpt_tool.load_into(model, written / "tp")
    assert_same(dict(model.state_dict()), of_layout("tp"))


@pytest.mark.parametrize(("layout", "name"), [("fsdp2", "model_world_size_4_rank_{}.pt"), ("hsdp", "pytorch_model_fsdp_0_rank{}.bin"), ("tp", "rank_{:02d}.pt"), ("sharded_tensors", "model_rank_{}.pt")])
@pytest.mark.parametrize("rank", range(RANKS))
def test_the_rank_that_is_missing_is_named(written: Path, tmp_path: Path, layout: str, name: str, rank: int) -> None:
    shutil.copytree(written / layout, tmp_path / layout)
    (tmp_path / layout / name.format(rank)).unlink()
    with pytest.raises(InputError) as raised:
        open_checkpoint(tmp_path / layout)
    assert name.format(rank) in str(raised.value)


def test_a_partial_sum_is_refused(written: Path) -> None:
    with pytest.raises(FormatError, match="`sum` is a partial sum: each rank has a summand, and no rank the tensor"):
        open_checkpoint(written / "partial")


@pytest.mark.parametrize(("layout", "name"), [("tp", "rank_{:02d}.pt"), ("sharded_tensors", "model_rank_{}.pt")])
@pytest.mark.parametrize("source", [0, 3])
def test_a_file_of_a_rank_that_no_mesh_has_is_refused(written: Path, tmp_path: Path, layout: str, name: str, source: int) -> None:
    shutil.copytree(written / layout, tmp_path / layout)
    shutil.copy(tmp_path / layout / name.format(source), tmp_path / layout / name.format(4))
    with pytest.raises(FormatError) as raised:
        open_checkpoint(tmp_path / layout)
    assert f"has {name.format(4)}, and the meshes of its tensors have 4 ranks" in str(raised.value)


def test_plain_tensors_of_several_ranks_are_refused(tmp_path: Path) -> None:
    for rank in range(2):
        torch.save({"w": torch.full((2,), float(rank))}, tmp_path / f"rank{rank}.pt")
    with pytest.raises(FormatError, match="nothing in them says whether they are copies or parts"):
        open_checkpoint(tmp_path)


def test_plain_tensors_that_differ_in_shape_are_refused(written: Path, tmp_path: Path) -> None:
    folder = changed(written / "sharded_tensors", tmp_path, "model_rank_2.pt", lambda saved: saved | {"b": torch.ones(2)})
    with pytest.raises(FormatError, match=r"model_rank_2\.pt: `b` is 2 here, and 3 in another rank's file"):
        open_checkpoint(folder)


def test_flat_parameters_are_refused(tmp_path: Path) -> None:
    for rank in range(2):
        torch.save({"_fsdp_wrapped_module._flat_param": torch.ones(4)}, tmp_path / f"pytorch_model_fsdp_rank{rank}.bin")
    with pytest.raises(FormatError, match="has FSDP1's flat parameters"):
        open_checkpoint(tmp_path)


def test_files_of_several_kinds_are_asked_for_by_name(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "tp", tmp_path / "run")
    shutil.copytree(written / "sharded_tensors", tmp_path / "run", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"has files of ranks of 2 kinds: model_rank_0\.pt, rank_00\.pt"):
        open_checkpoint(tmp_path / "run")
    assert read(f"{tmp_path / 'run'}#model").keys() == {"w", "b"}


@pytest.mark.parametrize("name", ["lora_rank16.pt", "rank3.txt", "frank0.safetensors"])
def test_a_name_with_rank_in_it_is_no_rank_s(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / name)
    with pytest.raises(InputError, match="is a folder without a known checkpoint file"):
        open_checkpoint(tmp_path)


def changed(folder: Path, tmp_path: Path, name: str, change: Callable[[Tensors], object]) -> Path:
    """A copy in which one file is another."""
    new = shutil.copytree(folder, tmp_path / folder.name)
    saved = {"b": torch.arange(3.0)}
    torch.save(change(saved), new / name)
    return new


def as_torch_2_8(mesh: DeviceMesh, rank: int) -> None:
    """The attributes that DeviceMesh had up to then."""
    forget(mesh)
    vars(mesh)["mesh"] = torch.tensor([1, 0], dtype=torch.int32)


def as_torch_2_12(mesh: DeviceMesh, rank: int) -> None:
    """Sizes and strides of all dimensions in one layout, over a list of ranks."""
    forget(mesh)
    layout = object.__new__(pytest.importorskip("torch.distributed._mesh_layout")._MeshLayout)
    vars(layout).update(shape=(2,), stride=(2,))
    vars(mesh).update(_layout=layout, _rank_map=torch.tensor([1, 7, 0]))


def as_torch_2_9(mesh: DeviceMesh, rank: int) -> None:
    """The same where there is one dimension; the place is noted as a list."""
    as_torch_2_12(mesh, rank)
    vars(vars(mesh)["_layout"]).update(shape=2, stride=1)
    vars(mesh).update(_rank_map=torch.tensor([1, 0]), _coordinate_on_dim=[1 - rank])


def forget(mesh: DeviceMesh) -> None:
    for name in ("_layout", "_rank_map", "_flatten_rank_map", "_coordinate_on_dim"):
        vars(mesh).pop(name, None)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("as_older", [as_torch_2_8, as_torch_2_9, as_torch_2_12])
def test_meshes_of_older_torch_say_the_same(tmp_path: Path, as_older: Callable[[DeviceMesh, int], None]) -> None:
    """Ranks in the other order, so that the place isn't the rank."""
    whole = values()["rows"]
    for rank in range(2):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=2)
        try:
            mesh = DeviceMesh("cpu", [1, 0])
            part = whole[:3] if rank == 1 else whole[3:]
            tensor = DTensor.from_local(part.clone(), mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())
            as_older(mesh, rank)
            torch.save({"w": tensor}, tmp_path / f"rank{rank}.pt")
        finally:
            dist.destroy_process_group()
    if as_older is as_torch_2_12:
        with pytest.raises(FormatError, match=r"has 2 of the files of 8 ranks; rank2\.pt, rank3\.pt, rank4\.pt and 3 more are missing"):
            open_checkpoint(tmp_path)
    else:
        assert_same(read(tmp_path), {"w": whole})


@st.composite
def cut_in_dimensions(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A size, and by mesh dimension the processes and the factor: 1 is a plain Shard."""
    return draw(st.integers(0, 40)), draw(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 1, 2, 3, 4])), min_size=1, max_size=3))


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="torch 2.6 cuts unequal parts in one way alone")
@given(cut_in_dimensions())
@settings(max_examples=300, deadline=None)
def test_dimensions_are_cut_as_torch_cuts_them(case: tuple[int, list[tuple[int, int]]]) -> None:
    size, mesh = case
    wanted, found = [], []
    for coordinate in product(*(range(count) for count, _ in mesh)):
        rows = torch.arange(size)
        for (count, factor), at in zip(mesh, coordinate, strict=True):
            placement = Shard(0) if factor == 1 else _StridedShard(0, split_factor=factor)
            rows = placement._split_tensor(rows, count, with_padding=False)[0][at]
        wanted.append(rows.tolist())
        found.append(boxes_by_law((size,), [Cut(0, count, at, factor) for (count, factor), at in zip(mesh, coordinate, strict=True)], (len(rows),)))
    assert rows_of(found) == wanted


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_fsdp_over_tensor_parallelism_is_cut_from_the_inside(size: int, data: int, tensor: int) -> None:
    """Where FSDP2's parts of uneven sizes differ from those of its placements, that is known by their sizes."""
    wanted, found = [], []
    for at, inner in product(range(data), range(tensor)):
        own = list(torch.arange(size).chunk(tensor)) + [torch.arange(0)] * tensor
        part = (list(own[inner].chunk(data)) + [torch.arange(0)] * data)[at]
        wanted.append(part.tolist())
        found.append(boxes_by_law((size,), [Cut(0, data, at, tensor), Cut(0, tensor, inner)], (len(part),)))
    assert rows_of(found) == wanted


def rows_of(found: list[tuple[Boxes | None, ...]]) -> list[list[int]]:
    """The rows of each process's part, in its order, by the law that is true of all."""
    law = next(law for law in zip(*found, strict=True) if None not in law)
    each = [sorted(boxes or (), key=lambda pair: pair[1].offsets) for boxes in law]
    return [[row for whole, _ in boxes for row in range(whole.offsets[0], whole.offsets[0] + whole.shape[0])] for boxes in each]


def test_a_local_part_of_another_size_is_refused() -> None:
    with pytest.raises(PartFault, match="has a local part of 3, where its mesh and placements give 2 of 4"):
        boxes_by_law((4,), [Cut(0, 2, 0)], (3,))
