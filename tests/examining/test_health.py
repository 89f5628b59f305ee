"""`ckpt show --health`: each planted damage is named, and no honest model is."""

import json
import os
import re
import shutil
from hashlib import sha256

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save_file
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool
from ckpt_tool.errors import FormatError

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 8, "hidden_size": 64, "vocab_size": 300, "num_local_experts": 4,
    "tie_word_embeddings": False, "dtype": "float32",
}  # fmt: skip


def network(seed=0):
    """A language model's tensors, with four experts a layer, some of them quantised."""
    g = torch.Generator().manual_seed(seed)
    state = {
        "model.embed_tokens.weight": torch.randn(300, 64, generator=g),
        "lm_head.weight": torch.randn(300, 64, generator=g),
    }
    for layer in range(8):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            state[f"{prefix}self_attn.{name}_proj.weight"] = torch.randn(64, 64, generator=g) * 0.05
            state[f"{prefix}self_attn.{name}_proj.bias"] = torch.randn(64, generator=g) * 0.05
        state[f"{prefix}input_layernorm.weight"] = torch.rand(64, generator=g) + 0.5
        for expert in range(4):
            state[f"{prefix}mlp.experts.{expert}.w1.weight"] = torch.randn(96, 64, generator=g).to(
                torch.float8_e4m3fn
            )
            state[f"{prefix}mlp.experts.{expert}.w1.weight_scale"] = (
                torch.rand(1, generator=g) + 0.1
            )
    return state


@pytest.fixture
def folder(tmp_path):
    """The network in three shards, with an index and a config.json."""
    state = network()
    keys = list(state)
    parts = [keys[:40], keys[40:100], keys[100:]]
    names = [f"model-{at:05}-of-00003.safetensors" for at in (1, 2, 3)]
    for name, part in zip(names, parts, strict=True):
        save_file({key: state[key] for key in part}, tmp_path / name)
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    write_index(tmp_path, weight_map)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def index_of(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def change(folder, edit):
    """Changes the tensors of the shards, wherever they are."""
    for path in sorted(folder.glob("model-*.safetensors")):
        state = load_file(path)
        if edit(state):
            save_file(state, path)


def test_an_honest_model_is_healthy(folder):
    ran = ckpt("show", "--health", folder)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].startswith(f"{folder}: healthy: ")


Q = "model.layers.3.self_attn.q_proj.weight"
EXPERT = "model.layers.2.mlp.experts.1.w1"


def put(key, value):
    def edit(state):
        if key in state:
            state[key] = value(state[key].clone())
        return key in state

    return edit


def at(index, number):
    def edit(tensor):
        if tensor.dtype is torch.float8_e4m3fn:
            raw = tensor.view(torch.uint8)
            raw[index] = 0x7F
            return tensor
        tensor[index] = number
        return tensor

    return edit


VALUES = [
    ("nan", Q, at((5, 7), float("nan")), r"1 of 4,096 values is NaN, the first at \[5, 7\]"),
    (
        "nan",
        f"{EXPERT}.weight",
        at((5, 7), None),
        r"1 of 6,144 values is NaN, the first at \[5, 7\]",
    ),
    (
        "inf",
        "model.layers.3.input_layernorm.weight",
        at(slice(3, 5), float("-inf")),
        r"2 of 64 values are infinite, the first at \[3\]",
    ),
    ("zero", Q, torch.zeros_like, "all 4,096 values are zero; its siblings' are not"),
    ("zero", "model.layers.3.self_attn.q_proj.bias", torch.zeros_like, "all 64 values are zero"),
    ("zero", "lm_head.weight", torch.zeros_like, "all 19,200 values are zero"),
    ("zero rows", Q, at(slice(10, 20), 0.0), "10 of 64 rows are zero, the first is row 10"),
    ("zero rows", "model.embed_tokens.weight", at(slice(100, 110), 0.0), "10 of 300 rows are zero"),
    (
        "far",
        Q,
        lambda tensor: tensor * 1000,
        "about 50.* in size .* those of its 7 siblings about 0.05",
    ),
    ("far", Q, lambda tensor: tensor / 1000, "about 5.*e-05 in size"),
    ("scale", f"{EXPERT}.weight_scale", torch.zeros_like, "a scale is zero"),
    ("scale", f"{EXPERT}.weight_scale", torch.neg, "a scale is negative: -"),
]


