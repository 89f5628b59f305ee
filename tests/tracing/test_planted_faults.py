"""Wrong conversions between real networks: each is named at the module where outputs diverge first, with what explains it."""

from functools import partial

import pytest
import torch
from einops import rearrange
from seeded import fill_with_seeded_values, import_torchvision
from torch import nn

import ckpt_tool

import_torchvision()  # transformers imports it
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel  # noqa: E402

TO_VIT = """rules:
  - patch_embed.proj.* -> embeddings.patch_embeddings.projection.*
  - cls_token -> embeddings.cls_token
  - pos_embed -> embeddings.position_embeddings
  - blocks.{i}.norm1.* -> layers.{i}.layernorm_before.*
  - blocks.{i}.norm2.* -> layers.{i}.layernorm_after.*
  - blocks.{i}.attn.qkv.* -> layers.{i}.attention.{ORDER}_proj.*: {split: 0}
  - blocks.{i}.attn.proj.* -> layers.{i}.attention.o_proj.*
  - blocks.{i}.mlp.fc{n}.* -> layers.{i}.mlp.fc{n}.*
  - norm.* -> layernorm.*
"""


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 0, "global_pool": ""}


@pytest.fixture(scope="module")
def vit(timm):
    return fill_with_seeded_values(timm.models.vision_transformer.VisionTransformer(**VIT), 1).eval()


def transformers_vit(eps=1e-6):
    config = ViTConfig(image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, layer_norm_eps=eps)
    return ViTModel(config, add_pooling_layer=False)


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def converted(vit, tmp_path, order="q,k,v", **given):
    model = transformers_vit(**given)
    names = {key.split(".")[3] for key in model.state_dict() if ".attention." in key and "layers" in key}
    rules = TO_VIT.replace("{ORDER}_proj", "{" + order + "}_proj")
    (tmp_path / "rules.yaml").write_text(rules)
    return model, ckpt_tool.load_into(model, vit, rules=tmp_path / "rules.yaml"), names


def test_what_computes_the_same(vit, tmp_path):
    model, report, _ = converted(vit, tmp_path)
    found = ckpt_tool.trace(vit, model, images(), report)
    assert found.is_same, found
    assert found.place is None
    assert len(found.rows) > 20
    assert "the same" in str(found)


def test_the_order_of_query_key_and_value(vit, tmp_path):
    model, report, _ = converted(vit, tmp_path, "k,q,v")
    found = ckpt_tool.trace(vit, model, images(), report)
    assert not found.is_same
    assert found.place.other == "layers.0.attention"
    assert any("k_proj" in each and "q_proj" in each and "verified" in each for each in found.place.findings)
    assert {each.key.split(".")[3] for each in found.place.tensors} == {"q_proj", "k_proj", "v_proj"}
    assert "rules.yaml:7" in found.place.tensors[0].rule


def test_the_order_in_which_query_key_and_value_are_joined(vit, tmp_path):
    right, rules = transformers_vit(), tmp_path / "joined.yaml"
    fill_with_seeded_values(right, 2)
    text = "rules:\n" + "".join(
        f"  - {right_side.strip()} -> {left.removeprefix('  - ')}{': {concat: 0}' if 'qkv' in left else ''}\n"
        for left, right_side in (line.split(": {")[0].split(" -> ") for line in TO_VIT.splitlines()[1:])
    )
    rules.write_text(text.replace("{ORDER}_proj", "{q,v,k}_proj"))
    report = ckpt_tool.load_into(vit_like := type(vit)(**VIT), right, rules=rules)
    found = ckpt_tool.trace(right, vit_like, images(), report)
    assert found.place.other.startswith("blocks.0.attn")
    [finding] = [each for each in found.place.findings if "joined in the order" in each]
    assert "verified" in finding
    assert finding.index("q_proj") < finding.index("k_proj") < finding.index("v_proj")


def test_the_epsilon_of_norms(vit, tmp_path):
    model, report, _ = converted(vit, tmp_path, eps=1e-4)
    found = ckpt_tool.trace(vit, model, images(), report)
    assert found.place.kind == "module"
    assert found.place.other == "layers.0.layernorm_before"
    assert found.place.findings == ("verified: `eps` = 1e-06 (it is 0.0001) makes the outputs agree",)


