"""Hard variants of one job: nothing wrong, all that can be known, and the rest listed with a hint that settles it."""

import pytest
from literals import catalog
from variants import variants

from ckpt_tool.align import MIN_CONFIDENCE, align
from ckpt_tool.errors import InputError
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, DType, TensorInfo

VARIANTS = {variant.name: variant for variant in variants()}
NOT_ALL = {"another width"}
"""Where a part of what could be known is left out."""


def sources(found):
    return {pair.targets[0][0]: pair.sources[0][0] for pair in found.at_least(MIN_CONFIDENCE)}


@pytest.fixture(scope="module")
def aligned():
    return {name: align(variant.source, variant.target) for name, variant in VARIANTS.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_wrong_and_no_head_is_overwritten(aligned, name):
    truth = VARIANTS[name].known | VARIANTS[name].unknown
    assert {key: origin for key, origin in sources(aligned[name]).items() if truth.get(key) != origin} == {}


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in NOT_ALL])
def test_what_can_be_known_is_found(aligned, name):
    assert sources(aligned[name]) == VARIANTS[name].known


@pytest.mark.parametrize("name", NOT_ALL)
def test_most_of_another_width_is_found_and_the_rest_is_listed(aligned, name):
    variant, found = VARIANTS[name], aligned[name]
    assert len(sources(found)) >= 0.95 * len(variant.known)
    truth = VARIANTS["as it is"].known
    shape_mismatches = {target: source for source, target in found.shape_mismatches}
    assert {key: origin for key, origin in shape_mismatches.items() if truth.get(key) != origin} == {}
    listed = {key for group in found.ambiguous for key in group.targets}
    assert truth.keys() <= sources(found).keys() | shape_mismatches.keys() | listed


def test_a_head_for_other_classes_is_a_misfit():
    found = align(catalog("a.weight 8x4", "b.weight 4x8", "head.weight 5x8"), catalog("a.weight 8x4", "b.weight 4x8", "head.weight 3x8"))
    assert found.shape_mismatches == (("head.weight", "head.weight"),)
    assert found.unpaired_target == ("head.weight",)


def blocks(*lines):
    return catalog(*(line.replace("#", str(i)) for i in range(3) for line in lines), "embed.weight 50x8")


FUSED = [
    ("h.#.gqkv_proj.weight 32x8", [f"h.#.{name}_proj.weight 8x8" for name in ("gate", "q", "k", "v")]),
    ("h.#.att_proj.weight 24x8", [f"h.#.{name}_proj.weight 8x8" for name in "qkv"]),
    ("h.#.kqv.weight 24x8", [f"h.#.{name}_proj.weight 8x8" for name in "kqv"]),
    ("h.#.to_vqk.weight 24x8", [f"h.#.{name}_proj.weight 8x8" for name in "vqk"]),
]


@pytest.mark.parametrize(("whole", "parts"), FUSED, ids=[whole for whole, _ in FUSED])
def test_fused_projections_are_taken_apart_in_the_order_of_their_name(whole, parts):
    rest = ("h.#.norm.weight 8", "h.#.fc1.weight 16x8", "h.#.fc2.weight 8x16")
    found = align(blocks(whole, *rest), blocks(*parts, *rest)).at_least(MIN_CONFIDENCE)
    (first,) = (pair for pair in found if pair.sources[0][0] == whole.split(" ")[0].replace("#", "0"))
    assert [slot[0] for slot in first.targets] == [part.split(" ")[0].replace("#", "0") for part in parts]


@pytest.mark.parametrize("is_linear", [True, False])
def test_a_conv1d_of_gpt2_becomes_q_k_and_v_laid_out_like_the_other_matrices_and_back(is_linear):
    gpt2 = ("h.#.norm.weight 8", "h.#.attn.c_attn.weight 8x24", "h.#.attn.c_attn.bias 24", "h.#.mlp.c_fc.weight 8x16", "h.#.mlp.c_proj.weight 16x8")
    own = ["h.#.norm.weight 8", *(f"h.#.attn.{name}.{leaf}" for leaf in ("weight 8x8", "bias 8") for name in "qkv")]
    own += ["h.#.mlp.up.weight 16x8", "h.#.mlp.down.weight 8x16"] if is_linear else ["h.#.mlp.up.weight 8x16", "h.#.mlp.down.weight 16x8"]
    for one, other, ops in (
        (gpt2, own, ["transpose", {"split": 0}] if is_linear else [{"split": 1}]),
        (own, gpt2, [{"concat": 0}, "transpose"] if is_linear else [{"concat": 1}]),
    ):
        found = align(blocks(*one), blocks(*other))
        assert not found.unpaired_source
        assert not found.unpaired_target
        fused = [pair for pair in found.at_least(MIN_CONFIDENCE) if any("c_attn.weight" in slot[0] for slot in (*pair.sources, *pair.targets))]
        assert [pair.ops for pair in fused] == [parse_ops(ops)] * 3


