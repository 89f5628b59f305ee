"""Mappings between vision models of different libraries: after mapping, the other library's network computes the same."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from seeded import fill_with_seeded_values
from torch import nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from ckpt_tool import MappingOptions, load_into
from ckpt_tool.api import map_checkpoint

SHAPE = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
LAYERS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
CONFIG = {**LAYERS, "image_size": 32, "patch_size": 16, "num_labels": 5, "layer_norm_eps": 1e-6}
SWIN = {"embed_dim": 8, "depths": [1, 2], "num_heads": [2, 4]}
CONVNEXT = {"dims": (4, 8, 12, 16), "depths": (1, 2, 1, 1), "num_classes": 5}
CONVNEXT_CONFIG = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 2, 1, 1], "num_labels": 5, "layer_norm_eps": 1e-6}
SEGFORMER = {"hidden_sizes": [4, 6, 8, 8], "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 2, 2], "sr_ratios": [4, 2, 2, 1]}
DETR = {
    "d_model": 12, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3, "decoder_attention_heads": 3,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 4, "num_labels": 5,
}  # fmt: skip
CLIP = {
    "text_config": {**LAYERS, "vocab_size": 50, "max_position_embeddings": 7, "bos_token_id": 48, "eos_token_id": 49},
    "vision_config": {**LAYERS, "hidden_size": 12, "intermediate_size": 48, "image_size": 32, "patch_size": 16},
    "projection_dim": 8,
}


class ClipBlock(nn.Module):
    """A layer of openai/CLIP, clip/model.py: ResidualAttentionBlock."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class ClipTower(nn.Module):
    def __init__(self, width, heads=3, layers=2):
        super().__init__()
        self.resblocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(layers))

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ClipVision(nn.Module):
    """openai/CLIP, clip/model.py: VisionTransformer."""

    def __init__(self, width, patch, tokens, dim):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre, self.transformer, self.ln_post = nn.LayerNorm(width), ClipTower(width), nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, dim))

    def forward(self, image):
        patches = self.conv1(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(image), 1, -1), patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Clip(nn.Module):
    """openai/CLIP, clip/model.py: CLIP. The end of a text is its highest token."""

    def __init__(self, width=24, dim=8, words=50, length=7):
        super().__init__()
        self.visual, self.transformer = ClipVision(12, 16, 5, dim), ClipTower(width)
        self.token_embedding, self.ln_final = nn.Embedding(words, width), nn.LayerNorm(width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.text_projection = nn.Parameter(torch.empty(width, dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def forward(self, image, text):
        x = self.token_embedding(text) + self.positional_embedding
        mask = torch.full((text.shape[1], text.shape[1]), -math.inf, dtype=x.dtype).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        words, pictures = x[torch.arange(len(text)), text.argmax(-1)] @ self.text_projection, self.visual(image)
        return self.logit_scale.exp() * nn.functional.normalize(pictures) @ nn.functional.normalize(words).T


class MixAttention(nn.Module):
    """NVlabs/SegFormer, mix_transformer.py: Attention."""

    def __init__(self, width, heads, ratio):
        super().__init__()
        self.heads, self.ratio = heads, ratio
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        if ratio > 1:
            self.sr, self.norm = nn.Conv2d(width, width, ratio, ratio), nn.LayerNorm(width)

    def forward(self, x, size):
        few = x
        if self.ratio > 1:
            few = self.norm(self.sr(x.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2))
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(few).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MixMlp(nn.Module):
    """NVlabs/SegFormer, mix_transformer.py: Mlp."""

    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(4 * width, 4 * width, 3, 1, 1, groups=4 * width)})

    def forward(self, x, size):
        y = self.dwconv["dwconv"](self.fc1(x).transpose(1, 2).unflatten(2, size))
        return self.fc2(gelu(y.flatten(2).transpose(1, 2)))


class MixBlock(nn.Module):
    """NVlabs/SegFormer, mix_transformer.py: Block."""

    def __init__(self, width, heads, ratio):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), MixAttention(width, heads, ratio)
        self.norm2, self.mlp = nn.LayerNorm(width), MixMlp(width)

    def forward(self, x, size):
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x), size)


