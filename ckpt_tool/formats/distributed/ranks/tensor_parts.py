"""DTensors and ShardedTensors of one process's file: which boxes of the whole its local tensors
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.rank_files import MAX_RANKS, locate
from ckpt_tool.formats.distributed.ranks.local_parts import (
    Boxes,
    Cut,
    PartFault,
    boxes_by_law,
    check_factor,
)
from ckpt_tool.formats.distributed.ranks.meshes import Mesh, mesh_of
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.unreadable import attribute, dimensions, torch_type_name
from ckpt_tool.formats.pickle.values import Global, Opaque, OpaqueTensor, TensorRef
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, Shape, shape_text
from ckpt_tool.torch_bridge import DTYPES

MAX_PROCESSES = 1 << 22
"""The processes in all meshes of a file: a few meshes serve all of its tensors."""
LocalBoxes = tuple[tuple[Region, TensorRef], ...]
"""Boxes of the whole, each with the tensor that is this part of it."""
KINDS = ("DTensor", "ShardedTensor")


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the whole with the boxes that one file has, by either law of `boxes_by_law`;
    `local` is what they lie in, by which tied tensors are known.
    """

    shape: Shape
    dtype: DType
    boxes: tuple[LocalBoxes | None, LocalBoxes | None]
    local: TensorRef | None


@dataclass(slots=True)
class PartReader:
    """Reads the parts of one file. `highest` is the highest rank of any mesh by now; where
    `is_counted` is False, there may be higher ones.
    """

    pickled: PickledFile
    rank: int
    highest: int = -1
    is_counted: bool = True
    _processes: int = 0
    _meshes: dict[int, Mesh] = field(default_factory=dict)

    def read(self, key: str, tensor: OpaqueTensor) -> Part:
        """Raises FormatError for a part whose place isn't known."""
        try:
            return self._dtensor(tensor) if tensor.kind == "DTensor" else self._sharded(tensor)
        except PartFault as fault:
            raise FormatError(self.pickled.path, f"`{key[:200]}` {fault}") from None

    def _dtensor(self, tensor: OpaqueTensor) -> Part:
        state = tensor.inside[1] if len(tensor.inside) == 2 else None
        local, spec = attribute(state, "_local_tensor"), attribute(state, "_spec")
        shape = dimensions(tensor.shape)
        if type(local) is not TensorRef or type(spec) is not Opaque or shape is None:
            what = describe(local, 60) if type(local) is not TensorRef else "no spec"
            raise PartFault(f"is a DTensor with {what} in place of its local part and its spec")
        _check_meta(spec, shape)
        mesh = self._mesh(attribute(spec.state, "mesh"))
        own = dimensions(local.shape)
        if own is None:
            raise PartFault("has a local part of an impossible shape")
        if mesh.coordinate is None:
            return Part(shape, local.dtype, ((), ()), None)
        cuts = list(_cuts(attribute(spec.state, "placements"), mesh, mesh.coordinate, shape))
        first, second = boxes_by_law(shape, cuts, own)
        boxes = _narrowed_each(local, first)
        others = boxes if second is first else _narrowed_each(local, second)
        return Part(shape, local.dtype, (boxes, others), local)

    def _mesh(self, value: object) -> Mesh:
        found = self._meshes.get(id(value))
        if found is None:
            found = self._meshes[id(value)] = mesh_of(value, self.rank, self._integers)
            self._processes += prod(found.shape)
            if self._processes > MAX_PROCESSES:
                raise PartFault(f"is the tensor with whose mesh there are {len(self._meshes):,}")
            self.highest = max(self.highest, found.highest)
        return found

    def _integers(self, tensor: TensorRef) -> tuple[int, ...]:
        """The values of a mesh's ranks."""
        measured, placement = locate(tensor, "a mesh's ranks", self.pickled)
        info = measured.info
        is_plain = isinstance(placement, Extent) and info.dtype in (DType.I32, DType.I64)
        if not is_plain or info.nbytes > MAX_RANKS * 8:
            raise PartFault("has a mesh whose ranks are not a plain list of numbers")
        assert isinstance(placement, Extent)
        raw, size = placement.read(), info.dtype.itemsize
        ranks = tuple(
            int.from_bytes(raw[at : at + size], "little", signed=True)
            for at in range(0, len(raw), size)
        )
        if any(not 0 <= rank < MAX_RANKS for rank in ranks):
            raise PartFault("has a mesh with ranks that no run has")
        return ranks

    def _sharded(self, tensor: OpaqueTensor) -> Part:
        state = tensor.inside[1] if len(tensor.inside) == 2 else None
        if not isinstance(state, tuple) or len(state) < 2 or not isinstance(state[0], list):
            raise PartFault("is a ShardedTensor without its local shards")
        stated = attribute(state[1].state, "size") if type(state[1]) is Opaque else None
        shape = dimensions(tuple(stated) if isinstance(stated, list) else stated)
        if shape is None or shape != dimensions(tensor.shape):
            raise PartFault("is a ShardedTensor whose metadata has another size")
        world = attribute(state[2].state, "global_world_size") if _is_object(state, 2) else None
        if type(world) is int and 1 <= world <= MAX_RANKS:
            self.highest = max(self.highest, world - 1)
        else:
            self.is_counted = False
        boxes = tuple(_shard(one) for one in state[0])
        if not boxes:
            return Part(shape, _dtype(tensor), (boxes, boxes), None)
        return Part(shape, boxes[0][1].dtype, (boxes, boxes), boxes[0][1])