CONV1D = ("h.#.norm.weight 8", "h.#.attn.c_attn.weight 8x24", "h.#.mlp.c_fc.weight 8x16", "h.#.mlp.c_proj.weight 16x8")


def test_without_biases_names_tell_that_matrices_are_transposed_though_all_shapes_fit_as_they_are():
    own = ("h.#.norm.weight 8", *(f"h.#.attn.{name}.weight 8x8" for name in "qkv"), "h.#.mlp.up.weight 16x8", "h.#.mlp.down.weight 8x16")
    for one, other in ((CONV1D, own), (own, CONV1D)):
        found = align(blocks(*one), blocks(*other)).at_least(MIN_CONFIDENCE)
        plain = {(a.rpartition("mlp.")[2], b.rpartition("mlp.")[2]) for each in found for (a, *_), (b, *_) in [(each.sources[0], each.targets[0])] if "mlp" in a}
        assert plain <= {("c_fc.weight", "up.weight"), ("c_proj.weight", "down.weight"), ("up.weight", "c_fc.weight"), ("down.weight", "c_proj.weight")}
        assert len(plain) == 2
        assert all(each.ops for each in found if "norm" not in each.targets[0][0] and "embed" not in each.targets[0][0])


def test_matrices_are_not_sure_where_one_side_is_stored_as_in_out_and_nothing_tells_of_the_other():
    odd = ("h.#.norm.weight 8", "h.#.attn.mix.weight 8x8", "h.#.mlp.blue.weight 16x8", "h.#.mlp.red.weight 8x16")
    for one, other in ((CONV1D, odd), (odd, CONV1D)):
        found = align(blocks(*one), blocks(*other)).at_least(MIN_CONFIDENCE)
        assert {each.targets[0][0].split(".")[-2] for each in found} <= {"norm", "embed"}


def test_a_fused_tensor_whose_name_says_nothing_is_not_sure():
    rest = ("h.#.norm.weight 8", "h.#.fc1.weight 16x8", "h.#.fc2.weight 8x16")
    parts = [f"h.#.{name}_proj.weight 8x8" for name in "qkv"]
    for one, other in ((("h.#.mix.weight 24x8", *rest), (*parts, *rest)), ((*parts, *rest), ("h.#.mix.weight 24x8", *rest))):
        assert {each.confidence for each in align(blocks(*one), blocks(*other)).pairs if len(each.pair.sources) + len(each.pair.targets) > 2} == {0.5}


def test_codegens_projection_of_groups_is_left_open():
    rest = ("h.#.ln_1.weight 8", "h.#.mlp.fc_in.weight 16x8", "h.#.mlp.fc_out.weight 8x16")
    found = align(blocks("h.#.attn.qkv_proj.weight 24x8", *rest), blocks(*(f"h.#.attn.{name}_proj.weight 8x8" for name in "qkv"), *rest))
    assert len(found.unpaired_source) == 3


def test_the_gate_of_w1_and_w2_beside_c_proj_is_left_open():
    source = [f"h.#.mlp.{name}.weight {shape}" for name, shape in (("w1", "16x8"), ("w2", "16x8"), ("c_proj", "8x16"))]
    target = [f"h.#.mlp.{name}_proj.weight {shape}" for name, shape in (("gate", "16x8"), ("up", "16x8"), ("down", "8x16"))]
    found = align(blocks("h.#.norm.weight 8", *source), blocks("h.#.norm.weight 8", *target))
    assert not {key for each in found.at_least(MIN_CONFIDENCE) for slot in each.sources for key in slot if ".w1." in key or ".w2." in key}
    assert [len(each.sources) for each in found.ambiguous] == [2, 2, 2]


def names_of_blocks(found):
    """The pairs of blocks that sure pairs lie in."""
    return {(a.split(".")[1], b.split(".")[1]) for each in found.at_least(MIN_CONFIDENCE) for (a, *_), (b, *_) in [(each.sources[0], each.targets[0])] if a != "embed.weight"}


