"""Mappings between language models, and of wrappers: after mapping, the other model computes the same.

Where a library isn't installed, its network stands at the bottom of this file, written anew under its own names.
"""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from seeded import fill_with_seeded_values
from torch import nn

from ckpt_tool import load_into
from ckpt_tool.api import MappingOptions

TOKENS = torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(1))
MEL = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
STATES = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
BERT = {key: LLAMA[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
SIDES = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
META = "attention wq wk wv wo attention_norm feed_forward w1 w2 w3 ffn_norm weight"
TORCHTUNE = "attn q_proj k_proj v_proj output_proj sa_norm mlp w1 w2 w3 mlp_norm scale"
HEADS = {"heads": 4, "kv_heads": 2}


@pytest.fixture(scope="session")
def transformers(torchvision):
    import transformers

    return transformers


@pytest.fixture(scope="session")
def models(transformers):
    """Builders of tiny models by name."""

    def llama(**params):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, **params))

    def whisper():
        sizes = {f"{side}_{what}": number for side in ("encoder", "decoder") for what, number in SIDES.items()}
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
        positions = {"max_source_positions": 10, "max_target_positions": 12}
        config = transformers.WhisperConfig(vocab_size=40, num_mel_bins=6, d_model=32, **sizes, **positions, **ids)
        return transformers.WhisperForConditionalGeneration(config).double()

    def gpt2():
        sizes = {"vocab_size": 40, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, activation_function="gelu")).double()

    def torch_encoder():
        layer = nn.TransformerEncoderLayer(32, 4, 48, activation="gelu", batch_first=True, layer_norm_eps=1e-12)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()

    return {
        "transformers GPT-2": gpt2,
        "transformers Llama": llama,
        "transformers Llama, tied": lambda: llama(tie_word_embeddings=True),
        "transformers Whisper": whisper,
        "transformers BERT": lambda: transformers.BertModel(transformers.BertConfig(**BERT)).double(),
        "transformers RoBERTa": lambda: transformers.RobertaModel(
            transformers.RobertaConfig(**BERT, layer_norm_eps=1e-12), add_pooling_layer=False
        ).double(),
        "nanoGPT": lambda: NanoGPT().double(),
        "Meta's Llama": lambda: PairedLlama(META),
        "torchtune Llama": lambda: PairedLlama(TORCHTUNE),
        "torchtune Llama, tied": lambda: PairedLlama(TORCHTUNE, is_tied=True),
        "litgpt Llama": LitLlama,
        "OpenAI Whisper": lambda: Whisper().double(),
        "torch encoder": torch_encoder,
    }


def logits(model):
    answer = model(TOKENS)
    return answer if torch.is_tensor(answer) else answer.logits


def speech_logits(model):
    answer = model(MEL, decoder_input_ids=TOKENS)
    return answer if torch.is_tensor(answer) else answer.logits


def encoded(model):
    return model(STATES) if isinstance(model, nn.TransformerEncoder) else model.base_model.encoder(STATES).last_hidden_state


def filled(model, seed):
    return fill_with_seeded_values(model, seed).eval()


def using(name, params=None):
    return MappingOptions(rules=(name,), params=params or {})


def assert_same_tensors(ours, theirs, keys=None):
    for key in keys or theirs:
        assert torch.equal(ours[key], theirs[key]), key


LIT = {**HEADS, "head_dim": 8}
CASES = [
    # One side, the other, the rules there and back with their settings, what is computed.
    ("transformers GPT-2", "nanoGPT", "gpt2_to_nanogpt", {}, "nanogpt_to_gpt2", {}, logits),
    ("Meta's Llama", "transformers Llama", "llama_meta_to_transformers", HEADS, "llama_to_meta", HEADS, logits),
    ("transformers Llama", "torchtune Llama", "llama_to_torchtune", HEADS, "torchtune_llama_to_transformers", HEADS, logits),
    ("torchtune Llama, tied", "transformers Llama, tied", "torchtune_llama_to_transformers", HEADS, "llama_to_torchtune", HEADS, logits),
    ("transformers Llama", "litgpt Llama", "llama_to_litgpt", {}, "litgpt_llama_to_transformers", LIT, logits),
    ("OpenAI Whisper", "transformers Whisper", "whisper_to_transformers", {}, "whisper_to_openai", {}, speech_logits),
    ("transformers BERT", "torch encoder", "bert_to_torch_encoder", {}, "torch_encoder_to_bert", {}, encoded),
    ("transformers RoBERTa", "torch encoder", "bert_to_torch_encoder", {}, "torch_encoder_to_bert", {}, encoded),
]


