"""Quantised models: what is loaded into them, frozen and thawed. torchao and bitsandbytes themselves where they are installed (a CPU
does), else classes that are made as theirs are.
"""

import warnings

import pytest
import torch
from torch import nn

import ckpt_tool
from ckpt_tool import FreezeSchedule, InputError, RuleError

pytestmark = pytest.mark.filterwarnings("ignore")


class Codes(torch.Tensor):
    """As torchao's Int8Tensor: it calls itself float, and holds codes and scales."""

    tensor_data_names = ("qdata", "scale")

    @staticmethod
    def __new__(cls, qdata, scale):
        return torch.Tensor._make_wrapper_subclass(cls, qdata.shape, dtype=scale.dtype)

    def __init__(self, qdata, scale):
        self.qdata, self.scale = qdata, scale

    def __tensor_flatten__(self):
        return ["qdata", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].qdata, args[0].scale)
        raise NotImplementedError(function)


class Params4bit(nn.Parameter):
    """As bitsandbytes' after it is quantised: codes of two numbers each, and how to read them."""

    quant_state = None


def by_wrapper():
    model = plain()
    weight = torch.randint(-9, 9, (8, 8), dtype=torch.int8)
    model[0].weight = nn.Parameter(Codes(weight, torch.ones(8)), requires_grad=False)
    return model


class Linear4bit(nn.Linear):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight.absmax"] = torch.ones(4)


def by_packing():
    model = plain()
    model[0] = Linear4bit(8, 8)
    model[0].weight = Params4bit(torch.randint(9, (32, 1), dtype=torch.uint8), requires_grad=False)
    model[0].weight.quant_state = object()
    return model


def plain():
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


def by_torchao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchao = pytest.importorskip("torchao.quantization", exc_type=(ImportError, RuntimeError))
    model = plain()
    torchao.quantize_(model[:1], torchao.Int8WeightOnlyConfig())
    return model


def by_bitsandbytes():
    bnb = pytest.importorskip("bitsandbytes", exc_type=(ImportError, RuntimeError))
    model = nn.Sequential(bnb.nn.Linear4bit(8, 8, quant_type="nf4"), nn.Linear(8, 8))
    return model.to("cpu")


MODELS = [by_wrapper, by_packing, by_torchao, by_bitsandbytes]


@pytest.mark.parametrize("build", MODELS)
def test_quantised_weights_are_refused_by_what_they_are(build):
    model = build()
    before = model[1].weight.clone()
    with pytest.raises((InputError, RuleError), match=r"`0.weight` (of the model )?is a (quantised )?(Codes|Int8Tensor|Params4bit), w[\s\S]*load before the model is quantised"):
        ckpt_tool.load_into(model, plain().state_dict())
    assert torch.equal(model[1].weight, before)


@pytest.mark.parametrize("build", MODELS)
def test_what_stands_beside_quantised_weights_is_loaded(build):
    model, source = build(), plain()
    others = {key: value for key, value in source.state_dict().items() if key != "0.weight"}
    keep = ["0.weight", *(["0.weight.**"] if any(key.startswith("0.weight.") for key in model.state_dict()) else [])]
    assert len(ckpt_tool.load_into(model, others, keep=keep).loaded) == 3
    assert torch.equal(model[1].weight, source[1].weight)


@pytest.mark.parametrize("build", MODELS)
def test_quantised_weights_are_frozen_and_never_thawed(build):
    model = build()
    assert ckpt_tool.freeze(model, "**").parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    thawed = ckpt_tool.thaw(model, "**")
    assert (thawed.parameters, thawed.left) == (("0.bias", "1.weight", "1.bias"), ("0.weight",))
    with pytest.raises(InputError, match=r"`0.weight` is a \w+ of torch\.\w+, with no gradient"):
        ckpt_tool.thaw(model, "0.weight")
    applied = FreezeSchedule({0: "1.*", 1: "**"}).apply(model, 1)
    assert (applied.trainable, applied.held) == (3, 1)


def test_bitsandbytes_quantises_what_was_loaded_before():
    bnb = pytest.importorskip("bitsandbytes", exc_type=(ImportError, RuntimeError))
    source = nn.Sequential(nn.Linear(64, 64))
    one, other = (nn.Sequential(bnb.nn.Linear4bit(64, 64, quant_type="nf4")) for _ in range(2))
    ckpt_tool.load_into(one, source)
    other.load_state_dict(source.state_dict())
    inputs = torch.randn(3, 64)
    assert torch.equal(one.to("cpu")(inputs), other.to("cpu")(inputs))
    assert (one(inputs) - source(inputs)).abs().max() < 0.5
