"""What a trace copes with: modules that write in place, tuples, dicts, dtypes, randomness, modules that are shared; and that it leaves no trace itself."""

import json
import warnings
from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn
from torch.nn.parallel import DataParallel

import ckpt_tool
from ckpt_tool.errors import InputError
from ckpt_tool.tracing.sketches import SUMS, distance, sketch_of


@dataclass
class Output:
    hidden: torch.Tensor
    extra: dict[str, torch.Tensor]


class Cell(nn.Module):
    """Takes and gives what modules of libraries do."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.act = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, *, scale=None):
        y = self.act(self.norm(self.linear(x)))
        return Output(self.drop(y), {"scaled": y if scale is None else y * scale}), (x, [y.sum()])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.shared, self.head = Cell(), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x, scale=None):
        output, (again, _) = self.cell(x, scale=scale)
        hidden = self.shared(self.shared(output.hidden)) + output.extra["scaled"] + again
        return {"logits": self.head(hidden), "hidden": hidden}


def two():
    one, other = fill_with_seeded_values(Net(), 1), Net()
    return one, other, ckpt_tool.load_into(other, one)


def given(rows=8):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))


def state(model):
    return [each.training for each in model.modules()], {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("train", [False, True])
def test_networks_are_as_before(train):
    one, other, report = two()
    one.cell.eval()
    before = state(one)
    random = torch.get_rng_state()
    assert ckpt_tool.trace(one, other, given(), report, train=train).is_same
    assert torch.equal(torch.get_rng_state(), random)
    after = state(one)
    assert before[0] == after[0]
    assert all(torch.equal(value, after[1][key]) for key, value in before[1].items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in (*one.modules(), *other.modules()))


def test_a_shared_module_is_told_by_its_calls():
    one, other, report = two()
    found = ckpt_tool.trace(one, other, given(), report)
    assert [row.call for row in found.rows if row.other == "shared"] == [0, 1]


@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("cell.linear", lambda net: net.cell.linear.weight.data.mul_(1.001)),
        ("cell.norm", lambda net: net.cell.norm.running_var.add_(0.1)),
        ("shared", lambda net: net.shared.bias.data.add_(0.01)),
        ("head", lambda net: net.head.weight.data[2].add_(0.01)),
    ],
)
def test_what_was_changed_is_found(module, change):
    one, other, report = two()
    change(other)
    place = ckpt_tool.trace(one, other, {"x": given(), "scale": torch.tensor(2.0)}, report).place
    assert (place.kind, place.other, place.call) == ("module", module, 0)
    assert "is not what the plan makes of" in place.findings[0]
    assert not place.inputs.largest


def test_code_that_differs_is_found_in_the_module_around_it():
    one, other, report = two()
    other.cell.forward = lambda x, scale=None: (Cell.forward(other.cell, x, scale=torch.tensor(3.0)))
    place = ckpt_tool.trace(one, other, given(), report).place
    assert place.other == "cell"
    other = Net()
    report = ckpt_tool.load_into(other, one)
    other.act = nn.Identity()
    other.forward = lambda x, scale=None: Net.forward(other, x * 1.01)
    place = ckpt_tool.trace(one, other, given(), report).place
    assert (place.kind, place.other, place.at[1]) == ("code", "", "cell")
    assert place.entering.relative == pytest.approx(0.0099, rel=0.1)


def test_dtypes_are_rounding_and_no_fault():
    one = fill_with_seeded_values(nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)) for _ in range(6))), 1)
    other = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)) for _ in range(6))).to(torch.bfloat16)
    report = ckpt_tool.load_into(other, one, dtypes="target")
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    found = ckpt_tool.trace(one, other, x, report, inputs_b=x.bfloat16())
    assert found.is_same, found
    other[3][0].weight.data[:32] *= -1
    assert ckpt_tool.trace(one, other, x, report, inputs_b=x.bfloat16()).place.other == "3.0"


def test_what_is_not_deterministic_is_called_so():
    class Noisy(nn.Linear):
        count = 1

        def forward(self, x):
            Noisy.count += 1
            return super().forward(x) * Noisy.count

    one, other = fill_with_seeded_values(nn.Sequential(Noisy(6, 6)), 1), nn.Sequential(nn.Linear(6, 6))
    found = ckpt_tool.trace(one, other, given(), ckpt_tool.load_into(other, one))
    assert not found.is_same
    assert found.notes == ("the first network is not deterministic: `0` gives something else when it is run again on the same input",)


def test_wrapped_networks_and_kept_outputs():
    one, other, report = two()
    found = ckpt_tool.trace(DataParallel(one), torch.compile(other, backend="eager"), given(), report, keep=["cell.*", "head"])
    assert found.is_same
    assert sorted(found.kept[0]) == sorted(found.kept[1]) == ["cell.act", "cell.drop", "cell.linear", "cell.norm", "head"]
    one.eval()
    assert torch.equal(found.kept[0]["head"][0], one(given())["logits"])
    assert "kept" not in repr(found)


def test_faults_of_use():
    one, other, report = two()
    with pytest.raises(InputError, match=r"Net: can't be run on this input in `cell\.linear`: RuntimeError"):
        ckpt_tool.trace(one, other, torch.ones(2, 5), report)
    assert not any(each._forward_hooks for each in one.modules())
    with pytest.raises(InputError, match=r"has no key `cell.linear.weight`, which is in the plan's source"):
        ckpt_tool.trace(nn.Linear(6, 6), other, given(), report)
    with pytest.raises(InputError, match="is not a pattern"):
        ckpt_tool.trace(one, other, given(), report, keep="{a")
    with pytest.raises(InputError, match=r"keep: `heads` matches no module of either network; did you mean `head`"):
        ckpt_tool.trace(one, other, given(), report, keep="heads")
    with pytest.raises(InputError, match="give one of them"):
        ckpt_tool.trace(one, other, given(), report, rules=["** -> **"])


def test_other_shapes_are_not_compared():
    class Wider(Net):
        def forward(self, x, scale=None):
            return super().forward(x)["hidden"].repeat(2, 1)

    one, other = fill_with_seeded_values(Net(), 1), Wider()
    found = ckpt_tool.trace(one, other, given(), ckpt_tool.load_into(other, one))
    assert not found.is_same
    assert found.place is None
    assert str(found).splitlines()[-1] == f"no answer: {len(found.rows)} calls of paired modules agree, the outputs can't be compared"


@pytest.mark.parametrize("size", [10, SUMS, 50_000, 2_500_000])
def test_sketches_tell_distances(size):
    generator = torch.Generator().manual_seed(size)
    one = torch.randn(size, generator=generator)
    for relative in (0.5, 1e-3, 1e-6):
        noise = torch.randn(size, generator=generator)
        other = one.double() + noise.double() * relative
        true = float((one.double() - other).norm() / other.norm())
        assert distance(sketch_of(one), sketch_of(other)) == pytest.approx(true, rel=0.15)
    last = one.clone()
    last[-1] += 100
    true = float(100 / last.norm())
    assert distance(sketch_of(one), sketch_of(last)) == pytest.approx(true, rel=0.1)
    assert distance(sketch_of(one), sketch_of(one)) == 0
    for regular in (torch.ones(size), torch.tensor([1.0, -1.0]).repeat(size // 2), torch.ones(size).index_fill(0, torch.arange(0, size, 768 % size or 1), 5)):
        other = one.double() + regular.double() * 1e-3
        true = float((regular.double() * 1e-3).norm() / other.norm())
        assert distance(sketch_of(one), sketch_of(other)) == pytest.approx(true, rel=0.15)


class Gives(nn.Linear):
    """A layer whose output is made by a function."""

    def __init__(self, make):
        super().__init__(6, 6)
        self.make = make

    def forward(self, x):
        return self.make(super().forward(x))


def spoilt(y, place, value):
    y = y.clone()
    y[place] = value
    return y


UNLIKE = {
    "the values of a dict": (lambda y: {"mean": y, "std": 2 * y}, lambda y: {"std": y, "mean": 2 * y}),
    "where NaN is": (lambda y: spoilt(y, 0, float("nan")), lambda y: spoilt(y, 1, float("nan"))),
    "the sign of infinity": (lambda y: spoilt(y, 0, float("inf")), lambda y: spoilt(y, 0, -float("inf"))),
    "complex parts": (lambda y: torch.complex(y, 2 * y), lambda y: torch.complex(2 * y, y)),
    "behind a mask": (lambda y: spoilt(y, 0, -1e30), lambda y: spoilt(2 * y, 0, -1e30)),
    "beside a short type": (lambda y: (y.bfloat16(), y), lambda y: (y.bfloat16(), 1.02 * y)),
    "a number": (lambda y: (y, 1.5), lambda y: (y, 2.5)),
}
ALIKE = {
    "the order of a dict": (lambda y: {"a": y, "b": 2 * y}, lambda y: {"b": 2 * y, "a": y}),
    "nothing beside it": (lambda y: (y, None), lambda y: (y, None)),
    "NaN at one place": (lambda y: spoilt(y, 0, float("nan")), lambda y: spoilt(y, 0, float("nan"))),
}
UNANSWERED = {
    "another shape": (lambda y: y, lambda y: y.t()),
    "nothing": (lambda y: y, lambda y: None),
    "one of two has another shape": (lambda y: (y, y), lambda y: (y, y[:1])),
}


@pytest.mark.parametrize("name", [*UNLIKE, *ALIKE, *UNANSWERED])
def test_outputs_of_all_kinds(name):
    one, other = (Gives(make) for make in {**UNLIKE, **ALIKE, **UNANSWERED}[name])
    fill_with_seeded_values(one, 1)
    found = ckpt_tool.trace(one, other, given(5), ckpt_tool.load_into(other, one))
    assert (found.is_same, found.place is None) == (name in ALIKE, name not in UNLIKE)


def test_what_forward_writes_is_put_back():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 6, max_norm=0.1)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            with suppress(IndexError):
                self.embed(torch.tensor(99))
            return self.embed(x) * self.count

    one, other = fill_with_seeded_values(Writing(), 1), Writing()
    report = ckpt_tool.load_into(other, one)
    before = state(one)[1]
    assert ckpt_tool.trace(one, other, torch.arange(5), report).is_same
    assert all(torch.equal(value, before[key]) for key, value in one.state_dict().items())


FACTORIES = """
from torch import nn
def small(): return nn.Sequential(nn.Linear(4, 10), nn.LayerNorm(10), nn.Linear(10, 2))
class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 10), nn.LayerNorm(10, eps=1e-3), nn.Linear(10, 2)
    def forward(self, features): return self.last(self.norm(self.first(features)))