@pytest.mark.parametrize(("one", "other", "there", "numbers", "back", "numbers_back", "compute"), CASES)
def test_models_compute_the_same_and_the_way_back_gives_the_same_bits(models, one, other, there, numbers, back, numbers_back, compute):
    source, target, returned = filled(models[one](), 1), filled(models[other](), 2), filled(models[one](), 3)
    assert load_into(target, source.state_dict(), options=using(there, numbers)).fresh == ()
    with torch.no_grad():
        expected, got = compute(source), compute(target)
    tolerance = {"rtol": 1e-8, "atol": 1e-10} if expected.dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(got, expected, **tolerance)
    state = {key: value for key, value in target.state_dict().items() if key != "lm_head.weight" or "tied" not in other}  # As files are.
    report = load_into(returned, state, options=using(back, numbers_back))
    assert all(key.startswith(("embeddings.", "pooler.")) for key in report.fresh)
    assert_same_tensors(returned.state_dict(), source.state_dict(), report.loaded)


@pytest.mark.parametrize("name", ["transformers Llama", "transformers Llama, tied"])
@pytest.mark.parametrize(
    ("other", "rules", "params"), [("Meta's Llama", "llama_to_meta", HEADS), ("litgpt Llama", "llama_to_litgpt", {})]
)
def test_a_tied_head_is_stored(models, name, other, rules, params):
    source, target = filled(models[name](), 1), filled(models[other](), 2)
    state = {key: value for key, value in source.state_dict().items() if key != "lm_head.weight" or "tied" not in name}
    assert load_into(target, state, options=using(rules, params)).fresh == ()
    with torch.no_grad():
        torch.testing.assert_close(logits(target), logits(source), rtol=1e-4, atol=1e-5)


def test_gpt2_without_a_head(models):
    source, target = filled(models["transformers GPT-2"](), 1), filled(models["nanoGPT"](), 2)
    assert load_into(target, source.transformer.state_dict(), rules="gpt2_to_nanogpt").fresh == ()
    with torch.no_grad():
        torch.testing.assert_close(logits(target), logits(source), rtol=1e-8, atol=1e-10)


BUFFERS = [
    ("transformers GPT-2", "nanoGPT", "gpt2_to_nanogpt", {}, ["transformer.h.1.attn.bias", "transformer.h.1.attn.masked_bias"]),
    ("nanoGPT", "transformers GPT-2", "nanogpt_to_gpt2", {}, ["transformer.h.0.attn.bias", "transformer.h.1.attn.bias"]),
    ("Meta's Llama", "transformers Llama", "llama_meta_to_transformers", HEADS, ["rope.freqs"]),
    *(
        ("transformers Llama", other, rules, params, [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)])
        for other, rules, params in [
            ("Meta's Llama", "llama_to_meta", HEADS),
            ("torchtune Llama", "llama_to_torchtune", HEADS),
            ("litgpt Llama", "llama_to_litgpt", {}),
        ]
    ),
]


@pytest.mark.parametrize(("one", "other", "rules", "params", "buffers"), BUFFERS)
def test_buffers_of_old_files_stay_behind(models, one, other, rules, params, buffers):
    source, target = filled(models[one](), 1), filled(models[other](), 2)
    report = load_into(target, {**source.state_dict(), **{key: torch.ones(4) for key in buffers}}, options=using(rules, params))
    assert (report.fresh, set(report.dropped)) == ((), set(buffers))
    with torch.no_grad():
        torch.testing.assert_close(logits(target), logits(source), rtol=1e-4, atol=1e-5)


