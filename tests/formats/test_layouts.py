"""What a file or a folder is called where it is no whole model: by what is in it first, by its name second."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint

T = torch.ones(4, 4)
BYTES = torch.ones(4, 4, dtype=torch.uint8)


def layout(path: Path) -> str:
    with open_checkpoint(path) as checkpoint:
        return checkpoint.contents.layout


NF4 = {"q.weight": BYTES, "q.weight.absmax": T, "q.weight.quant_map": T, "q.weight.nested_absmax": T, "q.weight.quant_state.bitsandbytes__nf4": BYTES}
TENSORS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "plain": ({"a.weight": T, "a.scale": T}, ""),
    "LoRA": ({"m.q.lora_A.weight": T, "m.q.lora_B.weight": T}, "a LoRA adapter (2 of 2 tensors)"),
    "LoRA of another name": ({"lora_unet_down.lora_down.weight": T, "lora_unet_down.alpha": T}, "a LoRA adapter (1 of 2 tensors)"),
    "a model with LoRA": ({"q.weight": T, "v.weight": T, "k.weight": T, "q.lora_A.weight": T}, "weights with LoRA matrices beside them (1 of 4 tensors)"),
    "LoHa": ({"m.hada_w1_a": T, "m.hada_w1_b": T}, "a LoHa adapter"),
    "nf4": (NF4, "quantised by bitsandbytes (nf4, 1 of them)"),
    "int8": ({"q.weight": T.to(torch.int8), "q.SCB": T[0], "q.weight_format": T[0]}, "quantised by bitsandbytes (int8, 1 of them)"),
    "GPTQ": ({"q.qweight": T, "q.qzeros": T, "q.scales": T, "q.g_idx": T}, "quantised as GPTQ does (1 of them)"),
    "AWQ": ({"q.qweight": T, "q.qzeros": T, "q.scales": T}, "quantised as GPTQ or AWQ does"),
    "compressed": ({"q.weight_packed": T, "q.weight_scale": T}, "compressed-tensors"),
    "FP8": ({"q.weight": T.to(torch.float8_e4m3fn), "q.weight_scale_inv": T}, "weights in FP8 (1 of them)"),
    "8 bits": ({"q.weight": T.to(torch.int8), "q.weight_scale": T}, "weights in 8-bit integers (1 of them)"),
    "FSDP1": ({"_fsdp_wrapped_module._flat_param": T}, "FSDP1's flat parameters"),
    "placeholders": ({"a": torch.ones(0), "b": torch.ones(0), "c": T}, "ZeRO-3 leaves such placeholders: 2 of 3 tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_keys_and_types_tell(tmp_path: Path, name: str, suffix: str) -> None:
    tensors, sentence = TENSORS[name]
    if suffix == "pth":
        torch.save(tensors, tmp_path / "a.pth")
    else:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / "a.safetensors")
    told = layout(tmp_path / f"a.{suffix}")
    assert sentence in told
    assert bool(sentence) == bool(told)


def test_shards_behind_an_index_are_looked_at_together(tmp_path: Path) -> None:
    save_file({"q.lora_A.weight": T}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"q.lora_B.weight": T.clone()}, tmp_path / "model-00002-of-00002.safetensors")
    assert "a LoRA adapter (2 of 2 tensors)" in layout(tmp_path)
    places = {"q.lora_A.weight": "model-00001-of-00002.safetensors", "q.lora_B.weight": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert "a LoRA adapter (2 of 2 tensors)" in layout(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_process_s_part_of_a_sharded_model(tmp_path: Path) -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        torch.save({"w": DTensor.from_local(T.clone(), mesh, [Shard(0)], run_check=False), "b": T}, tmp_path / "a.pt")
    finally:
        dist.destroy_process_group()
    assert "a process's part of a model that FSDP or the like has sharded (1 DTensor," in layout(tmp_path / "a.pt")


def test_metadata_of_a_distributed_checkpoint(tmp_path: Path) -> None:
    save_file({"w": T}, tmp_path / "a.safetensors", {"DCP_SHARDING_INFO": "{}"})
    assert "a process's part of a distributed checkpoint" in layout(tmp_path / "a.safetensors")


ZERO = {"optimizer_state_dict": {"zero_stage": 2, "single_partition_of_fp32_groups": [T], "partition_count": 2}, "ds_version": "0.12"}
FILES: dict[str, tuple[object, str]] = {
    "an optimizer's part": (ZERO, "a process's part of a DeepSpeed ZeRO optimizer"),
    "an optimizer": ({"optimizer": {"state": {0: {"exp_avg": T}}, "param_groups": []}}, "the state of an optimizer, without a state dict"),
    "model states": ({"module": {"w": T}, "ds_config": {}, "ds_version": "0.12"}, "DeepSpeed's model states"),
    "placeholders": ({"module": {"w": torch.ones(0)}, "ds_config": {}, "ds_version": "0.12"}, "open the folder, which is read as zero_to_fp32.py reads it"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_stands_beside_the_state_dict_tells(tmp_path: Path, name: str) -> None:
    value, sentence = FILES[name]
    torch.save(value, tmp_path / "a.pt")
    assert sentence in layout(tmp_path / "a.pt")


PARTS = {
    "consolidated.{:02d}.pth": "tensor-parallel part 2 of 2",
    "mp_rank_{:02d}_model_states.pt": "tensor-parallel part 2 of 2",
    "mp_rank_{:02d}/model_optim_rng.pt": "tensor-parallel part 2 of 2",
    "model_world_size_2_rank_{}.pt": "the part of process 1 of 2 (FSDP)",
}


@pytest.mark.parametrize("pattern", PARTS)
def test_parts_of_several_processes_are_told_by_their_names(tmp_path: Path, pattern: str) -> None:
    for number in (0, 1):
        path = tmp_path / "run" / pattern.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"w": T}, path)
    assert PARTS[pattern] in layout(path)
    with pytest.raises(FormatError, match=r"parts? of|in 2 folders|2 tensor-parallel parts|2 ranks .* with plain tensors alone"):
        open_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("name", ["consolidated.00.pth", "consolidated.safetensors", "mp_rank_00_model_states.pt"])
def test_a_part_that_is_alone_is_the_whole(tmp_path: Path, name: str) -> None:
    torch.save({"w": T}, tmp_path / name) if name.endswith(("pth", "pt")) else save_file({"w": T}, tmp_path / name)
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]
        assert not checkpoint.contents.layout


def test_an_adapter_is_told_by_its_config(tmp_path: Path) -> None:
    save_file({"base_model.prompt_encoder.embedding.weight": T}, tmp_path / "adapter_model.safetensors")
    assert not layout(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "a PEFT adapter" in layout(tmp_path)


@pytest.mark.parametrize("scale", ["q.qscale_weight", "q.weight_scale_inv", "q.weight_scale", "q.scale_weight", "q.scale", "q.weight_quantizer._scale"])
def test_eight_bits_with_a_scale_of_any_library(tmp_path: Path, scale: str) -> None:
    save_file({"q.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), scale: torch.ones(1)}, tmp_path / "a.safetensors")
    assert layout(tmp_path / "a.safetensors").startswith("weights in FP8 (1 of them)")


def test_eight_bits_beside_the_scale_of_another_module(tmp_path: Path) -> None:
    save_file({"q.weight": torch.ones(4, 4, dtype=torch.uint8), "bn.scale": torch.ones(1)}, tmp_path / "a.safetensors")
    assert layout(tmp_path / "a.safetensors") == ""


def test_a_numbered_shard_by_itself_is_called_one(tmp_path: Path) -> None:
    for name, sentence in (
        ("model-00001-of-00002.safetensors", "by its name shard 1 of 2, a part of a model; its folder or its index is the whole"),
        ("model-00001-of-00001.safetensors", ""),
    ):
        save_file({"w": T}, tmp_path / name)
        assert layout(tmp_path / name) == sentence


def test_a_whole_file_beside_shards_that_are_all_there_is_not_taken_silently(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model-00001-of-00002.safetensors"):
        save_file({name: T}, tmp_path / name)
    assert layout(tmp_path) == ""
    save_file({"w": T}, tmp_path / "model-00002-of-00002.safetensors")
    fact = "is a folder with 2 checkpoints: model.safetensors, and the 2 shards from model-00001-of-00002.safetensors on; name model"
    with pytest.raises(InputError, match=fact):
        layout(tmp_path)
