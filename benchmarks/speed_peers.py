"""The same jobs by other tools, each where it is installed; no limit: to be ahead is the least.

sft-cli is taken from this environment. The others need environments of their own, whose commands these variables give:

    BRAINSURGERY="python3.12 -m brainsurgery.cli"   MERGEKIT="/other/venv/bin/mergekit-yaml"
"""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from timing import CKPT, Row, python

MOVE = "inputs: [{source}]\noutput: {{path: {output}}}\ntransforms:\n  - move: {{from: (.*), to: net.\\1}}\n"
COPY = "models: [{{model: {source}}}]\nmerge_method: passthrough\ndtype: bfloat16\n"


def peer_rows(paths: dict[str, str], out: str, folder: Path, size: int) -> list[Row]:
    rows = sft_rows(paths, out) if importlib.util.find_spec("sft") else []
    if command := shlex.split(os.environ.get("BRAINSURGERY", "")):
        rows += brainsurgery_rows(command, paths, out, folder, size)
    if command := shlex.split(os.environ.get("MERGEKIT", "")):
        rows += mergekit_rows(command, out, folder, size)
    return rows


def sft_rows(paths: dict[str, str], out: str) -> list[Row]:
    """https://pypi.org/project/sft-cli"""
    sft = python("from sft.cli import _entry; _entry()")
    a, b, pth = paths["big.safetensors"], paths["big2.safetensors"], paths["big.pth"]
    renamed, rename = f"{out}.safetensors", ["-e", "** -> net.**"]
    return [
        Row("diff of two big safetensors, against sft diff", [*CKPT, "diff", a, b], [*sft, "diff", a, b], 1.0, runs=3, statuses=(0, 1)),
        Row("diff --values, all different, against sft diff --delta", [*CKPT, "diff", "--values", a, b], [*sft, "diff", "--delta", a, b], 1.0, runs=3, statuses=(0, 1)),
        Row("rename safetensors, against sft rename", [*CKPT, "map", a, *rename, "-o", renamed, "-f"], [*sft, "rename", a, "--sub", "^", "--sub", "net.", "-o", renamed], 1.0, runs=3, output=renamed),
        Row(".pth → safetensors, against sft convert", [*CKPT, "map", pth, "-e", "** -> **", "-o", renamed, "-f"], [*sft, "convert", pth, "-o", renamed], 1.0, runs=3, output=renamed),
    ]  # fmt: skip


def brainsurgery_rows(command: list[str], paths: dict[str, str], out: str, folder: Path, size: int) -> list[Row]:
    """https://github.com/schneiderkamplab/brainsurgery"""
    output, plan = f"{out}_moved", folder / "move.yaml"
    plan.write_text(MOVE.format(source=paths["sharded"], output=output))
    ours = [*CKPT, "map", paths["sharded"], "-e", "** -> net.**", "-o", output, "-f", "--max-shard-size", "5GB"]
    return [Row("rename sharded → sharded, against BrainSurgery's move", ours, [*command, str(plan)], 1.0, runs=3, output=output)]


def mergekit_rows(command: list[str], out: str, folder: Path, size: int) -> list[Row]:
    """https://github.com/arcee-ai/mergekit"""
    source, output, plan = make_llama(folder / "hf_llama", size), f"{out}_copied", folder / "copy.yaml"
    plan.write_text(COPY.format(source=source))
    ours = [*CKPT, "map", str(source), "-e", "** -> **", "-o", output, "-f", "--max-shard-size", "5GB"]
    theirs = [*command, str(plan), output, "--no-copy-tokenizer", "--no-write-model-card"]
    return [Row("every tensor of a folder into another, against mergekit's passthrough", ours, theirs, 1.0, runs=3, output=output)]


def make_llama(folder: Path, size: int) -> Path:
    """A folder as transformers writes it, with a Llama of about `size` bytes in bfloat16."""
    if not (folder / "config.json").exists():
        # In a process of its own: a child counts the memory that its parent had at most.
        subprocess.run([sys.executable, __file__, str(folder), str(size)], check=True)
    return folder


def write_llama(folder: Path, size: int) -> None:
    import torch
    from safetensors.torch import save_file

    width = 2048 if size > 1 << 30 else 512
    shapes = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (4 * width, width), "mlp.up_proj": (4 * width, width), "mlp.down_proj": (width, 4 * width)}
    shapes |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
    layers = max(1, size // (32 * width * width))
    state = {f"model.layers.{i}.{name}.weight": torch.rand(shape).bfloat16() for i in range(layers) for name, shape in shapes.items()}
    ends = {"model.embed_tokens": (1000, width), "lm_head": (1000, width), "model.norm": (width,)}
    state |= {f"{name}.weight": torch.rand(shape).bfloat16() for name, shape in ends.items()}
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "intermediate_size": 4 * width,
        "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 1000, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    write_llama(Path(sys.argv[1]), int(sys.argv[2]))
