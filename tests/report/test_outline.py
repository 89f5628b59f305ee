"""Lines of reports follow a network's structure: repeated blocks with the range of their numbers, like modules together, others alone."""

from literals import catalog

from ckpt_tool.keys import fold, outline
from ckpt_tool.report.layouts.tree import tree_of
from ckpt_tool.report.parts.amounts import shapes_text
from ckpt_tool.report.show import in_order


def patterns(keys, others=(), folding=outline):
    return [one.pattern for one in folding(dict.fromkeys(keys), others)]


def resnet(stages=(2, 3, 6, 3)):
    keys = ["conv1.weight", "bn1.weight", "bn1.bias"]
    for s, blocks in enumerate(stages, 1):
        for b in range(blocks):
            keys += [f"layer{s}.{b}.{part}" for part in ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias")]
            keys += [f"layer{s}.0.downsample.{part}" for part in ("0.weight", "1.weight", "1.bias")] if b == 0 else []
    return [*keys, "fc.weight", "fc.bias"]


def test_stages_that_differ_in_depth_are_one_line():
    others = [f"layer{s}.{b}.other" for s in range(1, 5) for b in range(6)]
    assert patterns(resnet(), others) == [
        "conv1.weight", "bn1.*", "layer{1..4}.{0..5}.conv{1..2}.weight", "layer{1..4}.{0..5}.bn{1..2}.*", "layer{1..4}.0.downsample.**", "fc.*",
    ]  # fmt: skip


def test_a_block_of_another_kind_has_a_line_of_its_own():
    stem = ["layer0.0.weight", "layer0.1.bias", "layer0.1.weight"]
    assert patterns([*stem, *resnet()[3:-2]]) == ["layer0.**", "layer{1..4}.**"]
    head = [f"layer5.{b}.{name}.weight" for b in range(2) for name in ("reduce", "expand")]
    assert patterns([*stem, *head], folding=fold, others=["x"]) == ["layer0.**", "layer5.**"]


def test_what_has_nothing_in_common_but_its_place_is_not_one_line():
    keys = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias", "head.weight", "head.bias"]
    blocks = [f"blocks.{i}.{name}" for i in range(12) for name in ("norm1.weight", "attn.qkv.weight", "mlp.fc1.weight")]
    expected = ["cls_token", "pos_embed", "patch_embed.proj.*", "blocks.{0..11}.**", "norm.*", "head.*"]
    assert patterns([*keys[:4], *blocks, *keys[4:]]) == expected


def test_words_come_as_the_network_has_them():
    keys = [f"l.{i}.{name}.weight" for i in range(2) for name in ("q_proj", "k_proj", "up")]
    labels = {key: "up" in key for key in keys}
    assert [one.pattern for one in fold(labels)] == ["l.{0..1}.{q_proj,k_proj}.weight", "l.{0..1}.up.weight"]


def test_a_gap_that_another_key_fills_is_kept():
    keys = ["s1.0.w", "s1.1.w", "s2.1.w"]
    assert patterns(keys, ["s2.0.w", "s1.x"], folding=fold) == ["s1.{0..1}.w", "s2.1.w"]
    assert patterns(keys, folding=fold, others=["s1.x", "s2.x"]) == ["s{1..2}.{0..1}.w"]


def test_shapes_as_ranges():
    assert shapes_text([(64, 3, 7, 7)]) == "64×3×7×7"
    assert shapes_text([(64, 64), (512, 64), ()]) == "64..512×64, scalar"


def test_a_tree_counts_every_tensor_once_at_each_level():
    root = tree_of(catalog("a.b.w 2x2", "a.b.b 2", "a.c 3", "d 1"))
    assert [(name, len(node.tensors)) for name, node in root.children.items()] == [("a", 3), ("d", 1)]
    assert [(name, len(node.tensors)) for name, node in root.children["a"].children.items()] == [("b", 2)]
    assert tree_of(catalog("a.b.w 2x2"), 0).children == {}


def test_names_are_sorted_by_their_numbers():
    groups = [(name, []) for name in ("l.10", "l.2", "a")]
    assert [name for name, _ in in_order(groups, "name")] == ["a", "l.2", "l.10"]
