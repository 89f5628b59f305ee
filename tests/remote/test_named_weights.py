"""Names that torchvision and timm know weights by, asked of these libraries themselves."""

import pytest

from ckpt_tool.api.sides import is_factory
from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.addresses import is_address
from ckpt_tool.formats.remote.named_weights import address_of


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
