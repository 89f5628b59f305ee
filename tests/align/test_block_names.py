"""Blocks under names that people give: what is drafted as sure is right in whatever order the parts of a block are declared."""

import random
from collections import Counter

import pytest

from ckpt_tool.align import MIN_CONFIDENCE, align, suggest
from ckpt_tool.tensors import Catalog, DType, TensorInfo

WIDTH = 16
NORMS = {
    "self": ["norm1", "ln_1", "attn_ln", "pre_attention", "pre_attn", "input_layernorm", "ln_a", "before_attention", "attention_norm", "norm_in", "self_norm", "norm_self", "ln_token", "first_norm"],
    "cross": ["norm_c", "ln_cross", "cross_attn_ln", "pre_cross", "pre_memory", "encoder_attn_layer_norm", "ln_c", "before_cross", "cross_norm", "norm_context", "memory_norm", "norm_enc", "ln_source", "second_norm"],
    "mlp": ["norm2", "ln_2", "mlp_ln", "pre_mlp", "pre_ffn", "ffn_layernorm", "ln_b", "before_mlp", "ffn_norm", "norm_mid", "ff_norm", "norm_ff", "ln_channel", "last_norm"],
}  # fmt: skip
MODULES = {
    "self": ["attn", "self_attn", "attention", "mix", "self_attention", "mha", "tok", "first", "attn1"],
    "cross": ["cross_attn", "cross_attention", "encoder_attn", "memory", "crossattention", "ca", "ctx", "second", "attn2"],
    "mlp": ["mlp", "ffn", "feed_forward", "ff", "channel_mix", "fc", "chan", "third", "mlp"],
}
HEADS = [list("qkvo"), ["q_proj", "k_proj", "v_proj", "out_proj"], ["query", "key", "value", "out"], ["to_q", "to_k", "to_v", "to_out"]]
LINEARS = [["fc1", "fc2"], ["0", "2"], ["up", "down"], ["c_fc", "c_proj"], ["net.0", "net.3"]]
ORDERS = {
    "as called": ["n self", "self", "n cross", "cross", "n mlp", "mlp"],
    "norms first": ["n self", "n cross", "n mlp", "self", "cross", "mlp"],
    "norms last": ["self", "cross", "mlp", "n self", "n cross", "n mlp"],
    "norm behind": ["self", "n self", "cross", "n cross", "mlp", "n mlp"],
}


def network(rng, has_cross):
    """Three blocks by key, with what each tensor is."""
    stem, heads, linears = rng.choice(["blocks", "layers", "h", "encoder.layer", "trunk"]), rng.choice(HEADS), rng.choice(LINEARS)
    norm, module, order = rng.randrange(14), rng.randrange(9), rng.choice(list(ORDERS))
    shapes, meanings = {}, {}
    for i in range(3):
        for part in ORDERS[order]:
            of = part.removeprefix("n ")
            if of == "cross" and not has_cross:
                continue
            if part.startswith("n "):
                modules: dict[str, tuple[int, ...]] = {f"{NORMS[of][norm]}": (WIDTH,)}
            elif of == "mlp":
                modules = {f"{MODULES[of][module]}.{linears[0]}": (4 * WIDTH, WIDTH), f"{MODULES[of][module]}.{linears[1]}": (WIDTH, 4 * WIDTH)}
            else:
                modules = {f"{MODULES[of][module]}.{name}": (WIDTH, WIDTH) for name in heads}
            for at, (name, shape) in enumerate(modules.items()):
                for tensor, size in (("weight", shape), ("bias", shape[:1])):
                    key = f"{stem}.{i}.{name}.{tensor}"
                    shapes[key], meanings[key] = size, (i, part, at, tensor)
    return Catalog([TensorInfo(key, DType.F32, shape) for key, shape in shapes.items()]), meanings


def test_a_complete_draft_is_right_and_hardly_any_sure_pair_is_wrong():
    counts = Counter()
    for seed in range(2000, 2080):
        rng = random.Random(seed)
        has_cross = rng.random() < 0.4
        (source, is_source), (target, is_target) = network(rng, has_cross), network(rng, has_cross)
        pairs = align(source, target).at_least(MIN_CONFIDENCE)
        wrong = [pair for pair in pairs if is_source[pair.sources[0][0]] != is_target[pair.targets[0][0]]]
        assert not wrong or len(pairs) < len(target), f"seed {seed}: complete, and wrong: {wrong[:2]}"
        counts += Counter(pairs=len(pairs), wrong=len(wrong), targets=len(target))
    assert counts["wrong"] <= 0.01 * counts["pairs"]
    assert counts["pairs"] >= 0.6 * counts["targets"]


def block(prefix, order, names):
    weights = {"n": (WIDTH,), "a": (WIDTH, WIDTH), "u": (64, WIDTH), "d": (WIDTH, 64)}
    return [
        (f"{prefix}.{names[part]}.{tensor}", shape)
        for part in order
        for tensor, shape in (("weight", weights[part[0]]), ("bias", weights[part[0]][:1]))
    ]


