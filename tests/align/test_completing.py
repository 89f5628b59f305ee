"""What is left when modules are matched: an example of each kind of evidence, and of what it refuses."""

import pytest
from catalogs import keys, modules, sides
from literals import catalog

from ckpt_tool.align.alignment import align
from ckpt_tool.align.completing.combined import combined
from ckpt_tool.align.completing.doubts import is_rotary_unknown, only_counts_places, with_doubts
from ckpt_tool.align.completing.fused import (
    Cut,
    Fused,
    biases_without_keys,
    fused,
    is_order_unknown,
)
from ckpt_tool.align.completing.last_mismatches import last_mismatches
from ckpt_tool.align.completing.layouts import layout_changes
from ckpt_tool.align.completing.nearest import nearest_path
from ckpt_tool.align.completing.other_widths import in_other_widths, without_sizes
from ckpt_tool.align.completing.phases import PHASES, last_tensors, shared_tensors
from ckpt_tool.align.completing.remaining import remaining
from ckpt_tool.align.completing.sequences import sequence_completions
from ckpt_tool.align.completing.ties import with_ties
from ckpt_tool.align.completing.unpaired import Unpaired, unpaired_after
from ckpt_tool.align.decided import decide, has_module_order
from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.naming.modules import modules_of
from ckpt_tool.align.open_groups import open_groups
from ckpt_tool.align.other_shapes import shape_mismatch_lines
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, DType, TensorInfo


def unpaired(*lines):
    found = catalog(*lines)
    return Unpaired(found, modules_of(found), frozenset(found))


def always(source, target):
    return 1.0


def not_shown():
    return None


def same_names(source, target):
    return float(source == target)


def pair(source, target):
    return Aligned(Pair(((source,),), ((target,),)), 0.99, "names agree")


PARTS = ("x.q_proj.weight 8x8", "x.k_proj.weight 4x8", "x.v_proj.weight 4x8")


def test_q_k_and_v_of_one_fused_tensor_are_recognised_by_their_words():
    parts = unpaired(*PARTS)
    assert list(fused(unpaired("x.qkv.weight 16x8"), parts, always, not_shown)) == [
        Fused("x.qkv.weight", ("x.q_proj.weight", "x.k_proj.weight", "x.v_proj.weight"), Cut(0))
    ]
    assert list(fused(unpaired("x.qkv.weight 17x8"), parts, always, not_shown)) == []


@pytest.mark.parametrize("shown", [None, False, True])
def test_columns_of_a_fused_weight_are_split_as_other_matrices_show(shown):
    square = unpaired(*(f"x.{name}.weight 8x8" for name in "qkv"))
    cuts = [each.cut for each in fused(unpaired("x.c_attn.weight 8x24"), square, always, lambda: shown)]
    assert cuts == ([] if shown is None else [Cut(1, shown)])
    cuts = [each.cut for each in fused(unpaired("x.c_attn.weight 8x16"), unpaired(*PARTS), always, lambda: shown)]
    assert cuts == ([] if shown is False else [Cut(1, is_transposed=True)])


def test_a_name_that_says_nothing_is_not_fused_where_q_has_a_home():
    parts = unpaired(*PARTS)
    assert list(fused(unpaired("x.mix.weight 16x8"), parts, always, not_shown)) != []
    assert list(fused(unpaired("x.mix.weight 16x8", "x.q.weight 8x8"), parts, always, not_shown)) == []


def test_letters_name_the_parts():
    parts = unpaired(*(f"x.{name}.weight 8x8" for name in ("gate", "query", "key", "value")))
    (found,) = fused(unpaired("x.gqkv.weight 32x8"), parts, always, not_shown)
    assert found.parts == ("x.gate.weight", "x.query.weight", "x.key.weight", "x.value.weight")


def test_rows_of_some_names_have_an_unknown_order():
    assert is_order_unknown("x.query_key_value.weight", "x.qkv.weight")
    assert not is_order_unknown("x.qkv.weight", "x.in_proj.weight")


