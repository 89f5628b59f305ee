"""What may be dropped and kept without making a wrong network, and what may not: one situation a row."""

import pytest
from literals import catalog, tensor

from ckpt_tool.advising import (
    Doubt,
    Leftovers,
    doubts_in_words,
    judge,
    patterns_of,
    prefixes,
    without_place,
)
from ckpt_tool.advising.harmless import is_averaged
from ckpt_tool.keys.prefix import Prefix, likely_prefixes, unique_prefix
from ckpt_tool.mapping.plan import Origin, Step
from ckpt_tool.tensors import Catalog, UnreadableTensor


def left_over(source, target, pairs=None, **more):
    """What is left of two catalogs of literals, whose equal names and shapes, or these `pairs`, are mapped."""
    ours, theirs = (side if isinstance(side, Catalog) else catalog(*side) for side in (source, target))
    pairs = pairs or {key: key for key in ours if key in theirs and ours[key].shape == theirs[key].shape}
    steps = [Step((key,), (name,), (), Origin("name")) for key, name in pairs.items()]
    left = [key for key in (*ours, *ours.unreadable) if key not in pairs]
    return Leftovers(ours, theirs, steps, left, [key for key in theirs if key not in pairs.values()], **more)


BODY = ["a.conv.weight 8x3x3x3", "a.bn.weight 8", "a.bn.bias 8", "b.0.conv.weight 8x8x3x3", "b.1.conv.weight 8x8x3x3"]
EMBED = ["tok_embed.weight 30x8", *BODY]

SAFE = {
    "a new head": (BODY, [*BODY, "head.weight 5x8", "head.bias 5"]),
    "a new neck of several modules": (BODY, [*BODY, "neck.0.weight 4x8x1x1", "neck.1.weight 4x4x3x3", "neck.1.bias 4"]),
    "an old head": ([*BODY, "fc.weight 9x8", "fc.bias 9"], BODY),
    "an end of several modules": ([*BODY, "conv_end.weight 9x8x1x1", "bn_end.weight 9", "bn_end.bias 9"], BODY),
    "an old head and a new one": ([*BODY, "fc.weight 9x8", "fc.bias 9"], [*BODY, "cls.0.weight 16x8", "cls.2.weight 5x16"]),
    "an auxiliary head in the middle": ([*BODY, "up.weight 4x8"], [*BODY, "AuxLogits.fc.weight 9x8", "up.weight 4x8"]),
    "a neck before a head that is mapped": ([*BODY, "fc.weight 4x8"], [*BODY, "neck.weight 8x7", "fc.weight 4x8"]),
    "a module before all others": (BODY, ["box.weight 9x7", *BODY]),
    "a square matrix beside what embeds times": (
        ["time_embed.0.weight 8x4", "time_embed.2.weight 8x8", *BODY],
        ["time_embed.0.weight 8x4", "time_embed.2.weight 8x8", *BODY, "to_out.weight 8x8", "to_in.weight 8x4"],
    ),
    "another head under one name": ([*BODY, "fc.weight 9x8", "fc.bias 9"], [*BODY, "fc.weight 5x8", "fc.bias 5"]),
    "counters that old files lack": (BODY, [*BODY, "a.bn.num_batches_tracked - I64"]),
    "counters that a target lacks": ([*BODY, "a.bn.num_batches_tracked - I64"], BODY),
    "buffers that modules compute": ([*BODY, "b.0.position_ids 1x7 I64", "b.1.rotary_emb.inv_freq 4"], BODY),
    "the rotations of Meta's Llama": (BODY, [*BODY, "rope.freqs 4"]),
    "observers": ([*BODY, "a.conv.weight_fake_quant.scale 1", "a.activation_post_process.min_val -"], BODY),
    "an average under flat names": ([*BODY, *(f"ema_{line.replace('.', '_')}" for line in BODY)], BODY),
    "an average in a module of its own": ([*BODY, *(f"ema.{line}" for line in BODY)], BODY),
}  # fmt: skip