def test_a_files_config_gives_the_numbers_of_heads(models, tmp_path):
    source, target = filled(models["transformers Llama"](), 1), filled(models["torchtune Llama"](), 2)
    source.save_pretrained(tmp_path)
    assert load_into(target, str(tmp_path / "model.safetensors"), rules="llama_to_torchtune").fresh == ()
    with torch.no_grad():
        torch.testing.assert_close(logits(target), logits(source), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForQuestionAnswering", "RobertaForMaskedLM", "RobertaForSequenceClassification"])
def test_an_encoder_with_a_head(transformers, models, name):
    config = getattr(transformers, f"{name.partition('For')[0]}Config")(**BERT, layer_norm_eps=1e-12)
    source, target = filled(getattr(transformers, name)(config).double(), 1), filled(models["torch encoder"](), 2)
    assert load_into(target, source.state_dict(), rules="bert_to_torch_encoder").fresh == ()
    with torch.no_grad():
        torch.testing.assert_close(encoded(target), encoded(source), rtol=1e-8, atol=1e-10)


FUSED = {  # The model, its config, rules there and back with their numbers, rows of queries and of keys.
    "GPTNeoX": ("gpt_neox", {"num_attention_heads": 4, "max_position_embeddings": 16}, {"heads": 4}, {"heads": 4}, 32),
    "Bloom": ("gpt_neox", {"n_head": 4}, {"heads": 4}, {"heads": 4}, 32),
    "Falcon, RW": ("gpt_neox", {"num_attention_heads": 4, "multi_query": False, "bias": True}, {"heads": 4}, {"heads": 4}, 32),
    "Falcon, 7B": ("falcon7", {"num_attention_heads": 4}, {"heads": 4, "head_dim": 8}, {}, 8),
    "Falcon, 40B": (
        "falcon40", {"num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True, "bias": True},
        {"groups": 2, "queries": 2, "head_dim": 8}, {"groups": 2, "head_dim": 8}, 16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_fused_queries_keys_and_values_are_those_that_the_model_takes_apart(transformers, name):
    family, params, there, back, rows = FUSED[name]
    family_class = name.partition(",")[0]
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{family_class}Config")(**sizes, **params, attn_implementation="eager")
    model = filled(getattr(transformers, f"{family_class}ForCausalLM")(config), 1)
    source, fused = model.state_dict(), ".query_key_value."
    shapes = {}
    for key, value in source.items():
        parts = {"q": 32, "k": rows, "v": rows}.items() if fused in key else ()
        shapes |= {key.replace(fused, f".{part}_proj."): (count, *value.shape[1:]) for part, count in parts} or {key: tuple(value.shape)}
    split = module_of({key: torch.full(shape, torch.nan) for key, shape in shapes.items()})
    masks = {f"gpt_neox.layers.{i}.attention.{mask}": torch.ones(4) for i in range(2) for mask in ("bias", "masked_bias")}
    given = {**source, **masks} if name == "GPTNeoX" else source  # As old files are.
    assert load_into(split, given, options=using(f"{family}_to_split_qkv", there)).fresh == ()
    for path, layer in model.named_modules():
        if hasattr(layer, "query_key_value"):
            check_attention(transformers, layer, split.get_submodule(path))
    returned = module_of({key: torch.full_like(value, torch.nan) for key, value in source.items()})
    assert load_into(returned, split.state_dict(), options=using(f"split_qkv_to_{family}", back)).fresh == ()
    assert_same_tensors(returned.state_dict(), source)


def check_attention(transformers, layer, split):
    """The three layers give what the attention layer itself makes of its fused one."""
    states = STATES.float()
    got = [F.linear(states, part.weight, getattr(part, "bias", None)) for part in (split.q_proj, split.k_proj, split.v_proj)]
    with torch.no_grad():
        if hasattr(layer, "_split_heads"):
            expected = [part.flatten(2) for part in layer._split_heads(layer.query_key_value(states))]
        elif hasattr(layer, "_reshape"):
            expected = [part.transpose(1, 2).flatten(2) for part in layer._reshape(layer.query_key_value(states))]
        else:
            q, k, v = (part.unflatten(2, (4, 8)).transpose(1, 2) for part in got)
            angles = torch.randn(1, 7, layer.rotary_ndims, generator=torch.Generator().manual_seed(5))
            mask = torch.full((7, 7), -torch.inf).triu(1)[None, None]
            expected = [layer(states, mask, position_embeddings=(angles.cos(), angles.sin()))[0]]
            q, k = transformers.models.gpt_neox.modeling_gpt_neox.apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
            got = [layer.dense(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))]
    for ours, theirs in zip(got, expected, strict=True):
        if ours.shape != theirs.shape:  # A key-value head for each query head of its group.
            ours = ours.unflatten(2, (-1, 8)).repeat_interleave(theirs.shape[2] // ours.shape[2], dim=2).flatten(2)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
EXPERTS = [
    ("Mixtral", {"num_local_experts": 3}, "mixtral_to_transformers5", "transformers5_experts_to_mixtral"),
    ("Phimoe", {"num_local_experts": 3}, "phimoe_to_transformers5", "transformers5_experts_to_mixtral"),
    ("Qwen2Moe", {"num_experts": 3, "moe_intermediate_size": 8, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 12}, None, None),
    ("Qwen3Moe", {"num_experts": 3, "moe_intermediate_size": 8, "num_experts_per_tok": 2}, None, None),
    ("Olmoe", {"num_experts": 3, "num_experts_per_tok": 2}, None, None),
    ("DeepseekV2", {"n_routed_experts": 4, "moe_intermediate_size": 8, "num_experts_per_tok": 2, "first_k_dense_replace": 1, **LATENT}, None, None),
    ("DeepseekV3", {"n_routed_experts": 4, "moe_intermediate_size": 8, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, **LATENT}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "there", "back"), EXPERTS)
def test_experts_go_from_the_hubs_layout_to_transformers_5_and_back(transformers, tmp_path, name, params, there, back):
    config = getattr(transformers, f"{name}Config")(**LLAMA, **params)
    build = getattr(transformers, f"{name}ForCausalLM")
    source, target = filled(build(config), 1), filled(build(config), 2)
    source.save_pretrained(tmp_path)
    hub = load_file(tmp_path / "model.safetensors")
    assert set(hub) != set(source.state_dict())
    assert load_into(target, hub, rules=there or "deepseek_experts_to_transformers5").fresh == ()
    assert_same_tensors(target.state_dict(), source.state_dict())
    with torch.no_grad():
        assert torch.equal(logits(target), logits(source))
    returned = module_of({key: torch.full_like(value, torch.nan) for key, value in hub.items()})
    assert load_into(returned, target.state_dict(), rules=back or "transformers5_experts_to_deepseek").fresh == ()
    assert_same_tensors(returned.state_dict(), hub)


def small_net():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def averaged(model):
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    average.update_parameters(model)
    return average


def in_lightning(model):
    module = nn.Module()
    module.model = model
    return module


WRAPPED = {
    "strip_wrappers": [nn.DataParallel, torch.compile, lambda model: nn.DataParallel(torch.compile(model))],
    "averaged_model_to_plain": [averaged, lambda model: averaged(nn.DataParallel(model)), lambda model: averaged(torch.compile(model))],
    "lightning_to_plain": [in_lightning, lambda model: in_lightning(torch.compile(model)), lambda model: in_lightning(in_lightning(model))],
}


@pytest.mark.parametrize(("rules", "wrap"), [(rules, wrap) for rules, wraps in WRAPPED.items() for wrap in wraps])  # type: ignore[attr-defined]
def test_wrapped_models_become_plain(tmp_path, rules, wrap):
    source = filled(small_net(), 1)
    state = wrap(source).state_dict()
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": [{"state": {}, "param_groups": []}]}, path)
    is_nested = any(key.startswith("model.model.") for key in state)
    for given in (state, str(path)):
        target = filled(in_lightning(small_net()) if is_nested else small_net(), 2)
        assert load_into(target, given, rules=rules).fresh == ()
        assert_same_tensors((target.model if is_nested else target).state_dict(), source.state_dict())


def test_timms_average_becomes_plain(timm):
    source, target = filled(small_net(), 1), filled(small_net(), 2)
    assert load_into(target, timm.utils.ModelEmaV3(source).state_dict(), rules="strip_wrappers").fresh == ()
    assert_same_tensors(target.state_dict(), source.state_dict())


def module_of(tensors):
    """A module without a forward that has just these tensors, by their names."""
    root = nn.Module()
    for key, tensor in tensors.items():
        *path, name = key.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_buffer(name, tensor.clone())
    return root


def heads_of(states, heads):
    return states.unflatten(2, (heads, -1)).transpose(1, 2)


def attention(q, k, v, heads, is_causal):
    q, k, v = (heads_of(part, heads) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal).transpose(1, 2).flatten(2)


class NanoGPT(nn.Module):
    """karpathy/nanoGPT's GPT: linear layers, the exact gelu, the head tied to the embedding."""

    def __init__(self, vocabulary=40, positions=12, width=32, depth=2, heads=4):
        super().__init__()
        self.heads = heads
        blocks = nn.ModuleList(nn.Module() for _ in range(depth))
        for block in blocks:
            block.ln_1, block.ln_2, block.attn, block.mlp = nn.LayerNorm(width), nn.LayerNorm(width), nn.Module(), nn.Module()
            block.attn.c_attn, block.attn.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            block.mlp.c_fc, block.mlp.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        tables = {"wte": nn.Embedding(vocabulary, width), "wpe": nn.Embedding(positions, width)}
        self.transformer = nn.ModuleDict({**tables, "h": blocks, "ln_f": nn.LayerNorm(width)})
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, tokens):
        x = self.transformer.wte(tokens) + self.transformer.wpe.weight[: tokens.shape[1]]
        for block in self.transformer.h:
            parts = block.attn.c_attn(block.ln_1(x)).chunk(3, 2)
            x = x + block.attn.c_proj(attention(*parts, self.heads, is_causal=True))  # type: ignore[call-arg]
            x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(x))))
        return self.lm_head(self.transformer.ln_f(x))


