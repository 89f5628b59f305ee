"""DeepSpeed's ZeRO checkpoints against the law of its zero_to_fp32.py, written here once more with torch."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ckpt_tool
from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from tests.formats.zero_folders import Zero, deepspeed_named, random_tensors
from tests.running import ckpt


def a_run(stage: int, world: int, **changed: object) -> Zero:
    """Two groups, shapes that no number of ranks divides, buffers of several types, frozen and tied weights."""
    some = random_tensors(3, {"mean": (3,), "freq": (4,), "half": (2, 3), "frozen.w": (3, 5), "frozen.b": (1,)})
    given: dict[str, object] = {
        "groups": [random_tensors(1, {"emb.w": (7, 3), "a.w": (5, 3), "scale": ()}), random_tensors(2, {"a.b": (5,), "norm.b": (1,), "head.w": (1, 17), "none": (0, 3)})],
        "buffers": {"mean": some["mean"], "count": torch.tensor(5), "mask": torch.ones(2, 2, dtype=torch.bool), "freq": some["freq"].bfloat16(), "half": some["half"].half().T},
        "frozen": {"frozen.w": some["frozen.w"].bfloat16(), "frozen.b": some["frozen.b"].bfloat16()},
        "shared": {"out.w": "emb.w"},
    }
    return Zero(stage=stage, world=world, **given | changed)  # type: ignore[arg-type]


def zero_to_fp32(folder: Path) -> dict[str, torch.Tensor]:
    """What the script of that name makes of one step's folder (DeepSpeed 0.19)."""
    with deepspeed_named():
        models = [torch.load(path, weights_only=False) for path in sorted(folder.glob("*_model_states.pt"))]
        optimizers = [torch.load(path, weights_only=False)["optimizer_state_dict"] for path in sorted(folder.glob("*_optim_states.pt"))]
    first, world = models[0], len(optimizers)
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in first["module"].items() if name in first["buffer_names"]}
    for name, shape in (first["frozen_param_shapes"] or {}).items():
        flat = torch.cat([model["frozen_param_fragments"][name].reshape(-1) for model in models])
        found[name] = flat[: shape.numel()].view(shape)
    if optimizers[0]["zero_stage"] == 3:
        flats, offset = [torch.cat(list(one["fp32_flat_groups"])) for one in optimizers], 0
        for name, shape in [pair for group in first["param_shapes"] for pair in group.items()]:
            share = math.ceil(shape.numel() / world)
            found[name] = torch.cat([flat[offset : offset + share] for flat in flats])[: shape.numel()].view(shape)
            offset += share
    else:
        for at, group in enumerate(first["param_shapes"]):
            flat, offset = torch.cat([one["single_partition_of_fp32_groups"][at] for one in optimizers]), 0
            paddings = optimizers[0].get("param_alignment_paddings", {at: [0] * len(group)})[at]
            for (name, shape), padding in zip(group.items(), paddings, strict=True):
                found[name] = flat[offset : offset + shape.numel()].view(shape)
                offset += shape.numel() + padding
    return found | {name: found[of] for name, of in first["shared_params"].items()}


def read(path: object) -> dict[str, torch.Tensor]:
    with ckpt_tool.open(str(path)) as checkpoint:
        return checkpoint.state_dict()


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype is tensor.dtype, name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "bf16_"])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_weights_are_those_of_zero_to_fp32(tmp_path: Path, stage: int, world: int, prefix: str) -> None:
    run = a_run(stage, world, prefix=prefix)
    run.write(tmp_path / "global_step3")
    (tmp_path / "latest").write_text("global_step3\n")
    wanted = zero_to_fp32(tmp_path / "global_step3")
    assert_same(read(tmp_path), wanted)
    assert_same(read(tmp_path / "global_step3"), wanted)
    assert_same({name: wanted[name] for name in run.parameters}, run.parameters)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_optimizer_s_state_has_the_names_of_the_parameters(tmp_path: Path, stage: int) -> None:
    run = a_run(stage, 3)
    run.write(tmp_path)
    wanted = {f"state.{name}.{slot}": tensor for slot, groups in run.slots().items() for group in groups for name, tensor in group.items()}
    steps = {f"state.{name}.step": torch.tensor(3.0) for group in run.groups for name in group}
    assert_same(read(f"{tmp_path}#optim"), wanted | steps)