def catalog(lines):
    return Catalog([TensorInfo(key, DType.F32, shape) for key, shape in lines])


def sure(source, target, *hints):
    return {pair.targets[0][0]: pair.sources[0][0] for pair in align(source, target, hints).at_least(MIN_CONFIDENCE)}


WHISPER = {"a": "attn", "n1": "attn_ln", "u": "mlp.0", "d": "mlp.2", "n2": "mlp_ln"}


@pytest.mark.parametrize("names", [("pre_attention", "pre_mlp"), ("pre_attn", "pre_ffn"), ("before_attention", "before_mlp"), ("ln_x", "ln_y"), ("norm_in", "norm_mid")])
def test_norms_that_one_side_declares_before_and_one_behind_their_modules_are_never_exchanged(names):
    source = catalog([line for i in range(3) for line in block(f"blocks.{i}", ["a", "n1", "u", "d", "n2"], WHISPER)])
    mine = {"n1": names[0], "a": "mix", "n2": names[1], "u": "ffn.0", "d": "ffn.3"}
    target = catalog([line for i in range(3) for line in block(f"enc.{i}", ["n1", "a", "n2", "u", "d"], mine)])
    found = sure(source, target)
    assert found["enc.0.mix.weight"] == "blocks.0.attn.weight"
    for key, origin in (("n1", "attn_ln"), ("n2", "mlp_ln")):
        assert found.get(f"enc.1.{mine[key]}.weight") in (None, f"blocks.1.{origin}.weight")


@pytest.mark.parametrize("names", [("self_attention", "cross_attention"), ("self_attn", "src_attn"), ("inner", "outer")])
@pytest.mark.parametrize("numbers", [(1, 2, 3), (2, 1, 3)])
def test_attention_to_itself_and_to_another_sequence_are_never_exchanged(names, numbers):
    def side(prefix, order, heads):
        lines = []
        for i in range(3):
            for module, norm in order:
                lines += [(f"{prefix}.{i}.{module}.{name}.{tensor}", shape) for name in heads for tensor, shape in (("weight", (32, 32)), ("bias", (32,)))]
                lines += [(f"{prefix}.{i}.{norm}.{tensor}", (32,)) for tensor in ("weight", "bias")]
            lines += [(f"{prefix}.{i}.ffn.{n}.weight", shape) for n, shape in ((0, (64, 32)), (2, (32, 64)))]
            lines += [(f"{prefix}.{i}.{'mlp_ln' if prefix[:3] == 'dec' and 'blocks' in prefix else 'norm3'}.{tensor}", (32,)) for tensor in ("weight", "bias")]
        return catalog(lines)

    source = side("decoder.blocks", [("attn", "attn_ln"), ("cross_attn", "cross_attn_ln")], ["query", "key", "value", "out"])
    target = side("dec", [(names[1], f"norm{numbers[1]}"), (names[0], f"norm{numbers[0]}")], ["to_q", "to_k", "to_v", "to_out.0"])
    right = {names[0]: "attn", names[1]: "cross_attn", "norm3": "mlp_ln"}
    hint = ("decoder.blocks.0.attn.query.weight", f"dec.0.{names[0]}.to_q.weight")
    for hints in ([], [hint]):
        found = sure(source, target, *hints)
        assert any(".ffn." in key for key in found)
        for key, origin in found.items():
            part = key.split(".")[2]
            assert part not in right or origin.split(".")[3] == right[part], (key, origin)
    assert found[f"dec.2.{names[1]}.to_v.weight"] == "decoder.blocks.2.cross_attn.value.weight", "one hint settles both"