DEEP = ("h.{}.norm.weight 8", "h.{}.qkv.weight 24x8", "h.{}.proj.weight 8x8", "h.{}.fc1.weight 16x8", "h.{}.fc2.weight 8x16")
SHALLOW = ("layers.{}.ln.weight 8", "layers.{}.attn_in.weight 24x8", "layers.{}.attn_out.weight 8x8", "layers.{}.up.weight 16x8", "layers.{}.down.weight 8x16")


@pytest.mark.parametrize(
    ("hints", "wanted"),
    [([(3, 0)], {("3", "0"), ("4", "1"), ("5", "2")}), ([(0, 0), (2, 1)], {("0", "0"), ("2", "1"), ("4", "2")}), ([(1, 1)], {("0", "0"), ("1", "1"), ("2", "2")})],
)
def test_a_hint_says_which_blocks_are_the_extra_ones_for_all_of_them(hints, wanted):
    deep = catalog(*(line.format(i) for i in range(6) for line in DEEP), "embed.weight 50x8")
    shallow = catalog(*(line.format(i) for i in range(3) for line in SHALLOW), "embed.weight 50x8")
    assert not names_of_blocks(align(deep, shallow))
    pairs = [(f"h.{i}.qkv.weight", f"layers.{j}.attn_in.weight") for i, j in hints]
    found = align(deep, shallow, pairs)
    assert names_of_blocks(found) == wanted
    assert not found.unpaired_target
    back = align(shallow, deep, [(b, a) for a, b in pairs])
    assert names_of_blocks(back) == {(b, a) for a, b in wanted}


def test_fused_blocks_of_another_depth_are_not_sure_without_a_hint():
    parts = [line for line in SHALLOW if "attn_in" not in line] + [f"layers.{{}}.{name}.weight 8x8" for name in ("query", "key", "value")]
    deep = catalog(*(line.format(i) for i in range(6) for line in DEEP), "embed.weight 50x8")
    shallow = catalog(*(line.format(i) for i in range(3) for line in parts), "embed.weight 50x8")
    assert not names_of_blocks(align(deep, shallow))


def test_towers_are_told_apart_by_what_stands_before_them_whatever_the_order():
    def tower(name, part, names):
        return [f"{name}.{part}.{i}.{leaf}.weight {shape}" for i in range(3) for leaf, shape in zip(names, ("24x8", "8x8", "16x8", "8x16"), strict=True)]

    old, new = ("in_proj", "out_proj", "c_fc", "c_proj"), ("qkv", "o", "up", "down")
    source = catalog("visual.conv1.weight 8x3x4x4", *tower("visual", "blocks", old), "text.emb.weight 50x8", *tower("text", "blocks", old))
    target = catalog("words.table.weight 50x8", *tower("words", "layers", new), "pixels.stem.weight 8x3x4x4", *tower("pixels", "layers", new))
    found = align(source, target).at_least(MIN_CONFIDENCE)
    assert {(each.sources[0][0].split(".")[0], each.targets[0][0].split(".")[0]) for each in found} == {("visual", "pixels"), ("text", "words")}
    assert len(found) == 26


def test_norms_in_numbered_sublayers_go_where_these_go():
    source, target = [], []
    for place, (name, other) in enumerate((("SelfAttention", "attn1"), ("EncDecAttention", "attn2"))):
        source += [*(f"h.#.layer.{place}.{name}.{part}.weight 8x8" for part in "qkvo"), f"h.#.layer.{place}.layer_norm.weight 8"]
        target += [*(f"h.#.{other}.to_{part}.weight 8x8" for part in ("q", "k", "v", "out")), f"h.#.norm{place + 1}.weight 8"]
    source += ["h.#.layer.2.DenseReluDense.wi.weight 16x8", "h.#.layer.2.DenseReluDense.wo.weight 8x16", "h.#.layer.2.layer_norm.weight 8"]
    target += ["h.#.ff.w1.weight 16x8", "h.#.ff.w2.weight 8x16", "h.#.norm3.weight 8"]
    right = dict(zip((line.split()[0] for line in source), (line.split()[0] for line in target), strict=True))
    found = align(blocks(*source), blocks(*target)).at_least(MIN_CONFIDENCE)
    assert {(f"h.#{a[3:]}", f"h.#{b[3:]}") for each in found for (a, *_), (b, *_) in [(each.sources[0], each.targets[0])] if a != b} == set(right.items())