class Norm(nn.Module):
    """RMS norm whose weight has this name."""

    def __init__(self, width, name):
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.ones(width)))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], *self.parameters(), eps=1e-6)


class PairedLlama(nn.Module):
    """Llama as Meta and torchtune have it: rotary factors are complex numbers over neighbouring pairs. `names` are the parts' names."""

    def __init__(self, names, vocabulary=40, width=32, hidden=48, depth=2, heads=4, kv_heads=2, is_tied=False):
        super().__init__()
        self.names, self.heads, self.kv_heads = names.split(), heads, kv_heads
        attn, wq, wk, wv, wo, norm1, mlp, w1, w2, w3, norm2, weight = self.names
        kv_width = width // heads * kv_heads
        self.tok_embeddings = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList()
        for _ in range(depth):
            rows = {wq: width, wk: kv_width, wv: kv_width, wo: width}
            attention_parts = nn.ModuleDict({name: nn.Linear(width, count, bias=False) for name, count in rows.items()})
            mlp_parts = nn.ModuleDict({name: nn.Linear(width, hidden, bias=False) for name in (w1, w3)})
            mlp_parts[w2] = nn.Linear(hidden, width, bias=False)
            norms = {norm1: Norm(width, weight), norm2: Norm(width, weight)}
            self.layers.append(nn.ModuleDict({attn: attention_parts, mlp: mlp_parts, **norms}))
        self.norm = Norm(width, weight)
        self.output = None if is_tied else nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        attn, wq, wk, wv, wo, norm1, mlp, w1, w2, w3, norm2, _ = self.names
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            states, a, m = layer[norm1](x), layer[attn], layer[mlp]
            q, k, v = turned(heads_of(a[wq](states), self.heads)), turned(heads_of(a[wk](states), self.kv_heads)), a[wv](states)
            v = heads_of(v, self.kv_heads)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + a[wo](mixed.transpose(1, 2).flatten(2))
            states = layer[norm2](x)
            x = x + m[w2](F.silu(m[w1](states)) * m[w3](states))
        return F.linear(self.norm(x), (self.output or self.tok_embeddings).weight)