def llama():
    config = LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    return LlamaForCausalLM(config).eval()


def test_the_layout_of_rotary_positions():
    one, other = fill_with_seeded_values(llama(), 1), llama()
    report = ckpt_tool.load_into(other, one)
    for layer in other.model.layers:
        for name in ("q_proj", "k_proj"):
            weight = getattr(layer.self_attn, name).weight.data
            weight.copy_(rearrange(weight.clone(), "(h two d) i -> (h d two) i", two=2, d=8))
    tokens = torch.randint(0, 97, (2, 11), generator=torch.Generator().manual_seed(0))
    found = ckpt_tool.trace(one, other, {"input_ids": tokens}, report)
    assert found.place.other.startswith("model.layers.0.self_attn")
    assert "is not what the plan makes of" in found.place.findings[0]
    clean = ckpt_tool.load_into(other, one)
    assert ckpt_tool.trace(one, other, {"input_ids": tokens}, clean).is_same


class Interleaved(nn.Module):
    """Attention as its authors have it: rotary positions in pairs of neighbours, q, k and v in one."""

    def __init__(self):
        super().__init__()
        self.num_heads = 4
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    rotate = staticmethod(lambda x: torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2))
    angles = staticmethod(lambda n: torch.outer(torch.arange(n).float(), 0.1 ** torch.arange(4)).repeat_interleave(2, -1))

    def forward(self, x):
        q, k, v = (rearrange(each, "b n (h d) -> b h n d", h=4) for each in self.parts(x))
        angles = self.angles(x.shape[1])
        q, k = (each * angles.cos() + self.rotate(each) * angles.sin() for each in (q, k))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.out(rearrange(mixed, "b h n d -> b n (h d)"))

    def parts(self, x):
        return self.qkv(x).chunk(3, -1)