class Segformer(nn.Module):
    """NVlabs/SegFormer: mix_transformer.py and segformer_head.py. transformers has 1e-5 as the epsilon of every norm."""

    def __init__(self, hidden_sizes, depths, num_attention_heads, sr_ratios, width=8, classes=5):
        super().__init__()
        backbone, head = {}, {}
        for s, size in enumerate(hidden_sizes, 1):
            before, kernel, stride = (3, 7, 4) if s == 1 else (hidden_sizes[s - 2], 3, 2)
            patches = nn.Conv2d(before, size, kernel, stride, kernel // 2)
            backbone[f"patch_embed{s}"] = nn.ModuleDict({"proj": patches, "norm": nn.LayerNorm(size)})
            blocks = [MixBlock(size, num_attention_heads[s - 1], sr_ratios[s - 1]) for _ in range(depths[s - 1])]
            backbone[f"block{s}"], backbone[f"norm{s}"] = nn.ModuleList(blocks), nn.LayerNorm(size)
            head[f"linear_c{s}"] = nn.ModuleDict({"proj": nn.Linear(size, width)})
        head["linear_fuse"] = nn.ModuleDict({"conv": nn.Conv2d(4 * width, width, 1, bias=False), "bn": nn.BatchNorm2d(width)})
        head["linear_pred"], head["conv_seg"] = nn.Conv2d(width, classes, 1), nn.Conv2d(width, classes, 1)
        self.backbone, self.decode_head = nn.ModuleDict(backbone), nn.ModuleDict(head)

    def forward(self, x):
        levels = []
        for s in range(1, 5):
            x = self.backbone[f"patch_embed{s}"]["proj"](x)
            size, y = x.shape[2:], self.backbone[f"patch_embed{s}"]["norm"](x.flatten(2).transpose(1, 2))
            for block in self.backbone[f"block{s}"]:  # type: ignore[attr-defined]
                y = block(y, size)
            y = self.backbone[f"norm{s}"](y)
            x = y.transpose(1, 2).unflatten(2, size)
            level = self.decode_head[f"linear_c{s}"]["proj"](y).transpose(1, 2).unflatten(2, size)
            levels.insert(0, interpolate(level, levels[-1].shape[2:] if levels else size, mode="bilinear"))
        fuse = self.decode_head["linear_fuse"]
        return self.decode_head["linear_pred"](fuse["bn"](fuse["conv"](torch.cat(levels, dim=1))).relu())


class DetrEncoderLayer(nn.TransformerEncoderLayer):
    """facebookresearch/detr, models/transformer.py: TransformerEncoderLayer.forward_post."""

    def forward(self, x, place):
        x = self.norm1(x + self.self_attn(x + place, x + place, x)[0])
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class DetrDecoderLayer(nn.TransformerDecoderLayer):
    """facebookresearch/detr, models/transformer.py: TransformerDecoderLayer.forward_post."""

    def forward(self, x, memory, place, query):
        x = self.norm1(x + self.self_attn(x + query, x + query, x)[0])
        x = self.norm2(x + self.multihead_attn(x + query, memory + place, memory)[0])
        return self.norm3(x + self.linear2(self.linear1(x).relu()))


class Detr(nn.Module):
    """facebookresearch/detr: models/detr.py and transformer.py; one batch has images of one size."""

    def __init__(self, resnet, width=12, heads=3, ffn=16, layers=2, queries=4, classes=5):
        super().__init__()
        self.backbone = nn.Sequential(nn.ModuleDict({"body": nn.Sequential()}))
        for name, module in list(resnet.named_children())[:-2]:
            self.backbone[0]["body"].add_module(name, module)
        self.input_proj, self.query_embed = nn.Conv2d(512, width, 1), nn.Embedding(queries, width)
        encoder = nn.ModuleList(DetrEncoderLayer(width, heads, ffn, batch_first=True) for _ in range(layers))
        decoder = nn.ModuleList(DetrDecoderLayer(width, heads, ffn, batch_first=True) for _ in range(layers))
        decoder = nn.ModuleDict({"layers": decoder, "norm": nn.LayerNorm(width)})
        self.transformer = nn.ModuleDict({"encoder": nn.ModuleDict({"layers": encoder}), "decoder": decoder})
        self.class_embed = nn.Linear(width, classes + 1)
        self.bbox_embed = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(width, out) for out in (width, width, 4))})

    def forward(self, image):
        x = self.input_proj(self.backbone[0]["body"](image))
        place, x = self.places(x).expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)
        for layer in self.transformer["encoder"]["layers"]:
            x = layer(x, place)
        query = self.query_embed.weight.expand(len(x), -1, -1)
        y = torch.zeros_like(query)
        for layer in self.transformer["decoder"]["layers"]:
            y = layer(y, x, place, query)
        y = self.transformer["decoder"]["norm"](y)
        first, second, third = self.bbox_embed["layers"]
        return self.class_embed(y), third(second(first(y).relu()).relu()).sigmoid()

    def places(self, x):
        """models/position_encoding.py: PositionEmbeddingSine with normalize=True, rows first."""
        (height, width), steps = x.shape[2:], x.shape[1] // 2
        speed = 10000 ** (2 * (torch.arange(steps, dtype=x.dtype) // 2) / steps)
        waves = []
        for length in (height, width):
            angle = torch.arange(1, length + 1, dtype=x.dtype)[:, None] / (length + 1e-6) * 2 * math.pi / speed
            waves.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1))
        rows, columns = waves[0][:, None].expand(-1, width, -1), waves[1][None].expand(height, -1, -1)
        return torch.cat([rows, columns], dim=2).flatten(0, 1)


