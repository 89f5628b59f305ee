"""What a checkpoint contains, as plain values: element types, tensors by key, and catalogs
of them.
"""

from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import field
from enum import Enum
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, TypeVar
from warnings import warn

from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class DType(Enum):
    """An element type under its safetensors name; `bits` is the size of one element.

    The names of the first group are safetensors' own (its README and `tensor.rs`). The second group
    exists in torch alone.

    Compares equal to the torch dtype of the same kind, but has another hash: don't mix both in sets
    or as keys of dicts.

    >>> DType("BF16").itemsize, DType.BF16.is_floating, DType.I64.is_floating
    (2, True, False)
    """

    F64 = "F64"
    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    F8_E4M3 = "F8_E4M3"
    F8_E5M2 = "F8_E5M2"
    F8_E8M0 = "F8_E8M0"
    F8_E4M3FNUZ = "F8_E4M3FNUZ"
    F8_E5M2FNUZ = "F8_E5M2FNUZ"
    F6_E2M3 = "F6_E2M3"
    F6_E3M2 = "F6_E3M2"
    F4 = "F4"
    I64 = "I64"
    I32 = "I32"
    I16 = "I16"
    I8 = "I8"
    U64 = "U64"
    U32 = "U32"
    U16 = "U16"
    U8 = "U8"
    BOOL = "BOOL"
    C64 = "C64"

    C128 = "C128"
    C32 = "C32"

    # There is one object for each: Enum's own hash, of the name, costs a call.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if self is other or type(other) is DType:
            return self is other
        of = type(other)
        if (of.__module__, of.__name__) != ("torch", "dtype"):
            return NotImplemented
        return TORCH_NAMES.get(self) == str(other).removeprefix("torch.")

    @property
    def bits(self) -> int:
        """The size of one element."""
        return _BITS[self]

    @property
    def itemsize(self) -> int:
        """Bytes of one element; 0 for the types below a byte (F4, F6), which only have a size as
        whole tensors.
        """
        return _BITS[self] // 8

    @property
    def is_floating(self) -> bool:
        """Whether elements are real floats."""
        return self.value[0] in "FB" and self is not DType.BOOL

    @property
    def is_complex(self) -> bool:
        """Whether an element is a pair of floats."""
        return self.value[0] == "C"


_BITS = {
    DType.F64: 64, DType.F32: 32, DType.F16: 16, DType.BF16: 16, DType.F8_E4M3: 8,
    DType.F8_E5M2: 8, DType.F8_E8M0: 8, DType.F8_E4M3FNUZ: 8, DType.F8_E5M2FNUZ: 8,
    DType.F6_E2M3: 6, DType.F6_E3M2: 6, DType.F4: 4, DType.I64: 64, DType.I32: 32, DType.I16: 16,
    DType.I8: 8, DType.U64: 64, DType.U32: 32, DType.U16: 16, DType.U8: 8, DType.BOOL: 8,
    DType.C64: 64, DType.C128: 128, DType.C32: 32,
}  # fmt: skip

TORCH_NAMES: dict[DType, str] = {
    DType.F64: "float64", DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16",
    DType.F8_E4M3: "float8_e4m3fn", DType.F8_E5M2: "float8_e5m2", DType.F8_E8M0: "float8_e8m0fnu",
    DType.F8_E4M3FNUZ: "float8_e4m3fnuz", DType.F8_E5M2FNUZ: "float8_e5m2fnuz",
    DType.F4: "float4_e2m1fn_x2", DType.I64: "int64", DType.I32: "int32", DType.I16: "int16",
    DType.I8: "int8", DType.U64: "uint64", DType.U32: "uint32", DType.U16: "uint16",
    DType.U8: "uint8", DType.BOOL: "bool", DType.C64: "complex64", DType.C128: "complex128",
    DType.C32: "complex32",
}  # fmt: skip
"""torch's attribute name of each element type; F6 has none, and `float4_e2m1fn_x2` packs two F4
elements.
"""

Shape = tuple[int, ...]


def nbytes_of(dtype: DType, shape: Shape) -> int:
    """Bytes of a contiguous tensor. Types below a byte are packed without padding between
    elements.
    """
    return (prod(shape) * _BITS[dtype] + 7) // 8


@lru_cache(maxsize=1 << 12)
def shape_text(shape: Shape) -> str:
    """A shape for people: `64×3×7×7`, or `scalar`."""
    return "×".join(map(str, shape)) or "scalar"


