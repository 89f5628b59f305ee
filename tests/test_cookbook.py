"""The commands of docs/cookbook.md do what is written above them, on inputs of the kind that it speaks of."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save_file
from seeded import fill_with_seeded_values, import_torchvision
from torch import nn

COOKBOOK = Path(__file__).parent.parent / "docs" / "cookbook.md"
RECIPES = re.findall(r"<!-- run: (\w+) -->\n```\n(.*?)```", COOKBOOK.read_text(), re.DOTALL)
RULES = dict(re.findall(r"```yaml\n# example: (\w+)\n(.*?)```", COOKBOOK.read_text(), re.DOTALL))


def network(seed):
    layers = {"conv1": nn.Conv2d(3, 8, 3), "bn1": nn.BatchNorm2d(8), "fc": nn.Linear(8, 10)}
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return dict(fill_with_seeded_values(model, seed).state_dict())


OURS, FRESH = network(1), network(2)
HEAD = {"head.0.weight": torch.rand(6, 8), "head.0.bias": torch.rand(6)}
BACKBONE = {key: value for key, value in FRESH.items() if not key.startswith("fc.")}


def below(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


LIGHTNING = {
    "state_dict": below("model.", OURS) | {"criterion.weight": torch.rand(10)},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(8)}}, "param_groups": [{"params": [0]}]}],
    "epoch": 3,
    "pytorch-lightning_version": "2.5.0",
}


def vit(grid, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"cls_token": (1, 1, 8), "pos_embed": (1, grid * grid + 1, 8), "blocks.0.norm1.weight": (8,), "head.weight": (classes, 8), "head.bias": (classes,)}
    return {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}


def resized(table, grid):
    """A position table with a class token as timm's resample_abs_pos_embed resizes it."""
    old = table[:, 1:].reshape(1, 2, 2, 8).permute(0, 3, 1, 2)
    new = nn.functional.interpolate(old, size=(grid, grid), mode="bicubic", antialias=True)
    return torch.cat([table[:, :1], new.permute(0, 2, 3, 1).reshape(1, grid * grid, 8)], dim=1)