@pytest.mark.parametrize(("kind", "key", "damage", "text"), VALUES)
def test_damaged_values_are_named(folder, kind, key, damage, text):
    change(folder, put(key, damage))
    ran = ckpt("show", "--health", folder)
    assert ran.status == 1
    assert re.search(rf"^  {kind} +{re.escape(key)} +.*{text}", ran.out, re.MULTILINE), ran.out
    assert ran.out.splitlines()[-1] == f"{folder}: not healthy: 1 finding"


def test_a_sibling_that_was_written_twice(folder):
    first = load_file(folder / index_of(folder)[Q])[Q]
    change(folder, put(Q.replace("3", "5"), lambda tensor: first))
    (found,) = ckpt_tool.health(folder).findings
    assert (found.kind, found.subject) == ("equal", Q.replace("3", "5"))
    assert found.text == f"has the bytes of `{Q}`; the rest of their layers differs"


def test_layers_that_were_copied_as_a_whole_were_meant(folder):
    state = network()
    for key in list(state):
        if key.startswith("model.layers.3."):
            state[key.replace("layers.3", "layers.5")] = state[key].clone()
    save_file(state, folder / "copied.safetensors")
    assert ckpt_tool.health(folder / "copied.safetensors").is_healthy


CONFIGS = [
    (
        {"num_hidden_layers": 12},
        "`num_hidden_layers` is 12; the tensors have 8 layers, up to `model.layers.7`",
    ),
    ({"hidden_size": 128}, "`hidden_size` is 128; `model.embed_tokens.weight` is 300×64"),
    ({"vocab_size": 320}, "`vocab_size` is 320; `model.embed_tokens.weight` is 300×64"),
    ({"num_local_experts": 8}, "`num_local_experts` is 8; the tensors have experts 0 to 3"),
    ({"dtype": "bfloat16"}, "the element type is `bfloat16`; no tensor has it, most are F8_E4M3"),
]


@pytest.mark.parametrize(("stated", "text"), CONFIGS)
def test_a_config_that_is_another_network_is_named(folder, stated, text):
    (folder / "config.json").write_text(json.dumps(CONFIG | stated))
    (found,) = ckpt_tool.health(folder).findings
    assert (found.kind, found.text) == ("config", text)


def test_layers_and_heads_that_a_config_has_and_the_tensors_have_not(tmp_path):
    state = {
        key: one
        for key, one in network().items()
        if ".layers.4." not in key and "lm_head" not in key
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert {found.text for found in ckpt_tool.health(tmp_path).findings} == {
        "`num_hidden_layers` is 8; `model.layers.4` is not there",
        "`tie_word_embeddings` is false; there is no output layer (`lm_head.weight`)",
    }


def test_a_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    (found,) = ckpt_tool.health(folder).findings
    assert (found.kind, found.subject) == ("config", str(folder / "config.json"))


def test_a_truncated_shard(folder):
    path = folder / "model-00002-of-00003.safetensors"
    os.truncate(path, path.stat().st_size - 100)
    ran = ckpt("show", "--health", folder)
    assert ran.status == 1
    assert f"damaged  {path}" in ran.out
    assert ran.out.splitlines()[-1] == f"{folder}: not healthy: 1 finding"


def test_swapped_shards(folder):
    one, two = (folder / f"model-0000{at}-of-00003.safetensors" for at in (1, 2))
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    ran = ckpt("show", "--health", folder)
    assert ran.status == 1
    assert re.search(
        r"index .*says that `.*` is in model-00001-of-00003.safetensors, but it is not", ran.out
    )


def test_an_index_that_leaves_out_a_tensor(folder):
    write_index(folder, {key: name for key, name in index_of(folder).items() if key != Q})
    (found,) = ckpt_tool.health(folder).findings
    assert found.kind == "index"
    assert Q in found.text


def test_a_blob_of_the_hubs_cache(folder, tmp_path):
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "c").mkdir(parents=True)
    for path in folder.glob("*.*"):
        content = path.read_bytes()
        blob = cache / "blobs" / sha256(content).hexdigest()
        blob.write_bytes(content)
        (cache / "snapshots" / "c" / path.name).symlink_to(f"../../blobs/{blob.name}")
    assert ckpt_tool.health(cache / "snapshots" / "c").is_healthy
    shard = (cache / "snapshots" / "c" / "model-00002-of-00003.safetensors").resolve()
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    found = [
        each
        for each in ckpt_tool.health(cache / "snapshots" / "c").findings
        if each.kind == "digest"
    ]
    assert [each.text for each in found] == [
        f"its SHA-256 is {sha256(content).hexdigest()[:16]}…; its name in the hub's cache says {shard.name[:16]}…"
    ]


