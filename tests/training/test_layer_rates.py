"""Learning rates that fall towards the input: by blocks, in the order of the network, as BEiT has them."""

import copy

import pytest
import torch
from torch import nn

import ckpt_tool
from ckpt_tool import InputError, RuleError
from ckpt_tool.training.layers import depths


def groups(model, decay=0.5, **more):
    return ckpt_tool.load_into(model, model.state_dict()).parameter_groups(model, lr=1.0, decay=decay, **more)


def rates(model, **more):
    names = {id(one): name for name, one in model.named_parameters()}
    return {names[id(one)]: group["lr"] for group in groups(model, **more) for one in group["params"]}


def beit_layer(name, blocks):
    """get_num_layer_for_vit of BEiT's optim_factory.py."""
    if name in ("cls_token", "mask_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return blocks + 1


def test_vision_transformers_have_the_rates_of_beit(timm):
    model = timm.create_model("vit_tiny_patch16_224", depth=5, embed_dim=12, num_heads=3, num_classes=3)
    assert rates(model, decay=0.75) == {name: 0.75 ** (6 - beit_layer(name, 5)) for name, _ in model.named_parameters()}


@pytest.mark.parametrize("more", [{}, {"decay": 0.75}, {"loaded_lr": 0.1}])
def test_weights_decay_as_timm_has_it(timm, more):
    from timm.optim._param_groups import param_groups_weight_decay

    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=12, num_heads=3, num_classes=3)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("head.")}
    report = ckpt_tool.load_into(model, state, keep="head.**")
    found = report.parameter_groups(model, lr=1.0, weight_decay=0.05, **({"loaded_lr": 1.0} | more if "decay" not in more else more))
    theirs = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    wanted = {id(one): group["weight_decay"] for group in theirs for one in group["params"]}
    ours = {id(one): group["weight_decay"] for group in found for one in group["params"]}
    assert ours == wanted
    assert sum(len(group["params"]) for group in found) == len(wanted)
    assert {id(model.cls_token), id(model.pos_embed)} <= {at for at, value in ours.items() if not value}
    torch.optim.AdamW(found)


def swin_layer(name, sizes):
    """get_swin_layer of SimMIM's optimizer.py."""
    if name.startswith("patch_embed"):
        return 0
    if name.startswith("layers"):
        stage = int(name.split(".")[1])
        return sum(sizes[:stage]) + (int(name.split(".")[3]) if ".blocks." in name else 0) + 1
    return sum(sizes) + 1


def test_stages_count_their_blocks_one_after_the_other(timm):
    sizes = (2, 1, 3)
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, depths=sizes, embed_dim=12, num_heads=(1, 2, 4), num_classes=3)
    assert rates(model) == {name: 0.5 ** (7 - swin_layer(name, sizes)) for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "first", "second", "last", "layers"),
    [
        ("resnet18", "conv1.weight", "layer1.0.conv1.weight", "layer4.1.bn2.bias", 10),
        ("swin_t", "features.0.0.weight", "features.1.0.norm1.weight", "features.7.1.mlp.3.bias", 14),
        ("convnext_tiny", "features.0.0.weight", "features.1.0.layer_scale", "features.7.2.block.5.bias", 20),
        ("efficientnet_b0", "features.0.0.weight", "features.1.0.block.0.0.weight", "features.7.0.block.3.1.bias", 18),
        ("mobilenet_v3_small", "features.0.0.weight", "features.1.block.0.0.weight", "features.11.block.3.1.bias", 13),
        ("vit_b_16", "class_token", "encoder.layers.encoder_layer_0.ln_1.weight", "encoder.layers.encoder_layer_11.mlp.3.bias", 14),
    ],
)
def test_networks_of_torchvision(torchvision, name, first, second, last, layers):
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    found = depths(model, {key for key, _ in model.named_parameters()})
    assert [found.layers[key][0] for key in (first, second, last)] == [0, 1, layers - 2]
    assert found.count == layers
    assert found.layers[list(found.layers)[-1]] == (layers - 1, "after the blocks")
    numbers = [number for number, _ in list(found.layers.values())]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(layers))


class Block(nn.Module):
    def __init__(self, width=3, experts=0):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)
        if experts:
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, width)) for _ in range(experts))