def turned(x):
    """Neighbouring pairs as complex numbers, turned by their positions' angles."""
    length, width = x.shape[-2:]
    angles = torch.outer(torch.arange(length), 10000.0 ** -(torch.arange(0, width, 2) / width))
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


class LitLlama(nn.Module):
    """Llama as litgpt has it: queries, keys and values from one matrix, rotary halves."""

    def __init__(self, vocabulary=40, width=32, hidden=48, depth=2, heads=4, kv_heads=2):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        blocks = nn.ModuleList(nn.Module() for _ in range(depth))
        for block in blocks:
            block.norm_1, block.norm_2, block.attn, block.mlp = Norm(width, "weight"), Norm(width, "weight"), nn.Module(), nn.Module()
            block.attn.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head_dim, bias=False)
            block.attn.proj, block.mlp.proj = nn.Linear(width, width, bias=False), nn.Linear(hidden, width, bias=False)
            block.mlp.fc_1, block.mlp.fc_2 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(vocabulary, width), "h": blocks, "ln_f": Norm(width, "weight")})
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.transformer.wte(tokens)
        for block in self.transformer.h:
            fused = heads_of(block.attn.qkv(block.norm_1(x)), self.heads + 2 * self.kv_heads)
            q, k, v = fused.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            mixed = F.scaled_dot_product_attention(turned_halves(q), turned_halves(k), v, is_causal=True, enable_gqa=True)
            x = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
            states = block.norm_2(x)
            x = x + block.mlp.proj(F.silu(block.mlp.fc_1(states)) * block.mlp.fc_2(states))
        return self.lm_head(self.transformer.ln_f(x))


