"""Where the bytes of each output tensor come from: moved as they are, or computed by a
step's ops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.tensors import Catalog, DType
from ckpt_tool.torch_bridge import to_bytes, to_tensor, torch_dtype

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Extent, SourceFile
    from ckpt_tool.mapping.plan import Plan, Step


class TensorSource(Protocol):
    """What the engine needs of an open checkpoint, on disk or in memory."""

    path: str
    catalog: Catalog
    metadata: Mapping[str, str]
    files: tuple[SourceFile, ...]

    @property
    def versions(self) -> Mapping[str, Mapping[str, object]]:
        """torch's `state_dict._metadata`, by module."""

    def extent(self, key: str) -> Extent | None:
        """The byte range that is this tensor as it stands, None where there is none."""

    def extents(self, key: str) -> tuple[Extent, ...]:
        """The byte ranges that are this tensor one after the other, none where there are none."""

    def chunks(self, key: str) -> Iterator[bytes]:
        """The contiguous little-endian bytes in pieces."""

    def check(self, keys: Iterable[str]) -> None:
        """Raises FormatError where the bytes of these are not those of their checksums."""


@frozen
class ByteSource:
    """Where an output tensor's bytes come from when they move as they are."""

    checkpoint: TensorSource
    key: str


def moved_tensors(
    plan: Plan, source: TensorSource, target: TensorSource | None
) -> dict[str, ByteSource]:
    """The tensors that move unchanged, by output key; what ops compute is not among them."""
    origins = {}
    for step in plan.steps:
        if all(op.name == "copy" for op in step.ops):
            origins.update({output: ByteSource(source, step.inputs[0]) for output in step.outputs})
    if target is not None:
        origins.update({key: ByteSource(target, key) for key in plan.kept})
    if plan.dtype is None:
        return origins
    return {key: origin for key, origin in origins.items() if not _casts(plan, origin)}


def _casts(plan: Plan, origin: ByteSource) -> bool:
    given = origin.checkpoint.catalog[origin.key].dtype
    return given.is_floating and given is not plan.dtype


def computed_tensors(
    plan: Plan, source: TensorSource, target: TensorSource | None, wanted: Collection[str]
) -> Iterator[tuple[str, memoryview]]:
    """The keys among `wanted` that are computed, with their bytes, step by step: one step's tensors
    are in memory at a time.
    """
    for step in plan.steps:
        if any(key in wanted for key in step.outputs):
            for key, tensor in zip(step.outputs, _results(step, source, target), strict=True):
                if key in wanted:
                    yield key, to_bytes(_cast(tensor, plan.dtype))
    for key in plan.kept:
        if key in wanted and target is not None:
            yield key, to_bytes(_cast(_tensor(key, target), plan.dtype))


def output_tensors(
    plan: Plan, source: TensorSource, target: TensorSource | None
) -> dict[str, torch.Tensor]:
    """The plan's outputs as tensors, in its order, each in memory of its own.

    Raises RuleError for values that a rule forbids.
    """
    made: dict[str, torch.Tensor] = {}
    for step in plan.steps:
        made.update(zip(step.outputs, _results(step, source, target), strict=True))
    if target is not None:
        made.update((key, _tensor(key, target)) for key in plan.kept)
    return {key: _cast(made[key], plan.dtype) for key in plan.outputs}


def _results(step: Step, source: TensorSource, target: TensorSource | None) -> list[torch.Tensor]:
    own = (lambda: _tensor(step.outputs[0], target)) if target is not None else None
    return apply_step(step, [_tensor(key, source) for key in step.inputs], own)


def _tensor(key: str, checkpoint: TensorSource) -> torch.Tensor:
    info, extent = checkpoint.catalog[key], checkpoint.extent(key)
    content = extent.read_all() if extent else bytearray().join(checkpoint.chunks(key))
    return to_tensor(content, info.dtype, info.shape)


def _cast(tensor: torch.Tensor, dtype: DType | None) -> torch.Tensor:
    return (
        tensor.to(torch_dtype(dtype))
        if dtype is not None and tensor.is_floating_point()
        else tensor
    )
