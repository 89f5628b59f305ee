"""Whether two files hold their matrices the same way round."""

from collections import Counter

from ckpt_tool.align.naming.vocabulary import in_common_words
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Catalog, Shape

_FEED_FORWARD = ((".up", "up"), (".mlp.fc1", "up"), (".down", "down"), (".mlp.fc2", "down"))
"""How names end, in common words, that say which matrix of a feed-forward one is."""


def are_straight(source: Catalog, target: Catalog) -> bool:
    """Whether both sides hold the same matrices as they are, and clearly fewer if one side's were
    transposed; biases and names may tell that they are all the same.
    """
    from_source, from_target = _oblong(source), _oblong(target)
    straight = (from_source & from_target).total()
    flipped = Counter({shape[::-1]: count for shape, count in from_target.items()})
    least = max(1, WEIGHTS.straight * min(from_source.total(), from_target.total()))
    return (
        straight >= least
        and (from_source & flipped).total() <= WEIGHTS.fewer_transposed * straight
        and _has_kernels(source) == _has_kernels(target)
        and not are_opposite(source, target)
    )


def are_opposite(source: Catalog, target: Catalog) -> bool:
    """Whether biases or names tell that one side stores weights as (out, in), the other as (in,
    out), as GPT-2's Conv1D does.
    """
    known = _has_outputs_last(source), _has_outputs_last(target)
    if None not in known:
        return known[0] != known[1]
    return _are_opposite_by_name(source, target) is True


def open_shapes(source: Catalog, target: Catalog) -> frozenset[Shape]:
    """The shapes of matrices that may have to be transposed, since one side stores weights as (in,
    out) and nothing tells how the other one does; square ones too.
    """
    known = {_has_outputs_last(source), _has_outputs_last(target)}
    if known != {True, None} or _are_opposite_by_name(source, target) is not None:
        return frozenset()
    return shapes_both_ways(source, target) | {
        info.shape for info in source.values() if len(info.shape) == 2 and len({*info.shape}) == 1
    }


def shapes_both_ways(source: Catalog, target: Catalog) -> frozenset[Shape]:
    """The shapes of matrices that both sides have, also transposed: of such a pair nothing but the
    layout of the files shows which is which.
    """
    shared = {info.shape for info in source.values()} & {info.shape for info in target.values()}
    return frozenset(
        shape
        for shape in shared
        if len(shape) == 2 and shape[0] != shape[1] and shape[::-1] in shared
    )


def _has_outputs_last(catalog: Catalog) -> bool | None:
    """Whether weights are stored as (in, out); None where neither biases nor fused queries, keys
    and values tell.
    """
    votes = 0
    for key, info in catalog.items():
        if not _is_oblong_weight(key, info.shape):
            continue
        bias = catalog.get(f"{key.removesuffix('weight')}bias")
        rows, columns = info.shape
        if bias is not None:
            votes += (bias.shape == (columns,)) - (bias.shape == (rows,))
        elif in_common_words(key).endswith(".qkv.weight"):
            votes += (columns == 3 * rows) - (rows == 3 * columns)
    return votes > 0 if votes else None


def _are_opposite_by_name(source: Catalog, target: Catalog) -> bool | None:
    """Whether matrices of feed-forwards that mean the same have their shapes turned round; None
    where there are none, or only some have.
    """
    here, there = _feed_forwards(source), _feed_forwards(target)
    if not here or not there:
        return None
    if not here & there and here <= {(what, shape[::-1]) for what, shape in there}:
        return True
    return False if here <= there else None


def _feed_forwards(catalog: Catalog) -> set[tuple[str, Shape]]:
    """The shapes of the matrices of feed-forwards, by what they are."""
    found = set()
    for key, info in catalog.items():
        if _is_oblong_weight(key, info.shape):
            path = "." + in_common_words(key).removesuffix(".weight")
            found |= {(what, info.shape) for name, what in _FEED_FORWARD if path.endswith(name)}
    return found


def _is_oblong_weight(key: str, shape: Shape) -> bool:
    return len(shape) == 2 and shape[0] != shape[1] and key.endswith(".weight")


def _oblong(catalog: Catalog) -> Counter[Shape]:
    """How many matrices there are of each shape that isn't square."""
    shapes = (info.shape for info in catalog.values())
    return Counter(shape for shape in shapes if len(shape) == 2 and shape[0] != shape[1])


def _has_kernels(catalog: Catalog) -> bool:
    return any(key.endswith(("/kernel", ".kernel")) for key in catalog)