def network(**more):
    model = nn.Module()
    model.stem = nn.Linear(3, 3)
    model.blocks = nn.ModuleList(Block(**more) for _ in range(3))
    model.head = nn.Linear(3, 2)
    return model


def test_groups_say_what_they_are_and_fresh_heads_have_the_full_rate():
    model = network(experts=2)
    source = {key: value for key, value in model.state_dict().items() if not key.startswith("head")}
    report = ckpt_tool.load_into(model, source, keep="head.*")
    found = report.parameter_groups(model, lr=1.0, loaded_lr=0.1, decay=0.5)
    assert [(g["group"], g.get("layer"), round(g["lr"], 6), len(g["params"])) for g in found] == [
        ("fresh", None, 1.0, 2),
        ("loaded", "before the blocks", 0.00625, 2),
        ("loaded", "blocks.0", 0.0125, 8),
        ("loaded", "blocks.1", 0.025, 8),
        ("loaded", "blocks.2", 0.05, 8),
    ]
    optimizer = torch.optim.AdamW(found)
    assert [group["layer"] for group in optimizer.state_dict()["param_groups"][1:]] == ["before the blocks", "blocks.0", "blocks.1", "blocks.2"]
    ckpt_tool.freeze(model, "{stem,blocks}.**")
    assert [g["group"] for g in report.parameter_groups(model, lr=1.0, decay=0.5)] == ["fresh"]


def test_two_towers_are_refused_until_their_order_is_said():
    model = nn.ModuleDict({"text": network(), "image": network()})
    with pytest.raises(InputError, match=r"ModuleDict: has blocks in `text.blocks`, `image.blocks`, whose order is not certain; give `layers=`"):
        groups(model)
    found = groups(model, layers=["text.stem.*", "text.blocks.{i}.**", "{text,image}.head.*", "image.blocks.{i}.**"])
    labels = {group["layer"]: len(group["params"]) for group in found}
    assert list(labels)[1:4] == ["text.blocks.0.**", "text.blocks.1.**", "text.blocks.2.**"]
    assert sum(labels.values()) == len(list(model.parameters()))
    part = ckpt_tool.load_into(model, network(), rules="** -> image.**", keep="text.**")
    assert [group["group"] for group in part.parameter_groups(model, lr=1.0, decay=0.5)] == ["fresh"] + ["loaded"] * 5


def test_what_means_nothing_is_refused():
    with pytest.raises(InputError, match="has no list of alike blocks that were loaded; give `layers=`"):
        groups(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"decay=1\.5; it is above 0 and at most 1"):
        groups(network(), decay=1.5)
    with pytest.raises(ValueError, match="`layers` needs it"):
        groups(network(), decay=None, layers=["blocks.{i}.**"])
    with pytest.raises(RuleError, match=r"`block\.{i}\.\*\*` matches no parameter of the model"):
        groups(network(), layers=["block.{i}.**"])


class Registers(nn.Module):
    """Blocks, and something that is registered before them."""

    def __init__(self, **before):
        super().__init__()
        for name, value in before.items():
            setattr(self, name, value)
        self.blocks = network().blocks