"""


def test_the_command(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from ckpt_tool.cli.app import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "traced_nets.py").write_text(FACTORIES)
    model = fill_with_seeded_values(nn.Sequential(nn.Linear(4, 10), nn.LayerNorm(10), nn.Linear(10, 2)), 1)
    torch.save(model.state_dict(), "a.pth")
    torch.save({key: value + (key == "2.bias") for key, value in model.state_dict().items()}, "b.pth")
    torch.save({"features": torch.ones(3, 4)}, "x.pt")

    def run(*words):
        found = CliRunner().invoke(app, ["trace", *words])
        return found.exit_code, found.output

    status, text = run("a.pth", "a.pth", "--model", "traced_nets:small", "--input", "x.pt")
    assert (status, text.splitlines()[-1]) == (0, "the same: 4 calls of paired modules compared, outputs differ by 0")
    status, text = run("a.pth", "b.pth", "--model", "traced_nets:small", "--random-input", "2x4")
    assert (status, text.splitlines()[-1]) == (1, "different: they diverge in `2`")
    rules = [word for rule in ("0.** -> first.**", "1.** -> norm.**", "2.** -> last.**") for word in ("-e", rule)]
    status, text = run("a.pth", "--model", "traced_nets:small", "--model-b", "traced_nets:Named", "--input", "x.pt", "--json", *rules)
    report = json.loads(text)
    assert (status, report["same"], report["place"]["module_b"]) == (1, False, "norm")
    assert report["place"]["findings"] == ["verified: `eps` = 1e-05 (it is 0.001) makes the outputs agree"]
    assert report["place"]["tensors"][0]["rule"] == "-e:2 `1.** -> norm.**`"
    for words, said in (
        (["a.pth"], "--model"),
        (["a.pth", "a.pth", "--model", "traced_nets:small"], "--random-input 1x3x224x224"),
        (["a.pth", "a.pth", "--model", "traced_nets:small", "--random-input", "axb"], "is not a shape"),
        (["a.pth", "--model", "traced_nets:small", "--input", "x.pt"], "both networks would be traced_nets:small with a.pth: nothing is compared; give the second one's checkpoint"),
        (["a.pth", "--model", "traced_nets:small", "--model-b", "traced_nets:small", "--by", "name", "--input", "x.pt"], "nothing is compared"),
        (["a.pth", "b.pth", "--model", "traced_nets:nothing", "--random-input", "2x4"], "can't be imported"),
        (["a.pth", "b.pth", "--model", "traced_nets", "--random-input", "2x4"], "traced_nets: names no function; give `package.module:function`"),
        (["a.pth", "b.pth", "--model", "traced_nets:small", "--random-input", "9" * 20], "is larger than any tensor may be"),
        (["a.pth", "b.pth", "--model", "traced_nets:small", "--random-input", "2x4", "--seed", "9" * 20], "--seed: 99999999999999999999 is not a number of 64 bits"),
        (["a.pth", "b.pth", "--model", "traced_nets:small", "--random-input", "2x4", "--input", "x.pt"], "--random-input: is given beside --input"),
        (["a.pth", "b.pth", "--model", "traced_nets:small", "--random-input", "2x4", "--set", "zzz=3"], "--set: gives `zzz` a number, and there are no rules"),
    ):
        found = CliRunner().invoke(app, ["trace", *words])
        assert found.exit_code != 0
        assert said in str(found.exception)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_network_runs_in_the_half_precision_of_its_checkpoint(tmp_path, monkeypatch, half):
    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.api.tracing.traces import trace_checkpoints

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"halved_nets_{str(half)[-2:]}.py").write_text(FACTORIES)
    model = fill_with_seeded_values(nn.Sequential(nn.Linear(4, 10), nn.LayerNorm(10), nn.Linear(10, 2)), 1)
    state = model.state_dict()
    names = [str(tmp_path / name) for name in ("full.pth", "half.pth", "wrong.pth")]
    for name, values in zip(names, (state, {key: value.to(half) for key, value in state.items()}, {key: (value * 1.2).to(half) for key, value in state.items()}), strict=True):
        torch.save(values, name)
    factory = f"halved_nets_{str(half)[-2:]}:small"

    def trace(one, other, **options):
        return trace_checkpoints(one, other, (factory, factory), (None, None, "5x4"), MappingOptions(**options))

    full, export, wrong = names
    assert trace(full, export).is_same
    assert trace(export, full).is_same
    assert trace(full, wrong).place.other == "0"
    assert not trace(full, export, dtypes="target").is_same, "the rounding of weights shows in float32"


class Makes(nn.Module):
    """One layer, and what `make` makes of its output."""

    def __init__(self, make):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.make = nn.Linear(6, 6), make

    def forward(self, x):
        return self.make(self.layer(x))


class Held:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


OBJECTS = {
    "distribution": lambda y, scale: (y, torch.distributions.Normal(y, scale * y.abs() + 1)),
    "sparse": lambda y, scale: {"y": y, "adjacency": (scale * y).to_sparse()},
    "nested": lambda y, scale: (y, torch.nested.as_nested_tensor([y[:1], scale * y])),
    "slots": lambda y, scale: (y, Held([scale * y])),
    "array": lambda y, scale: (y, (scale * y).numpy()),
    "text": lambda y, scale: (y, f"{scale}"),
    "large integers": lambda y, scale: (y, 20_000_000 + scale),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", OBJECTS)
def test_what_objects_hold_is_compared(name):
    one, other, same = (Makes(lambda y, scale=scale: OBJECTS[name](y, scale)) for scale in (1, 2, 1))
    other.layer.load_state_dict(one.layer.state_dict())
    assert ckpt_tool.trace(one, same, given(), by="name").is_same
    assert not ckpt_tool.trace(one, other, given(), by="name").is_same


def test_what_can_not_be_compared_is_no_answer():
    csr = Makes(lambda y: (y, y.to_sparse_csr()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ckpt_tool.trace(csr, csr, given(), by="name")
    assert (found.is_same, found.place) == (False, None)
    assert "not compared, of what the networks give: `1` (torch.sparse_csr)" in found.notes


def test_huge_numbers_that_differ_are_no_answer():
    one, same, other = (Makes(lambda y, scale=scale: y.abs() * 1e12 * scale) for scale in (1, 1 + 1e-6, 2))
    assert ckpt_tool.trace(one, same, given(), by="name").is_same
    found = ckpt_tool.trace(one, other, given(), by="name")
    assert not found.is_same
    assert any("above 1e8" in note for note in found.notes)


@pytest.mark.parametrize("make", [lambda y: y * float("nan"), lambda y: y[:0]])
def test_outputs_without_numbers_are_no_answer(make):
    net = Makes(make)
    found = ckpt_tool.trace(net, net, given(), by="name")
    assert (found.is_same, found.place) == (False, None)
    assert any("no number that could be compared" in note for note in found.notes)


class Merging(nn.Linear):
    """As LoRA's layers that merge their weights on `eval()`; and with a buffer that forward replaces."""

    def __init__(self):
        super().__init__(6, 6)
        self.register_buffer("average", torch.zeros(()))

    def train(self, mode=True):
        if not mode and self.training:
            self.weight.data += 1
        return super().train(mode)

    def forward(self, x):
        self.average = self.average * 0.9 + x.mean()
        return super().forward(x)


