"""The parts of the alignment by values, each in small examples: what it gives for what."""

import pytest
import torch
from align.valued import InMemory

from ckpt_tool.align.by_values.companions import followers
from ckpt_tool.align.by_values.contents import read_contents
from ckpt_tool.align.by_values.fingerprints import (
    content_of,
    elements_of,
    has_blocks,
    plain_shape,
    row_length,
    rows_of,
)
from ckpt_tool.align.by_values.proof import is_proved
from ckpt_tool.align.by_values.reordering import matrices_by_size, reordered, reordering
from ckpt_tool.align.by_values.reshaping import closed, opened, reshaped, simplified
from ckpt_tool.align.by_values.row_groups import pairs_of_rows
from ckpt_tool.align.by_values.row_ops import cut_rows, row_ops, runs_of
from ckpt_tool.align.by_values.row_search import (
    TURNS,
    RowFinder,
    are_castable,
    located,
    parts_of_vectors,
)
from ckpt_tool.align.by_values.surroundings import settled_by_surroundings
from ckpt_tool.align.by_values.unpaired import Taking, keys_of_pair, unpaired
from ckpt_tool.align.by_values.values import (
    DIFFERENT,
    EQUAL,
    MAX_DOUBTED,
    align_values,
    lengths_with_directions,
)
from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.ops import ops_argument, parse_ops, run_chain
from ckpt_tool.tensors import Catalog, DType, TensorInfo

W = torch.arange(96.0).reshape(12, 8)


def catalog(**shapes):
    return Catalog(TensorInfo(key, DType.F32, shape) for key, shape in shapes.items())


def rename(source, target, ops=()):
    return Pair(((source,),), ((target,),), ops)


def sides(source, target):
    return Sides(InMemory(source), InMemory(target))


def keys_of(checkpoints):
    return Sides(list(checkpoints.source.catalog), list(checkpoints.target.catalog))


def shown(pair):
    return keys_in(pair.sources), keys_in(pair.targets), ops_argument(pair.ops)


def keys_in(slots):
    return " ".join(key for slot in slots for key in slot)


# fingerprints


@pytest.mark.parametrize(
    ("tensor", "tells"),
    [(torch.arange(4.0), True), (torch.ones(100), False), (torch.arange(3.0), False), (torch.zeros(0), False)],
    ids=["16 bytes that differ", "ones", "12 bytes", "nothing"],
)
def test_content_tells_where_it_differs_and_is_long_enough(tensor, tells):
    assert content_of(InMemory({"a": tensor}), "a").tells is tells


def test_content_is_of_bytes_and_not_of_shapes():
    side = InMemory({"a": W, "b": W.reshape(8, 12), "c": W + 1})
    assert content_of(side, "a") == content_of(side, "b") != content_of(side, "c")


def test_elements_are_the_same_in_any_order_and_others_are_not():
    assert elements_of(W) == elements_of(W.t().contiguous()) != elements_of(W + 1)


@pytest.mark.parametrize(
    ("shape", "length", "turned"), [((12, 8), 8, 12), ((12, 1, 8), 8, 12), ((4, 3, 5, 5), 75, 100), ((2, 4, 64), 64, 4), ((8,), 0, 0)]
)
def test_rows_lie_along_the_first_dimension_of_kernels_and_matrices(shape, length, turned):
    assert (row_length(shape, is_turned=False), row_length(shape, is_turned=True)) == (length, turned)


def test_columns_are_the_rows_of_the_transpose():
    assert rows_of(W, is_turned=True) == rows_of(W.t().contiguous(), is_turned=False)
    assert len(rows_of(W, is_turned=False)) == 12


def test_wide_matrices_stacked_are_no_kernel():
    assert has_blocks(plain_shape((2, 8, 64)))
    assert not has_blocks(plain_shape((8, 4, 3)))


# reshaping


@pytest.mark.parametrize("shape", [(12, 8), (12, 8, 1), (4, 3, 2, 2), (2, 6, 40)])
@pytest.mark.parametrize("is_turned", [False, True])
def test_what_is_opened_is_closed_again(shape, is_turned):
    tensor = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    ops, rows = opened(shape, is_turned)
    (laid,) = run_chain(parse_ops(ops), [tensor])
    assert tuple(laid.shape) == rows
    back = closed(shape, is_turned) or reshaped(rows, shape)
    assert torch.equal(run_chain(parse_ops(back), [laid])[0], tensor)


def test_a_cut_between_two_transposes_is_a_cut_along_the_other_dimension():
    assert simplified(["transpose", {"concat": 0}, "transpose"]) == [{"concat": 1}]
    assert simplified(["transpose", {"split": {"dim": 0, "sizes": [4, 8]}}, "transpose"]) == [{"split": {"dim": 1, "sizes": [4, 8]}}]
    assert simplified(["transpose", {"split": 0}]) == ["transpose", {"split": 0}]


# row_ops


