"""Activations that are not those of the first network are named."""

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn
from torch.nn import functional

import ckpt_tool


class Of(nn.Module):
    """Two layers and what stands between them, a module or a function."""

    def __init__(self, between, after=None):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.drop, self.after = nn.Dropout(), after or nn.Identity()
        if isinstance(between, nn.Module):
            self.act = between
        else:
            self._between = between

    def forward(self, x):
        y = self.fc1(x)
        return self.after(self.fc2(self.drop(self.act(y) if hasattr(self, "act") else self._between(y))))


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.first, self.block, self.head = nn.Linear(8, 8), kind(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(self.first(x)))


def traced(one, other):
    first, second = Net(one), Net(other)
    report = ckpt_tool.load_into(second, fill_with_seeded_values(first, 1), by="position")
    modes = [each.training for each in second.modules()], dict(second.named_modules())
    found = ckpt_tool.trace(first, second, torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), report)
    assert modes == ([each.training for each in second.modules()], dict(second.named_modules()))
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in (*first.modules(), *second.modules()))
    return found


def in_sequence(act):
    return lambda: nn.Sequential(nn.Linear(8, 12), act, nn.Linear(12, 8))


MODULES = {
    "at another path": (lambda: Of(nn.GELU()), in_sequence(nn.ReLU()), "block.act", "block.1", "GELU(approximate='none')", "ReLU()"),
    "that writes in place": (lambda: Of(nn.SiLU()), in_sequence(nn.ReLU(inplace=True)), "block.act", "block.1", "SiLU()", "ReLU(inplace=True)"),
    "at the end": (lambda: Of(nn.GELU(), nn.Tanh()), lambda: Of(nn.GELU(), nn.Sigmoid()), "block.after", "block.after", "Tanh()", "Sigmoid()"),
    "with a number": (lambda: Of(nn.ReLU()), lambda: Of(nn.LeakyReLU(0.2)), "block.act", "block.act", "ReLU()", "LeakyReLU(negative_slope=0.2)"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_another_class_is_named_and_tried(name):
    one, other, path, its, right, wrong = MODULES[name]
    found = traced(one, other)
    assert (found.is_same, found.place.other) == (False, "block")
    assert found.place.findings == (
        f"`{its}` is {wrong}, its counterpart `{path}` is {right}",
        f"verified: `{its}` = {right} (it is {wrong}) makes the outputs agree",
    )


FUNCTIONS = {
    "functions": (functional.gelu, functional.relu, "gelu", "relu"),
    "a function for a module": (nn.GELU(), functional.silu, "gelu", "silu"),
    "a module for a function": (functional.relu, nn.GELU(), "relu", "gelu"),
    "none": (functional.relu, lambda y: y, "relu", "the value itself"),
    "an approximation": (functional.gelu, lambda y: functional.gelu(y, approximate="tanh"), "gelu", "gelu with `approximate='tanh'`"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_named(name):
    one, other, right, wrong = FUNCTIONS[name]
    found = traced(lambda: Of(one), lambda: Of(other))
    assert (found.place.kind, found.place.other) == ("code", "block")
    gets = f"`block.fc2` gets {wrong} of what `block.fc1` gives, its counterpart `block.fc2` gets {right} of what `block.fc1` gives"
    assert found.place.findings == (gets,)


def test_another_class_that_does_the_same_is_not_named():
    class Swish(nn.Module):
        def forward(self, x):
            return x * x.sigmoid()

    assert traced(lambda: Of(nn.SiLU()), lambda: Of(Swish())).is_same
    found = traced(lambda: Of(nn.SiLU(), nn.Tanh()), lambda: Of(Swish(), nn.Sigmoid()))
    assert len(found.place.findings) == 2
    assert "block.act" not in str(found.place.findings)


class Functions(nn.Module):
    """Two layers with a function between them, and some that come after."""

    def __init__(self, act):
        super().__init__()
        self.a, self.b, self._act = nn.Linear(8, 8), nn.Linear(8, 8), act
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))

    def forward(self, x):
        x = self.b(self._act(self.a(x)))
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_the_table_and_the_answer_name_what_gets_another_function():
    one, other = Functions(nn.functional.silu), Functions(nn.functional.relu)
    fill_with_seeded_values(one, 1)
    found = ckpt_tool.trace(one, other, torch.randn(4, 8), ckpt_tool.load_into(other, one))
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[1 : lines.index("")]] == ["a", "b", "(the"], "`b`, and none that runs after it"
    assert lines[-1] == "different: they diverge in the code of `the network`; `b` gets relu of what `a` gives, its counterpart `b` gets silu of what `a` gives"
