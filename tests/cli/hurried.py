"""What people have when they type `ckpt map a.pth b.pth -o c.pth`: a file, their network, and what would be right, if a file can be."""

import re
from collections import OrderedDict

import torch
from seeded import fill_with_seeded_values
from torch import nn
from torch.nn.utils import prune

SITUATIONS = {}


def situation(build):
    """`build(torchvision, timm)` gives the source's content, the target's state dict, and the right state dicts; none is right: ()."""
    SITUATIONS[build.__name__] = build
    return build


def values_of(model, seed):
    return OrderedDict((key, value.clone()) for key, value in fill_with_seeded_values(model, seed).state_dict().items())


def resnet(torchvision, seed, classes=10):
    return values_of(torchvision.models.resnet18(num_classes=classes), seed)


def renamed(tensors, *pairs):
    names = {}
    for key in tensors:
        names[key] = key
        for pattern, by in pairs:
            names[key] = re.sub(pattern, by, names[key])
    return {names[key]: value for key, value in tensors.items()}


def below(prefix, tensors, fresh):
    """The fresh values with those of `tensors` below a prefix."""
    return {key: tensors.get(key.removeprefix(prefix), value) if key.startswith(prefix) else value for key, value in fresh.items()}


class Together(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def backbone(torchvision):
    model = torchvision.models.resnet18(num_classes=10)
    model.fc = nn.Identity()
    return model


def small_vit(timm, seed, depth=3, classes=10):
    model = timm.create_model(
        "vit_tiny_patch16_224", depth=depth, embed_dim=48, num_heads=3, img_size=32, num_classes=classes
    )  # fmt: skip
    return values_of(model, seed)


@situation
def a_lightning_run_for_other_classes(torchvision, timm):
    ours, fresh = resnet(torchvision, 1), resnet(torchvision, 2, classes=7)
    run = {"state_dict": {**{f"model.{key}": value for key, value in ours.items()}, "criterion.weight": torch.rand(10)}, "epoch": 1}
    return run, fresh, [{key: fresh[key] if key.startswith("fc.") else value for key, value in ours.items()}]


@situation
def a_backbone_below_a_decoder(torchvision, timm):
    ours = resnet(torchvision, 1)
    decoder = nn.Sequential(nn.Conv2d(512, 33, 3, bias=False), nn.BatchNorm2d(33), nn.Conv2d(33, 17, 3))
    fresh = values_of(Together(encoder=backbone(torchvision), decoder=decoder, segmentation_head=nn.Conv2d(17, 3, 1)), 2)
    return ours, fresh, [below("encoder.", ours, fresh)]


@situation
def an_average_beside_the_weights(torchvision, timm):
    ours, averaged = resnet(torchvision, 1), resnet(torchvision, 3)
    both = {**{f"module.net.{key}": value for key, value in ours.items()}, **{f"module.ema_net.{key}": value for key, value in averaged.items()}}
    return {"state_dict": both}, resnet(torchvision, 2), [ours, averaged]


@situation
def one_of_two_networks_fits(torchvision, timm):
    generator = values_of(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)), 1)
    critic, fresh = (values_of(nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 1)), seed) for seed in (2, 3))
    return {"G": generator, "D": critic}, fresh, [critic]


@situation
def two_networks_fit_equally(torchvision, timm):
    first, second, fresh = (values_of(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)), seed) for seed in (1, 2, 3))
    return {"generator": first, "discriminator": second}, fresh, ()


@situation
def a_student_and_a_teacher(torchvision, timm):
    student, teacher, fresh = (small_vit(timm, seed, classes=0) for seed in (1, 2, 3))
    return {
        "student": {f"module.backbone.{key}": value for key, value in student.items()},
        "teacher": {f"backbone.{key}": value for key, value in teacher.items()},
    }, fresh, ()  # fmt: skip


@situation
def a_projector_is_left(torchvision, timm):
    ours = {key: value for key, value in resnet(torchvision, 1).items() if not key.startswith("fc.")}
    projector = values_of(nn.Sequential(nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 64)), 5)
    fresh = resnet(torchvision, 2, classes=4)
    run = {**{f"encoder.{key}": value for key, value in ours.items()}, **{f"projector.{key}": value for key, value in projector.items()}}
    return run, fresh, [{**fresh, **ours}]