def test_a_fused_bias_without_keys_has_two_thirds():
    parts = unpaired("x.q.bias 4", "x.v.bias 4", "x.k.weight 4x4")
    (found,) = biases_without_keys(unpaired("x.qkv.weight 12x4", "x.qkv.bias 12"), parts, always)
    assert (found.key, found.queries, found.values) == ("x.qkv.bias", "x.q.bias", "x.v.bias")
    assert (
        list(
            biases_without_keys(
                unpaired("x.qkv.bias 12"),
                unpaired("x.q.bias 4", "x.k.bias 4", "x.v.bias 4"),
                always,
            )
        )
        == []
    )


def test_fusing_and_splitting_are_each_others_inverse():
    whole, parts = unpaired("x.qkv.weight 16x8"), unpaired(*PARTS)
    (joined,) = combined(Sides(parts, whole), always, not_shown)
    (split,) = combined(Sides(whole, parts), always, not_shown)
    assert (joined.pair.ops, split.pair.ops) == (
        parse_ops({"concat": 0}),
        parse_ops({"split": {"dim": 0, "sizes": [8, 4, 4]}}),
    )
    assert (joined.pair.sources, joined.pair.targets) == (split.pair.targets, split.pair.sources)


def test_experts_are_stacked_by_their_words_in_the_order_of_their_numbers():
    each = unpaired(
        *(
            f"x.mlp.experts.{i}.{name}.weight {shape}"
            for i in (1, 0)
            for name, shape in (("w1", "6x4"), ("w2", "4x6"))
        )
    )
    (found,) = combined(Sides(each, unpaired("x.mlp.experts.down_proj 2x4x6")), always, not_shown)
    assert found.pair.sources == (("x.mlp.experts.0.w2.weight", "x.mlp.experts.1.w2.weight"),)
    assert found.pair.ops == parse_ops([{"stack": 0}])
    assert combined(Sides(each, unpaired("x.mlp.experts.down_proj 3x4x6")), always, not_shown) == []


def test_a_length_and_a_direction_make_a_weight():
    (found,) = combined(
        Sides(unpaired("x.weight_g 8x1", "x.weight_v 8x4"), unpaired("x.weight 8x4")), always, not_shown
    )
    assert found.pair == Pair(
        (("x.weight_g",), ("x.weight_v",)), (("x.weight",),), parse_ops({"weight_norm": 0})
    )


def test_the_nearest_path_must_lead():
    assert nearest_path(("a",), [("a",), ("b",)], same_names) == ("a",)
    assert nearest_path(("a",), [("b",), ("c",)], always) is None
    assert nearest_path(("a",), [], always) is None


def test_a_layout_change_is_known_by_its_shapes():
    ops, unsure = layout_changes(
        {"b.weight": "a.weight"}, catalog("a.weight 8x4"), catalog("b.weight 4x8")
    )
    assert ops == {"b.weight": parse_ops("transpose")}
    assert unsure == set()


@pytest.mark.parametrize(("other", "name"), [("6x4 4x6", "transpose"), ("6x4 6x4", None)])
def test_a_square_matrix_goes_as_those_around_it_do(other, name):
    there, here = other.split()
    source, target = (
        catalog("x.0.a.kernel 8x8", f"x.0.b.kernel {there}"),
        catalog("y.0.a.w 8x8", f"y.0.b.w {here}"),
    )
    ops, unsure = layout_changes(
        {"y.0.a.w": "x.0.a.kernel", "y.0.b.w": "x.0.b.kernel"}, source, target
    )
    assert ops["y.0.a.w"] == (parse_ops(name) if name else ())
    assert unsure == set()


def test_a_square_matrix_alone_is_unsure():
    ops, unsure = layout_changes(
        {"b.other": "a.kernel"}, catalog("a.kernel 8x8"), catalog("b.other 8x8")
    )
    assert unsure == ops.keys() == {"b.other"}


def test_what_no_op_makes_is_left_out():
    source, target = catalog("a.weight 3x5"), catalog("b.weight 4x4")
    assert layout_changes({"b.weight": "a.weight"}, source, target) == ({}, set())


