"""A tensor of an open checkpoint that is read when it is asked for: all of it, or some rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, OnDisk, Shape, nbytes_of, shape_text
from ckpt_tool.torch_bridge import to_tensor

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Checkpoint


class LazyTensor(OnDisk):
    """One tensor on disk: its `key`, `shape`, `dtype` and `nbytes` are known, its values are read
    by `read()` or by an index.

    An index of numbers and slices reads about the bytes that it asks for, in whatever number of
    files these lie; then no checksum of the whole tensor is looked at. What would need values,
    `==` too, raises TypeError; `dtype` equals torch's own. Pickled, by `torch.save` too, it is read
    and becomes the tensor itself; where a state dict has one, the functions here read it.

    >>> import ckpt_tool, torch
    >>> torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, "model.pth")
    >>> with ckpt_tool.open("model.pth") as checkpoint:
    ...     weight = checkpoint["conv1.weight"]
    ...     weight.shape, weight[:8].shape, float(weight[0, 0, 0, 0])
    ...     weight.read().mean()
    ((64, 3, 7, 7), torch.Size([8, 3, 7, 7]), 1.0)
    tensor(1.)
    """

    __slots__ = ("_checkpoint", "dtype", "key", "nbytes", "shape")

    def __init__(self, checkpoint: Checkpoint, key: str) -> None:
        info = checkpoint.catalog[key]
        self._checkpoint = checkpoint
        self.key: str = key
        self.dtype: DType = info.dtype
        self.shape: Shape = info.shape
        self.nbytes: int = info.nbytes

    def __repr__(self) -> str:
        return f"LazyTensor({self.key!r}, {self.dtype.value} {shape_text(self.shape)})"

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def dim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def numel(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    def size(self, dim: int | None = None) -> Shape | int:
        """Its shape, or the size of one dimension. Raises IndexError for one that it hasn't."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar")
        return self.shape[0]

    def __dlpack__(self, **options: object) -> object:
        """All of it for other libraries: `torch.as_tensor(checkpoint[key])` reads the tensor."""
        give: Callable[..., object] = self.read().__dlpack__
        return give(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU, as DLPack has it."""
        return 1, 0

    def __getattr__(self, name: str) -> NoReturn:
        hint = "" if name.startswith("_") or name in self.__slots__ else f"; {self._how_to_read()}"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def _unread(self, *_others: object) -> NoReturn:
        raise TypeError(f"{self!r} has no values before it is read; {self._how_to_read()}")

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Its rows, each read when it is asked for."""
        if not self.shape:
            raise TypeError(f"iteration over a 0-d tensor, {self!r}; {self._how_to_read()}")
        return (self[row] for row in range(self.shape[0]))

    def __format__(self, spec: str) -> str:
        return self._unread() if spec else str(self)

    def __copy__(self) -> LazyTensor:
        return self

    def __deepcopy__(self, memo: object) -> LazyTensor:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """That of the tensor: nothing else could be loaded where the file isn't open."""
        give: Callable[[SupportsIndex], str | tuple[Any, ...]] = self.read().__reduce_ex__
        return give(protocol)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _unread
    __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __neg__ = __abs__ = _unread
    __lt__ = __le__ = __gt__ = __ge__ = __float__ = __int__ = __bool__ = _unread
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _unread
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = __pos__ = _unread
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __round__ = __complex__ = _unread
    __floor__ = __ceil__ = __trunc__ = __contains__ = __setitem__ = __delitem__ = _unread
    __eq__ = __ne__ = _unread
    __hash__ = object.__hash__

    def _how_to_read(self) -> str:
        return f"`checkpoint[{self.key!r}].read()` is the tensor"

    @property
    def identity(self) -> tuple[int, str]:
        """The same for the keys of a tied weight."""
        tied = self._checkpoint.catalog[self.key].tied_to
        return id(self._checkpoint), self.key if tied is None else tied

    def read(self) -> torch.Tensor:
        """All of it, in memory of its own. Raises FormatError where a checksum is wrong."""
        return self._checkpoint.read(self.key)

    def __getitem__(self, index: object) -> torch.Tensor:
        """What torch gives for this index of the whole tensor."""
        given = index if isinstance(index, tuple) else (index,)
        ranges = self._ranges(given)
        if not given or ranges is None or not self._checkpoint.has_parts(self.key):
            return self.read()[index]  # type: ignore[index]
        region = Region(tuple(start for start, _ in ranges), tuple(count for _, count in ranges))
        content = bytearray(nbytes_of(self.dtype, region.shape))
        if content:
            self._checkpoint.read_part(self.key, region, memoryview(content))
        box = to_tensor(content, self.dtype, region.shape)
        return box[tuple(0 if type(one) is int else slice(None) for one in given)]

    def _ranges(self, index: Sequence[object]) -> list[tuple[int, int]] | None:
        """The first index and how many, of each dimension; None for what is no plain box."""
        if len(index) > len(self.shape):
            return None
        ranges = []
        padded = (*index, *([slice(None)] * (len(self.shape) - len(index))))
        for one, size in zip(padded, self.shape, strict=True):
            if type(one) is int and -size <= one < size:
                ranges.append((one % size, 1))
            elif isinstance(one, slice) and one.step in (None, 1):
                start, stop, _ = one.indices(size)
                ranges.append((start, max(0, stop - start)))
            else:
                return None
        return ranges