def test_a_trace_leaves_networks_as_they_were():
    one, other = Merging(), Merging()
    before = [(id(value), value.clone()) for net in (one, other) for value in net.state_dict(keep_vars=True).values()]
    ckpt_tool.trace(one, other, given(), by="name")
    after = [(id(value), value) for net in (one, other) for value in net.state_dict(keep_vars=True).values()]
    assert [at for at, _ in before] == [at for at, _ in after]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_take_no_hooks():
    whole = nn.Sequential(torch.jit.trace(nn.Linear(6, 6), torch.ones(1, 6)), nn.Linear(6, 6))
    assert ckpt_tool.trace(whole, whole, given(), by="name").is_same
    with pytest.raises(InputError, match="is TorchScript, whose modules take no hooks"):
        ckpt_tool.trace(whole[0], whole[0], given(), by="name")


@pytest.mark.parametrize(("count", "said"), [(1, "q"), (3, "q, v, k"), (4, "q, v, k, o"), (6, "q, v, k, o and 2 more")])
def test_what_is_put_together_is_named_in_its_order(count, said):
    from ckpt_tool.report.trace import _tensor
    from ckpt_tool.tracing.weights import Concerned

    each = Concerned("attn.qkv", ("q", "v", "k", "o", "m", "n")[:count], ("concat",), "rules.yaml:3")
    assert _tensor(each) == f"attn.qkv from {said} through concat, by rules.yaml:3"


