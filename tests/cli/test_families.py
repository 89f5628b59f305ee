"""Real models into their versions with another head: torchvision's families, a U-Net, replaced heads, wrappers."""

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

from ckpt_tool import MappingOptions, RuleError, load_into
from ckpt_tool.api import map_checkpoint
from ckpt_tool.mapping import plan_by_name, plan_by_position
from ckpt_tool.mapping.accounting.account import A_PART
from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import tensor_infos

HEADS = {
    "alexnet": 2, "densenet121": 2, "densenet161": 2, "densenet169": 2, "densenet201": 2, "googlenet": 6, "inception_v3": 4,
    "resnet18": 2, "resnet34": 2, "resnet50": 2, "resnet101": 2, "resnet152": 2, "squeezenet1_0": 2, "squeezenet1_1": 2,
    "vgg11": 2, "vgg13": 2, "vgg16": 2, "vgg19": 2, "vgg11_bn": 2, "vgg13_bn": 2, "vgg16_bn": 2, "vgg19_bn": 2,
    "mobilenet_v2": 2, "mobilenet_v3_small": 2, "mobilenet_v3_large": 2,
}  # fmt: skip
"""How many tensors of each family depend on the number of classes."""
SMALL = ["resnet18", "squeezenet1_1", "mobilenet_v2", "googlenet"]


def build(torchvision, name, classes, device="cpu"):
    options = {"init_weights": False, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
    with torch.device(device):
        return getattr(torchvision.models, name)(num_classes=classes, **options)


def catalog_of(model):
    return Catalog(tensor_infos(model.state_dict()))


@pytest.mark.parametrize("name", HEADS)
def test_every_family_pairs_by_name_but_for_its_head(torchvision, name):
    source, target = (catalog_of(build(torchvision, name, classes, "meta")) for classes in (1000, 10))
    plan = plan_by_name(source, target)
    assert plan.counts == {"mapped": len(target) - HEADS[name], "kept": HEADS[name], "dropped": HEADS[name]}
    assert plan.notes
    assert all(note.endswith("stays fresh") for note in plan.notes)
    assert plan_by_position(source, target, named=A_PART).notes[0].startswith("stopped after ")


def prove_by_name(torchvision, name, folder):
    models = [fill_with_seeded_values(build(torchvision, name, classes), classes) for classes in (1000, 10)]
    paths = [str(folder / each) for each in ("source.pth", "target.pth", "out.pth")]
    for model, path in zip(models, paths, strict=False):
        torch.save(model.state_dict(), path)
    map_checkpoint(*paths, MappingOptions(by="name", expect=len(models[1].state_dict()) - HEADS[name]))  # type: ignore[call-arg]
    source, target, mapped = (torch.load(path, weights_only=True) for path in paths)
    assert list(mapped) == list(target)
    for key, tensor in mapped.items():
        expected = source[key] if source[key].shape == target[key].shape else target[key]
        assert torch.equal(tensor, expected), key
    models[1].load_state_dict(mapped, strict=True)


@pytest.mark.parametrize("name", SMALL)
def test_small_families_arrive_bit_for_bit(torchvision, tmp_path, name):
    prove_by_name(torchvision, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(HEADS) - set(SMALL)))
def test_all_families_arrive_bit_for_bit(torchvision, tmp_path, name):
    prove_by_name(torchvision, name, tmp_path)


class DoubleConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers, nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class Down(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))


class Up(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
        self.conv = DoubleConv(inputs, outputs)


class OutConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)


class UNet(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.inc = DoubleConv(3, width)
        self.down1, self.down2 = Down(width, 2 * width), Down(2 * width, 4 * width)
        self.up1, self.up2 = Up(4 * width, 2 * width), Up(2 * width, width)
        self.outc = OutConv(width, classes)


def load(model, state, **options):
    """The keys of the model that have the value of a source key, by the report of loading."""
    return load_into(model, state, options=MappingOptions(**options))


def test_a_unet_with_other_output_classes():
    source, model = fill_with_seeded_values(UNet(2), 1), fill_with_seeded_values(UNet(5), 2)
    report = load(model, source.state_dict())
    assert report.fresh == ("outc.conv.weight", "outc.conv.bias")
    assert all(torch.equal(model.state_dict()[key], source.state_dict()[key]) for key in report.loaded)
    assert len(report.loaded) == len(model.state_dict()) - 2


def test_a_net_whose_fc_was_replaced_by_a_sequential(torchvision):
    source, model = build(torchvision, "resnet18", 1000), build(torchvision, "resnet18", 10)
    model.fc = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    with pytest.raises(RuleError) as refused:
        load(model, source.state_dict())
    assert refused.value.next == {"drop": ["fc.*"], "keep": ["fc.**"]}
    report = load(model, source.state_dict(), **refused.value.next)
    assert (len(report.loaded), report.dropped) == (120, ("fc.weight", "fc.bias"))
    assert report.fresh == ("fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias")


def test_a_net_wrapped_under_a_name_with_extra_heads(torchvision):
    source = fill_with_seeded_values(build(torchvision, "resnet18", 1000), 1)
    model = nn.Module()
    model.net = fill_with_seeded_values(build(torchvision, "resnet18", 1000), 2)
    model.boxes, model.scores = nn.Linear(1000, 4), nn.Linear(1000, 1)
    report = load(model, source.state_dict(), inline=("** -> net.**",), keep=("boxes.*", "scores.*"))
    assert (len(report.loaded), len(report.fresh)) == (122, 4)
    assert torch.equal(model.net.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_prefixes_by_name_and_by_rule(prefix):
    source, model = fill_with_seeded_values(UNet(2), 1), UNet(2)
    wrapped = {prefix + key: value for key, value in source.state_dict().items()}
    report = load(model, wrapped)
    assert len(report.loaded) == len(wrapped)
    assert f"every key of the source begins with `{prefix}`" in report.plan.notes[0]
    assert torch.equal(model.inc.double_conv[0].weight, source.inc.double_conv[0].weight)
    assert len(load(UNet(2), wrapped, inline=(f"{prefix}** -> **",)).loaded) == len(wrapped)


def test_sequential_list_and_dict_naming():
    def net():
        model = nn.Module()
        model.seq = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
        model.list = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 5)])
        model.dict = nn.ModuleDict({"left": nn.Linear(5, 2), "right": nn.Linear(5, 3)})
        return model

    source, model = fill_with_seeded_values(net(), 1), fill_with_seeded_values(net(), 2)
    assert len(load(model, source.state_dict()).loaded) == 12
    rules = ("seq.{2*i}.* -> list.{i}.*",)
    other = fill_with_seeded_values(net(), 3)
    other.list = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 4)])
    report = load(other, source.state_dict(), inline=rules, drop=("list.**", "dict.**"), keep=("seq.**", "dict.**"))
    assert report.loaded == ("list.0.weight", "list.0.bias", "list.1.weight", "list.1.bias")
    assert torch.equal(other.list[1].weight, source.seq[2].weight)