def _is_object(values: tuple[object, ...], at: int) -> bool:
    return len(values) > at and type(values[at]) is Opaque


def _shard(value: object) -> tuple[Region, TensorRef]:
    state = value.state if type(value) is Opaque else None
    local, stated = attribute(state, "tensor"), attribute(state, "metadata")
    place = stated.state if type(stated) is Opaque else None
    offsets, sizes = (_sizes(attribute(place, name)) for name in ("shard_offsets", "shard_sizes"))
    if type(local) is not TensorRef or offsets is None or sizes is None:
        raise PartFault("has a local shard without a tensor or its place")
    if dimensions(local.shape) != sizes or len(offsets) != len(sizes):
        own = dimensions(local.shape)
        raise PartFault(
            f"has a local shard of {shape_text(own) if own is not None else 'no shape'}; "
            f"its metadata says {shape_text(sizes)}"
        )
    return Region(offsets, sizes), local


def _sizes(value: object) -> Shape | None:
    return dimensions(tuple(value)) if isinstance(value, list | tuple) else None


def _dtype(tensor: OpaqueTensor) -> DType:
    """The type that a tensor without a local part is said to have."""
    inner = tensor.inside[0]
    found = DTYPES.get(torch_type_name(inner[1])) if isinstance(inner, tuple) else None
    if found is None:
        raise PartFault("is of a type that can't be read")
    return found


def _check_meta(spec: Opaque, shape: Shape) -> None:
    meta = attribute(spec.state, "tensor_meta")
    stated = dimensions(meta.args[0]) if type(meta) is Opaque and meta.args else shape
    if stated != shape:
        text = shape_text(stated) if stated is not None else "none"
        raise PartFault(f"has the shape {shape_text(shape)}; its spec says {text}")


def _cuts(placements: object, mesh: Mesh, at: Shape, shape: Shape) -> Iterator[Cut]:
    """What each mesh dimension does."""
    if not isinstance(placements, tuple | list) or len(placements) != len(mesh.shape):
        raise PartFault(
            f"has placements for another mesh than its own of {len(mesh.shape)} dimensions"
        )
    for axis, placement in enumerate(placements):
        name = _class_name(placement)
        if name == "Replicate":
            continue
        if name not in ("Shard", "_StridedShard"):
            raise PartFault(
                "is a partial sum: each rank has a summand, and no rank the tensor"
                if name in ("Partial", "_Partial")
                else f"is placed as {name}, which is not known here"
            )
        state = placement.state if type(placement) is Opaque else None
        dim = attribute(state, "dim")
        if type(dim) is not int or not -len(shape) <= dim < len(shape):
            raise PartFault(f"is cut along dimension {describe(dim, 20)} of {len(shape)}")
        factor = check_factor(attribute(state, "split_factor")) if name != "Shard" else 1
        yield Cut(dim % len(shape), mesh.shape[axis], at[axis], factor)


def _class_name(value: object) -> str:
    kind = value.callee if type(value) is Opaque else None
    if type(kind) is Global and kind.module.startswith("torch.distributed."):
        return kind.name
    return describe(value, 60)


def _narrowed_each(tensor: TensorRef, boxes: Boxes | None) -> LocalBoxes | None:
    if boxes is None:
        return None
    return tuple((whole, _narrowed(tensor, part)) for whole, part in boxes)


def _narrowed(tensor: TensorRef, part: Region) -> TensorRef:
    """A box of a local tensor."""
    shape, stride, offset = tensor.shape, tensor.stride, tensor.offset
    if part.shape == shape:
        return tensor
    if type(stride) is not tuple or type(offset) is not int or len(stride) != len(part.offsets):
        raise PartFault("has a local part of an impossible stride")
    start = offset + sum(at * step for at, step in zip(part.offsets, stride, strict=True))
    return replace(tensor, shape=part.shape, offset=start)
