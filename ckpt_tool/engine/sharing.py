"""Which tensors of an output are one: those that come from one tensor in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_tool.engine.layouts.layout import OutputTensor
from ckpt_tool.tensors import Catalog, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.engine.filling import Job
    from ckpt_tool.engine.sources import ByteSource


def members_of(
    job: Job, outputs: Catalog, origins: Mapping[str, ByteSource]
) -> Iterator[OutputTensor]:
    """The output's tensors in their order; one that is sure to be an earlier one says so."""
    owners: dict[object, list[tuple[object, str]]] = {}
    for key, info in outputs.items():
        base, way = _value(job, key, origins)
        alike = owners.setdefault(base, [])
        owner = next((name for other, name in alike if other == way), None)
        if owner is None:
            alike.append((way, key))
        yield OutputTensor(TensorInfo(key, info.dtype, info.shape), owner)


def _value(job: Job, key: str, origins: Mapping[str, ByteSource]) -> tuple[object, object]:
    """Equal for two outputs that are one tensor: what it is made of, and in which way.

    A way that needs the target's own tensor gives one value only where this is one, too.
    """
    if (origin := origins.get(key)) is not None:
        return (id(origin.checkpoint), _first(origin.checkpoint.catalog, origin.key)), None
    if key not in job.plan.producers:
        return "kept", _first(job.plan.target, key)
    step = job.plan.producers[key][0]
    own = (
        _first(job.plan.target, key)
        if any(getattr(op, "needs_target", False) for op in step.ops)
        else None
    )
    base = _first(job.plan.source, step.inputs[0]) if step.inputs else ""
    return ("computed", base), (job.plan.identities[key], own)


def _first(catalog: Catalog | None, key: str) -> str:
    return (catalog[key].tied_to if catalog and key in catalog else None) or key