class Halves(Interleaved):
    """The same as others have it: the two halves of a head, three matrices."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in "qkv")
        del self.qkv

    rotate = staticmethod(lambda x: torch.cat([-x[..., 4:], x[..., :4]], -1))
    angles = staticmethod(lambda n: torch.outer(torch.arange(n).float(), 0.1 ** torch.arange(4)).repeat(1, 2))

    def parts(self, x):
        return self.q(x), self.k(x), self.v(x)


def stack(kind):
    return nn.Sequential(nn.Embedding(50, 32), kind(), kind(), nn.Linear(32, 9))


def test_a_rotary_permutation_that_was_forgotten(tmp_path):
    one, other = fill_with_seeded_values(stack(Interleaved), 1), stack(Halves)
    rules = "rules:\n  - '{i}.qkv.* -> {i}.{q,k,v}.*: {split: 0}'\n  - '{r=**} -> {r}'\n".replace("'{i}.qkv.* -> {i}.{q,k,v}.*: {split: 0}'", "\"{i}.qkv.* -> {i}.{q,k,v}.*\": {split: 0}")
    (tmp_path / "rules.yaml").write_text(rules)
    report = ckpt_tool.load_into(other, one, rules=tmp_path / "rules.yaml")
    tokens = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    found = ckpt_tool.trace(one, other, tokens, report)
    assert (found.place.kind, found.place.other) == ("code", "1")
    assert found.place.findings == (
        "verified: rows of `1.k` and `1.q` in halves within heads of 8 (rotary positions) makes the outputs agree",
    )


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_rotary_permutation_in_transformers_own_network(kv_heads, tmp_path):
    config = LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=kv_heads)
    one, other = fill_with_seeded_values(LlamaForCausalLM(config).eval(), 1), LlamaForCausalLM(config).eval()
    for layer in one.model.layers:  # in pairs of neighbours, as Meta has them
        layer.self_attn.forward = partial(neighbours, layer.self_attn)
    tokens = {"input_ids": torch.randint(0, 97, (2, 7), generator=torch.Generator().manual_seed(0))}
    report = ckpt_tool.load_into(other, one)
    found = ckpt_tool.trace(one, other, tokens, report)
    assert (found.is_same, found.place.other) == (False, "model.layers.0.self_attn")
    projections = "`model.layers.0.self_attn.k_proj` and `model.layers.0.self_attn.q_proj`"
    assert found.place.findings == (f"verified: rows of {projections} in halves within heads of 16 (rotary positions) makes the outputs agree",)
    assert str(found).splitlines()[-1] == f"different: they diverge in `model.layers.0.self_attn`; rows of {projections} in halves within heads of 16 (rotary positions) makes the outputs agree"
    rules = "rules:\n  - '{r=**}.{q,k}_proj.weight -> {r}.{q,k}_proj.weight': {rearrange: '(h d two) i -> (h two d) i', two: 2, d: 8}\n  - '** -> **'\n"
    found = ckpt_tool.trace(one, other, tokens, ckpt_tool.load_into(other, one, rules=written(tmp_path, rules)))
    assert found.is_same, str(found)
    assert any(note.startswith("compared in the order that the rules give it: what `model.layers.0.self_attn.k_proj`") for note in found.notes)


def written(folder, text):
    (folder / "rules.yaml").write_text(text)
    return folder / "rules.yaml"


def neighbours(attention, hidden_states, position_embeddings, attention_mask=None, past_key_values=None, **others):
    """Attention with rotary positions in pairs of neighbours."""
    cos, sin = (rearrange(each, "b n (two d) -> b 1 n (d two)", two=2) for each in position_embeddings)
    q, k, v = (rearrange(project(hidden_states), "b n (h d) -> b h n d", d=16) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    q, k = (each * cos + Interleaved.rotate(each) * sin for each in (q, k))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return attention.o_proj(rearrange(mixed, "b h n d -> b n (h d)")), None


def test_hidden_units_in_another_order_compute_the_same(tmp_path):
    def network():
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

    one, other = fill_with_seeded_values(network(), 1), network()
    text = "rules:\n  - '0.* -> 0.*': {index: {dim: 0, order: reverse}}\n  - '2.weight -> 2.weight': {index: {dim: 1, order: ORDER}}\n  - '** -> **'\n"
    inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    right = ckpt_tool.load_into(other, one, rules=written(tmp_path, text.replace("ORDER", "reverse")))
    assert ckpt_tool.trace(one, other, inputs, right).is_same
    wrong = ckpt_tool.load_into(other, one, rules=written(tmp_path, text.replace("ORDER", "[0, 1, 2, 3, 4, 5, 7, 6]")))
    found = ckpt_tool.trace(one, other, inputs, wrong)
    assert (found.is_same, found.place.kind, found.place.other) == (False, "module", "2")


class Residual(nn.Module):
    """Convolutions with their normalisations in modules of their own, as many libraries have them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.first = nn.Sequential(nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)), nn.ReLU())
        self.second = nn.Conv2d(6, 8, 1)
        self.head = nn.Parameter(torch.randn(8))

    def forward(self, x):
        x = self.stem(x)
        return (x + self.second(self.first(x))).mean((2, 3)) * self.head


@pytest.mark.parametrize(("order", "is_same"), [("reverse", True), ("[0, 1, 2, 3, 5, 4]", False)])
def test_channels_in_another_order_inside_of_wrappers(tmp_path, order, is_same):
    one, other = fill_with_seeded_values(Residual(), 1).eval(), Residual().eval()
    names = [f"first.0.{i}.{name}" for i, some in enumerate((("weight", "bias"), ("weight", "bias", "running_mean", "running_var"))) for name in some]
    lines = "".join(f"  - '{name} -> {name}': {{index: {{dim: 0, order: reverse}}}}\n" for name in names)
    text = f"rules:\n{lines}  - 'second.weight -> second.weight': {{index: {{dim: 1, order: {order}}}}}\n  - '** -> **'\n"
    inputs = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    found = ckpt_tool.trace(one, other, inputs, ckpt_tool.load_into(other, one, rules=written(tmp_path, text)))
    assert found.is_same is is_same, str(found)


def test_a_residual_stream_in_another_order_computes_the_same(tmp_path):
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm, self.up, self.down, self.head = nn.Embedding(20, 6), nn.LayerNorm(6), nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 3)

        def forward(self, x):
            x = self.embed(x)
            return self.head(x + self.down(self.up(self.norm(x)).relu()))

    one, other = fill_with_seeded_values(Stream(), 1), Stream()
    rows = "".join(f"  - '{key} -> {key}': {{index: {{dim: 0, order: reverse}}}}\n" for key in ("norm.weight", "norm.bias", "down.weight", "down.bias"))
    columns = "".join(f"  - '{key} -> {key}': {{index: {{dim: 1, order: reverse}}}}\n" for key in ("embed.weight", "up.weight", "head.weight"))
    tokens = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
    for text, is_same in ((rows + columns, True), (rows + columns.replace("'head.weight -> head.weight': {index: {dim: 1, order: reverse}}", "'head.weight -> head.weight'"), False)):
        found = ckpt_tool.trace(one, other, tokens, ckpt_tool.load_into(other, one, rules=written(tmp_path, f"rules:\n{text}  - '** -> **'\n")))
        assert found.is_same is is_same, str(found)