def test_a_nan_on_one_side_is_infinitely_far(tmp_path):
    one, other = Makes(lambda y: y), Makes(lambda y: torch.where(torch.arange(6) == 2, float("nan"), y))
    other.layer.load_state_dict(one.layer.state_dict())
    found = ckpt_tool.trace(one, other, given(), by="name")
    assert found.place.outputs.relative == found.place.outputs.largest == float("inf")
    assert found.place.outputs.index[-1] == 2


class Forces(nn.Module):
    """The gradient of an energy, as networks of atoms give."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, positions):
        positions = positions.requires_grad_()
        energy = self.two(torch.tanh(self.one(positions))).sum()
        return energy, torch.autograd.grad(energy, positions)[0]


def test_networks_that_take_gradients_of_their_own():
    first, second = Forces(), Forces()
    second.load_state_dict(first.state_dict())
    first.one.weight.grad = before = torch.rand(8, 3)
    inputs = torch.rand(5, 3)
    assert ckpt_tool.trace(first, second, inputs).is_same
    assert first.one.weight.grad is before
    assert first.two.weight.grad is None
    assert not inputs.requires_grad
    with torch.no_grad():
        second.two.weight.mul_(1.5)
    assert ckpt_tool.trace(first, second, inputs).place.other == "two"


class Writes(nn.Linear):
    def forward(self, x):
        with torch.no_grad():
            self.weight.mul_(0.9)
        return super().forward(x)


def test_a_forward_that_writes_its_parameters_is_reported():
    first, second = nn.Sequential(Writes(3, 3)), nn.Sequential(nn.Linear(3, 3))
    second.load_state_dict(first.state_dict())
    notes = ckpt_tool.trace(first, second, torch.rand(2, 3)).notes
    assert any("the first network writes to its parameters, `0.weight`: they are not as they were" in note for note in notes)
    assert not any("second" in note for note in notes)


class Cached(nn.Module):
    """Appends what it computes to a cache that its caller holds."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, cache):
        cache.values.append(self.linear(x))
        return torch.stack(cache.values).sum(0)