@situation
def without_counters(torchvision, timm):
    ours, fresh = resnet(torchvision, 1), resnet(torchvision, 2)
    return {key: value for key, value in ours.items() if not key.endswith("tracked")}, fresh, [
        {key: fresh[key] if key.endswith("tracked") else value for key, value in ours.items()}
    ]  # fmt: skip


@situation
def other_words_for_norms(torchvision, timm):
    ours = small_vit(timm, 1)
    return renamed(ours, (r"(norm\d?)\.weight", r"\1.gamma"), (r"(norm\d?)\.bias", r"\1.beta")), small_vit(timm, 2), [ours]


@situation
def a_prefix_for_another(torchvision, timm):
    ours, fresh = ({key: value for key, value in resnet(torchvision, seed).items() if not key.startswith("fc.")} for seed in (1, 2))
    return (
        {f"feature_extractor.{key}": value for key, value in ours.items()},
        {f"img_backbone.{key}": value for key, value in fresh.items()},
        [{f"img_backbone.{key}": value for key, value in ours.items()}],
    )


@situation
def a_wrapper_in_the_middle(torchvision, timm):
    ours, fresh = (values_of(Together(backbone=torchvision.models.resnet18(num_classes=10), head=nn.Linear(10, 3)), seed) for seed in (1, 2))
    return renamed(ours, (r"^backbone\.", "backbone.module.")), fresh, [ours]


@situation
def half_precision(torchvision, timm):
    halves = {key: value.half() if value.is_floating_point() else value for key, value in resnet(torchvision, 1).items()}
    return halves, resnet(torchvision, 2), [{key: value.float() if value.is_floating_point() else value for key, value in halves.items()}]


@situation
def joined_queries_keys_and_values(torchvision, timm):
    ours, apart = small_vit(timm, 1), {}
    for key, value in ours.items():
        parts = value.chunk(3) if ".qkv." in key else [value]
        names = [key.replace(".qkv.", f".{part}_proj.") for part in "qkv"] if ".qkv." in key else [key]
        apart |= {name: part.clone() for name, part in zip(names, parts, strict=True)}
    return ours, {key: torch.randn(value.shape) for key, value in apart.items()}, [apart]


@situation
def a_deeper_network(torchvision, timm):
    return small_vit(timm, 1), small_vit(timm, 2, depth=5), ()


@situation
def another_width(torchvision, timm):
    narrow, wide = (torchvision.models.mobilenet_v2(num_classes=5, width_mult=width) for width in (0.35, 0.5))
    return values_of(narrow, 1), values_of(wide, 2), ()


@situation
def adapters_that_are_not_merged(torchvision, timm):
    plain, unmerged = small_vit(timm, 1, classes=0), {}
    for key, value in plain.items():
        module, _, leaf = key.rpartition(".")
        if module.endswith("qkv"):
            unmerged[f"{module}.base_layer.{leaf}"] = value
            if leaf == "weight":
                unmerged[f"{module}.lora_A.default.weight"] = torch.randn(4, value.shape[1])
                unmerged[f"{module}.lora_B.default.weight"] = torch.randn(value.shape[0], 4)
        else:
            unmerged[key] = value
    return {f"base_model.model.{key}": value for key, value in unmerged.items()}, small_vit(timm, 2, classes=0), ()


@situation
def a_run_with_its_optimizer(torchvision, timm):
    ours = resnet(torchvision, 1)
    optimizer = {"state": {0: {"exp_avg": torch.rand(3)}}, "param_groups": [{"params": [0]}]}
    return {"net": ours, "optim": optimizer, "step": 4}, resnet(torchvision, 2), [ours]


@situation
def a_masked_weight(torchvision, timm):
    pruned = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    for part in pruned:
        prune.random_unstructured(part, "weight", 0.5)
    return values_of(pruned, 1), values_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), 2), ()


@situation
def a_file_without_a_stage(torchvision, timm):
    source = values_of(torchvision.models.resnet50(num_classes=10), 1)
    stage = [key for key in source if key.startswith("layer3.")]
    return {key: value for key, value in source.items() if key not in stage}, values_of(torchvision.models.resnet50(num_classes=10), 2), ()
