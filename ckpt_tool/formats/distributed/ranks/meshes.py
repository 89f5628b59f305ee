"""torch's DeviceMesh as a pickle has it: how many processes each of its dimensions has, and which
of them wrote the file.

torch up to 2.8 keeps a tensor `mesh` of ranks; later ones a list `_rank_map` and a layout of sizes
and strides over it (torch/distributed/device_mesh.py, _mesh_layout.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from ckpt_tool.formats.distributed.rank_files import MAX_RANKS
from ckpt_tool.formats.distributed.ranks.local_parts import PartFault
from ckpt_tool.formats.pickle.unreadable import attribute, dimensions
from ckpt_tool.formats.pickle.values import Opaque, TensorRef
from ckpt_tool.tensors import Shape

MAX_AXES = 64
ReadIntegers = Callable[[TensorRef], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Its shape, the place in it of the process that wrote the file (None: it has none), and the
    highest of its ranks.
    """

    shape: Shape
    coordinate: Shape | None
    highest: int


def mesh_of(value: object, rank: int, read: ReadIntegers) -> Mesh:
    """The mesh that a file describes, which the process of this rank wrote. Raises PartFault."""
    state = value.state if type(value) is Opaque else None
    axes, ranks = _axes(state), _ranks(state, read)
    if len(axes) > MAX_AXES:
        raise PartFault(f"has a mesh of {len(axes)} dimensions")
    shape = tuple(prod(sizes) for sizes, _ in axes)
    if prod(shape) > MAX_RANKS:
        raise PartFault(f"has a mesh of {prod(shape):,} processes")
    placed = [ranks[at] if at < len(ranks) else -1 for at in _positions(axes)]
    if -1 in placed:
        raise PartFault("has a mesh whose layout leads out of its list of ranks")
    noted = attribute(state, "_coordinate_on_dim")
    coordinate = tuple(noted) if isinstance(noted, tuple | list) else None
    if coordinate is None:
        coordinate = _coordinate(placed.index(rank), shape) if rank in placed else None
    elif not _is_inside(coordinate, shape):
        raise PartFault(f"has a place {list(coordinate)[:8]} outside of its mesh")
    return Mesh(shape, coordinate, max(ranks, default=-1))


def _is_inside(coordinate: Shape, shape: Shape) -> bool:
    return len(coordinate) == len(shape) and all(
        type(at) is int and 0 <= at < size for at, size in zip(coordinate, shape, strict=True)
    )


def _ranks(state: object, read: ReadIntegers) -> tuple[int, ...]:
    """All ranks of the mesh, or of that of which it is a part, one after the other."""
    for name in ("_rank_map", "mesh"):
        tensor = attribute(state, name)
        if type(tensor) is TensorRef:
            return read(tensor)
    listed = dimensions(attribute(state, "_flatten_rank_map"))
    if listed is None:
        raise PartFault("has a mesh without its ranks")
    return listed


def _axes(state: object) -> list[tuple[Shape, Shape]]:
    """Of each dimension the sizes and strides over the list of ranks; there are several where
    dimensions were joined to one.
    """
    layout = attribute(state, "_layout")
    if type(layout) is Opaque:
        given = attribute(layout.state, "axes")
        axes = (
            [_axis(one.state) for one in given if type(one) is Opaque]
            if isinstance(given, tuple | list)
            else _older_axes(layout.state)
        )
        if all(len(sizes) == len(strides) for sizes, strides in axes):
            return axes
        raise PartFault("has a mesh whose sizes and strides don't belong together")
    mesh = attribute(state, "mesh")
    shape = dimensions(mesh.shape) if type(mesh) is TensorRef else None
    if shape is None:
        raise PartFault("has a mesh without a layout")
    return [((extent,), (prod(shape[axis + 1 :]),)) for axis, extent in enumerate(shape)]


def _older_axes(layout: object) -> list[tuple[Shape, Shape]]:
    """`shape` and `stride` of all dimensions (torch 2.9 to 2.12)."""
    sizes, strides = attribute(layout, "shape"), attribute(layout, "stride")
    if type(sizes) is int and type(strides) is int:
        sizes, strides = (sizes,), (strides,)
    if type(sizes) is not tuple or type(strides) is not tuple or len(sizes) != len(strides):
        raise PartFault("has a mesh whose sizes and strides don't belong together")
    return [(_flat(size), _flat(stride)) for size, stride in zip(sizes, strides, strict=True)]


def _axis(state: object) -> tuple[Shape, Shape]:
    return _flat(attribute(state, "shape")), _flat(attribute(state, "stride"))


def _flat(value: object) -> Shape:
    """A number, or a few. Raises PartFault for what is neither."""
    found = value if type(value) is tuple else (value,)
    if len(found) > MAX_AXES or not all(
        type(one) is int and 0 <= one <= MAX_RANKS for one in found
    ):
        raise PartFault("has a mesh whose sizes and strides are not numbers of processes")
    return found


def _positions(axes: list[tuple[Shape, Shape]]) -> Iterator[int]:
    """The places in the list of ranks, the last dimension fastest."""
    sizes = [size for each, _ in axes for size in each]
    strides = [stride for _, each in axes for stride in each]
    for picked in product(*map(range, sizes)):
        yield sum(at * stride for at, stride in zip(picked, strides, strict=True))


def _coordinate(at: int, shape: Shape) -> Shape:
    found: list[int] = []
    for size in reversed(shape):
        at, index = divmod(at, size)
        found.insert(0, index)
    return tuple(found)