@pytest.fixture(scope="session")
def models(timm, torchvision):
    """Builders of tiny models by name; "tf" is transformers."""
    import transformers as tf
    from timm.models.beit import Beit
    from timm.models.deit import VisionTransformerDistilled
    from torchvision.models import ResNet
    from torchvision.ops import FrozenBatchNorm2d

    def resnet():
        return ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], norm_layer=FrozenBatchNorm2d)

    def vit(**params):
        return tf.ViTForImageClassification(tf.ViTConfig(**CONFIG, **params))

    def beit(**params):
        return tf.BeitForImageClassification(tf.BeitConfig(**CONFIG, **params))

    def convnext(**params):
        return tf.ConvNextForImageClassification(tf.ConvNextConfig(**CONVNEXT_CONFIG, **params))

    def dinov2(name):
        return timm.create_model(name, **{**SHAPE, "num_classes": 0})

    def registers(**params):
        return tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**CONFIG, **params))

    def segformer():
        return tf.SegformerForSemanticSegmentation(tf.SegformerConfig(**SEGFORMER, decoder_hidden_size=8, num_labels=5))  # type: ignore[call-arg]

    def detr():
        return tf.DetrForObjectDetection(tf.DetrConfig(**DETR, backbone="resnet18"))  # type: ignore[call-arg]

    def swin():
        return tf.SwinForImageClassification(tf.SwinConfig(**SWIN, image_size=32, patch_size=2, window_size=4, num_labels=5))  # type: ignore[call-arg]

    return {
        "timm ViT": lambda: timm.models.VisionTransformer(**SHAPE),
        "timm ViT, no qkv bias": lambda: timm.models.VisionTransformer(**SHAPE, qkv_bias=False),
        "timm DeiT": lambda: VisionTransformerDistilled(**SHAPE),
        "timm BEiT": lambda: Beit(**SHAPE, use_rel_pos_bias=True, init_values=0.1),
        "timm BEiT, shared": lambda: Beit(**SHAPE, use_abs_pos_emb=False, use_shared_rel_pos_bias=True, global_pool="token"),
        "timm Swin": lambda: timm.models.SwinTransformer(32, 2, window_size=4, num_classes=5, **SWIN),
        "timm ConvNeXt": lambda: timm.models.ConvNeXt(**CONVNEXT),
        "timm ConvNeXt, no scale": lambda: timm.models.ConvNeXt(**CONVNEXT, ls_init_value=None),
        "timm DINOv2": lambda: dinov2("vit_small_patch14_dinov2"),
        "timm DINOv2, giant": lambda: dinov2("vit_giant_patch14_dinov2"),
        "timm DINOv2, registers": lambda: dinov2("vit_small_patch14_reg4_dinov2"),
        "timm DINOv2, giant, registers": lambda: dinov2("vit_giant_patch14_reg4_dinov2"),
        "torchvision ViT": lambda: torchvision.models.VisionTransformer(32, 16, 2, 3, 24, 96, num_classes=5),
        "torchvision Swin": lambda: torchvision.models.SwinTransformer([2, 2], window_size=[4, 4], num_classes=5, **SWIN),
        "openai CLIP": Clip,
        "NVlabs SegFormer": lambda: Segformer(**SEGFORMER),
        "facebookresearch DETR": lambda: Detr(resnet()),
        "tf ViT": vit,
        "tf ViT, no qkv bias": lambda: vit(qkv_bias=False),
        "tf DeiT": lambda: tf.DeiTForImageClassificationWithTeacher(tf.DeiTConfig(**CONFIG)),
        "tf BEiT": lambda: beit(use_relative_position_bias=True, use_absolute_position_embeddings=True),
        "tf BEiT, shared": lambda: beit(use_shared_relative_position_bias=True, use_mean_pooling=False, layer_scale_init_value=0.0),
        "tf Swin": swin,
        "tf ConvNeXt": convnext,
        "tf ConvNeXt, no scale": lambda: convnext(layer_scale_init_value=0.0),
        "tf DINOv2": lambda: tf.Dinov2Model(tf.Dinov2Config(**CONFIG)),
        "tf DINOv2, giant": lambda: tf.Dinov2Model(tf.Dinov2Config(**CONFIG, use_swiglu_ffn=True)),
        "tf DINOv2, registers": registers,
        "tf DINOv2, giant, registers": lambda: registers(use_swiglu_ffn=True),
        "tf CLIP": lambda: tf.CLIPModel(tf.CLIPConfig(**CLIP)),
        "tf SegFormer": segformer,
        "tf DETR": detr,
    }