def test_a_negative_scale_is_no_other_order(tmp_path):
    one, other = (fill_with_seeded_values(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)), seed) for seed in (1, 2))
    text = "rules:\n  - '2.weight -> 2.weight': {affine: {scale: -1}}\n  - '** -> **'\n"
    found = ckpt_tool.trace(one, other, torch.randn(3, 4), ckpt_tool.load_into(other, one, rules=written(tmp_path, text)))
    assert found.place.other == "2"


def test_a_parameter_of_the_network_itself_in_another_order_is_a_fault(tmp_path):
    one, other = fill_with_seeded_values(Residual(), 1).eval(), Residual().eval()
    text = "rules:\n  - 'head -> head': {index: {dim: 0, order: [1, 0, 2, 3, 4, 5, 6, 7]}}\n  - '** -> **'\n"
    inputs = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    found = ckpt_tool.trace(one, other, inputs, ckpt_tool.load_into(other, one, rules=written(tmp_path, text)))
    assert (found.is_same, found.place.other) == (False, "")


def test_running_statistics_that_stayed_fresh(torchvision):
    one, other = fill_with_seeded_values(torchvision.models.resnet18(), 1).eval(), torchvision.models.resnet18().eval()
    report = ckpt_tool.load_into(other, one, drop="**.running_*", keep="**.running_*")
    found = ckpt_tool.trace(one, other, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), report)
    assert found.place.other == "bn1"
    assert [each.key for each in found.place.tensors if not each.sources] == ["bn1.running_mean", "bn1.running_var"]


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("query", "document"):
            setattr(self, name, nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 4)))

    def forward(self, query, document):
        return (self.query(query) * self.document(document)).sum(-1)


