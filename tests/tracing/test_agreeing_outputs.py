"""Conversions whose networks give the same, though modules inside differ by design; and outputs that agree whatever a module inside gives."""

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import ckpt_tool


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Twins(nn.Module):
    """One encoder for two inputs, called in one order or the other."""

    def __init__(self, is_swapped=False):
        super().__init__()
        self.enc, self.head, self._swapped = nn.Linear(8, 8), nn.Linear(8, 3), is_swapped

    def forward(self, x, y):
        if self._swapped:
            b = self.enc(y)
            a = self.enc(x)
        else:
            a = self.enc(x)
            b = self.enc(y)
        return self.head(a * b - a)


class Attention(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in "qkvo")
        self._scale = scale

    def forward(self, x):
        return self.o((self.q(x) @ self.k(x).mT * self._scale).softmax(-1) @ self.v(x))


class Normed(nn.Module):
    def __init__(self, is_folded=False):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
        self.norm = nn.Identity() if is_folded else nn.BatchNorm2d(4)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.aux, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        self.aux(x)
        return self.head(x)


class Pairs(nn.Module):
    """Two scales, or one in which they take turns."""

    def __init__(self, is_one=False):
        super().__init__()
        for name, size in {"both": 16}.items() if is_one else {"first": 8, "second": 8}.items():
            self.register_parameter(name, nn.Parameter(torch.ones(size)))

    def forward(self, x):
        return x.repeat_interleave(2, -1) * self.both if hasattr(self, "both") else torch.cat([x * self.first, x * self.second], -1)


class OfPairs(nn.Module):
    def __init__(self, is_one=False):
        super().__init__()
        self.pairs, self.head = Pairs(is_one), nn.Linear(16, 3)

    def forward(self, x):
        y = self.pairs(x)
        return self.head(y if hasattr(self.pairs, "both") else y.view(-1, 2, 8).mT.flatten(1))


def twins():
    one, other = fill_with_seeded_values(Twins(), 1), Twins(True)
    return one, other, (numbers(4, 8), numbers(4, 8, seed=1)), ckpt_tool.load_into(other, one)


def scaled(dtype=torch.float32):
    one, other = fill_with_seeded_values(Attention(0.5), 1).to(dtype), Attention().to(dtype)
    return one, other, numbers(2, 5, 8).to(dtype), ckpt_tool.load_into(other, one, rules=["q.* -> q.*: {affine: {scale: 0.5}}", "{r=**} -> {r}"])


def folded(dtype=torch.float32):
    one, other = fill_with_seeded_values(Normed(), 1).eval(), Normed(True)
    other.conv.load_state_dict(fuse_conv_bn_eval(one.conv, one.norm).state_dict())
    other.head.load_state_dict(one.head.state_dict())
    return one.to(dtype), other.to(dtype), numbers(1, 3, 6, 6).to(dtype), {"rules": ["{conv,head}.* -> {conv,head}.*"], "drop": "norm.**"}


def flipped():
    one, other = (fill_with_seeded_values(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), 1) for _ in range(2))
    for tensor in (other[0].weight.data[2], other[0].bias.data[2], other[2].weight.data[:, 2]):
        tensor.neg_()
    return one, other, numbers(4, 8), {"by": "name"}


def unused():
    one, other = fill_with_seeded_values(Unused(), 1), fill_with_seeded_values(Unused(), 2)
    other.head.load_state_dict(one.head.state_dict())
    return one, other, numbers(4, 8), {"by": "name"}


def interleaved():
    one, other = fill_with_seeded_values(OfPairs(), 1), OfPairs(True)
    rules = ["pairs.{first,second} -> pairs.both: [{concat: 0}, {rearrange: '(two n) -> (n two)', two: 2}]", "{r=**} -> {r}"]
    return one, other, numbers(4, 8), ckpt_tool.load_into(other, one, rules=rules)