def logits(model, image):
    answer = model(image)
    return answer if torch.is_tensor(answer) else answer.logits


def tokens(model, image):
    return model.forward_features(image) if hasattr(model, "forward_features") else model(image).last_hidden_state


def likeness(model, image):
    text = torch.tensor([[48, 3, 7, 49, 0, 0, 0], [48, 9, 5, 11, 2, 30, 49]])
    return model(image, text) if isinstance(model, Clip) else model(text, image).logits_per_image


def boxes(model, image):
    return model(image) if isinstance(model, Detr) else (model(image).logits, model(image).pred_boxes)


CASES = [
    # One model and the other, the rules there and back (None: there is no way back), the side of the image and what is compared.
    ("timm ViT", "tf ViT", "timm_vit_to_transformers5", "transformers5_vit_to_timm", 32, logits),
    ("timm ViT, no qkv bias", "tf ViT, no qkv bias", "timm_vit_to_transformers5", "transformers5_vit_to_timm", 32, logits),
    ("timm DeiT", "tf DeiT", "timm_deit_distilled_to_transformers5", "transformers5_deit_distilled_to_timm", 32, logits),
    ("timm BEiT", "tf BEiT", "timm_beit_to_transformers5", "transformers5_beit_to_timm", 32, logits),
    ("timm BEiT, shared", "tf BEiT, shared", "timm_beit_to_transformers5", "transformers5_beit_to_timm", 32, logits),
    ("timm Swin", "tf Swin", "timm_swin_to_transformers5", "transformers5_swin_to_timm", 32, logits),
    ("timm ConvNeXt", "tf ConvNeXt", "timm_convnext_to_transformers", "transformers_convnext_to_timm", 64, logits),
    ("timm ConvNeXt, no scale", "tf ConvNeXt, no scale", "timm_convnext_to_transformers", "transformers_convnext_to_timm", 64, logits),
    ("timm DINOv2", "tf DINOv2", "timm_dinov2_to_transformers5", "transformers5_dinov2_to_timm", 32, tokens),
    ("timm DINOv2, giant", "tf DINOv2, giant", "timm_dinov2_giant_to_transformers5", "transformers5_dinov2_to_timm", 32, tokens),
    ("timm DINOv2, registers", "tf DINOv2, registers", "timm_dinov2_to_transformers5", None, 32, tokens),
    ("timm DINOv2, giant, registers", "tf DINOv2, giant, registers", "timm_dinov2_giant_to_transformers5", None, 32, tokens),
    ("torchvision ViT", "timm ViT", "torchvision_vit_to_timm", "timm_vit_to_torchvision", 32, logits),
    ("torchvision ViT", "tf ViT", "torchvision_vit_to_transformers5", "transformers5_vit_to_torchvision", 32, logits),
    ("torchvision Swin", "timm Swin", "torchvision_swin_to_timm", "timm_swin_to_torchvision", 32, logits),
    ("openai CLIP", "tf CLIP", "openai_clip_to_transformers", "transformers_clip_to_openai", 32, likeness),
    ("NVlabs SegFormer", "tf SegFormer", "segformer_nvlabs_to_transformers5", "transformers5_segformer_to_nvlabs", 64, logits),
    ("facebookresearch DETR", "tf DETR", "detr_to_transformers5", "transformers5_detr_to_facebookresearch", 64, boxes),
]  # fmt: skip
UNUSED = ("mask_token", "relative_position_index", "conv_seg.weight", "conv_seg.bias")
"""What only one side has: a token for training, tables that are computed, a convolution that is never run."""


def filled(build, seed):
    """A model with seeded values in every tensor, but for the tables that the architecture computes."""
    model = build().double().eval()
    tables = {key: value.clone() for key, value in model.state_dict().items() if key.endswith("relative_position_index")}
    fill_with_seeded_values(model, seed).load_state_dict(tables, strict=False)
    return model