def test_towers_that_were_exchanged():
    one, other = fill_with_seeded_values(Towers(), 1), Towers()
    rules = ["query.** -> document.**", "document.** -> query.**"]
    report = ckpt_tool.load_into(other, one, rules=rules)
    given = {name: torch.randn(5, 8, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(("query", "document"))}
    found = ckpt_tool.trace(one, other, given, report)
    assert found.place.at[1] == "query" or found.place.other == "query"
    verified = "verified: `query` with the weights of `document` and `document` with the weights of `query` makes the outputs agree"
    assert found.place.findings == (verified,)


class Normed(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.first, self.norm, self.second = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 8)
        self._code = code  # a public one would be tried

    def forward(self, x):
        match self._code:
            case "right":
                return self.second(self.norm(x + self.first(x)))
            case "no norm":
                return self.second(x + self.first(x))
            case "beside":
                return self.second(x + self.first(x) + self.norm(x))
        raise AssertionError(self._code)


@pytest.mark.parametrize(("code", "got"), [("no norm", "`second` gets what `norm` of the first network gets"), ("beside", "`norm` gets what `first` of the first network gets")])
def test_a_module_that_is_forgotten_or_stands_elsewhere_is_no_exchange(code, got):
    one, other = fill_with_seeded_values(Normed("right"), 1), Normed(code)
    other.load_state_dict(one.state_dict())
    found = ckpt_tool.trace(one, other, torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert got in found.place.findings
    assert not any(each.startswith("verified") for each in found.place.findings)
    assert str(found).splitlines()[-1] == "different: they diverge in the code of `the network`"
    if code == "no norm":
        assert "`norm` of the first network is called, and its counterpart `norm` of the second is not" in found.notes


class Block(nn.Module):
    """A residual block that halves its input in its first or in its second convolution, as the two versions of ResNet do."""

    def __init__(self, first, second):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 1, first), nn.BatchNorm2d(4)
        self.conv2, self.shortcut = nn.Conv2d(4, 4, 3, second, padding=1), nn.Conv2d(3, 4, 1, 2)

    def forward(self, x):
        return self.conv2(self.bn1(self.conv1(x)).relu()) + self.shortcut(x)


def test_the_module_that_gives_another_shape_is_the_place():
    one, other = nn.Sequential(nn.Conv2d(3, 3, 1), Block(2, 1)), nn.Sequential(nn.Conv2d(3, 3, 1), Block(1, 2))
    fill_with_seeded_values(one, 1)
    found = ckpt_tool.trace(one, other, images(), ckpt_tool.load_into(other, one))
    assert (found.place.kind, found.place.other) == ("module", "1.conv1"), str(found)
    assert found.place.findings == (
        "`1.conv1` gives 2×4×32×32, its counterpart `1.conv1` of the first network 2×4×16×16",
        "verified: `stride` = (2, 2) (it is (1, 1)) makes the outputs agree",
    )


class Flat(nn.Module):
    """A layer that gives channels last, or first."""

    def __init__(self, is_last):
        super().__init__()
        self.fc, self.head, self._is_last = nn.Linear(8, 6), nn.Linear(6, 3), is_last
        self.embed = Turned(self.fc, is_last)

    def forward(self, x):
        y = self.embed(x)
        return self.head(y if self._is_last else y.mT)


class Turned(nn.Module):
    def __init__(self, fc, is_last):
        super().__init__()
        self.fc, self._is_last = fc, is_last

    def forward(self, x):
        return self.fc(x) if self._is_last else self.fc(x).mT


def test_another_layout_of_the_same_is_no_place():
    one, other = fill_with_seeded_values(Flat(True), 1), Flat(False)
    report = ckpt_tool.load_into(other, one)
    other.head.bias.data[0] += 1
    found = ckpt_tool.trace(one, other, torch.randn(2, 5, 8), report)
    assert (found.place.kind, found.place.other) == ("module", "head"), str(found)


@pytest.mark.parametrize(("one_name", "other_name", "place"), [("mlp.gate_proj", "mlp.up_proj", "mlp"), ("self_attn.k_proj", "self_attn.v_proj", "self_attn")])
def test_modules_that_get_the_same_input_with_each_others_weights(one_name, other_name, place, tmp_path):
    one, other = fill_with_seeded_values(llama(), 1), llama()
    names = (f"model.layers.0.{name}.weight" for name in (one_name, other_name))
    first, second = names
    rules = written(tmp_path, f"rules:\n  - {first} -> {second}\n  - {second} -> {first}\n  - '{{r=**}} -> {{r}}'\n")
    tokens = {"input_ids": torch.randint(0, 97, (2, 7), generator=torch.Generator().manual_seed(0))}
    found = ckpt_tool.trace(one, other, tokens, ckpt_tool.load_into(other, one, rules=rules))
    assert (found.place.kind, found.place.other) == ("code", f"model.layers.0.{place}")
    a, b = (each.removesuffix(".weight") for each in (first, second))
    assert found.place.findings[0] in (
        f"verified: `{a}` with the weights of `{b}` and `{b}` with the weights of `{a}` makes the outputs agree",
        f"verified: `{b}` with the weights of `{a}` and `{a}` with the weights of `{b}` makes the outputs agree",
    )


class Split(nn.Module):
    """Attention with three matrices."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out = (nn.Linear(16, 16) for _ in "qkvo")

    def forward(self, x):
        return self.out((self.q_proj(x) @ self.k_proj(x).mT).softmax(-1) @ self.v_proj(x))


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.c_attn(x).chunk(3, -1)
        return self.out((q @ k.mT).softmax(-1) @ v)


def test_the_order_of_query_key_and_value_in_the_rule_of_the_weights_alone():
    one, other = fill_with_seeded_values(Fused(), 1), Split()
    rules = ["c_attn.weight -> {k,q,v}_proj.weight: {split: 0}", "c_attn.bias -> {q,k,v}_proj.bias: {split: 0}", "out.* -> out.*"]
    found = ckpt_tool.trace(one, other, torch.randn(2, 5, 16), ckpt_tool.load_into(other, one, rules=rules))
    assert found.place.findings == (
        "verified: `q_proj.weight` with the values of `k_proj.weight` and `k_proj.weight` with the values of `q_proj.weight` makes the outputs agree",
    )