def test_a_flipped_bit_in_a_torch_file(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(nn.Linear(3000, 3000).state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    ran = ckpt("show", "--health", path)
    assert ran.status == 1
    assert re.search(r"damaged +weight +its bytes don't match their checksum", ran.out), ran.out


def test_storage_that_is_shared_by_accident(tmp_path):
    state = {key: one for key, one in network().items() if one.dtype is torch.float32}
    state["model.layers.5.self_attn.k_proj.weight"] = state[
        "model.layers.2.self_attn.k_proj.weight"
    ]
    torch.save(state, tmp_path / "model.pth")
    (found,) = ckpt_tool.health(tmp_path / "model.pth").findings
    assert found.kind == "shared"
    assert (
        found.text
        == "is one tensor with `model.layers.2.self_attn.k_proj.weight`; 7 siblings have their own"
    )


def test_tensors_that_lie_over_each_other(tmp_path):
    whole = torch.randn(100, 64)
    torch.save({"a.weight": whole[:60], "b.weight": whole[50:]}, tmp_path / "model.pth")
    (found,) = ckpt_tool.health(tmp_path / "model.pth").findings
    assert (found.kind, found.text) == (
        "shared",
        "shares 2,560 bytes with `a.weight`, and is not it",
    )


def test_modules_that_are_shared_as_a_whole_and_tied_embeddings_were_meant(tmp_path):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            block = nn.TransformerEncoderLayer(32, 4, 64)
            self.layers = nn.ModuleList([nn.TransformerEncoderLayer(32, 4, 64) for _ in range(6)])
            self.layers.append(block)
            self.layers.append(block)
            self.embed, self.head = nn.Embedding(50, 32), nn.Linear(32, 50, bias=False)
            self.head.weight = self.embed.weight

    torch.save(fill_with_seeded_values(Shared(), 1).state_dict(), tmp_path / "model.pth")
    assert ckpt_tool.health(tmp_path / "model.pth").findings == ()


def test_padding_masks_bounds_and_pruned_rows_were_meant():
    state = {key: one for key, one in network().items() if one.dtype is torch.float32}
    state["model.embed_tokens.weight"][0] = 0
    state["lm_head.weight"][290:] = 0
    state["model.mask"] = torch.full((16, 16), float("-inf")).triu(1)
    state["model.input_max"] = torch.tensor(float("inf"))
    for layer in range(8):
        state[f"model.layers.{layer}.self_attn.o_proj.weight"][layer::7] = 0
    assert ckpt_tool.health(state).findings == ()


def plain():
    return {key: one for key, one in network().items() if one.dtype is torch.float32 and "scale" not in key}


def rows(*zeros, shape=(400, 64)):
    tensor = torch.randn(*shape)
    tensor[list(zeros)] = 0
    return tensor


MEANT = {
    "a filter bank": {"mel_scale.fb": rows(0, 199, shape=(200, 80))},
    "learned scales": {f"model.layers.{at}.attn.k_scale": torch.randn(16) for at in range(8)},
    "an adapter": {"lm_head.lora_A.weight": torch.randn(8, 64), "lm_head.lora_B.weight": torch.zeros(300, 8)},
    "a convolution that begins as zeros": {"mid.weight": torch.zeros(64, 64, 1, 1), "mid.bias": torch.zeros(64)},
    "an adjacency": {"A": rows(5, 9, shape=(25, 25))},
    "masks": {"a": torch.ones(64, 64).triu(1), "b": torch.full((128, 128), -1e4).triu(1), "c": torch.full((9, 9), -3.4e38).triu(1)},
    "words that nobody uses": {"wte.weight": rows(5, 77, 300, 301)},
    "a queue, and prototypes that are partly filled": {"queue": torch.zeros(128, 100), "prototypes": rows(*range(300, 400))},
    "a first layer of its own kind": {f"net.{at}.weight": torch.randn(64, 64) * (1 if at else 100) for at in range(5)},
    "a last layer of its own kind": {f"net.{at}.weight": torch.randn(64, 64) * (1 if at < 4 else 0.01) for at in range(5)},
}


@pytest.mark.parametrize("name", MEANT)
def test_what_people_build_so_is_no_finding(name):
    assert ckpt_tool.health(plain() | MEANT[name]).findings == ()


def one(index, value):
    def edit(tensor):
        tensor[index] = value
        return tensor

    return edit


ODD = [
    ("lm_head.weight", one((3, 4), 1e30), "has values up to 1e+30"),
    ("lm_head.weight", lambda tensor: tensor * 1e6, "in size"),
    ("model.layers.3.input_layernorm.weight", lambda tensor: tensor * 1e6, "in size"),
    ("model.norm.weight", torch.zeros_like, "all 64 values are zero"),
    ("lm_head.weight", lambda tensor: torch.full_like(tensor, 0.5), "all 19,200 values are 0.5"),
    (Q, lambda tensor: torch.full_like(tensor, 0.5), "all 4,096 values are 0.5; its siblings' are not"),
    ("lm_head.weight", one(slice(200, None), 0), "100 of 300 rows are zero"),
    ("model.layers.0.self_attn.q_proj.weight", lambda tensor: tensor / 1e4, "in size"),
]


@pytest.mark.parametrize(("key", "edit", "text"), ODD)
def test_what_no_network_has_is_named(key, edit, text):
    state = plain() | {"model.norm.weight": torch.rand(64) + 0.5, "bn.running_var": torch.rand(64) + 0.5, "bn.running_mean": torch.randn(64)}
    state[key] = edit(state[key])
    (found,) = ckpt_tool.health(state).findings
    assert found.subject == key
    assert text in found.text


def test_keys_and_values_that_two_layers_share_were_meant(tmp_path):
    state = plain()
    for name in "kv":
        for leaf in ("weight", "bias"):
            state[f"model.layers.7.self_attn.{name}_proj.{leaf}"] = state[f"model.layers.6.self_attn.{name}_proj.{leaf}"]
    torch.save(state, tmp_path / "model.pth")
    assert ckpt_tool.health(tmp_path / "model.pth").findings == ()


def test_a_head_that_is_not_the_words_that_it_is_to_be(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    (found,) = ckpt_tool.health(folder).findings
    assert found.text == "`tie_word_embeddings` is true; `lm_head.weight` is another tensor than `model.embed_tokens.weight`"


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_was_not_examined_is_said(tmp_path):
    odd = torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8)
    torch.save({"a": odd}, tmp_path / "odd.pth")
    assert ckpt("show", "--health", tmp_path / "odd.pth").status == 2
    torch.save({"model": {"a": odd, "b.weight": torch.randn(9, 9)}, "ema": {"b.weight": torch.randn(9, 9)}}, tmp_path / "odd.pth")
    ran = ckpt("show", "--health", tmp_path / "odd.pth")
    assert ran.status == 1
    assert "note: 1 tensor can't be read here" in ran.out
    assert "note: 1 tensor outside of the state dict" in ran.out
    assert ran.out.splitlines()[-1].endswith(
        "odd.pth: not known to be healthy: nothing found in 1 of 2 tensors, 324 B; 1 unreadable and 1 outside of the state dict not examined"
    )
    found = json.loads(ckpt("show", "--health", "--json", tmp_path / "odd.pth").out)
    assert (found["unexamined"], found["healthy"]) == (2, False)
    assert repr(ckpt_tool.health(tmp_path / "odd.pth")) == "HealthReport(1 unreadable)"
    assert ckpt("show", "--health", "--quiet", tmp_path / "odd.pth").out == ran.out


def test_a_network_that_was_not_trained_has_zeros_and_ones(torchvision):
    for name in ("resnet18", "vit_b_32", "convnext_tiny", "swin_t", "maxvit_t"):
        assert ckpt_tool.health(torchvision.models.get_model(name, weights=None)).findings == (), (
            name
        )


FAMILIES = [
    "mobilenet_v3_small",
    "efficientnet_b0",
    "densenet121",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "squeezenet1_0",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_false_alarm_on_vision_models(torchvision, name):
    model = fill_with_seeded_values(torchvision.models.get_model(name, weights=None), 1)
    assert ckpt_tool.health(model).findings == ()


@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_patch16_224",
        "levit_128s",
        "xcit_nano_12_p16_224",
        "coat_tiny",
        "fastvit_t8",
    ],
)
def test_no_false_alarm_on_models_of_timm(timm, name):
    model = timm.create_model(name, pretrained=False)
    assert ckpt_tool.health(model).findings == ()
    assert ckpt_tool.health(fill_with_seeded_values(model, 1)).findings == ()


def test_no_false_alarm_on_models_with_a_config(torchvision, tmp_path):
    import transformers

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 300,
    }
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    models = [
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=True)),
        transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, **experts)),
        transformers.RobertaForMaskedLM(transformers.RobertaConfig(**sizes)),
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=300)
        ),
        transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, vocab_size=300
            )
        ),
    ]
    for model in models:
        for tensor in (model, fill_with_seeded_values(model, 1)):
            shutil.rmtree(tmp_path / "saved", ignore_errors=True)
            tensor.save_pretrained(tmp_path / "saved")
            assert ckpt_tool.health(tmp_path / "saved").findings == (), type(model).__name__


