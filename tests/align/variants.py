"""The ResNet-50 to detector job and nine hard variants of it: pairs of catalogs with the pairs of keys that can be known."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from truths import FOLDER, read_truth

from ckpt_tool.tensors import Catalog, DType, TensorInfo

JOB = FOLDER / "seed_resnet50_to_yolo_net.json.gz"


@dataclass(frozen=True)
class Variant:
    """`known` are the pairs that names and shapes decide, by target key; `unknown` target keys have a source, but nobody can know which.

    `hint` settles what is unknown.
    """

    name: str
    source: Catalog
    target: Catalog
    known: dict[str, str]
    unknown: dict[str, str] = field(default_factory=dict)
    hint: tuple[str, str] | None = None


def variants() -> list[Variant]:
    return [make() for make in _MAKERS]


def _job(path: Path = JOB) -> tuple[Catalog, Catalog, dict[str, str]]:
    truth = read_truth(path)
    return truth.source, truth.target, {key: entry["sources"][0] for key, entry in truth.entries.items()}


def _renamed(catalog: Catalog, name: Callable[[str], str]) -> Catalog:
    return Catalog([TensorInfo(name(key), info.dtype, info.shape) for key, info in catalog.items()])


def as_it_is() -> Variant:
    return Variant("as it is", *_job())


def shuffled() -> Variant:
    source, target, pairs = _job()
    keys = list(target)
    random.Random(0).shuffle(keys)
    return Variant("shuffled", source, Catalog([target[key] for key in keys]), pairs)


def _by_module(catalog: Catalog, name: str) -> dict[str, str]:
    """Keys with their modules numbered in order, under one name."""
    modules: dict[str, int] = {}
    found = {}
    for key in catalog:
        module, _, leaf = key.rpartition(".")
        found[key] = f"{name}{modules.setdefault(module, len(modules))}.{leaf}"
    return found


def opaque() -> Variant:
    source, target, pairs = _job()
    names = _by_module(target, "m")
    return Variant("opaque names", source, _renamed(target, names.__getitem__), {names[key]: origin for key, origin in pairs.items()})


def flat() -> Variant:
    source, target, pairs = _job()
    names = _by_module(target, "model.")
    return Variant("flat model.N", source, _renamed(target, names.__getitem__), {names[key]: origin for key, origin in pairs.items()})


def deeper() -> Variant:
    source, target, pairs = _job()
    entries = []
    for key, info in target.items():
        if key.startswith("layer4.") and not any(entry.key.startswith("layer3.7.") for entry in entries):
            block = [info for key, info in target.items() if key.startswith("layer3.5.")]
            entries += [TensorInfo(i.key.replace("layer3.5.", f"layer3.{n}."), i.dtype, i.shape) for n in (6, 7) for i in block]
        entries.append(info)
    return _uneven("two blocks deeper", source, Catalog(entries), pairs)


def shallower() -> Variant:
    source, target, pairs = _job()
    gone = ("layer3.4.", "layer3.5.")
    left = {key: origin for key, origin in pairs.items() if not key.startswith(gone)}
    return _uneven("two blocks shallower", source, Catalog([i for key, i in target.items() if not key.startswith(gone)]), left)


def _uneven(name: str, source: Catalog, target: Catalog, pairs: dict[str, str]) -> Variant:
    """Which of the equal blocks of layer3 are the ones that both have, nothing tells; the first is unlike the others."""
    unknown = {key: origin for key, origin in pairs.items() if key.startswith("layer3.") and not key.startswith("layer3.0.")}
    known = {key: origin for key, origin in pairs.items() if key not in unknown}
    return Variant(name, source, target, known, unknown, ("layer3.1.conv1.weight", "layer3.1.bottleneck.0.weight"))


def two_towers() -> Variant:
    source, target, pairs = _job()
    towers = [TensorInfo(f"{side}.{key}", i.dtype, i.shape) for side in ("first", "second") for key, i in target.items()]
    backbones = [TensorInfo(f"{side}.{key}", i.dtype, i.shape) for side in ("rgb", "depth") for key, i in source.items()]
    unknown = {
        f"{theirs}.{key}": f"{ours}.{origin}" for theirs, ours in (("first", "rgb"), ("second", "depth")) for key, origin in pairs.items()
    }
    hint = ("rgb.layer1.0.conv1.weight", "first.layer1.0.bottleneck.0.weight")
    return Variant("two equal towers", Catalog(backbones), Catalog(towers), {}, unknown, hint)


def four_channels() -> Variant:
    source, target, pairs = _job()
    stem = "layer0.0.weight"
    changed = Catalog([TensorInfo(key, i.dtype, (64, 4, 7, 7)) if key == stem else i for key, i in target.items()])
    return Variant("4 input channels", source, changed, {key: origin for key, origin in pairs.items() if key != stem})


def wider() -> Variant:
    """The inner width is doubled: what keeps its shape can be paired, as the ends of the blocks do.

    The counter of a norm whose weights don't fit has no place: it would count for values that stayed behind.
    """
    source, target, pairs = _job()
    inner = (".bottleneck.0.", ".bottleneck.1.", ".bottleneck.3.", ".bottleneck.4.", ".bottleneck.6.")

    def shape(key: str, old: tuple[int, ...]) -> tuple[int, ...]:
        if not any(part in key for part in inner) or not old:
            return old
        places = {".bottleneck.6.": (1,), ".bottleneck.3.": (0, 1)}.get(next(part for part in inner if part in key), (0,))
        return tuple(size * 2 if place in places else size for place, size in enumerate(old))

    changed = Catalog([TensorInfo(key, i.dtype, shape(key, i.shape)) for key, i in target.items()])
    known = {key: origin for key, origin in pairs.items() if changed[key].shape == source[origin].shape}
    counters = {key for key in known if key.endswith("num_batches_tracked") and key.replace("num_batches_tracked", "weight") not in known}
    return Variant("another width", source, changed, {key: origin for key, origin in known.items() if key not in counters})


def transformer() -> Variant:
    """q, k, v and o of one shape, under names that mean nothing."""
    source, target, known, unknown = [], [], {}, {}
    names = {"attn.q_proj": "mix.a", "attn.k_proj": "mix.b", "attn.v_proj": "mix.c", "attn.o_proj": "mix.d"}
    others = {"attn_norm": "n1", "mlp.fc1": "wide", "mlp.fc2": "back"}
    shapes = {"attn_norm": (64,), "mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}
    for block in range(6):
        for name, other in (names | others).items():
            for leaf in ("weight", "bias"):
                full = shapes.get(name, (64, 64))
                shape = full if leaf == "weight" else full[:1]
                source.append(TensorInfo(f"layers.{block}.{name}.{leaf}", DType.F32, shape))
                target.append(TensorInfo(f"trunk.{block}.{other}.{leaf}", DType.F32, shape))
                (unknown if name in names else known)[f"trunk.{block}.{other}.{leaf}"] = f"layers.{block}.{name}.{leaf}"
    return Variant(
        "a transformer's q, k, v, o",
        Catalog(source),
        Catalog(target),
        known,
        unknown,
        ("layers.0.attn.q_proj.weight", "trunk.0.mix.a.weight"),
    )


_MAKERS = (as_it_is, shuffled, opaque, flat, deeper, shallower, two_towers, four_channels, wider, transformer)