@pytest.mark.parametrize(("source", "target"), SAFE.values(), ids=SAFE)
def test_what_may_be_left(source, target):
    leftovers = left_over(source, target)
    found = judge(leftovers)
    assert found.doubts == ()
    assert (found.drop, found.keep) == (tuple(leftovers.left), tuple(leftovers.fresh))


UNSAFE = {
    "something renamed": ([*BODY, "norm.weight 8"], [*BODY, "fc_norm.weight 8"], "may make"),
    "something transposed": ([*BODY, "x.kernel 4x6"], [*BODY, "y.weight 6x4"], "may make"),
    "something fused": ([*BODY, "c.qkv.weight 24x8"], [*BODY, *(f"d.{n}.weight 8x8" for n in "qkv")], "may make"),
    "experts that are stacked": ([*BODY, *(f"c.experts.{i}.weight 4x8" for i in range(3))], [*BODY, "c.experts.weight 3x4x8"], "may make"),
    "half a module": (BODY, [*BODY, "a.conv.bias 8"], "`a.conv.bias` is missing in a module that is mapped"),
    "half a module of the source": ([*BODY, "a.conv.bias 8"], BODY, "`a.conv.bias` is left of a module that is mapped"),
    "a deeper target": (BODY, [*BODY, "b.2.conv.weight 8x8x3x3"], "`b.2` is one of several equal blocks"),
    "a deeper source": ([*BODY, "b.2.conv.weight 8x8x3x3"], BODY, "`b.2` is one of several equal blocks"),
    "a part of a block": (BODY, [*BODY, "b.0.norm.weight 5"], "`b.0.norm` is missing in a block that is mapped"),
    "a numbered stage before one that is mapped": (
        ["s1.0.conv.weight 8x8", *(f"s3.{i}.conv.weight 16x8" for i in range(2))],
        ["s1.0.conv.weight 8x8", *(f"s2.{i}.conv.weight 12x8" for i in range(3)), *(f"s3.{i}.conv.weight 16x8" for i in range(2))],
        "`s2` is missing between modules that are mapped",
    ),
    "a stage between others by the network's order": (
        [*BODY, "up.weight 4x8"], [*BODY, "mid.conv.weight 6x8", "up.weight 4x8", "fc.weight 5x4"], "`mid` is missing between modules that are mapped"
    ),
    "norms that were folded": ([*BODY, "b.0.bn.weight 7"], BODY, "`b.0.bn` is left of a block that is mapped"),
    "a vector by itself": ([*BODY, "logit_bias 7"], BODY, "`logit_bias` is no matrix, and what is mapped may need it"),
    "a norm of the whole": ([*BODY, "norm.weight 7"], BODY, "`norm` has vectors only, as a norm has, and what is mapped may need it"),
    "another width": ([*BODY, "c.weight 4x5"], [*BODY, "c.weight 6x7"], "`c.weight` has another shape in the source"),
    "another vocabulary": (["w.embed_tokens.weight 30x8", *BODY], ["w.embed_tokens.weight 33x8", *BODY], "another shape in the source"),
    "a head that may be tied": (EMBED, [*EMBED, "lm_head.weight 30x8"], "which it may be tied to"),
    "adapters beside their weights": ([*BODY, "a.conv.lora_A.weight 4x8", "a.conv.lora_B.weight 8x4"], BODY, "is a part of the weights"),
    "the trained copy": ([*BODY, "a.conv.modules_to_save.weight 7x7"], BODY, "is a part of the weights beside it"),
    "a scale": ([*BODY, "a.conv.weight_scale 8"], BODY, "is left of a module that is mapped"),
    "little that is used": ([*BODY, *(f"x{i}.weight {i + 2}x9" for i in range(9))], [*BODY, "y.weight 5x7"], "5 of 14 keys of the source"),
}


@pytest.mark.parametrize(("source", "target", "doubt"), UNSAFE.values(), ids=UNSAFE)
def test_what_may_not_be_left(source, target, doubt):
    doubts = doubts_in_words(judge(left_over(source, target)).doubts)
    assert any(doubt in each for each in doubts), doubts


def test_what_cant_be_read_is_never_left():
    source = Catalog([tensor(line) for line in BODY], unreadable=[UnreadableTensor("c.weight", "quantised")])
    assert judge(left_over(source, catalog(*BODY))).doubts == (Doubt("c.weight", "can't be read"),)


