"""What equal names say: they come first, whatever stands around them, and what both sides name keeps its place."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_alignment import catalog, renamed

from ckpt_tool.align import MIN_CONFIDENCE, align
from ckpt_tool.tensors import Catalog, DType, TensorInfo

SHAPES = ("8x8", "8x4", "4x8", "8")
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=4)
KEYS = st.lists(st.lists(WORDS, min_size=1, max_size=3).map(".".join), min_size=1, max_size=8, unique=True)


@st.composite
def sides(draw):
    """A catalog, and keys of other names with shapes of their own."""
    keys = draw(KEYS)
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=len(keys), max_size=len(keys)))
    more = [f"zz{number}.{word}" for number, word in enumerate(draw(st.lists(WORDS, max_size=4)))]
    return [f"{key}.weight {shape}" for key, shape in zip(keys, shapes, strict=True)], [
        f"{key}.weight {draw(st.sampled_from(SHAPES))}" for key in more
    ]


@settings(max_examples=60, deadline=None)
@given(sides())
def test_a_catalog_aligns_with_itself_whatever_else_either_side_holds(found):
    lines, more = found
    same = {key: key for key in catalog(*lines)}
    assert renamed(align(catalog(*lines), catalog(*lines))) == same
    for ours, theirs in ((lines, [*more, *lines]), ([*more, *lines], lines)):
        pairs = renamed(align(catalog(*ours), catalog(*theirs)))
        assert {key: pairs.get(key) for key in same} == same


@pytest.mark.parametrize("head", ["module.", "model.", "encoder_q.", "base_model.model."])
def test_a_head_that_one_side_has_changes_nothing(head):
    plain = ["conv1.weight 8x3x3x3", "layer.0.fc.weight 8x8", "layer.1.fc.weight 8x8", "layer.1.other.weight 8x8", "head.weight 5x8"]
    found = renamed(align(catalog(*(head + line for line in plain)), catalog(*plain)))
    assert found == {line.split()[0]: head + line.split()[0] for line in plain}


NAMES = [f"down_blocks.{i}.attentions.{j}.{name}" for i in range(2) for j in range(2) for name in ("to_q", "to_k", "to_out.0", "net.2")]


def test_separators_change_nothing():
    target = catalog(*(f"backbone.{name}.weight 8x8" for name in NAMES))
    source = catalog(*(f"ema_backbone_{name.replace('.', '_')}_weight 8x8" for name in NAMES))
    assert renamed(align(source, target)) == dict(zip(target, source, strict=True))


def test_the_two_matrices_of_a_lora_are_known_by_all_their_names():
    source = catalog(*(f"lora_unet_{name.replace('.', '_')}.lora_{each}.weight 4x4" for name in NAMES for each in ("down", "up")))
    target = catalog(*(f"unet.{name}.lora_{each}.weight 4x4" for name in NAMES for each in "AB"))
    assert renamed(align(source, target)) == dict(zip(target, source, strict=True))


def test_spectral_norm_becomes_a_parametrisation_and_no_plain_weight():
    source = catalog("a.weight_orig 8x4", "a.weight_u 8", "a.weight_v 4", "a.bias 8", "b.weight_orig 4x8", "b.weight_u 4", "b.weight_v 8")
    new = {
        "weight_orig": "parametrizations.weight.original",
        "weight_u": "parametrizations.weight.0._u",
        "weight_v": "parametrizations.weight.0._v",
    }
    moved = {f"{key[:2]}{new.get(key[2:], key[2:])}": key for key in source}
    target = Catalog(TensorInfo(key, DType.F32, source[origin].shape) for key, origin in moved.items())
    assert renamed(align(source, target)) == moved
    assert renamed(align(source, catalog("a.weight 8x4", "a.bias 8", "b.weight 4x8"))) == {"a.bias": "a.bias"}


def test_the_trained_copy_of_a_module_wins():
    source = catalog("m.emb.original_module.weight 9x4", "m.emb.modules_to_save.default.weight 9x4", "m.fc.weight 4x4", "m.norm.weight 4")
    found = renamed(align(source, catalog("emb.weight 9x4", "fc.weight 4x4", "norm.weight 4")))
    assert found == {"emb.weight": "m.emb.modules_to_save.default.weight", "fc.weight": "m.fc.weight", "norm.weight": "m.norm.weight"}


def test_a_name_that_both_sides_have_keeps_its_place_though_shapes_differ():
    same = [f"layer1.{i}.conv2.weight 8x8x3x3" for i in range(3)]
    source = catalog(*same, "layer1.0.conv1.weight 16x8x1x1")
    found = align(source, catalog(*same, "layer1.0.conv1.weight 9x9x3x3", "layer1.0.down.weight 16x8x1x1"))
    assert renamed(found).keys() == {line.split()[0] for line in same}
    assert ("layer1.0.conv1.weight", "layer1.0.conv1.weight") in found.shape_mismatches


def test_a_member_of_a_sequence_that_may_be_another_one_is_not_sure_by_its_name():
    blocks = [f"{i}.fc.weight 8x4" for i in range(4)]
    source = catalog(*blocks, *(f"mlp.layers.{i}.weight 6x6" for i in range(2)), "mlp.layers.2.weight 3x6")
    target = catalog(*blocks, "mlp.proj_in.weight 6x6", "mlp.layers.0.weight 6x6", "mlp.proj_out.weight 3x6")
    assert renamed(align(source, target)).get("mlp.layers.0.weight") != "mlp.layers.0.weight"


def test_what_is_left_of_a_wrapped_file_is_no_part_of_the_inside():
    inner = [f"layer.{i}.fc.weight 8x4" for i in range(4)]
    source = catalog(*(f"bert.{line}" for line in inner), "cls.transform.dense.weight 8x8", "cls.transform.dense.bias 8")
    found = align(source, catalog(*inner, "pooler.dense.weight 8x8", "pooler.dense.bias 8"))
    assert renamed(found) == {line.split()[0]: f"bert.{line.split()[0]}" for line in inner}


def test_queries_keys_and_values_together_are_no_output_beside_others():
    source = catalog(
        *(f"layers.0.attention.w{name}.weight {shape}" for name, shape in (("q", "16x32"), ("k", "8x32"), ("v", "8x32"), ("o", "32x16")))
    )
    target = catalog(*(f"layers.0.self_attn.{name}_proj.weight {rows}x32" for name, rows in (("q", 32), ("k", 16), ("v", 16), ("o", 32))))
    assert not any(len(pair.sources) > 1 for pair in align(source, target).at_least(MIN_CONFIDENCE))


def test_nothing_is_transposed_where_all_matrices_agree_as_they_are():
    ours = {"q": "8x8", "o": "8x8", "wi_0": "16x8", "wi_1": "16x8", "wo": "8x16"}
    theirs = {"a.q_proj": "8x8", "a.out": "8x8", "mlp.w1": "16x8", "mlp.w3": "16x8", "mlp.w2": "8x16"}
    source = catalog(*(f"block.{i}.{name}.weight {shape}" for i in range(3) for name, shape in ours.items()))
    target = catalog(*(f"layers.{i}.{name}.weight {shape}" for i in range(3) for name, shape in theirs.items()), "layers.0.norm.scale 8")
    assert not any(op.name == "transpose" for pair in align(source, target).at_least(MIN_CONFIDENCE) for op in pair.ops)


def test_norms_go_by_the_order_of_modules_where_attention_to_another_sequence_comes_first():
    parts = {"cross_attn.v": "4x8", "norm1": "8", "self_attn.v": "6x8", "norm2": "8", "fc1": "16x8", "norm3": "8"}
    names = ("encoder_attn.v", "encoder_attn_layer_norm", "self_attn.v", "self_attn_layer_norm", "fc1", "final_layer_norm")
    source = catalog(*(f"decoder.layers.{i}.{name}.weight {shape}" for i in range(2) for name, shape in parts.items()))
    target = catalog(
        *(f"dec.layers.{i}.{name}.weight {shape}" for i in range(2) for name, shape in zip(names, parts.values(), strict=True))
    )
    found = renamed(align(source, target))
    assert found["dec.layers.1.self_attn_layer_norm.weight"] == "decoder.layers.1.norm2.weight"
    assert found["dec.layers.1.encoder_attn_layer_norm.weight"] == "decoder.layers.1.norm1.weight"


def test_a_hint_stays_in_its_block():
    source = catalog(*(f"layer.{i}.bn.weight 8" for i in range(3)))
    target = catalog(*(f"layer.{i}.bn.bns.{j}.weight 8" for i in range(3) for j in range(2)))
    for group in align(source, target).ambiguous:
        ours, theirs = group.hint.split(" -> ")
        assert ours.split(".")[1] == theirs.split(".")[1]