def test_a_member_of_a_sequence_goes_as_the_others_do():
    both = sides([f"a.{i}.weight 2" for i in range(4)], [f"b.{i}.weight 2" for i in (5, 6, 7, 8)])
    every = {(i, j) for i in range(4) for j in range(4)}
    assert sequence_completions(both, Sides({3}, {3}), every, [(0, 0), (1, 1), (2, 2)]) == [(3, 3)]
    assert sequence_completions(both, Sides({3}, {3}), every, [(0, 0)]) == []
    assert sequence_completions(both, Sides({3}, {0}), every, [(0, 3), (1, 2), (2, 1)]) == [(3, 0)]


def test_what_remains_alone_belongs_together_if_a_word_says_so():
    lines = [f"l.{i}.fc.weight 8x8" for i in range(6)]
    done = [(i, i) for i in range(6)]

    def left(source, target):
        both = sides([*lines, source], [*lines, target])
        catalogs = Sides(catalog(*lines, source), catalog(*lines, target))
        rest = unpaired_after(
            [pair(key, key) for key in [line.split()[0] for line in lines]],
            catalogs,
            both,
            Sides(frozenset(), frozenset()),
        )
        return keys(remaining(both, rest, {(6, 6): 1.0}, done), both)

    assert left("pooler.dense.weight 5x8", "pooler.weight 5x8") == {
        ("pooler.dense.weight", "pooler.weight")
    }
    assert left("this.weight 5x8", "that.weight 5x8") == set()


def test_the_same_network_in_another_width_is_known_by_its_names():
    names = [f"layer.{i}.{part}" for i in range(3) for part in ("conv1", "conv2", "conv3")]
    both = sides(
        [f"{name}.weight 16x16x3x3" for name in names],
        [f"{name}.weight 32x32x3x3" for name in names],
    )
    known = [(i, i) for i in range(8)]
    found = in_other_widths(both, Sides({8}, {8}), known, True)
    assert [match.candidate for match, _ in found] == [(8, 8)]
    assert without_sizes((("weight", (16, 16, 3, 3)),)) == without_sizes(
        (("weight", (32, 64, 3, 3)),)
    )
    assert without_sizes((("weight", (16, 16, 3, 3)),)) != without_sizes(
        (("weight", (16, 16, 1, 1)),)
    )


def test_tied_targets_are_copies_of_one_source():
    target = Catalog(
        [TensorInfo("a", DType.F32, (2,)), TensorInfo("b", DType.F32, (2,), tied_to="a")]
    )
    (found,) = with_ties([pair("x", "a")], target, {"b"})
    assert found.pair == Pair((("x",),), (("a",), ("b",)), parse_ops("copy"))
    assert list(with_ties([pair("x", "a")], target, set())) == [pair("x", "a")]


def test_codes_and_rotary_halves_make_a_pair_doubtful():
    source = catalog("a.weight 8x8 I8", "a.weight_scale 8")
    (found,) = with_doubts([pair("a.weight", "b.weight")], source, catalog("b.weight 8x8"))
    assert found.confidence == 0.5
    assert found.evidence == "names agree; but it holds codes, whose scale is a tensor beside it"
    meta = catalog("tok_embeddings.weight 8x8", "layers.0.attention.wq.weight 8x8")
    library = catalog("embed_tokens.weight 8x8", "layers.0.self_attn.q_proj.weight 8x8")
    assert is_rotary_unknown(meta, library)
    assert not is_rotary_unknown(library, library)


def test_places_that_a_library_counts_are_computed():
    counted = catalog("a.position_ids 1x8 I64", "a.position_embedding 8x8")
    assert [only_counts_places(key, counted) for key in counted] == [True, False]


def test_what_is_open_is_what_no_pair_has():
    catalogs = Sides(catalog("a.weight 2x2", "a.bias 2"), catalog("b.weight 2x2", "b.bias 2"))
    both = catalogs.map(modules_of)
    source, target = unpaired_after(
        [pair("a.weight", "b.weight")], catalogs, both, Sides(frozenset(), frozenset({"b.bias"}))
    )
    assert (source.keys, target.keys) == ({"a.bias"}, {"b.bias"})
    assert source.of(both.source[0]) == {"bias": "a.bias"}
    assert source.whole() == set()
    nothing, kept = unpaired_after([], catalogs, both, Sides(frozenset(), frozenset({"b.bias"})))
    assert (nothing.movable(), kept.whole(), kept.movable()) == ({0}, {0}, set())


