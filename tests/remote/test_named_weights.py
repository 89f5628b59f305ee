"""Names that torchvision and timm know weights by, asked of these libraries themselves."""

import sys

import pytest
from running import ckpt

from ckpt_tool.api.sides import is_factory
from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.addresses import is_address
from ckpt_tool.formats.remote.named_weights import address_of
from tests.remote.conftest import pth


def test_torchvisions_weights_have_addresses(torchvision):
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    assert address_of("torchvision:ResNet50_Weights.IMAGENET1K_V2") == weights.url
    with pytest.raises(
        InputError, match=r"did you mean .*torchvision:ResNet50_Weights.IMAGENET1K_V2"
    ):
        address_of("torchvision:ResNet50_Weights.IMAGENET1K_V3")


def test_timms_weights_have_addresses(timm):
    assert (
        address_of("timm:vit_base_patch16_224.augreg_in21k")
        == "hf://timm/vit_base_patch16_224.augreg_in21k"
    )
    with pytest.raises(InputError, match=r"did you mean .*timm:vit_base_patch16_224"):
        address_of("timm:vit_base_patch16_244.augreg_in21k")


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:ResNet50_Weights.IMAGENET1K_V2",
        "timm:resnet50",
        "timm:vit_base_patch16_224.augreg_in21k",
    ],
)
def test_their_names_are_no_code(name):
    assert is_address(name)
    assert not is_factory(name)
    assert is_factory("timm.models:resnet50")


def test_a_models_name_is_answered_with_its_weights(torchvision):
    with pytest.raises(InputError, match=r"torchvision:ResNet50_Weights.IMAGENET1K_V1 or torch"):
        address_of("torchvision:resnet50")


def test_a_torchvision_that_doesnt_fit_torch_is_said(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    for name in [one for one in sys.modules if one.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(InputError, match="torchvision can't be imported: its operators are not those of the torch"):
        address_of("torchvision:ResNet50_Weights.DEFAULT")


def test_an_error_has_the_name_and_its_address(torchvision, server, cache, monkeypatch):
    weights = torchvision.models.ResNet50_Weights
    url = f"{server.address}/resnet50.pth"
    monkeypatch.setattr(weights.IMAGENET1K_V2.value, "url", url, raising=False)
    name = "torchvision:ResNet50_Weights.IMAGENET1K_V2"
    ran = ckpt("show", name)
    assert (ran.status, f"{name} ({url}): is not there (404)" in ran.err) == (2, True), ran.err
    server.put("/resnet50.pth", pth())
    assert ckpt("show", name).status == 0
