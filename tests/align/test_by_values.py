"""Alignment with values on both sides: what is paired is equal bit for bit, and what can be known is found."""

import pytest
import torch
from align.valued import InMemory, sides
from hypothesis import given, settings
from hypothesis import strategies as st
from truths import FOLDER, Truth, read_truth

from ckpt_tool.align.by_values.row_ops import row_ops
from ckpt_tool.align.by_values.values import align_values
from ckpt_tool.align.suggest import suggest_by_values
from ckpt_tool.ops import ops_argument, parse_ops, run_chain


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def aligned(source, target):
    """Sources and ops by target keys, of what is sure."""
    found = align_values(InMemory(source), InMemory(target))
    return {
        " ".join(key for slot in each.pair.targets for key in slot): (
            " ".join(key for slot in each.pair.sources for key in slot),
            ops_argument(each.pair.ops),
        )
        for each in found.pairs
        if each.confidence >= 0.9
    }


W, X, Y = seeded(24, 16, seed=1), seeded(24, 16, seed=2), seeded(24, 16, seed=3)
K = seeded(8, 4, 3, 3, seed=4)
ROPE = "(a b c) ... -> (a c b) ..."

CASES = [
    ("equal", {"a": W, "b": X}, {"p": X, "q": W}, {"p": ("b", []), "q": ("a", [])}),
    ("cast", {"a": W}, {"p": W.bfloat16()}, {"p": ("a", [])}),
    ("cast to F16 and turned", {"a": W}, {"p": W.half().t()}, {"p": ("a", ["transpose"])}),
    ("turned", {"a": W}, {"p": W.t()}, {"p": ("a", ["transpose"])}),
    ("a square one turned", {"a": W[:16]}, {"p": W[:16].t()}, {"p": ("a", ["transpose"])}),
    ("a kernel", {"a": K}, {"p": K.permute(2, 3, 1, 0)}, {"p": ("a", [{"rearrange": "a b c d -> c d b a"}])}),
    ("ones added", {"a": W}, {"p": W.reshape(24, 16, 1, 1)}, {"p": ("a", [{"rearrange": "a b -> a b 1 1"}])}),
    ("reshaped", {"a": W}, {"p": W.reshape(12, 32)}, {"p": ("a", [{"reshape": [12, 32]}])}),
    ("sliced", {"a": W}, {"p": W[:20]}, {"p": ("a", [{"slice": {"dim": 0, "start": 0, "stop": 20}}])}),
    ("columns", {"a": W}, {"p": W[:, 4:]}, {"p": ("a", [{"slice": {"dim": 1, "start": 4, "stop": 16}}])}),
    ("split", {"a": W}, {"q": W[:8], "k": W[8:16], "v": W[16:]}, {"q k v": ("a", [{"split": 0}])}),
    ("split unevenly", {"a": W}, {"q": W[:16], "k": W[16:20], "v": W[20:]}, {"q k v": ("a", [{"split": {"dim": 0, "sizes": [16, 4, 4]}}])}),
    ("split and turned", {"a": W}, {"q": W[:, :8].t(), "k": W[:, 8:].t()}, {"q k": ("a", ["transpose", {"split": 0}])}),
    ("joined", {"q": W, "k": X}, {"a": torch.cat([W, X])}, {"a": ("q k", [{"concat": 0}])}),
    ("joined by columns", {"q": W, "k": X}, {"a": torch.cat([W, X], 1)}, {"a": ("q k", [{"concat": 1}])}),
    ("kernels by columns", {"q": K, "k": K + 1}, {"a": torch.cat([K, K + 1], 1)}, {"a": ("q k", [{"concat": 1}])}),
    ("rotary pairs", {"a": W}, {"p": W.view(3, 2, 4, 16).transpose(1, 2).reshape(24, 16)}, {"p": ("a", [{"rearrange": ROPE, "b": 2, "c": 4}])}),
    ("rows turned round", {"a": W[:6]}, {"p": W[:6].flip(0)}, {"p": ("a", [{"index": {"dim": 0, "order": [5, 4, 3, 2, 1, 0]}}])}),
    (
        "heads side by side",
        {"a": torch.cat([W.view(3, 8, 16), X.view(3, 8, 16)], 1).reshape(48, 16)},
        {"q": W, "k": X},
        {"q k": ("a", [{"rearrange": "(g n) ... -> g n ...", "g": 3}, {"split": 1}, {"rearrange": "g n ... -> (g n) ..."}])},
    ),
    (
        "heads joined side by side",
        {"q": W, "k": X},
        {"a": torch.cat([W.view(3, 8, 16), X.view(3, 8, 16)], 1).reshape(48, 16)},
        {"a": ("q k", [{"rearrange": "(g n) ... -> g n ...", "g": 3}, {"concat": 1}, {"rearrange": "g n ... -> (g n) ..."}])},
    ),
    ("stacked", {f"e.{i}.w": seeded(8, 32, seed=i) for i in range(3)}, {"e": torch.stack([seeded(8, 32, seed=i) for i in range(3)])},
     {"e": ("e.0.w e.1.w e.2.w", [{"stack": 0}])}),
    ("unstacked", {"e": torch.stack([seeded(8, 32, seed=i) for i in range(3)])}, {f"e.{i}.w": seeded(8, 32, seed=i) for i in range(3)},
     {"e.0.w e.1.w e.2.w": ("e", [{"unstack": 0}])}),
    ("gate and up of experts", {f"e.{i}.{n}": seeded(8, 32, seed=i + 5 * k) for i in range(3) for k, n in enumerate("gu")},
     {"e": torch.stack([torch.cat([seeded(8, 32, seed=i + 5 * k) for k in range(2)]) for i in range(3)])},
     {"e": ("e.0.g e.1.g e.2.g e.0.u e.1.u e.2.u", [{"stack": 0}, {"concat": 1}])}),
    ("vectors", {"a": seeded(12)}, {"p": seeded(12)[:4], "q": seeded(12)[4:]}, {"p q": ("a", [{"split": {"dim": 0, "sizes": [4, 8]}}])}),
    ("two of three parts", {"a": seeded(12)}, {"q": seeded(12)[:4], "v": seeded(12)[8:]},
     {"q v": ("a", [{"rearrange": "(n d) ... -> n d ...", "d": 4}, {"index": {"dim": 0, "order": [0, 2]}},
                    {"rearrange": "n d ... -> (n d) ..."}, {"split": 0}])}),
    ("tied", {"emb": W}, {"x.emb": W, "x.head": W}, {"x.emb x.head": ("emb", ["copy"])}),
    ("matrices stacked and turned", {"a": seeded(80, 6)}, {"p": seeded(80, 6).view(2, 40, 6).transpose(1, 2)},
     {"p": ("a", [{"rearrange": "(e r) c -> e r c", "e": 2}, "transpose"])}),
    ("nothing equal", {"a": W}, {"p": seeded(5, 7)}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_ops_are_found_by_values(source, target, wanted):
    assert aligned(source, {key: tensor.contiguous() for key, tensor in target.items()}) == wanted


def test_a_bias_of_zeros_goes_with_its_weight():
    zeros = torch.zeros(24)
    found = aligned(
        {"n.weight": seeded(8), "a.weight": W, "a.bias": zeros},
        {"q.weight": W[:12], "q.bias": zeros[:12], "k.weight": W[12:], "k.bias": zeros[:12], "m.weight": seeded(8)},
    )
    assert found["q.bias k.bias"] == ("a.bias", [{"split": 0}])


def test_ones_and_zeros_follow_what_stands_beside_them():
    source, target = {}, {}
    for block, other in ((0, 2), (1, 0), (2, 1)):
        conv = seeded(8, 8, 3, 3, seed=block)
        source |= {f"b.{block}.conv.weight": conv, f"b.{block}.norm.weight": torch.ones(8), f"b.{block}.norm.bias": torch.zeros(8)}
        target |= {f"t.{other}.0.weight": conv, f"t.{other}.1.weight": torch.ones(8), f"t.{other}.1.bias": torch.zeros(8)}
    found = aligned(source, target)
    assert {key: origin for key, (origin, _) in found.items() if key.endswith("bias")} == {
        "t.2.1.bias": "b.0.norm.bias",
        "t.0.1.bias": "b.1.norm.bias",
        "t.1.1.bias": "b.2.norm.bias",
    }


def test_ones_that_nothing_tells_apart_stay_open():
    source = {"x.weight": torch.ones(8), "y.weight": torch.ones(8)}
    target = {"p.weight": torch.ones(8), "q.weight": torch.ones(8)}
    assert aligned(source, target) == {}


def test_nan_is_equal_to_itself():
    odd = W.clone()
    odd[3, 3] = float("nan")
    assert aligned({"a": odd}, {"p": odd.t().contiguous()}) == {"p": ("a", ["transpose"])}


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.float8_e4m3fn, torch.int64, torch.int8, torch.uint8, torch.uint16, torch.bool, torch.complex64],
    ids=str,
)
def test_any_dtype_is_turned_and_split(dtype):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2 if dtype is torch.bool else 100, (24, 8 * dtype.itemsize), generator=generator, dtype=torch.uint8)
    whole = bits.view(dtype) if dtype is not torch.bool else bits.bool()
    raw = whole.view(torch.uint8).reshape(24, 8, -1)
    parts = [part.reshape(8, -1).contiguous().view(dtype) for part in raw.split(8)]
    turned = raw.transpose(0, 1).reshape(8, -1).contiguous().view(dtype)
    assert aligned({"a": whole}, {"p": turned}) == {"p": ("a", ["transpose"])}
    assert aligned({"a": whole}, dict(zip("pqr", parts, strict=True))) == {"p q r": ("a", [{"split": 0}])}


