"""Folding: each pattern matches exactly the keys that it stands for, and no other key that exists."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from ckpt_tool.keys import Matcher, fold, outline, parse


def folded(keys, others=(), labels=None):
    return [(one.pattern, len(one.keys)) for one in fold(labels or dict.fromkeys(keys), others)]


def test_a_whole_branch_folds_to_its_stem():
    keys = ["head.a.w", "head.a.b", "head.c", "fc.weight", "fc.bias"]
    assert folded(keys, ["body.x"]) == [("head.**", 3), ("fc.*", 2)]


def test_numbers_fold_to_ranges():
    keys = [f"layer4.{b}.conv{n}.weight" for b in range(3) for n in (1, 2, 3)]
    assert folded(keys, ["layer4.0.bn1.weight", "layer4.1.bn1.weight", "layer4.2.bn1.weight"]) == [("layer4.{0..2}.conv{1..3}.weight", 9)]


def test_gaps_in_numbers_are_kept():
    assert folded([f"h.{i}.w" for i in (0, 2, 3, 7)], ["h.1.w"]) == [("h.{0,2..3,7}.w", 4)]


def test_keys_of_different_labels_never_share_a_line():
    labels = {"a.w": 1, "a.b": 2}
    assert folded((), (), labels) == [("a.w", 1), ("a.b", 1)]


def test_a_single_key_stays_as_it_is():
    assert folded(["a.b.weight"], ["c"]) == [("a.b.weight", 1)]


def test_leading_zeros_are_no_numbers():
    assert sorted(folded(["x.01", "x.02"], ["x.03"])) == [("x.{01,02}", 2)]


def test_numbers_that_patterns_do_not_read_are_words():
    others = ["x.9999997"]
    assert sorted(folded(["x.9999998", "x.9999999"], others)) == [("x.{9999998,9999999}", 2)]


def test_everything_folds_to_one_star():
    assert folded(["a", "b.c"]) == [("**", 2)]


key_names = st.sampled_from(["a", "b", "0", "1", "2", "10", "01", "conv1", "conv2", "w", "", "*", "{x}", "q,k", "->", " ", "a=b", "\0*", "#", "\n", "x\\"])
key_sets = st.sets(st.lists(key_names, min_size=1, max_size=4).map(".".join), min_size=1, max_size=40)


@given(key_sets, st.data())
def test_each_pattern_matches_exactly_its_keys(keys, data):
    labels = {key: data.draw(st.sampled_from([None, None, None, "x"])) for key in sorted(keys)}
    chosen = {key: label for key, label in labels.items() if data.draw(st.booleans())} or labels
    folds = fold(chosen, labels)
    assert sorted(key for one in folds for key in one.keys) == sorted(chosen)
    for one in folds:
        assert len({chosen[key] for key in one.keys}) == 1
        matcher = Matcher(parse(one.pattern))
        assert [key for key in labels if matcher.match(key) is not None] == sorted(one.keys, key=list(labels).index)


def test_a_box_with_a_gap_has_no_key_of_a_line_before_it():
    labels = {"layers.0.heads.0.w": 0, "layers.1.heads.1.w": 1, "layers.2.heads.1.w": 1, "layers.0.heads.1.w": 1}
    labels |= {"layers.1.heads.2.w": 0, "layers.1.heads.0.w": 1}
    assert folded((), (), labels) == [("layers.0.heads.0.w", 1), ("layers.{0..2}.heads.1.w", 3), ("layers.1.heads.2.w", 1), ("layers.1.heads.0.w", 1)]


grids = st.lists(st.sampled_from([f"l.{i}.h.{j}.w" for i, j in itertools.product(range(4), repeat=2)]), unique=True, min_size=6)


@given(grids, st.integers(min_value=0, max_value=1 << 16))
@example([f"l.{i}.h.{j}.w" for i, j in ((0, 0), (1, 1), (2, 1), (0, 1), (1, 2), (1, 0))], 0b010001)
def test_in_a_grid_with_gaps_in_any_order_each_pattern_matches_exactly_its_keys(keys, chosen):
    labels = {key: chosen >> i & 1 for i, key in enumerate(keys)}
    for fold_as in (fold, outline):
        folds = fold_as(labels)
        assert sorted(key for one in folds for key in one.keys) == sorted(keys)
        for one in folds:
            matcher = Matcher(parse(one.pattern))
            assert tuple(key for key in keys if matcher.match(key) is not None) == one.keys