def counted(count: int, noun: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


@frozen
class TensorInfo:
    """One tensor of a checkpoint, without its values.

    `shared_storage_with` names the first key of the checkpoint that lies in the same storage (a
    tied weight, or another view), or is None; `tied_to` the first key that is this very tensor, the
    same bytes of that storage seen the same way (a tied weight alone). `span` is where in the
    storage it begins and ends, in bytes; None where that isn't known.

    >>> info = TensorInfo("fc.weight", DType.BF16, (10, 4))
    >>> info.dtype.value, info.shape, info.nbytes
    ('BF16', (10, 4), 80)
    """

    key: str
    dtype: DType
    shape: Shape
    shared_storage_with: str | None = None
    tied_to: str | None = None
    span: tuple[int, int] | None = field(default=None, compare=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its values, side by side."""
        return nbytes_of(self.dtype, self.shape)

    @property
    def same_as(self) -> str | None:
        """The old name of `tied_to`."""
        warn("`same_as` is called `tied_to`", DeprecationWarning, stacklevel=2)
        return self.tied_to

    @property
    def shares(self) -> str | None:
        """The old name of `shared_storage_with`."""
        warn("`shares` is called `shared_storage_with`", DeprecationWarning, stacklevel=2)
        return self.shared_storage_with


class OnDisk:
    """A tensor of an open checkpoint that is read when it is asked for."""

    __slots__ = ()

    @property
    def identity(self) -> object:
        """The same for the keys of a tied weight."""
        raise NotImplementedError

    def read(self) -> "torch.Tensor":
        """All of it, in memory of its own."""
        raise NotImplementedError


@frozen
class UnreadableTensor:
    """A tensor that a checkpoint names but whose values can't be read: quantised, sparse, a part of
    a distributed one.

    `kind` is one or two words for all of its like (`quantised`, `sparse`, `DTensor`), `text` says
    the rest. `shape` is None where the file doesn't tell it.
    """

    key: str
    kind: str
    shape: Shape | None = None
    text: str = ""


def distinct_of(infos: Iterable[TensorInfo]) -> Collection[TensorInfo]:
    """The tensors, of those that are tied to each other only the first.

    >>> a, b = TensorInfo("a", DType.F32, (2,)), TensorInfo("b", DType.F32, (2,), "a", "a")
    >>> [info.shape for info in distinct_of([a, b])]
    [(2,)]
    """
    found: dict[str, TensorInfo] = {}
    for info in infos:
        found.setdefault(info.tied_to or info.key, info)
    return found.values()


def stored_in(infos: Iterable[TensorInfo]) -> tuple[int, int, int]:
    """How many elements and bytes tensors hold, what several of them share counted once; and how
    many of them share all or a part of theirs with one before.

    >>> a, b = TensorInfo("a", DType.F32, (4,), span=(0, 16)), ("a", None, (0, 8))
    >>> stored_in([a, TensorInfo("b", DType.F32, (2,), *b), TensorInfo("c", DType.F32, (1,))])
    (5, 20, 1)
    """
    listed = list(infos)
    distinct = distinct_of(listed)
    elements = nbytes = 0
    shared = len(listed) - len(distinct)
    for group in _by_storage(distinct):
        whole, size = sum(prod(info.shape) for info in group), sum(info.nbytes for info in group)
        covered = _covered(group)
        if covered is not None and covered < size:
            shared += len(group) - 1
            whole, size = covered * 8 // group[0].dtype.bits, covered
        elements, nbytes = elements + whole, nbytes + size
    return elements, nbytes, shared


def overlapping(infos: Iterable[TensorInfo]) -> list[list[TensorInfo]]:
    """The tensors that lie over each other in one storage without being one, those of each storage
    together, the first first.
    """
    groups = _by_storage(distinct_of(infos))
    sizes = ((_covered(group), sum(info.nbytes for info in group)) for group in groups)
    return [
        group
        for group, (covered, size) in zip(groups, sizes, strict=True)
        if covered is not None and covered < size
    ]


def _by_storage(infos: Iterable[TensorInfo]) -> list[list[TensorInfo]]:
    groups: dict[str, list[TensorInfo]] = {}
    for info in infos:
        groups.setdefault(info.shared_storage_with or info.key, []).append(info)
    return list(groups.values())


def _covered(group: Sequence[TensorInfo]) -> int | None:
    """How many bytes of their storage several tensors reach over; None where it isn't known."""
    spans = [info.span for info in group if info.span is not None]
    if len(group) == 1 or len(spans) < len(group):
        return None
    count, reached = 0, 0
    for start, end in sorted(spans):
        count += max(0, end - max(start, reached))
        reached = max(reached, end)
    return count


class Catalog(Mapping[str, TensorInfo]):
    """The tensors of a checkpoint by key, in the order in which the checkpoint has them.

    `is_ordered` says whether that is the order of the model's modules; it is False if a writer
    sorted the keys. `is_declared`: it is surely that, since they were asked of the model itself, or
    torch has noted its modules in the same order. `unreadable` are keys of the same state dict
    whose values can't be read: they must be accounted for like others, but are not members of the
    mapping.

    >>> catalog = Catalog([TensorInfo("fc.weight", DType.F32, (10, 4))])
    >>> catalog["fc.weight"].shape, list(catalog), catalog.nbytes
    ((10, 4), ['fc.weight'], 160)
    """

    __slots__ = ("_by_key", "_nbytes", "is_declared", "is_ordered", "unreadable")

    def __init__(
        self,
        tensors: Iterable[TensorInfo],
        is_ordered: bool = True,
        unreadable: Iterable[UnreadableTensor] = (),
        is_declared: bool = False,
    ) -> None:
        self._by_key = {tensor.key: tensor for tensor in tensors}
        self._nbytes: int | None = None
        self.is_ordered = is_ordered
        self.is_declared = is_declared
        self.unreadable: Mapping[str, UnreadableTensor] = {
            tensor.key: tensor for tensor in unreadable
        }

    def __getitem__(self, key: str) -> TensorInfo:
        return self._by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def get(self, key: str, default: T | None = None) -> TensorInfo | T | None:  # type: ignore[override]
        """The tensor of a key, or the default."""
        return self._by_key.get(key, default)

    def items(self) -> ItemsView[str, TensorInfo]:
        """Keys and tensors, in the checkpoint's order."""
        return self._by_key.items()

    def values(self) -> ValuesView[TensorInfo]:
        """The tensors, in the checkpoint's order."""
        return self._by_key.values()

    def __repr__(self) -> str:
        return f"Catalog({counted(len(self), 'tensor')}, {self.nbytes} bytes)"

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, each counted though it may share its storage."""
        if self._nbytes is None:
            self._nbytes = sum(
                [nbytes_of(tensor.dtype, tensor.shape) for tensor in self._by_key.values()]
            )
        return self._nbytes

    @property
    def distinct_nbytes(self) -> int:
        """Bytes of all tensors, what several keys share once: a tied weight, and other views of the
        same numbers.
        """
        return stored_in(self._by_key.values())[1]