def test_rows_of_a_fused_tensor_whose_name_does_not_tell_their_order_are_not_sure():
    rest = ("h.#.norm.weight 8", "h.#.fc1.weight 16x8", "h.#.fc2.weight 8x16")
    found = align(blocks("h.#.query_key_value.weight 24x8", *rest), blocks("h.#.qkv.weight 24x8", *rest))
    assert {each.confidence for each in found.pairs if "qkv" in each.pair.targets[0][0]} == {0.5}


def test_what_remains_alone_on_both_sides_belongs_together():
    inner = ("h.#.fc1.weight 16x8", "h.#.fc2.weight 8x16", "h.#.fc1.bias 16")
    found = align(
        Catalog([*blocks(*inner).values(), *catalog("ln_f.weight 8").values()]),
        Catalog([*blocks(*inner).values(), *catalog("norm.weight 8").values()]),
    )
    assert renamed(found)["norm.weight"] == "ln_f.weight"


def test_flax_keeps_statistics_in_a_collection_of_their_own():
    parts = [("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var")]
    source = catalog(*(f"{'params' if ours in ('scale', 'bias') else 'batch_stats'}/stem/bn/{ours} 8" for ours, _ in parts))
    target = catalog(*(f"stem.bn.{theirs} 8" for _, theirs in parts), "stem.bn.num_batches_tracked -")
    assert renamed(align(source, target)) == {
        f"stem.bn.{theirs}": f"{'params' if ours in ('scale', 'bias') else 'batch_stats'}/stem/bn/{ours}" for ours, theirs in parts
    }


UNKNOWN = [name for name, variant in VARIANTS.items() if variant.unknown]


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nobody_could_know_is_listed_with_a_hint(aligned, name):
    listed = {key for group in aligned[name].ambiguous for key in group.targets}
    assert listed >= VARIANTS[name].unknown.keys()
    for group in aligned[name].ambiguous:
        source, target = group.hint.split(" -> ")
        assert source in group.sources
        assert target in group.targets
        assert VARIANTS[name].source[source].shape == VARIANTS[name].target[target].shape


@pytest.mark.parametrize("name", [name for name in UNKNOWN if "transformer" not in name])
def test_one_hint_settles_all_blocks(name):
    variant = VARIANTS[name]
    assert sources(align(variant.source, variant.target, [variant.hint])) == variant.known | variant.unknown


def test_a_hint_for_each_of_four_equal_matrices_settles_all_layers():
    variant = VARIANTS["a transformer's q, k, v, o"]
    hints = [(origin, key) for key, origin in variant.unknown.items() if key.startswith("trunk.0.") and key.endswith(".weight")]
    assert len(hints) == 4
    assert sources(align(variant.source, variant.target, hints)) == variant.known | variant.unknown


def renamed(found):
    return {key: pair.sources[0][0] for pair in found.at_least(MIN_CONFIDENCE) for slot in pair.targets for key in slot}