class Cache:
    def __init__(self, *values):
        self.values = list(values)


def test_a_cache_that_was_filled_with_gradients_is_copied():
    one = fill_with_seeded_values(Cached(), 1)
    other = Cached()
    other.load_state_dict(one.state_dict())
    cache = Cache(one.linear(torch.ones(2, 3)))
    assert ckpt_tool.trace(one, other, (torch.rand(2, 3), cache)).is_same
    assert len(cache.values) == 1


TABLES = """import torch
from torch import nn
class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("cos_table", torch.linspace(0, 1, 4), persistent=False)
        self.register_buffer("inv_freq", torch.linspace(0, 1, 4), persistent=False)
    def forward(self, x):
        assert self.inv_freq.dtype is torch.float32
        return self.linear(x * self.cos_table)
"""


def test_tables_outside_of_the_state_dict_have_the_half_precision_too(tmp_path, monkeypatch):
    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.api.tracing.traces import trace_checkpoints

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "turned_nets.py").write_text(TABLES)
    state = fill_with_seeded_values(nn.ModuleDict({"linear": nn.Linear(4, 4)}), 1).state_dict()
    full, half = str(tmp_path / "full.pth"), str(tmp_path / "half.pth")
    torch.save(state, full)
    torch.save({key: value.bfloat16() for key, value in state.items()}, half)
    assert trace_checkpoints(full, half, ("turned_nets:Turned", "turned_nets:Turned"), (None, None, "2x4"), MappingOptions()).is_same