def test_the_model_as_it_was_trained_is_named_module(tmp_path: Path) -> None:
    run = a_run(2, 2)
    run.write(tmp_path)
    trained = read(f"{tmp_path}#module")
    assert trained["a.w"].dtype is torch.bfloat16
    assert torch.equal(trained["a.w"], run.parameters["a.w"].bfloat16())
    with pytest.raises(InputError, match="no state dict of a DeepSpeed checkpoint is named `ema`; it has `fp32`, `module` and `optim`"):
        open_checkpoint(f"{tmp_path}#ema")


def test_stage_3_has_no_model_as_it_was_trained(tmp_path: Path) -> None:
    a_run(3, 2).write(tmp_path)
    with pytest.raises(FormatError, match="has placeholders in `module`: ZeRO 3 keeps the weights in its optimizer's files"):
        open_checkpoint(f"{tmp_path}#module")


def test_show_says_what_was_joined(tmp_path: Path) -> None:
    a_run(2, 4).write(tmp_path)
    shown = ckpt("show", tmp_path)
    assert shown.status == 0
    assert "the fp32 weights of DeepSpeed ZeRO 2, joined from 4 ranks' files" in shown.out
    assert "state dict: #fp32; also here: #module" in shown.out
    assert "buffers are float32 here, as zero_to_fp32.py makes them: `freq` (BF16), `half` (F16)" in shown.out
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.contents.is_whole
        assert checkpoint.catalog["out.w"].tied_to == "emb.w"
        assert list(checkpoint.catalog)[:3] == ["emb.w", "a.w", "scale"]


def test_a_model_takes_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, other = (torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)) for _ in range(2))
    Zero([{name: one.detach() for name, one in model.named_parameters()}], 3, 4).write(tmp_path)
    ckpt_tool.load_into(other, tmp_path)
    assert_same(other.state_dict(), model.state_dict())


def test_map_and_diff_take_the_folder(tmp_path: Path) -> None:
    a_run(2, 3, frozen={}, buffers={}).write(tmp_path / "run")
    wanted = zero_to_fp32(tmp_path / "run")
    torch.save({name: torch.zeros_like(tensor) for name, tensor in wanted.items()}, tmp_path / "init.pth")
    mapped = ckpt("map", tmp_path / "run", tmp_path / "init.pth", "-o", tmp_path / "out.pth")
    assert mapped.status == 0, mapped.err
    assert_same(torch.load(tmp_path / "out.pth"), wanted)
    assert ckpt("diff", "--values", tmp_path / "run", tmp_path / "out.pth").status == 0


def test_parameters_that_are_padded_each_are_cut_so(tmp_path: Path) -> None:
    run = a_run(2, 2, groups=[random_tensors(1, {"a": (3,), "b": (5,), "c": (2, 2)})], frozen={}, shared={})
    padded = {"a": run.parameters["a"], "p0": torch.zeros(1), "b": run.parameters["b"], "p1": torch.zeros(3), "c": run.parameters["c"]}
    flat = run.flat(0, [padded], True), run.flat(1, [padded], True)
    run.write(tmp_path)
    change_optimizers(tmp_path, lambda states, rank: states | {"single_partition_of_fp32_groups": flat[rank], "param_alignment_paddings": [[1, 3, 0]]})
    assert_same(read(tmp_path), zero_to_fp32(tmp_path))
    assert_same({name: read(tmp_path)[name] for name in "abc"}, run.parameters)


def change_optimizers(folder: Path, change: Callable[[dict[str, object], int], object]) -> None:
    with deepspeed_named():
        for rank, path in enumerate(sorted(folder.glob("*_optim_states.pt"))):
            saved = torch.load(path, weights_only=False)
            torch.save(saved | {"optimizer_state_dict": change(saved["optimizer_state_dict"], rank)}, path)