def turned_halves(x):
    """The same turn where a pair is an element of the first half and one of the second."""
    return turned(x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)).unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


class Whisper(nn.Module):
    """openai/whisper's Whisper: keys have no bias, and the head is the decoder's embedding."""

    def __init__(self, vocabulary=40, mels=6, frames=10, positions=12, width=32, depth=2, heads=4):
        super().__init__()
        self.heads, self.encoder, self.decoder = heads, nn.Module(), nn.Module()
        self.encoder.conv1, self.encoder.conv2 = nn.Conv1d(mels, width, 3, padding=1), nn.Conv1d(width, width, 3, 2, 1)
        self.encoder.register_buffer("positional_embedding", torch.zeros(frames, width))
        self.decoder.positional_embedding = nn.Parameter(torch.zeros(positions, width))
        self.decoder.token_embedding = nn.Embedding(vocabulary, width)
        self.encoder.ln_post, self.decoder.ln = nn.LayerNorm(width), nn.LayerNorm(width)
        for side, names in ((self.encoder, ["attn"]), (self.decoder, ["attn", "cross_attn"])):
            side.blocks = nn.ModuleList(nn.ModuleDict() for _ in range(depth))
            for block in side.blocks:
                for name in names:
                    parts = {part: nn.Linear(width, width, bias=part != "key") for part in ("query", "key", "value", "out")}
                    block[name], block[f"{name}_ln"] = nn.ModuleDict(parts), nn.LayerNorm(width)
                block["mlp"] = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
                block["mlp_ln"] = nn.LayerNorm(width)

    def attend(self, layer, x, other, is_causal):
        return layer["out"](attention(layer["query"](x), layer["key"](other), layer["value"](other), self.heads, is_causal))

    def run(self, block, x, sound=None):
        states = block["attn_ln"](x)
        x = x + self.attend(block["attn"], states, states, is_causal=sound is not None)
        if sound is not None:
            x = x + self.attend(block["cross_attn"], block["cross_attn_ln"](x), sound, is_causal=False)
        return x + block["mlp"](block["mlp_ln"](x))

    def forward(self, mel, decoder_input_ids):
        sound = F.gelu(self.encoder.conv2(F.gelu(self.encoder.conv1(mel)))).transpose(1, 2) + self.encoder.positional_embedding
        for block in self.encoder.blocks:
            sound = self.run(block, sound)
        sound = self.encoder.ln_post(sound)
        x = self.decoder.token_embedding(decoder_input_ids) + self.decoder.positional_embedding[: decoder_input_ids.shape[1]]
        for block in self.decoder.blocks:
            x = self.run(block, x, sound)
        return self.decoder.ln(x) @ self.decoder.token_embedding.weight.T