def test_runs_end_where_the_key_or_the_count_changes():
    assert runs_of([("a", 3), ("a", 4), ("a", 0), ("b", 1)]) == [("a", 3, 2), ("a", 0, 1), ("b", 1, 1)]


@pytest.mark.parametrize(
    ("places", "name"),
    [([0, 1, 2, 3], None), ([4, 5], "slice"), ([0, 4, 1, 5, 2, 6, 3, 7], "rearrange"), ([3, 1], "index")],
    ids=["all", "a part", "digits", "an order"],
)
def test_rows_are_taken_by_the_shortest_op(places, name):
    ops = row_ops(places, len(places) if name in (None, "rearrange") else 8)
    assert [next(iter(op)) for op in ops] == ([name] if name else [])


def test_rows_are_cut_in_a_row_or_by_group_or_not_at_all():
    assert cut_rows({"q": [0, 1, 2], "k": [3]}, 4) == [{"split": {"dim": 0, "sizes": [3, 1]}}]
    assert cut_rows({"q": [0, 3], "k": [1, 2, 4, 5]}, 6)[1] == {"split": {"dim": 1, "sizes": [1, 2]}}
    assert cut_rows({"q": [0, 3], "k": [1, 2]}, 4) is None


# row_groups


def rows_of_key(key, start, count):
    return [(key, row) for row in range(start, start + count)]


def test_three_thirds_of_rows_are_a_split():
    rows = {name: rows_of_key("qkv", 4 * place, 4) for place, name in enumerate("qkv")}
    catalogs = Sides(catalog(qkv=(12, 8)), catalog(q=(4, 8), k=(4, 8), v=(4, 8)))
    assert [shown(pair) for pair in pairs_of_rows(rows, catalogs, Sides(False, False))] == [("qkv", "q k v", [{"split": 0}])]


def test_columns_of_two_are_a_concat_along_the_other_dimension():
    rows = {"p": rows_of_key("a", 0, 8) + rows_of_key("b", 0, 8)}
    catalogs = Sides(catalog(a=(12, 8), b=(12, 8)), catalog(p=(12, 16)))
    assert [shown(pair) for pair in pairs_of_rows(rows, catalogs, Sides(True, True))] == [("a b", "p", [{"concat": 1}])]


def test_groups_that_share_no_source_are_pairs_of_their_own():
    rows = {"p": rows_of_key("a", 2, 4), "q": rows_of_key("b", 0, 4)}
    catalogs = Sides(catalog(a=(12, 8), b=(12, 8)), catalog(p=(4, 8), q=(4, 8)))
    assert [shown(pair)[:2] for pair in pairs_of_rows(rows, catalogs, Sides(False, False))] == [("a", "p"), ("b", "q")]


# row_search


def test_only_floats_of_eight_bits_and_more_are_castable():
    assert are_castable(DType.I64, DType.I64)
    assert are_castable(DType.F32, DType.BF16)
    assert not are_castable(DType.F32, DType.F4)
    assert not are_castable(DType.I32, DType.I64)


def test_a_row_of_several_places_goes_where_its_neighbours_run_goes_on():
    index = {b"0": [("a", 0), ("b", 4)], b"1": [("b", 5)], b"2": [("a", 9), ("b", 6)]}
    assert located([b"0", b"1", b"2"], index) == [("b", 4), ("b", 5), ("b", 6)]
    assert located([b"0", b"?"], index) is None


def test_a_place_is_not_given_twice():
    assert located([b"1", b"1"], {b"1": [("b", 5)]}) is None


def test_a_finder_finds_rows_as_they_are_and_turned():
    checkpoints = sides({"a": W}, {"p": W[:4], "q": W[4:]})
    (pair,) = RowFinder(checkpoints).pairs(keys_of(checkpoints), TURNS[0])
    assert shown(pair) == ("a", "p q", [{"split": {"dim": 0, "sizes": [4, 8]}}])
    checkpoints = sides({"a": W}, {"p": W[:, :6]})
    (pair,) = RowFinder(checkpoints).pairs(keys_of(checkpoints), Sides(True, True))
    assert shown(pair) == ("a", "p", [{"slice": {"dim": 1, "start": 0, "stop": 6}}])


def test_vectors_are_found_inside_longer_ones():
    vector = torch.arange(12.0)
    checkpoints = sides({"a": vector}, {"p": vector[:4], "q": vector[4:]})
    (pair,) = parts_of_vectors(checkpoints, keys_of(checkpoints))
    assert shown(pair)[:2] == ("a", "p q")


# reordering


def test_a_transpose_is_found_by_its_elements():
    checkpoints = sides({"a": W, "b": W + 1}, {"p": W.t()})
    assert dict(matrices_by_size(["p"], checkpoints.target.catalog)) == {(DType.F32, 96): ["p"]}
    (pair,) = reordered(checkpoints, keys_of(checkpoints), (DType.F32, 96))
    assert shown(pair) == ("a", "p", ["transpose"])