def test_json_has_each_finding(folder):
    change(folder, put(Q, at((5, 7), float("nan"))))
    ran = ckpt("show", "--health", "--json", folder)
    found = json.loads(ran.out)
    assert ran.status == 1
    assert found["healthy"] is False
    assert found["findings"] == [
        {"kind": "nan", "subject": Q, "text": "1 of 4,096 values is NaN, the first at [5, 7]"}
    ]


def test_many_of_a_kind_are_cut_short(folder):
    def everywhere(state):
        for tensor in state.values():
            if tensor.dtype is torch.float32:
                tensor.view(-1)[0] = float("nan")
        return True

    change(folder, everywhere)
    ran = ckpt("show", "--health", folder)
    assert ran.out.count("\n  nan ") + ran.out.startswith("  nan ") == 20
    assert "more nan (-v lists them)" in ran.out
    assert ckpt("show", "--health", "-v", folder).out.count(" NaN, ") > 50


def test_what_is_no_checkpoint_or_has_no_values_is_no_answer(tmp_path, folder):
    keys = tmp_path / "keys.txt"
    keys.write_text(ckpt("show", "--keys", folder).out)
    assert ckpt("show", "--health", keys).status == 2
    assert ckpt("show", "--health", tmp_path / "missing.pth").status == 2
    assert ckpt("show", "--health", "--keys", folder).status == 2