def test_two_single_tensors_are_shared_whatever_they_are_called():
    (scale,), (gamma,) = modules("a.scale 8"), modules("b.weight_x 8")
    assert shared_tensors(scale, gamma) == [("a.scale", "b.weight_x")]


def test_the_last_tensor_inside_modules_that_belong_together_is_paired():
    source = catalog("x.fc.weight 8x4", "x.fc.table 3x3", "x.other.weight 5x5")
    target = catalog("x.fc.weight 8x4", "x.fc.lookup 3x3", "x.other.weight 5x5")
    decided = decide(Sides(source, target), [], True)
    rest = unpaired_after(
        [pair(key, key) for key in ("x.fc.weight", "x.other.weight")],
        decided.catalogs,
        decided.modules,
        decided.places.kept,
    )
    found = last_tensors(decided, rest).pairs
    assert [each.pair for each in found] == [Pair((("x.fc.table",),), (("x.fc.lookup",),))]
    assert last_tensors in PHASES


def test_files_whose_keys_are_sorted_have_no_order_of_modules():
    assert has_module_order(catalog("b.weight 2", "b.bias 2", "a.weight 2", "a.bias 2"))
    assert not has_module_order(catalog("a.bias 2", "a.weight 2", "b.bias 2", "b.weight 2"))


def test_what_nobody_could_know_is_a_group_with_a_hint():
    source = catalog(*(f"mix.{name}.weight 8x8" for name in "ab"), "fc.weight 8x4")
    target = catalog(*(f"net.{name}.weight 8x8" for name in "uv"), "fc.weight 8x4")
    decided = decide(Sides(source, target), [], True)
    rest = unpaired_after([], decided.catalogs, decided.modules, decided.places.kept)
    groups = list(open_groups(decided, rest, []))
    assert groups
    assert all(" -> " in group.hint for group in groups)
    assert align(source, target).ambiguous


def test_a_shape_mismatch_is_a_line_for_each_kind():
    source, target = (
        catalog(*(f"l.{i}.weight 2x2" for i in range(3))),
        catalog(*(f"l.{i}.weight 4x4" for i in range(3))),
    )
    (line,) = shape_mismatch_lines([(key, key) for key in source], source, target)
    assert line.startswith(
        "same place, another shape: l.0.weight -> l.0.weight, 2×2 and 4×4, and 2 like it"
    )


HEADS = ["fc.weight 9x8", "fc.bias 9"]
LAST = [
    ("the one head", HEADS, ["out.weight 4x8", "out.bias 4"], [("fc.weight", "out.weight"), ("fc.bias", "out.bias")]),
    ("one of two heads", HEADS, ["out.weight 4x8", "out.bias 4", "box.weight 4x8", "box.bias 4"], []),
    ("a head of another width", HEADS, ["out.weight 4x6", "out.bias 4"], []),
    ("a vocabulary", ["wte.weight 90x8"], ["words.weight 91x8"], []),
    ("the one table", ["pos_embed 1x17x8", "patch.weight 8x3x4x4"], ["positions 1x26x8", "patch.weight 8x3x4x4"], [("pos_embed", "positions")]),
    ("a table of no grid", ["pos_embed 1x17x8"], ["positions 1x26x9"], []),
    ("one of two tables", ["pos_embed 1x17x8", "neck.pos_embed 1x17x8"], ["positions 1x26x8"], []),
]


@pytest.mark.parametrize(("source", "target", "pairs"), [row[1:] for row in LAST], ids=[row[0] for row in LAST])
def test_what_is_left_in_another_shape_is_a_mismatch_where_nothing_else_could_be_it(source, target, pairs):
    decided = decide(Sides(catalog(*source), catalog(*target)), [], True)
    rest = unpaired_after([], decided.catalogs, decided.modules, decided.places.kept)
    assert last_mismatches(rest, [], []) == pairs