def test_a_kernel_of_one_element_is_reordered_as_others_are():
    assert reordering((8, 4, 1, 1), (1, 1, 4, 8), (1, 0)) == reordering((8, 4, 3, 3), (3, 3, 4, 8), (2, 3, 1, 0))


# companions, proof


def test_a_bias_follows_its_weight_without_its_transpose():
    weights = Pair((("qkv.weight",),), (("q.kernel",), ("k.kernel",)), parse_ops(["transpose", {"split": 1}]))
    (bias,) = followers(weights, Sides(["qkv.bias", "x.bias"], ["q.bias", "k.bias"]))
    assert shown(bias) == ("qkv.bias", "q.bias k.bias", [{"split": 0}])
    assert list(followers(weights, Sides(["qkv.bias"], ["q.bias"]))) == []


def test_only_what_makes_the_same_bytes_is_proved():
    checkpoints = sides({"a": W}, {"p": W.t(), "q": W + 1})
    assert is_proved(rename("a", "p", parse_ops("transpose")), *checkpoints)
    assert not is_proved(rename("a", "q"), *checkpoints)
    assert not is_proved(rename("a", "p", parse_ops({"split": 0})), *checkpoints)


# unpaired, contents


def test_a_key_goes_to_the_first_pair_that_asks_for_it():
    left = unpaired(catalog(a=(2,), b=(2,)), catalog(p=(2,), q=(2,)))
    found = [Aligned(rename(*keys), 1.0, "") for keys in (("a", "p"), ("a", "q"), ("b", "q"))]
    after = left.after(found)
    assert [keys_of_pair(each.pair) for each in after.pairs] == [Sides({"a"}, {"p"}), Sides({"b"}, {"q"})]
    assert not after.is_any_left
    assert left.is_any_left


def test_taking_leaves_what_it_began_with_as_it_was():
    left = unpaired(catalog(a=(2,)), catalog(p=(2,)))
    taking = Taking(left)
    assert taking.take(Aligned(rename("a", "p"), 1.0, ""))
    assert not taking.is_free(rename("a", "p"))
    assert left.has(rename("a", "p"))


def test_contents_are_compared_in_the_targets_dtype():
    contents = read_contents(*sides({"a": W, "one": torch.ones(64), "b": W - 1}, {"p": W.bfloat16(), "one": torch.ones(64), "q": W + 1}))
    assert contents.are_equal(rename("a", "p"))
    assert not contents.are_equal(rename("b", "q"))
    left = unpaired(*contents.catalogs)
    assert contents.without_equal(left) == Sides(["b"], ["q"])
    assert contents.of_telling(left) == ["a", "b"]


# surroundings, values


def test_equal_content_goes_where_its_module_goes():
    source, target = (catalog(**{f"{n}.{leaf}": (8,) for n in names for leaf in ("w", "bias")}) for names in (("a", "b"), ("x", "y")))
    labels = Sides({"a.w": 0, "b.w": 1, "a.bias": 2, "b.bias": 2}, {"x.w": 1, "y.w": 0, "x.bias": 2, "y.bias": 2})
    found = settled_by_surroundings(Sides(source, target), labels, frozenset({0, 1}), ())
    pairs = {(keys_in(each.pair.sources), keys_in(each.pair.targets)) for each in found}
    assert {("a.w", "y.w"), ("b.w", "x.w")} <= pairs
    assert not {("a.bias", "x.bias"), ("b.bias", "y.bias")} & pairs


def test_lengths_are_found_with_their_directions_by_both_names():
    keys = ["a.weight_g", "a.weight_v", "c.parametrizations.weight.original0", "c.parametrizations.weight.original1", "b.weight_g"]
    assert lengths_with_directions(keys) == [(keys[0], keys[1]), (keys[2], keys[3])]


def test_names_are_doubted_where_nearly_all_values_agree_and_theirs_do_not():
    source = {f"{i}.w": W + i / 7 for i in range(20)} | {"odd.w": W * 2}
    target = {key: tensor.clone() for key, tensor in source.items()} | {"odd.w": W * 3}
    found = {keys_in(each.pair.targets): each for each in align_values(*sides(source, target)).pairs}
    assert (found["0.w"].confidence, found["0.w"].evidence) == (1.0, EQUAL)
    assert found["odd.w"].confidence <= MAX_DOUBTED
    assert DIFFERENT in found["odd.w"].evidence


def test_values_of_another_training_leave_names_as_sure_as_they_are():
    source = {f"{i}.w": W + i for i in range(20)}
    found = align_values(*sides(source, {key: tensor * 2 + 1 for key, tensor in source.items()}))
    assert {keys_in(each.pair.sources) == keys_in(each.pair.targets) for each in found.pairs} == {True}
    assert all(each.confidence > MAX_DOUBTED and each.evidence.endswith(DIFFERENT) for each in found.pairs)
