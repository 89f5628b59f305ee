"""Whether two files hold their matrices the same way round."""

from collections import Counter

from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Catalog, Shape


def are_straight(source: Catalog, target: Catalog) -> bool:
    """Whether both sides hold the same matrices as they are, and clearly fewer if one side's were
    transposed.
    """
    from_source, from_target = _oblong(source), _oblong(target)
    straight = (from_source & from_target).total()
    flipped = Counter({shape[::-1]: count for shape, count in from_target.items()})
    least = max(1, WEIGHTS.straight * min(from_source.total(), from_target.total()))
    return (
        straight >= least
        and (from_source & flipped).total() <= WEIGHTS.fewer_transposed * straight
        and _has_kernels(source) == _has_kernels(target)
    )


def _oblong(catalog: Catalog) -> Counter[Shape]:
    """How many matrices there are of each shape that isn't square."""
    shapes = (info.shape for info in catalog.values())
    return Counter(shape for shape in shapes if len(shape) == 2 and shape[0] != shape[1])


def _has_kernels(catalog: Catalog) -> bool:
    return any(key.endswith(("/kernel", ".kernel")) for key in catalog)
