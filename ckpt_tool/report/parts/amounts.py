"""How much there is of tensors: their numbers, their shapes as ranges, their totals by dtype."""

from collections.abc import Iterable, Sequence

from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Catalog, DType, Shape, TensorInfo, shape_text, stored_in
from ckpt_tool.wording import plural, size_text

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""What norms of torch keep beside their parameters."""
SHARED = "shared counted once"
"""Stands behind totals of tensors some of which are one, under several keys."""


@frozen
class Amount:
    """Tensors with what they hold: elements and bytes that several keys share count once, as those
    of a tied weight.
    """

    tensors: int
    elements: int
    nbytes: int
    shared: int = 0
    """How many of the tensors share numbers with another one of them."""

    @property
    def remark(self) -> str:
        """What is said behind totals in which something counts once."""
        return SHARED if self.shared else ""


def amount_of(infos: Iterable[TensorInfo]) -> Amount:
    """How many tensors there are, with how many elements and bytes."""
    listed = list(infos)
    return Amount(len(listed), *stored_in(listed))


def bytes_text(catalog: Catalog) -> str:
    """The size of a checkpoint, and whether something in it counts once."""
    amount = amount_of(catalog.values())
    return f"{size_text(amount.nbytes)} ({SHARED})" if amount.shared else size_text(amount.nbytes)


def elements_text(infos: Iterable[TensorInfo]) -> str:
    """How many elements there are, and what they are called: buffers are no parameters."""
    listed = list(infos)
    count = amount_of(listed).elements
    has_buffers = any(
        not (info.dtype.is_floating or info.dtype.is_complex) or info.key.endswith(_BUFFERS)
        for info in listed
    )
    return f"{count:,} parameters and buffers" if has_buffers else plural(count, "parameter")


def by_dtype(infos: Iterable[TensorInfo]) -> list[tuple[DType, Amount]]:
    """What there is of each dtype, the most bytes first."""
    groups: dict[DType, list[TensorInfo]] = {}
    for info in infos:
        groups.setdefault(info.dtype, []).append(info)
    amounts = [(dtype, amount_of(group)) for dtype, group in groups.items()]
    return sorted(amounts, key=lambda one: -one[1].nbytes)


def dtypes_text(infos: Sequence[TensorInfo]) -> str:
    """Their dtypes, `F32` or `F32 I64`."""
    return " ".join(dict.fromkeys(info.dtype.value for info in infos))


def shapes_text(shapes: Iterable[Shape]) -> str:
    """One shape, or the range of each dimension: `64..512×64..512×3×3`."""
    by_rank: dict[int, list[Shape]] = {}
    for shape in dict.fromkeys(shapes):
        by_rank.setdefault(len(shape), []).append(shape)
    return ", ".join(_range_text(alike) for _, alike in sorted(by_rank.items(), reverse=True))


def _range_text(shapes: Sequence[Shape]) -> str:
    if len(shapes) == 1:
        return shape_text(shapes[0])
    spans = [(min(sizes), max(sizes)) for sizes in zip(*shapes, strict=True)]
    return "×".join(str(low) if low == high else f"{low}..{high}" for low, high in spans)