NORMS = [
    (("self_attn_layer_norm", "final_layer_norm"), ("attn_ln", "mlp_ln")),
    (("input_layernorm", "post_attention_layernorm"), ("attention_norm", "ffn_norm")),
    (("norm1", "norm2", "norm3"), ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")),
]


@pytest.mark.parametrize(("ours", "theirs"), NORMS, ids=[" ".join(theirs) for _, theirs in NORMS])
def test_norms_of_a_block_go_by_their_place(ours, theirs):
    def block(names, stem):
        return [f"{stem}.{i}.{each} {shape}" for i in range(2) for each, shape in names]

    def side(norms, stem):
        parts = [(f"{norm}.{leaf}", "8") for norm in norms for leaf in ("weight", "bias")]
        return catalog(*block([*parts, ("mlp.fc1.weight", "32x8"), ("mlp.fc2.weight", "8x32")], stem))

    found = renamed(align(side(ours, "layers"), side(theirs, "blocks")))
    for one, other in zip(ours, theirs, strict=True):
        assert found[f"blocks.1.{other}.bias"] == f"layers.1.{one}.bias"


def test_a_tensor_tied_to_another_in_the_target_is_a_copy():
    source = catalog("embed.weight 50x8", "layers.0.fc1.weight 32x8", "layers.0.fc2.weight 8x32")
    head = TensorInfo("lm_head.weight", source["embed.weight"].dtype, (50, 8), "model.embed.weight", "model.embed.weight")
    target = Catalog([TensorInfo(f"model.{key}", info.dtype, info.shape) for key, info in source.items()] + [head])
    found = align(source, target)
    assert renamed(found)["lm_head.weight"] == "embed.weight"
    assert renamed(align(source, Catalog([*list(target.values())[:-1], TensorInfo("lm_head.weight", head.dtype, (50, 8))]))).keys() == {
        f"model.{key}" for key in source
    }


def linears(turned):
    shapes = {"attn.o_proj": (8, 8), "mlp.fc1": (32, 8), "mlp.fc2": (8, 32)}
    keys = [(f"h.{i}.{name}.weight", shape) for i in range(2) for name, shape in shapes.items()]
    return catalog(*(f"{key} {'x'.join(map(str, shape[::-1] if turned else shape))}" for key, shape in keys), "wte.weight 50x8")


def test_square_matrices_are_transposed_where_those_around_them_are():
    found = {pair.targets[0][0]: [op.name for op in pair.ops] for pair in align(linears(True), linears(False)).at_least(MIN_CONFIDENCE)}
    assert found == {key: [] if key == "wte.weight" else ["transpose"] for key in linears(False)}


def test_a_square_matrix_that_is_no_modules_weight_may_be_transposed():
    found = align(catalog("text_projection 8x8", "ln.weight 8"), catalog("text_projection.weight 8x8", "ln.weight 8"))
    assert [each.confidence for each in found.pairs if each.pair.targets == (("text_projection.weight",),)] == [0.5]


def experts(stacked):
    shapes = {"gate_proj": "6x4", "up_proj": "6x4", "down_proj": "4x6"}
    if stacked:
        return catalog("layers.0.mlp.experts.gate_up_proj 3x12x4", "layers.0.mlp.experts.down_proj 3x4x6", "layers.0.norm.weight 4")
    return catalog(
        *(f"layers.0.mlp.experts.{e}.{name}.weight {shape}" for e in range(3) for name, shape in shapes.items()), "layers.0.norm.weight 4"
    )


@pytest.mark.parametrize("stacked", [True, False])
def test_experts_are_stacked_and_taken_apart(stacked):
    found = align(experts(not stacked), experts(stacked)).at_least(MIN_CONFIDENCE)
    assert {key for pair in found for slot in pair.targets for key in slot} == set(experts(stacked))


def test_modules_with_names_of_one_meaning_stay_apart():
    keys = ["0.conv.norm.weight 8", "0.conv.norm.bias 8", "0.conv.batch_norm.weight 8", "0.conv.batch_norm.bias 8", "0.fc.weight 4x8"]
    source = catalog(*(f"layers.{key}" for key in keys))
    target = catalog(*(f"model.layers.{key}" for key in keys))
    assert renamed(align(source, target)) == {f"model.{key}": key for key in source}


def test_a_hint_for_no_key_is_an_error():
    from ckpt_tool.align import suggest

    with pytest.raises(InputError, match="`nope` is no key of the source"):
        suggest(catalog("a.weight 2"), catalog("b.weight 2"), [("nope", "b.weight")])


def test_nothing_that_fits_is_nothing_paired():
    found = align(catalog("a.weight 2x3"), catalog("b.weight 5x7"))
    assert (found.pairs, found.unpaired_source, found.unpaired_target) == ((), ("a.weight",), ("b.weight",))


def odd_names(count, shape):
    """Names of letters alone, of which none is like another."""
    words = ("".join(chr(97 + i // 26**place % 26) for place in range(3)) for i in range(count))
    return Catalog(TensorInfo(f"{word}.weight", DType.F32, shape(i)) for i, word in enumerate(words))


def test_very_many_modules_of_one_shape_without_numbers_are_refused():
    with pytest.raises(InputError, match="more than 250,000 pairs of modules with the same shapes"):
        align(odd_names(600, lambda i: (3, 3)), odd_names(1200, lambda i: (3, 3) if i >= 600 else (2,)))


def test_equal_names_of_very_many_modules_of_one_shape_are_settled():
    side = odd_names(600, lambda i: (3, 3))
    assert sources(align(side, side)) == {key: key for key in side}


def test_more_names_without_numbers_than_any_network_has_are_refused_at_once():
    words = ("".join(chr(97 + i // 26**place % 26) for place in range(4)) for i in range(50_001))
    many = Catalog(TensorInfo(word, DType.F32, (3, 3)) for word in words)
    with pytest.raises(InputError, match="the target: has more than 50,000 names that differ by more than their numbers"):
        align(catalog("a.weight 2"), many)


def test_many_modules_that_are_alike_but_for_their_sizes_are_left_open():
    found = align(odd_names(600, lambda i: (100 + i, 50)), odd_names(600, lambda i: (900 + i, 50)))
    assert sources(found) == {}