def test_what_is_not_well_is_not_loaded(tmp_path):
    model = nn.Linear(4, 10)
    before = {key: one.clone() for key, one in model.state_dict().items()}
    source = {"weight": torch.full((10, 4), float("nan")), "bias": torch.ones(10)}
    torch.save(source, tmp_path / "source.pth")
    for given in (source, tmp_path / "source.pth"):
        with pytest.raises(FormatError, match="is not healthy: weight: 40 of 40 values are NaN"):
            ckpt_tool.load_into(model, given, health=True)
        assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
    assert ckpt_tool.load_into(
        model, {**source, "weight": torch.ones(10, 4)}, health=True
    ).loaded == ("weight", "bias")


def layers_of(count, zero=()):
    generator = torch.Generator().manual_seed(4)
    made = {"model.embed_tokens.weight": torch.randn(300, 32, generator=generator)}
    for at in range(count):
        for name in ("q_proj", "up_proj"):
            made[f"model.layers.{at}.{name}.weight"] = torch.randn(32, 32, generator=generator)
        made[f"model.layers.{at}.norm.weight"] = torch.rand(32, generator=generator) + 0.5
    return {key: value * 0 if any(word in key for word in zero) else value for key, value in made.items()}


@pytest.mark.parametrize(
    ("zero", "count", "subjects"),
    [
        (("",), 6, 1),  # a file that was never filled: one finding
        (("layers.3.", "layers.4.", "layers.5."), 6, 6),  # a shard that was not
        (("layers.1.up_proj",), 3, 1),
        (("layers.1.up_proj",), 2, 1),
        (tuple(f"layers.{at}.up_proj" for at in (1, 4, 7, 9)), 12, 4),
    ],
)
def test_what_was_never_filled_is_named(tmp_path, zero, count, subjects):
    save_file({key: value.contiguous() for key, value in layers_of(count, zero).items()}, tmp_path / "a.safetensors")
    found = ckpt_tool.health(tmp_path / "a.safetensors")
    assert len([each for each in found.findings if each.kind == "zero"]) >= subjects