RIGHT = {
    "one encoder called in another order": (twins, "inside, `enc` gets other inputs"),
    "a scale folded into q": (scaled, "inside, `q` gives other outputs"),
    "a scale folded into q, bfloat16": (lambda: scaled(torch.bfloat16), "inside, `q` gives other outputs"),
    "a folded normalisation": (folded, "inside, `conv` gives other outputs"),
    "a folded normalisation, float16": (lambda: folded(torch.float16), "inside, `conv` gives other outputs"),
    "flipped signs": (flipped, "inside, `0` gives other outputs"),
    "a result that is not used": (unused, "inside, `aux` gives other outputs; no network uses what it gives"),
    "two parameters that take turns in one": (interleaved, "inside, `pairs` gives other outputs"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_networks_that_give_the_same_are_the_same(name):
    make, said = RIGHT[name]
    one, other, inputs, plan = make()
    found = ckpt_tool.trace(one, other, inputs, **plan) if isinstance(plan, dict) else ckpt_tool.trace(one, other, inputs, plan)
    assert (found.is_same, found.place) == (True, None), str(found)
    assert [note.startswith(said) for note in found.notes] == [True], found.notes
    other.get_submodule(next(path for path in ("head", "o", "2") if hasattr(other, path))).bias.data[0] += 0.5
    again = ckpt_tool.trace(one, other, inputs, **plan) if isinstance(plan, dict) else ckpt_tool.trace(one, other, inputs, plan)
    assert (again.is_same, again.place is None) == (False, False)
    assert not any("agree" in note for note in (*again.notes, *again.place.findings))


SAY_NOTHING = {
    "labels": lambda y: y.argmax(-1),
    "labels as floating numbers": lambda y: y.argmax(-1).float(),
    "a mask": lambda y: (y > 100).float(),
    "zeros": lambda y: (y - 1e4).relu(),
    "saturated": lambda y: (y + 60).sigmoid(),
    "saturated, with other numbers": lambda y: ((y + 60).sigmoid(), torch.linspace(0.1, 1, 5)),
    "labels of other numbers": lambda y: torch.linspace(0.1, 1, 3)[y.argmax(-1)],
    "one likely class": lambda y: (y + torch.tensor([90.0, 0, 0])).softmax(-1),
    "constant": lambda y: torch.full_like(y, 0.3) + 0 * y,
}


class Made(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.first, self.head, self._make = nn.Linear(8, 6), nn.Linear(6, 3), make

    def forward(self, x):
        return self._make(self.head(self.first(x).tanh()))


@pytest.mark.parametrize("name", SAY_NOTHING)
def test_outputs_that_agree_whatever_a_module_gives_excuse_nothing(name):
    one, other = (fill_with_seeded_values(Made(SAY_NOTHING[name]), 1) for _ in range(2))
    other.first.weight.data[0] *= 1.05
    found = ckpt_tool.trace(one, other, numbers(4, 8), by="name")
    assert (found.is_same, found.place.other, found.output) == (False, "first", pytest.approx(0, abs=1e-30))
    assert found.notes[-1] == "the networks' outputs agree, and depend too little on what `first` gives for that to settle it: give another input"


def test_a_part_of_what_networks_give_excuses_nothing():
    one, other = Made(lambda y: (y[:, :1], y)), Made(lambda y: y[:, :1])
    fill_with_seeded_values(one, 1)
    other.load_state_dict(one.state_dict())
    for tensor in (other.first.weight.data[2], other.first.bias.data[2], other.head.weight.data[:, 2]):
        tensor.neg_()
    found = ckpt_tool.trace(one, other, numbers(4, 8), by="name")
    assert (found.is_same, found.place.other) == (False, "first")


def test_nothing_is_verified_where_outputs_agreed_before():
    def made(y):
        return y.argmax(-1)

    one, other = (fill_with_seeded_values(Made(made), 1) for _ in range(2))
    one.scale, other.scale = 1.0, 2.0  # which no forward reads
    other.forward = lambda x: made(other.head(other.first(x * 1.0001).tanh()))
    found = ckpt_tool.trace(one, other, numbers(4, 8), by="name")
    assert (found.place.kind, found.place.other) == ("code", "")
    assert not any(each.startswith("verified") for each in found.place.findings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pair", ["qk", "kv", "qv"])
def test_faults_are_found_in_half_precision(dtype, pair):
    one, other = fill_with_seeded_values(Attention(), 1).to(dtype), Attention().to(dtype)
    rules = [f"{{{pair[0]},{pair[1]}}}.* -> {{{pair[1]},{pair[0]}}}.*", "{r=**} -> {r}"]
    found = ckpt_tool.trace(one, other, numbers(2, 5, 8).to(dtype), ckpt_tool.load_into(other, one, rules=rules))
    assert (found.is_same, found.place is None) == (False, False)
    assert not any("agree" in note for note in found.notes)


class Layers(nn.Module):
    """Two attentions, of which the first may have a scale folded into q."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.first, self.second, self.head = Attention(scale), Attention(), nn.Linear(8, 3)

    def forward(self, x):
        x = x + self.first(x)
        return self.head(x + self.second(x))


def layers(dtype=torch.float32, turned=()):
    one, other = fill_with_seeded_values(Layers(0.5), 1).to(dtype), Layers().to(dtype)
    rules = ["first.q.* -> first.q.*: {affine: {scale: 0.5}}", *turned, "{r=**} -> {r}"]
    return one, other, numbers(2, 5, 8).to(dtype), ckpt_tool.load_into(other, one, rules=rules)


@pytest.mark.parametrize(("key", "place"), [("second.v.weight", "second.v"), ("second.o.bias", "second.o"), ("head.weight", "head"), ("first.o.bias", "first.q")])
def test_the_place_lies_beyond_what_a_module_around_makes_up_for(key, place):
    one, other, inputs, plan = layers()
    other.state_dict()[key][0] += 0.5
    found = ckpt_tool.trace(one, other, inputs, plan)
    assert (found.place.kind, found.place.other) == ("module", place)
    said = "inside, `first.q` differs; what is around it agrees all the same"
    assert (said in found.notes) is (place != "first.q"), "the first one itself may be wrong where nothing around it agrees"


def test_a_difference_counts_in_the_order_of_the_rules():
    one, other = (fill_with_seeded_values(nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 9)), 1).bfloat16() for _ in range(2))
    reverse = "{index: {dim: DIM, order: reverse}}"
    rules = [f"0.* -> 0.*: {reverse.replace('DIM', '0')}", f"2.weight -> 2.weight: {reverse.replace('DIM', '1')}", "{r=**} -> {r}"]
    plan = ckpt_tool.load_into(other, one, rules=rules)
    other[0].bias.data[0] += 0.6
    other[2].weight.data[:, 0] /= 8
    one[2].weight.data[:, 63] /= 8
    found = ckpt_tool.trace(one, other, numbers(4, 8).bfloat16(), plan)
    assert found.output < 0.0312, "within the rounding of bfloat16"
    assert (found.is_same, found.place.other) == (False, "0")


class Masked(nn.Module):
    """Logits, of which some are set to what the softmax makes zeros of."""

    def __init__(self, mask, temperature=1.0):
        super().__init__()
        self.fc, self._mask, self._temperature = nn.Linear(8, 32), mask, temperature

    def forward(self, x):
        return (self.fc(x) / self._temperature).masked_fill(torch.arange(32) % 9 == 0, self._mask)


class Detect(nn.Module):
    """Boxes in pixels and scores in one tensor."""

    def __init__(self, offset):
        super().__init__()
        self.box, self.cls, self._offset = nn.Linear(8, 4), nn.Linear(8, 3), offset

    def forward(self, x):
        return torch.cat([self.box(x).sigmoid() * 640, (self.cls(x) - self._offset).sigmoid()], -1)


SMALL_ONES_DIFFER = {
    "logits beside a mask": (Masked(-65504.0), Masked(-65504.0, 1.01), ""),
    "logits beside a lower mask": (Masked(-1e7), Masked(-1e7, 0.2), ""),
    "scores beside boxes": (Detect(9), Detect(10), ""),
    "scores beside boxes, of a head": (nn.Sequential(nn.Linear(8, 8), Detect(14)), nn.Sequential(nn.Linear(8, 8), Detect(15)), "1"),
}


@pytest.mark.parametrize("name", SMALL_ONES_DIFFER)
def test_large_numbers_hide_no_small_ones(name):
    one, other, place = SMALL_ONES_DIFFER[name]
    fill_with_seeded_values(one, 1)
    found = ckpt_tool.trace(one, other, numbers(50, 8), ckpt_tool.load_into(other, one))
    assert found.output < 2e-6, "the norm hides it"
    assert (found.is_same, found.place.kind, found.place.other) == (False, "module", place)
    assert "differ by" in found.place.findings[0]
    assert "relative to their own norm" in found.place.findings[0]


def test_small_numbers_that_rounding_of_large_ones_makes_are_the_same():
    """Sums of large numbers that cancel, as forces across a planar molecule do."""

    def flat(y):
        return torch.stack([y * 1e3, y * 2e3, y * 1e3 - (y * 3.3e3) / 3.3], -1)

    one = fill_with_seeded_values(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 1).eval()
    other = nn.Sequential(fuse_conv_bn_eval(one[0], one[1]), nn.Identity())
    for network in (one, other):
        network.register_forward_hook(lambda module, given, y: flat(y))
    found = ckpt_tool.trace(one, other, numbers(2, 3, 6, 6), rules=["0.* -> 0.*"], drop="1.**")
    assert (found.is_same, found.place) == (True, None), str(found)
    assert found.notes[-1].endswith("relative to their own norm; rounding of the larger ones may explain it")