def test_empty_tensors_and_scalars_are_no_trouble():
    found = aligned({"a": torch.empty(0, 5), "b": torch.tensor(3), "w": W}, {"a": torch.empty(0, 5), "b": torch.tensor(3), "w": W})
    assert found["w"] == ("w", [])


def test_empty_sides_have_no_pairs():
    assert aligned({}, {"a": W}) == aligned({"a": W}, {}) == aligned({}, {}) == {}


def test_tensors_that_settle_at_once_are_read_once():
    source, target = (
        InMemory({f"a.{i}": seeded(8, 8, seed=i) for i in range(5)}),
        InMemory({f"b.{i}": seeded(8, 8, seed=i) for i in range(5)}),
    )
    align_values(source, target)
    assert set(source.reads.values()) == set(target.reads.values()) == {1}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_order_of_digits_is_found(sizes, random):
    order = list(range(len(sizes)))
    random.shuffle(order)
    rows = torch.arange(int(torch.tensor(sizes).prod()))
    places = rows.reshape(sizes).permute(order).reshape(-1).tolist()
    ops = row_ops(places, len(rows))
    assert run_chain(parse_ops(ops), [rows])[0].tolist() == places


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 24).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True))))
def test_any_choice_of_rows_is_what_the_ops_take(choice):
    count, places = choice
    ops = row_ops(places, count)
    assert run_chain(parse_ops(ops), [torch.arange(count)])[0].tolist() == places


