"""Conversions that put channels in another order: what modules give is compared in that order, and a fault is named at its module."""

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool


class Stream(nn.Module):
    """A residual stream that blocks read and write."""

    def __init__(self):
        super().__init__()
        self.emb, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.b = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3))

    def forward(self, tokens):
        x = self.emb(tokens)
        for block in self.b:
            x = x + block(x)
        return self.head(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.f1, self.f2 = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.f2(nn.functional.gelu(self.f1(x)))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.m0, self.m1, self.head = Block(), Block(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(x + self.m1(self.m0(x)))


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.last = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.last(self.norm(self.stem(x)).relu())


def turned(key, axis):
    return f"{key} -> {key}: {{index: {{dim: {axis}, order: reverse}}}}"


STREAM = [turned("emb.weight", 1), turned("b.{i}.0.weight", 1), "b.{i}.0.bias -> b.{i}.0.bias", turned("b.{i}.2.*", 0), turned("head.weight", 1), "head.bias -> head.bias"]
BLOCKS = [turned("m1.f1.*", 0), turned("m1.f2.weight", 1), "{r=**} -> {r}"]
IMAGES = [turned("stem.*", 0), turned("norm.{weight,bias,running_mean,running_var}", 0), turned("last.weight", 1), "{r=**} -> {r}"]


def converted(kind, rules):
    one, other = fill_with_seeded_values(kind(), 1).eval(), kind().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.arange(8).view(2, 4) if kind is Stream else torch.randn(2, *((3, 5, 5) if kind is Images else (8,)), generator=generator)
    return one, other, inputs, ckpt_tool.load_into(other, one, rules=rules)


@pytest.mark.parametrize(("kind", "rules"), [(Stream, STREAM), (Blocks, BLOCKS), (Images, IMAGES)])
def test_every_module_is_compared_in_the_order_of_the_rules(kind, rules):
    one, other, inputs, report = converted(kind, rules)
    found = ckpt_tool.trace(one, other, inputs, report)
    assert found.is_same, str(found)
    assert max(row.outputs for row in found.rows) < 1e-5
    assert [note.partition(":")[0] for note in found.notes] == ["compared in the order that the rules give it"]


DAMAGED = [
    (Stream, STREAM, "head.bias"), (Stream, STREAM, "b.1.2.bias"), (Stream, STREAM, "b.2.0.weight"), (Stream, STREAM, "emb.weight"),
    (Blocks, BLOCKS, "m1.f2.bias"), (Blocks, BLOCKS, "m1.f1.weight"), (Blocks, BLOCKS, "m0.f1.bias"),
    (Images, IMAGES, "stem.bias"), (Images, IMAGES, "norm.running_mean"), (Images, IMAGES, "last.bias"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "rules", "key"), DAMAGED)
def test_a_damaged_tensor_is_found_in_its_module(kind, rules, key):
    one, other, inputs, report = converted(kind, rules)
    other.state_dict()[key][0] += 1
    place = ckpt_tool.trace(one, other, inputs, report).place
    assert (place.kind, place.other) == ("module", key.rpartition(".")[0])
    assert place.findings[0].startswith(f"`{key}` is not what the plan makes of `{key}`")
    assert not place.inputs.largest


FORGOTTEN = [
    (Stream, [*STREAM[:4], "head.* -> head.*"], "head", "`head` gets inputs in an order that the rules give, and its columns don't have it"),
    (Blocks, [BLOCKS[0], BLOCKS[2]], "m1.f2", "`m1.f2` gets inputs in an order that the rules give, and its columns don't have it"),
    (Blocks, BLOCKS[1:], "m1.f2", "the rules give the columns of `m1.f2` an order, and its inputs don't have it"),
    (Images, [*IMAGES[:2], IMAGES[3]], "last", "`last` gets inputs in an order that the rules give, and its columns don't have it"),
    (Blocks, [turned("m1.f1.weight", 0), *BLOCKS[1:]], "m1.f1", "verified: `m1.f1.weight` with its rows in the order that the rules give other tensors makes the outputs agree"),
]


@pytest.mark.parametrize(("kind", "rules", "module", "finding"), FORGOTTEN)
def test_a_rule_that_was_forgotten_is_found(kind, rules, module, finding):
    one, other, inputs, report = converted(kind, rules)
    place = ckpt_tool.trace(one, other, inputs, report).place
    assert (place.kind, place.other, place.findings[0]) == ("module", module, finding)
    assert {each.key for each in place.tensors} == {f"{module}.weight", f"{module}.bias"}
    assert place.findings[-1].startswith(f"verified: `{module}.weight` with its {'rows' if module == 'm1.f1' else 'columns'} in the order")


def test_outputs_of_the_network_in_another_order_differ():
    one, other, inputs, report = converted(Blocks, [turned("head.*", 0), "{r=**} -> {r}"])
    found = ckpt_tool.trace(one, other, inputs, report)
    assert (found.is_same, found.place.other) == (False, "")
    assert [each.key for each in found.place.tensors] == ["head.weight", "head.bias"]
