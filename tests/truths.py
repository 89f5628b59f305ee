"""Real conversions with their ground truth: `tests/proofs/*.json.gz`, each proved by a shipped mapping.

A proof has the keys of both sides in state_dict order and, for each target key that has a source, the operation that others' code
was observed to do. `proof` says which rule files reproduce it, and with which parameters.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ckpt_tool.tensors import Catalog, DType, TensorInfo
from ckpt_tool.torch_bridge import DTYPES

FOLDER = Path(__file__).parent / "proofs"


@dataclass(frozen=True)
class Truth:
    name: str
    source: Catalog
    target: Catalog
    entries: dict[str, dict]
    fresh: frozenset[str]
    unused: frozenset[str]
    ties: tuple[tuple[str, ...], ...]
    proof: dict

    @property
    def tied(self) -> frozenset[str]:
        return frozenset(key for group in self.ties for key in group)

    def source_values(self) -> dict[str, torch.Tensor]:
        """Random tensors for the source; keys that are tied have one."""
        values = random_tensors(self.source, 1)
        return values | {key: values[group[0]] for group in self.ties for key in group}


def read_truth(path: Path) -> Truth:
    job = json.loads(gzip.decompress(path.read_bytes()))
    entries = {entry["target"]: entry for entry in job["truth"]}
    sides = (_catalog(job["source"]), _catalog(job["target"]))
    ties = tuple(tuple(group) for group in job.get("source_ties", ()))
    fresh, unused = frozenset(job["fresh"]), frozenset(job["unused"])
    return Truth(path.name.removesuffix(".json.gz"), *sides, entries, fresh, unused, ties, job["proof"])


def _catalog(entries: list[dict]) -> Catalog:
    return Catalog([TensorInfo(each["key"], DTYPES[each["dtype"]], tuple(each["shape"])) for each in entries])


def random_tensors(catalog: Catalog, seed: int) -> dict[str, torch.Tensor]:
    """Seeded values for every tensor, counters too, all different."""
    generator = torch.Generator().manual_seed(seed)
    return {key: _random(info, generator) for key, info in catalog.items()}


def _random(info: TensorInfo, generator: torch.Generator) -> torch.Tensor:
    if info.dtype is DType.BOOL:
        return torch.rand(info.shape, generator=generator) > 0.5
    if info.dtype.is_floating or info.dtype.is_complex:
        return torch.randn(info.shape, generator=generator).to(getattr(torch, next(n for n, d in DTYPES.items() if d is info.dtype)))
    return torch.randint(0, 100, info.shape, generator=generator).to(getattr(torch, next(n for n, d in DTYPES.items() if d is info.dtype)))


def expected(entry: dict, source: dict[str, torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """What the target tensor of an entry must be."""
    if entry["op"] == "weight_norm_fold":
        g, v = (source[key] for key in entry["sources"])
        return torch._weight_norm(v, g, entry["args"]["dim"])
    node = entry["args"].get("tree") or {"src": entry["sources"][0], "op": entry["op"], "args": entry["args"]}
    return _node(node, source, shape)


def _node(node: dict, source: dict[str, torch.Tensor], shape: tuple[int, ...] | None) -> torch.Tensor:
    if "parts" in node:
        return torch.cat([_node(part, source, part.get("shape")) for part in node["parts"]], node["args"]["dim"])
    if node["src"] is None:
        return torch.zeros(shape or node["args"]["shape"])
    value = _leaf(node["op"], node["args"], source[node["src"]].contiguous())
    return value if shape is None else value.reshape(shape)


def _leaf(op: str, args: dict, value: torch.Tensor) -> torch.Tensor:
    if op in ("view", "permute_rope", "slice_permute_rope"):
        return torch.as_strided(value.reshape(-1), args["sizes"], args["strides"], args["base"]).reshape(args["shape"])
    if op == "transpose":
        return value.t()
    if op == "index_select":
        return value.index_select(args["dim"], torch.tensor(args["index"]))
    if op.startswith(("split", "slice")):
        value = value.narrow(args["dim"], args["start"], args["length"])
    value = value.permute(args["dims"]) if "dims" in args else value
    return value.reshape(args["shape"]) if "shape" in args else value