def change_models(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    with deepspeed_named():
        for path in folder.glob("*_model_states.pt"):
            torch.save(change(torch.load(path, weights_only=False)), path)


def test_the_optimizer_for_bfloat16_notes_no_stage(tmp_path: Path) -> None:
    run = a_run(1, 2, prefix="bf16_", frozen={})
    run.write(tmp_path)
    wanted = zero_to_fp32(tmp_path)
    change_optimizers(tmp_path, lambda states, rank: {name: one for name, one in states.items() if name != "zero_stage"})
    assert_same(read(tmp_path), wanted)


def test_what_the_optimizer_has_not_is_named(tmp_path: Path) -> None:
    """With stage 1 frozen parameters are in `module` alone; zero_to_fp32.py leaves them out, too."""
    a_run(1, 2).write(tmp_path)
    change_models(tmp_path, lambda saved: saved | {"frozen_param_shapes": None, "frozen_param_fragments": None})
    with open_checkpoint(tmp_path) as checkpoint:
        assert "without 2 tensors that only #module has: `frozen.w`, `frozen.b`" in checkpoint.contents.layout
    assert_same(read(tmp_path), zero_to_fp32(tmp_path))


MISSING = {
    "a rank's optimizer": (2, "zero_pp_rank_1_mp_rank_00_optim_states.pt", "has 2 of the files of 3 ranks; zero_pp_rank_1_mp_rank_00_optim_states.pt is missing"),
    "the last rank's": (2, "zero_pp_rank_2_mp_rank_00_optim_states.pt", "has 2 of the files of 3 ranks; zero_pp_rank_2_mp_rank_00_optim_states.pt is missing"),
    "the first rank's": (3, "zero_pp_rank_0_mp_rank_00_optim_states.pt", "has 2 of the files of 3 ranks; zero_pp_rank_0_mp_rank_00_optim_states.pt is missing"),
    "the model's states": (2, "mp_rank_00_model_states.pt", "and no mp_rank_00_model_states.pt or zero_pp_rank_0_mp_rank_00_model_states.pt"),
    "a rank's frozen weights": (3, "zero_pp_rank_2_mp_rank_00_model_states.pt", "zero_pp_rank_2_mp_rank_00_model_states.pt is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_the_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    stage, file, fact = MISSING[name]
    a_run(stage, 3).write(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_ranks_of_different_steps_are_refused(tmp_path: Path, stage: int) -> None:
    a_run(stage, 2).write(tmp_path)

    def later(states: dict[str, object], rank: int) -> dict[str, object]:
        base = states["optimizer_state_dict" if stage == 3 else "base_optimizer_state"]
        for group in base["state"].values():  # type: ignore[index]
            group["step"] = torch.tensor(3.0 + rank)
        return states

    change_optimizers(tmp_path, later)
    with pytest.raises(FormatError, match=r"its optimizer is at step 4; that of .*rank_0.* is at 3"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_copy_of_another_rank_s_file_is_refused(tmp_path: Path, stage: int) -> None:
    a_run(stage, 3).write(tmp_path)
    shutil.copy(tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt", tmp_path / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    with pytest.raises(FormatError, match=r"zero_pp_rank_1_.*: its weights are those of .*zero_pp_rank_0_.*, byte by byte"):
        open_checkpoint(tmp_path)


def test_a_folder_that_is_named_after_another_step_is_noted(tmp_path: Path) -> None:
    for step in (3, 500):
        a_run(2, 2).write(tmp_path / f"global_step{step}")
    said = "the folder is named after step 500; its files are of step 3"
    assert said in ckpt("show", tmp_path / "global_step500").out
    assert "named after step" not in ckpt("show", tmp_path / "global_step3").out


def test_steps_without_latest_are_named(tmp_path: Path) -> None:
    for step in (3, 10, 200):
        a_run(2, 2).write(tmp_path / f"global_step{step}")
    ran = ckpt("show", tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert "is a folder of 3 steps of DeepSpeed, without `latest`: global_step3, global_step10, global_step200" in ran.err
    assert f"name one: {tmp_path / 'global_step200'}" in ran.err


def test_equal_parts_of_one_number_are_no_copies(tmp_path: Path) -> None:
    Zero([{"scale": torch.ones(16), "bias": torch.zeros(16)}], 3, 4).write(tmp_path)
    assert torch.equal(read(tmp_path)["scale"], torch.ones(16))


@pytest.mark.parametrize("changed", [{"ds_version": "0.19.0"}, {"global_steps": 7}])
def test_model_states_of_another_version_or_step_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    a_run(3, 2).write(tmp_path)
    path = tmp_path / "zero_pp_rank_1_mp_rank_00_model_states.pt"
    with deepspeed_named():
        torch.save(torch.load(path, weights_only=False) | changed, path)
    with pytest.raises(FormatError, match=f"its {next(iter(changed))} is {next(iter(changed.values()))}; that of .* is (0.18.3|3)"):
        open_checkpoint(tmp_path)


def test_a_model_of_more_tensor_parallel_parts_is_refused(tmp_path: Path) -> None:
    a_run(2, 2).write(tmp_path)
    shutil.copy(tmp_path / "mp_rank_00_model_states.pt", tmp_path / "mp_rank_01_model_states.pt")
    with pytest.raises(FormatError, match="a DeepSpeed ZeRO checkpoint of 2 tensor-parallel parts of each matrix"):
        open_checkpoint(tmp_path)
    with open_checkpoint(tmp_path / "mp_rank_01_model_states.pt") as checkpoint:
        assert not checkpoint.contents.is_whole


@pytest.mark.parametrize("name", ["layer_0_expert_1_mp_rank_00_model_states.pt", "expp_rank_0_mp_rank_00_optim_states.pt", "layer_00-model_00-model_states.pt"])
def test_experts_and_pipelines_are_refused(tmp_path: Path, name: str) -> None:
    a_run(2, 2).write(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(FormatError, match=r"experts are spread over the ranks|in the parts of a pipeline"):
        open_checkpoint(tmp_path)


def test_a_hub_cache_s_links_are_followed(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "c0ffee" / "global_step3", tmp_path / "models--a--b" / "blobs"
    a_run(2, 2).write(snapshot)
    blobs.mkdir()
    for number, path in enumerate(snapshot.iterdir()):
        path.rename(blobs / str(number))
        path.symlink_to(Path("../../../blobs") / str(number))
    assert read(snapshot).keys()


def write_universal(run: Zero, folder: Path) -> None:
    """As ds_to_universal.py has it: a folder for each parameter; after ZeRO 3 they are flat."""
    run.write(folder)
    for path in folder.glob("*_optim_states.pt"):
        path.unlink()
    slots = {slot: {name: one for group in groups for name, one in group.items()} for slot, groups in run.slots().items()}
    for name, tensor in run.parameters.items():
        (folder / "zero" / name).mkdir(parents=True)
        torch.save(torch.tensor(3.0), folder / "zero" / name / "step.pt")
        for slot, one in {"fp32": tensor, **{slot: each[name] for slot, each in slots.items()}}.items():
            torch.save({"param": one.flatten() if run.stage == 3 else one, "cat_dim": 0}, folder / "zero" / name / f"{slot}.pt")
    torch.save({"optimizer_state": 1}, folder / "zero" / "optimizer_state.pt")


@pytest.mark.parametrize("stage", [2, 3])
def test_a_universal_checkpoint_is_the_same(tmp_path: Path, stage: int) -> None:
    run = a_run(stage, 2)
    run.write(tmp_path / "step")
    write_universal(run, tmp_path / "step_universal")
    assert_same(read(tmp_path / "step_universal"), zero_to_fp32(tmp_path / "step"))
    assert_same(read(f"{tmp_path / 'step_universal'}#optim"), read(f"{tmp_path / 'step'}#optim"))
    with open_checkpoint(tmp_path / "step_universal") as checkpoint:
        assert checkpoint.contents.layout == "the fp32 weights of a universal checkpoint of DeepSpeed, 7 parameters"


def test_a_universal_checkpoint_s_parameters_are_all_there(tmp_path: Path) -> None:
    write_universal(a_run(3, 2), tmp_path)
    torch.save({"param": torch.ones(14)}, tmp_path / "zero" / "a.w" / "fp32.pt")
    with pytest.raises(FormatError, match="its `param` has 14 elements, not those of 5×3"):
        open_checkpoint(tmp_path)
    (tmp_path / "zero" / "a.w" / "fp32.pt").unlink()
    with pytest.raises(FormatError, match=r"has 6 of 7 parameters; zero/a\.w/fp32\.pt is missing"):
        open_checkpoint(tmp_path)


def test_a_universal_checkpoint_s_folders_lead_nowhere_else(tmp_path: Path) -> None:
    write_universal(a_run(2, 2), tmp_path / "run")
    (tmp_path / "run" / "zero" / "a.w").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "zero" / "a.w").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="is a link out of its folder"):
        open_checkpoint(tmp_path / "run")