def halves(weight, heads):
    """Rotary pairs as halves of each head: `permute` of transformers' convert_llama_weights_to_hf.py."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


BLOCK = {"wq": (16, 16), "wk": (8, 16), "wv": (8, 16), "wo": (16, 16), "w1": (24, 16), "w2": (16, 24), "w3": (24, 16), "attention_norm": (16,), "ffn_norm": (16,)}
PARTS = {key: torch.rand(shape, generator=torch.Generator().manual_seed(len(key) + sum(shape))) for key, shape in BLOCK.items()}
SEEDED = torch.Generator().manual_seed(3)
OUTSIDE = {key: torch.rand(shape, generator=SEEDED) for key, shape in (("tok_embeddings", (32, 16)), ("norm", (16,)), ("output", (32, 16)))}
META = {f"{key}.weight": tensor for key, tensor in OUTSIDE.items()} | {
    f"layers.0.{'' if 'norm' in key else 'feed_forward.' if key[1].isdigit() else 'attention.'}{key}.weight": tensor for key, tensor in PARTS.items()
}
HUGGING_FACE = {
    "model.embed_tokens.weight": OUTSIDE["tok_embeddings"], "model.norm.weight": OUTSIDE["norm"], "lm_head.weight": OUTSIDE["output"],
    "model.layers.0.self_attn.q_proj.weight": halves(PARTS["wq"], 4), "model.layers.0.self_attn.k_proj.weight": halves(PARTS["wk"], 2),
    "model.layers.0.self_attn.v_proj.weight": PARTS["wv"], "model.layers.0.self_attn.o_proj.weight": PARTS["wo"],
    "model.layers.0.mlp.gate_proj.weight": PARTS["w1"], "model.layers.0.mlp.down_proj.weight": PARTS["w2"], "model.layers.0.mlp.up_proj.weight": PARTS["w3"],
    "model.layers.0.input_layernorm.weight": PARTS["attention_norm"], "model.layers.0.post_attention_layernorm.weight": PARTS["ffn_norm"],
}  # fmt: skip
PRETRAINED, INITIAL = vit(2, 1000, 1), vit(3, 10, 2)
NAMES = {"cls_token": "cls", "pos_embed": "pos", "blocks.0.norm1.weight": "encoder.0.ln1.weight", "head.weight": "classifier.weight", "head.bias": "classifier.bias"}
INPUTS = {
    "prefix": {"run.pth": below("module.", OURS), "init.pth": FRESH},
    "backbone": {"backbone.pth": OURS, "net.pth": below("backbone.", BACKBONE) | HEAD},
    "lightning": {"run.ckpt": LIGHTNING, "init.pth": FRESH},
    "vit": {"vit_224.pth": PRETRAINED, "init.pth": INITIAL, "vit.yaml": RULES["vit"]},
    "own": {"vit_224.pth": PRETRAINED, "init.pth": {NAMES[key]: value for key, value in INITIAL.items()}, "own.yaml": RULES["own"]},
    "llama": {"llama/consolidated.00.pth": META, "llama/params.json": json.dumps({"dim": 16, "n_heads": 4, "n_kv_heads": 2})},
    "bfloat16": {"model.safetensors": OURS},
    "shards": {"model.safetensors": OURS, "shards_of_model/model-00001-of-00001.safetensors": OURS},
    "part": {"old.pth": {"conv1.weight": OURS["conv1.weight"], "bn1.weight": OURS["bn1.weight"], "old.weight": torch.rand(3)}, "new.pth": FRESH},
}
MADE = {
    "prefix": OURS,
    "backbone": below("backbone.", {key: OURS[key] for key in BACKBONE}) | HEAD,
    "lightning": OURS,
    "vit": PRETRAINED | {"pos_embed": resized(PRETRAINED["pos_embed"], 3), "head.weight": INITIAL["head.weight"], "head.bias": INITIAL["head.bias"]},
    "own": {
        NAMES[key]: resized(value, 3) if key == "pos_embed" else INITIAL[key] if key.startswith("head") else value for key, value in PRETRAINED.items()
    },
    "llama": HUGGING_FACE,
    "bfloat16": {key: value.bfloat16() if value.is_floating_point() else value for key, value in OURS.items()},
    "shards": OURS,
    "part": FRESH | {key: OURS[key] for key in ("conv1.weight", "bn1.weight")},
}


def save(content, path):
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)


def load(path):
    if path.is_dir():
        return {key: value for part in sorted(path.glob("*.safetensors")) for key, value in load_file(part).items()}
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path)


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in RECIPES for line in lines.strip().splitlines()])
def test_a_recipe_makes_what_it_says(tmp_path, name, line):
    for file, content in INPUTS[name].items():
        save(content, tmp_path / file)
    words = shlex.split(line)
    ran = ckpt(*words[1:], cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = load(tmp_path / words[words.index("-o") + 1])
    bound = 1e-6 if name in ("vit", "own") else 0
    torch.testing.assert_close(made, MADE[name], rtol=bound, atol=bound)


def test_transformers_loads_the_folder_that_the_llama_recipe_makes(tmp_path, monkeypatch):
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    params = {"dim": 16, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1, "norm_eps": 1e-5}
    for file, content in {"llama/consolidated.00.pth": META, "llama/params.json": json.dumps(params)}.items():
        save(content, tmp_path / file)
    monkeypatch.chdir(tmp_path)
    assert ckpt(*shlex.split(dict(RECIPES)["llama"])[1:], cwd=tmp_path).status == 0
    (block,) = re.findall(r"```python\n(.*?)```", COOKBOOK.read_text(), re.DOTALL)
    exec(compile(block, "cookbook.md", "exec"), {})
    model, loading = transformers.AutoModelForCausalLM.from_pretrained("llama_hf", output_loading_info=True)
    assert not any(loading.values())
    torch.testing.assert_close(model.state_dict(), HUGGING_FACE, rtol=0, atol=0)
    assert (model.config.rms_norm_eps, model.config.num_key_value_heads) == (1e-5, 2)


def test_every_kind_of_recipe_is_run():
    assert {name for name, _ in RECIPES} == INPUTS.keys() == MADE.keys()


def test_a_recipe_without_its_drop_is_refused_with_the_recipe(tmp_path):
    for file, content in INPUTS["lightning"].items():
        torch.save(content, tmp_path / file)
    ran = ckpt("map", "run.ckpt", "init.pth", "-o", "out.pth", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[-1]) == (1, "next: ckpt map run.ckpt init.pth --drop criterion.weight -o out.pth")