class Mapped(nn.Module):
    """A layer that torch.func runs, where tensors have no values to compare."""

    def __init__(self, transform):
        super().__init__()
        self.layer, self.head, self._transform = nn.Linear(3, 3), nn.Linear(3, 2), transform

    def forward(self, x):
        return self.head(self._transform(self.layer)(x))


@pytest.mark.parametrize(
    "transform",
    [torch.func.vmap, torch.func.functionalize, lambda layer: torch.func.vmap(torch.func.grad(lambda y: layer(y).square().sum()))],
    ids=["vmap", "functionalize", "vmap of grad"],
)
def test_what_runs_inside_of_a_transform_is_not_compared(transform):
    first, second = Mapped(transform), Mapped(transform)
    report = ckpt_tool.load_into(second, first)
    found = ckpt_tool.trace(first, second, torch.rand(4, 3), report)
    assert found.is_same
    sides = [f"not compared, for they run inside of `torch.func.vmap` or `functionalize`: `layer` of the {which} network" for which in ("first", "second")]
    assert list(found.notes) == sides
    second.layer.weight.data[0] += 1
    found = ckpt_tool.trace(first, second, torch.rand(4, 3), report)
    assert (found.place.kind, found.place.other, found.place.at[1]) == ("code", "", "head")
    assert [each.key for each in found.place.tensors] == ["layer.weight", "layer.bias"]
    assert "`layer.weight` is not what the plan makes of `layer.weight`" in found.place.findings[0]


def test_a_gradient_inside_of_a_network_is_compared():
    first, second = (Mapped(lambda layer: torch.func.grad(lambda y: layer(y).square().sum())) for _ in range(2))
    report = ckpt_tool.load_into(second, first)
    assert any(row.other == "layer" for row in ckpt_tool.trace(first, second, torch.rand(4, 3), report).rows)


class GivesMore(nn.Module):
    """What a layer gives, and more."""

    def __init__(self, **more):
        super().__init__()
        self.fc, self._more = nn.Linear(4, 4), more

    def forward(self, x):
        return {"y": self.fc(x), **self._more}