def test_values_behind_the_first_million(tmp_path):
    scales = torch.rand(2048, 600, generator=torch.Generator().manual_seed(0)) + 0.1
    scales[2000, 3] = -1
    save_file({"l.qweight": torch.ones(2048, 8, dtype=torch.int32), "l.scales": scales}, tmp_path / "a.safetensors")
    (found,) = ckpt_tool.health(tmp_path / "a.safetensors").findings
    assert (found.kind, found.text) == ("scale", "a scale is negative: -1")
    half = torch.ones(2200, 600)
    half[1900:] = torch.randn(300, 600, generator=torch.Generator().manual_seed(0))
    save_file({"emb.weight": half}, tmp_path / "b.safetensors")
    assert ckpt_tool.health(tmp_path / "b.safetensors").is_healthy


def test_parameters_that_are_called_scales_are_none(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {f"blocks.{at}.scale_shift_table": torch.randn(6, 64, generator=generator).to(torch.float8_e4m3fn) for at in range(3)}
    state |= {"attn.logit_scale": -torch.rand(4, 1, 1), "attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)}
    save_file(state, tmp_path / "a.safetensors")
    assert ckpt_tool.health(tmp_path / "a.safetensors").is_healthy


def test_codebooks_begin_as_zeros_and_have_codes_that_nothing_uses():
    state = layers_of(2)
    for at in range(8):
        module = f"quantizer.layers.{at}.codebook"
        state |= {f"{module}.{name}": torch.zeros(64, 16) for name in ("embed", "embed_avg")}
        state |= {f"{module}.cluster_size": torch.zeros(64), f"{module}.inited": torch.tensor([True])}
    assert ckpt_tool.health(state).is_healthy
    for at in range(8):
        for name in ("embed", "embed_avg"):
            table = torch.randn(64, 16, generator=torch.Generator().manual_seed(at))
            table[9:14] = 0
            state[f"quantizer.layers.{at}.codebook.{name}"] = table
    state["quantizer.layers.3.codebook.embed_avg"][20:30] = 0
    assert ckpt_tool.health(state).is_healthy


def test_the_part_that_is_named_has_tensors(tmp_path):
    state = {"0.weight": torch.randn(4, 4, generator=torch.Generator().manual_seed(0))}
    averaged = {key: value * 0.9 for key, value in state.items()}
    optimizer = {"state": {0: {"exp_avg": torch.rand(4, 4)}}, "param_groups": [{"params": [0]}]}
    torch.save({"model": state, "epoch": 3, "optimizer": optimizer, "ema": averaged}, tmp_path / "run.pth")
    ran = ckpt("show", "--health", "run.pth", cwd=tmp_path)
    assert "name their part, as in run.pth#ema" in ran.out + ran.err
    assert ckpt("show", "--health", "run.pth#ema", cwd=tmp_path).status == 0


def test_a_file_without_tensors_is_no_damaged_one(tmp_path):
    torch.save(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1).state_dict(), tmp_path / "sgd.pth")
    ran = ckpt("show", "sgd.pth", "--health", cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert "holds no tensor" in ran.err


def test_where_no_tensors_are_nothing_is_called_healthy(tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    save_file({}, tmp_path / "empty.safetensors")
    for name in ("empty.pth", "empty.safetensors"):
        ran = ckpt("show", "--health", name, cwd=tmp_path)
        assert (ran.status, ran.out, ran.err) == (2, "", f"error: {name}: holds no tensors, so none to examine\n")
    with pytest.raises(ckpt_tool.InputError, match="holds no tensors"):
        ckpt_tool.health(nn.ReLU())


def test_a_report_page_of_health_is_refused_as_what_does_not_exist(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    ran = ckpt("show", "--health", "a.pth", "--html", "h.html", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[0]) == (2, "error: --health: has no report page")
    assert not (tmp_path / "h.html").exists()