def assert_equal_outputs(source, target, rules, image, answer):
    """`target` computes what `source` does when the rules have filled it, and did not before."""
    with torch.no_grad():
        expected, before = answer(source, image), answer(target, image)
        report = load_into(target, source.state_dict(), rules=rules)
        assert all(key.endswith(UNUSED) for key in report.fresh + report.dropped)
        torch.testing.assert_close(answer(target, image), expected, rtol=1e-8, atol=1e-10)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(before, expected, rtol=1e-2, atol=1e-2)


def picture(side):
    return torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("one", "other", "there", "back", "side", "answer"), CASES)
def test_mapped_network_computes_the_same(models, one, other, there, back, side, answer):
    source, target, again = filled(models[one], 2), filled(models[other], 3), filled(models[one], 4)
    assert_equal_outputs(source, target, there, picture(side), answer)
    if back:
        assert_equal_outputs(target, again, back, picture(side), answer)
        mapped, original = again.state_dict(), source.state_dict()
        assert all(torch.equal(mapped[key], original[key]) for key in original if not key.endswith(UNUSED))


@pytest.mark.parametrize(("one", "other", "there", "back", "side", "answer"), [case for case in CASES if case[1].startswith("tf ")])
def test_mapped_files_of_transformers_compute_the_same(models, tmp_path, one, other, there, back, side, answer):
    """save_pretrained writes the names of the hub, which are not those of a live model."""
    source, target, again = filled(models[one], 2), filled(models[other], 3), filled(models[one], 4)
    first, old, new, last = (str(tmp_path / name) for name in ("one.pth", "old/model.safetensors", "new/model.safetensors", "back.pth"))
    torch.save(source.state_dict(), first)
    target.save_pretrained(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    map_checkpoint(first, old, new, MappingOptions((there.replace("transformers5", "transformers"),)), force=True)
    with torch.no_grad():
        expected = answer(source, picture(side))
        mapped = type(target).from_pretrained(tmp_path / "new", dtype=torch.float64).eval()
        torch.testing.assert_close(answer(mapped, picture(side)), expected, rtol=1e-8, atol=1e-10)
        if back:
            map_checkpoint(new, first, last, MappingOptions((back.replace("transformers5", "transformers"),)))
            again.load_state_dict(torch.load(last))
            torch.testing.assert_close(answer(again, picture(side)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rules", "other"),
    [
        ("torchvision_vit_to_timm", "timm ViT"),
        ("torchvision_vit_to_transformers5", "tf ViT"),
        ("torchvision_vit_to_transformers", "tf ViT"),
    ],
)
def test_older_names_of_torchvision(models, tmp_path, rules, other):
    """torchvision's published ViT files name the two layers of an MLP linear_1 and linear_2."""
    state, model = filled(models["torchvision ViT"], 2).state_dict(), filled(models[other], 3)
    older = {key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value for key, value in state.items()}
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    if rules.endswith("transformers"):
        model.save_pretrained(tmp_path)
    for name, tensors in (("new", state), ("old", older)):
        torch.save(tensors, tmp_path / f"{name}.pth")
        target, output = (str(tmp_path / file) for file in ("model.safetensors", f"{name}.safetensors"))
        map_checkpoint(str(tmp_path / f"{name}.pth"), target, output, MappingOptions((rules,)))
    new, old = (load_file(tmp_path / f"{name}.safetensors") for name in ("new", "old"))
    assert all(torch.equal(old[key], value) for key, value in new.items())


LEFTOVERS = [
    ("openai CLIP", "tf CLIP", "openai_clip_to_transformers", ["input_resolution", "context_length", "vocab_size"]),
    ("tf CLIP", "openai CLIP", "transformers_clip_to_openai", ["text_model.embeddings.position_ids"]),
    ("tf Swin", "timm Swin", "transformers_swin_to_timm", ["swin.encoder.layers.1.blocks.0.attention.self.relative_position_index"]),
    ("tf BEiT, shared", "timm BEiT, shared", "transformers_beit_to_timm", ["beit.encoder.relative_position_bias.relative_position_index"]),
    ("timm BEiT, shared", "tf BEiT, shared", "timm_beit_to_transformers5", ["rel_pos_bias.relative_position_index"]),
    (
        "tf DETR", "facebookresearch DETR", "transformers_detr_to_facebookresearch",
        ["model.backbone.conv_encoder.model.layer2.0.downsample.1.num_batches_tracked"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "rules", "leftovers"), LEFTOVERS)
def test_numbers_in_published_files_are_left_behind(models, tmp_path, one, other, rules, leftovers):
    model = models[one]()
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
    else:
        state = model.state_dict()
    report = load_into(models[other](), state | {key: torch.tensor(32) for key in leftovers}, rules=rules)
    assert set(report.dropped) == set(leftovers)
    assert all(key.endswith(UNUSED) for key in report.fresh)