def towers(first):
    """OpenAI's CLIP, and two towers of one's own of which `first` is declared first."""
    d = 32

    def linear(key, rows, columns):
        return [(f"{key}.weight", (rows, columns)), (f"{key}.bias", (rows,))]

    def norm(key):
        return [(f"{key}.weight", (d,)), (f"{key}.bias", (d,))]

    def theirs(prefix):
        lines = []
        for i in range(3):
            at = f"{prefix}transformer.resblocks.{i}."
            lines += [(f"{at}attn.in_proj_weight", (3 * d, d)), (f"{at}attn.in_proj_bias", (3 * d,)), *linear(f"{at}attn.out_proj", d, d), *norm(f"{at}ln_1")]
            lines += [*linear(f"{at}mlp.c_fc", 4 * d, d), *linear(f"{at}mlp.c_proj", d, 4 * d), *norm(f"{at}ln_2")]
        return lines

    def mine(prefix):
        lines = []
        for i in range(3):
            at = f"{prefix}.layers.{i}."
            lines += norm(f"{at}norm1") + [line for name in "qkvo" for line in linear(f"{at}att.{name}", d, d)]
            lines += norm(f"{at}norm2") + linear(f"{at}ff.up", 4 * d, d) + linear(f"{at}ff.down", d, 4 * d)
        return lines

    source = [("positional_embedding", (12, d)), ("text_projection", (d, 24)), ("logit_scale", ()), ("visual.class_embedding", (d,)), ("visual.positional_embedding", (17, d))]
    source += [("visual.proj", (d, 24)), ("visual.conv1.weight", (d, 3, 8, 8)), *norm("visual.ln_pre"), *theirs("visual."), *norm("visual.ln_post"), *theirs("")]
    source += [("token_embedding.weight", (50, d)), *norm("ln_final")]
    text = [("text.embed.weight", (50, d)), ("text.pos", (12, d)), *mine("text"), *norm("text.ln_final"), ("text.projection", (d, 24))]
    image = [("image.cls", (d,)), ("image.pos", (17, d)), ("image.patch.weight", (d, 3, 8, 8)), *norm("image.ln_pre"), *mine("image"), *norm("image.ln_post")]
    image += [("image.projection", (d, 24))]
    return catalog(source), catalog((text + image if first == "text" else image + text) + [("logit_scale", ())])


HINTS = [
    ("visual.transformer.resblocks.0.attn.out_proj.weight", "image.layers.0.att.o.weight"),
    ("visual.transformer.resblocks.0.ln_1.weight", "image.layers.0.norm1.weight"),
    ("transformer.resblocks.0.mlp.c_fc.weight", "text.layers.0.ff.up.weight"),
]


def blocks_that_crossed(pairs):
    return [
        (pair.sources[0][0], pair.targets[0][0])
        for pair in pairs
        if ".layers." in pair.targets[0][0] and pair.targets[0][0].startswith("image") != pair.sources[0][0].startswith("visual")
    ]


@pytest.mark.parametrize("first", ["text", "image"])
def test_the_order_of_two_towers_alone_tells_nothing(first):
    source, target = towers(first)
    found = suggest(source, target)
    assert not blocks_that_crossed(found.alignment.at_least(MIN_CONFIDENCE))
    assert found.alignment.ambiguous or first == "image"


@pytest.mark.parametrize("hint", HINTS)
def test_one_hint_settles_two_towers_whole(hint):
    source, target = towers("text")
    found = align(source, target, [hint])
    pairs = found.at_least(MIN_CONFIDENCE)
    assert not found.ambiguous
    assert sum(len(slot) for pair in pairs for slot in pair.targets) == len(target)
    assert all(pair.targets[0][0].startswith("image") == pair.sources[0][0].startswith("visual") for pair in pairs if ".layers." in pair.targets[0][0])


def test_numbered_branches_under_names_are_not_counted_through():
    def heads(names):
        return [(f"{name}.{i}.{j}.conv.{tensor}", shape) for name in names for i in range(3) for j in range(2) for tensor, shape in (("weight", (16, 16, 3, 3)), ("bias", (16,)))]

    stem = [("stem.conv.weight", (16, 3, 3, 3))]
    source = catalog(stem + heads(["model.22.cv2", "model.22.cv3"]))
    target = catalog(stem + heads(["head.cls", "head.box"]))
    found = align(source, target)
    assert [pair.targets[0][0] for pair in found.at_least(MIN_CONFIDENCE)] == ["stem.conv.weight"]
    assert len(found.ambiguous) == 1


def stages(head, first, second):
    widths = [(16, 3), (32, 16), (64, 32), (64, 64)]
    shapes = [(first, "weight", (3, 3)), *((second, tensor, None) for tensor in ("weight", "bias", "running_mean", "running_var"))]
    return [
        (f"{head}.{i}.{name}.{tensor}", (rows, columns, *kernel) if kernel else (rows,))
        for i, (rows, columns) in enumerate(widths)
        for name, tensor, kernel in shapes
    ]


@pytest.mark.parametrize("heads", [("model.layers", "ema_model.layers"), ("ema_model.layers", "model.layers"), ("student.layers", "teacher.layers")])
def test_which_of_two_equal_networks_is_meant_is_asked_and_hints_settle_it(heads):
    both = catalog([line for head in heads for line in stages(head, "conv", "bn")])
    one = catalog(stages("stage", "c", "n"))
    found = align(both, one)
    assert not found.at_least(MIN_CONFIDENCE)
    assert found.ambiguous
    settled = align(both, one, [(f"{heads[1]}.0.{name}.weight", f"stage.0.{other}.weight") for name, other in (("conv", "c"), ("bn", "n"))])
    pairs = settled.at_least(MIN_CONFIDENCE)
    assert {each.sources[0][0].partition(".")[0] for each in pairs} == {heads[1].partition(".")[0]}
    assert len(pairs) == len(one)
    assert not settled.ambiguous