@pytest.mark.parametrize(("alpha", "is_safe"), [(4.0, True), (8.0, False)])
def test_the_alpha_of_a_lora_is_left_where_it_scales_by_one(alpha, is_safe):
    source = ["x.lora_down.weight 4x8", "x.lora_up.weight 8x4", "x.alpha -"]
    pairs = {"x.lora_down.weight": "y.lora_A.weight", "x.lora_up.weight": "y.lora_B.weight"}
    leftovers = left_over(source, ["y.lora_A.weight 4x8", "y.lora_B.weight 8x4"], pairs, value_of=lambda key: alpha)
    assert judge(leftovers).is_safe is is_safe


def test_the_untrained_copy_of_peft_is_left():
    source = ["m.embed.modules_to_save.default.weight 9x4", "m.embed.original_module.weight 9x4", "m.fc.weight 4x4"]
    pairs = {source[0].split()[0]: "embed.weight", "m.fc.weight": "fc.weight"}
    assert judge(left_over(source, ["embed.weight 9x4", "fc.weight 4x4"], pairs)).is_safe
    pairs = {source[1].split()[0]: "embed.weight", "m.fc.weight": "fc.weight"}
    assert not judge(left_over(source, ["embed.weight 9x4", "fc.weight 4x4"], pairs)).is_safe


NETS = {"a.w": 2, "b.w": 3, "c.w": 4}
PREFIXED = [
    ({f"model.net.{key}": size for key, size in NETS.items()}, NETS, Prefix(strip="model.net.")),
    (NETS, {f"net.{key}": size for key, size in NETS.items()} | {"head": 9}, Prefix(add="net.")),
    (NETS, NETS, Prefix()),
    ({f"{p}.{key}": size for key, size in NETS.items() for p in "qk"}, NETS, Prefix()),
    ({"x.a.w": 2, "b.w": 9, "c.w": 9}, NETS, Prefix()),
]


@pytest.mark.parametrize(("source", "target", "prefix"), PREFIXED)
def test_a_prefix_is_seen_where_it_is_clear(source, target, prefix):
    assert unique_prefix(source, target) == prefix


def test_of_several_prefixes_the_one_that_is_no_average_is_meant():
    lines = [f"{prefix}.{key} {size}" for key, size in NETS.items() for prefix in ("encoder_q", "encoder_k")]
    source, target = catalog(*lines, "encoder_q.fc.w 7"), catalog(*(f"{key} {size}" for key, size in NETS.items()))
    assert list(prefixes(source, target)) == [Prefix(strip="encoder_q.")]
    assert without_place(Prefix(strip="encoder_q."), source, target) == ["encoder_q.fc.w"]
    twins = catalog(*(f"{prefix}.{key} {size}" for key, size in NETS.items() for prefix in ("student", "teacher")))
    assert list(prefixes(twins, target)) == []
    assert len(likely_prefixes({key: twins[key].shape for key in twins}, {key: target[key].shape for key in target})) == 2


@pytest.mark.parametrize("name", ["ema.a", "model_ema.a", "net_ema.a", "ema_a_b", "module.encoder_k.x", "target_encoder.x", "momentum_encoder.x", "x.shadow.y"])
def test_names_of_averages(name):
    assert is_averaged(name)


@pytest.mark.parametrize("name", ["schema.a", "target.a", "encoder_q.x", "teacher.x", "cinema.weight", "encoder_key.x"])
def test_names_that_are_no_averages(name):
    assert not is_averaged(name)


def test_buffers_that_are_everywhere_are_one_pattern():
    keys = [f"l.{i}.bn.{leaf} 2" for i in range(3) for leaf in ("weight", "count")]
    side = catalog(*keys, "fc.weight 2", "fc.bias 2")
    assert patterns_of([key for key in side if key.endswith("count")], side) == ("**.count",)
    assert patterns_of(["fc.weight", "fc.bias"], side) == ("fc.*",)
    assert patterns_of(["l.0.bn.count", "fc.bias"], side) == ("l.0.bn.count", "fc.bias")