@pytest.mark.parametrize(
    ("before", "named"),
    [
        ({"proj": nn.Parameter(torch.ones(4, 4))}, "proj"),
        ({"head": nn.Linear(4, 4)}, "head"),
        ({"norm": nn.LayerNorm(4)}, "norm"),
        ({"downsample_layers": nn.ModuleList(nn.Linear(4, 4) for _ in range(3))}, "downsample_layers"),
        ({"pos_embed": nn.Parameter(torch.ones(4)), "cls_token": nn.Parameter(torch.ones(4)), "bn1": nn.BatchNorm1d(4), "stem": nn.Sequential(nn.Linear(4, 4))}, None),
    ],
)
def test_what_may_belong_behind_the_blocks_is_not_given_the_rate_of_the_stem(before, named):
    model = Registers(**before)
    if named is None:
        assert groups(model)[0]["layer"] == "before the blocks"
        return
    with pytest.raises(InputError, match=f"registers `{named}` before its blocks.*give `layers=`"):
        groups(model)
    patterns = ["blocks.{i}.**", f"{named}.**" if named in dict(model.named_modules()) else named]
    assert len(groups(model, layers=patterns)) == 4


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        (["blocks.{i}.**"], "registers `head` before its blocks.*; name it in `layers=` too"),
        (["stem.*", "blocks.{i}.**"], "registers `head` before its blocks"),
        (["blocks.{i}.**", "embed.*", "head.*"], "registers `stem.weight` among layers that `layers=` has in another order; name it in `layers=` too"),
        (["embed.*", "blocks.{i}.**", "head.*"], "registers `stem.weight` among layers"),
        (["stem.*", "blocks.{i}.**", "head.*"], "registers `embed` behind its blocks, and may use it before or between them"),
        (["{embed,stem}.*", "blocks.{i}.**", "head.*"], "registers `extra.weight` among layers"),
        (["{embed,stem}.*", "blocks.{i}.**", "{head,extra}.*"], None),
    ],
)
def test_what_no_pattern_names_has_a_rate_only_where_its_place_is_certain(layers, named):
    model = nn.Module()
    model.head, model.stem = nn.Linear(3, 2), nn.Linear(3, 3)
    model.blocks, model.embed, model.extra = network().blocks, nn.Linear(3, 3), nn.Linear(3, 3)
    if named:
        with pytest.raises(InputError, match=named):
            groups(model, layers=layers)
        return
    assert [(each["layer"], each["lr"]) for each in groups(model, layers=layers)] == [
        ("{embed,stem}.*", 0.03125), *((f"blocks.{i}.**", 0.0625 * 2**i) for i in range(3)), ("{head,extra}.*", 0.5)
    ]


def test_embeddings_that_are_registered_behind_the_blocks_are_no_output():
    model = network()
    model.pos_embeddings = nn.Embedding(4, 3)
    with pytest.raises(InputError, match=r"registers `pos_embeddings` behind its blocks, .*give `layers=`"):
        groups(model)
    del model.pos_embeddings
    model.embed_out = nn.Linear(3, 4)
    assert groups(model)[-1]["layer"] == "after the blocks"


def test_groups_print_as_a_table():
    source = {key: value for key, value in network().state_dict().items() if not key.startswith("head")}
    model = network()
    report = ckpt_tool.load_into(model, source, keep="head.*")
    ckpt_tool.freeze(model, "blocks.{0,1}.**", "blocks.2.norm.*")
    found = report.parameter_groups(model, lr=1e-3, decay=0.5, weight_decay=0.05)
    assert str(found).splitlines() == [
        "group                    lr  weight decay  tensors  parameters",
        "fresh              1.00e-03          0.05        1           6",
        "fresh              1.00e-03             0        1           2",
        "before the blocks  6.25e-05          0.05        1           9",
        "before the blocks  6.25e-05             0        1           3",
        "blocks.2           5.00e-04          0.05        1           9",
        "blocks.2           5.00e-04             0        1           3",
        "",
        "6 groups: 6 tensors, 32 parameters",
    ]
    assert found._repr_html_().count("<tr>") == 7
    assert "weight decay" not in str(report.parameter_groups(model, lr=1e-3, decay=0.5))
    found.append({"params": nn.Parameter(torch.ones(2))})  # type: ignore[typeddict-item]
    assert str(found).splitlines()[7:] == ["-                         -             -        1           2", "", "7 groups: 7 tensors, 34 parameters"]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam", "Adagrad", "Adafactor"])
def test_optimizers_take_the_groups_and_keep_what_they_say(kind):
    model = network()
    found = groups(model, weight_decay=0.05)
    optimizer = getattr(torch.optim, kind)(found)
    assert [type(one) for one in found] == [dict] * 10
    assert [(one["layer"], one["lr"], one["weight_decay"]) for one in optimizer.param_groups] == [(one["layer"], one["lr"], one["weight_decay"]) for one in found]
    model.head(model.stem(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    again = getattr(torch.optim, kind)(groups(model, weight_decay=0.05))
    again.load_state_dict(optimizer.state_dict())
    assert copy.deepcopy(found)[0]["lr"] == found[0]["lr"]
    assert isinstance(str(found), str)