@pytest.mark.parametrize(("a", "b", "is_same", "note"), [
    ({"s": {1, 2}}, {"s": {1, 3}}, False, "not compared, of what the networks give: `s` (set)"),
    ({f"z{i}": float(i) for i in range(8)}, {}, True, "not compared, of what the first network gives: `z0`, `z1`, `z2` and 5 more"),
])  # fmt: skip
def test_all_outputs_that_are_not_compared_are_told(a, b, is_same, note):
    one, other = GivesMore(**a), GivesMore(**b)
    found = ckpt_tool.trace(one, other, torch.randn(2, 4), ckpt_tool.load_into(other, one))
    assert (found.is_same, found.place, found.notes) == (is_same, None, (note,))


Pair = namedtuple("Pair", "a b")


@dataclass
class Both:
    a: torch.Tensor
    b: torch.Tensor


class Two(nn.Module):
    """Two layers, and what is made of the outputs of both."""

    def __init__(self, gives):
        super().__init__()
        self.one, self.two, self._gives = nn.Linear(4, 6), nn.Linear(6, 6), gives

    def forward(self, x):
        return self._gives(a := self.one(x), self.two(a))


BOTH = {
    "dict": lambda a, b: {"a": a, "b": b},
    "namedtuple": Pair,
    "dataclass": Both,
}
UNPAIRED = "not compared, of what the first network gives: `a`"
BY_PLACE = "compared by place and shape, for the names don't match: "


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize(("second", "is_same", "notes"), [
    (lambda a, b: {"b": a}, False, [UNPAIRED]),
    (lambda a, b: {"b": b}, True, [UNPAIRED]),
    (lambda a, b: {"b": b, "c": a}, None, [UNPAIRED, "not compared, of what the second network gives: `c`"]),
    (lambda a, b: {"b": b, "more": 2 * a, "a": a}, True, ["not compared, of what the second network gives: `more`"]),
    (Pair, True, []),
    (lambda a, b: Pair(b, a), False, []),
    (lambda a, b: (a, b), True, [BY_PLACE + "`a` with `0`, `b` with `1`"]),
    (lambda a, b: {"logits": a, "hidden": b}, True, [BY_PLACE + "`a` with `logits`, `b` with `hidden`"]),
    (lambda a, b: {"logits": b}, None, [f"{UNPAIRED}, `b`", "not compared, of what the second network gives: `logits`"]),
])  # fmt: skip
def test_outputs_are_compared_by_name(first, second, is_same, notes):
    one, other = Two(BOTH[first]), Two(second)
    found = ckpt_tool.trace(one, other, torch.randn(2, 4), ckpt_tool.load_into(other, one))
    assert (found.is_same, found.place is None) == (bool(is_same), is_same is not False)
    assert list(found.notes) == notes


def test_the_output_that_differs_is_named():
    one = Two(lambda a, b: {"scores": a.sigmoid(), "boxes": 800 * b, "hidden": (a, b)})
    other = Two(lambda a, b: {"scores": a.sigmoid(), "boxes": 800 * b.flip(-1), "hidden": (a, b)})
    found = ckpt_tool.trace(one, other, torch.randn(2, 4), ckpt_tool.load_into(other, one))
    assert found.place.outputs.path == ("boxes",)
    assert f"at {[*found.place.outputs.index]} of `boxes`" in str(found)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_infinite_on_one_side_alone_is_infinitely_far(value):
    one, other = Two(lambda a, b: (a, b)), Two(lambda a, b: (a, b.index_fill(1, torch.tensor([2]), value)))
    found = ckpt_tool.trace(one, other, torch.randn(2, 4), ckpt_tool.load_into(other, one))
    apart = found.place.outputs
    assert (apart.relative, apart.largest, apart.index, apart.path) == (float("inf"), float("inf"), (0, 2), ("1",))


def test_the_activation_of_an_encoder_layer_has_its_own_name():
    one, other = (nn.TransformerEncoderLayer(16, 2, 32, activation=name, batch_first=True) for name in ("relu", "gelu"))
    found = ckpt_tool.trace(one, other, torch.randn(2, 3, 16), ckpt_tool.load_into(other, one))
    assert found.place.findings == ("verified: `activation` = 'relu' (it is 'gelu') makes the outputs agree",)