SMALL = 40_000_000


def jobs():
    for path in sorted(FOLDER.glob("*.json.gz")):
        truth = read_truth(path)
        is_big = truth.source.nbytes + truth.target.nbytes > SMALL
        yield pytest.param(truth, id=truth.name, marks=[pytest.mark.slow] if is_big or truth.name in SLOW else [])


SLOW = {"fwd_efficientvit_m0"}


def is_right(each, truth: Truth) -> bool:
    tie = {key: group[0] for group in truth.ties for key in group}
    ours = {tie.get(key, key) for slot in each.pair.sources for key in slot}
    wanted = [truth.entries.get(key) for slot in each.pair.targets for key in slot]
    return all(wanted) and ours == {tie.get(key, key) for entry in wanted for key in entry["sources"]}


@pytest.mark.parametrize("truth", list(jobs()))
def test_real_conversions_are_recovered_from_their_values(truth):
    source, target = sides(truth)
    found = suggest_by_values(source, target)
    sure = [each for each in found.alignment.pairs if each.confidence >= 0.9]
    assert [each.pair for each in sure if not is_right(each, truth)] == []
    known = {key for each in sure for slot in each.pair.targets for key in slot}
    missed = [key for key, entry in truth.entries.items() if key not in known and entry["op"] != "computed"]
    assert missed == []
    assert {key for step in found.plan.steps for key in step.outputs} == known
