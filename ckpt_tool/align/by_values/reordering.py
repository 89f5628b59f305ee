"""Tensors of the same elements in another order of dimensions: transposes, and kernels of other
libraries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.align.by_values.fingerprints import (
    DigestedTensors,
    elements_of,
    plain_shape,
    read_as,
)
from ckpt_tool.align.by_values.reshaping import Plain
from ckpt_tool.align.by_values.row_search import are_castable
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, DType, Shape

if TYPE_CHECKING:
    import torch

MAX_DIMENSIONS = 5
"""Dimensions of which all orders, 120 of five, are tried."""
_USUAL = {3: ((2, 1, 0),), 4: ((2, 3, 1, 0), (3, 2, 0, 1))}
"""Orders between torch and JAX or TensorFlow: a kernel of one element goes as the others do."""

Size = tuple[DType, int]
"""A dtype and a number of elements."""


def matrices_by_size(keys: Iterable[str], catalog: Catalog) -> Mapping[Size, list[str]]:
    """The keys of tensors with two dimensions or more, that can be in another order."""
    found: dict[Size, list[str]] = defaultdict(list)
    for key in keys:
        info = catalog[key]
        if len(plain_shape(info.shape)) > 1:
            found[info.dtype, prod(info.shape)].append(key)
    return found


def reordered(
    checkpoints: Sides[DigestedTensors], keys: Sides[Sequence[str]], size: Size
) -> Iterator[Pair]:
    """A pair for each target key whose elements, of this dtype and number, a source key has in
    another order; equal bit for bit. Costs reading them all, those that share elements twice.
    """
    dtype, _ = size
    fitting = [key for key in keys.source if _is_like(key, checkpoints.source.catalog, size)]
    known: dict[int, list[str]] = defaultdict(list)
    for key in fitting:
        known[elements_of(read_as(checkpoints.source, key, dtype))].append(key)
    for key in keys.target if fitting else ():
        origins = known.get(elements_of(read_as(checkpoints.target, key, dtype)), ())
        turned = ((origin, _turned(checkpoints, origin, key)) for origin in origins)
        found = next(((origin, ops) for origin, ops in turned if ops is not None), None)
        if found is not None:
            yield Pair(((found[0],),), ((key,),), parse_ops(found[1]))


def _is_like(key: str, catalog: Catalog, size: Size) -> bool:
    """Whether a source tensor can have the elements of a target's: as many, castable, a matrix."""
    (dtype, count), info = size, catalog[key]
    is_matrix = len(plain_shape(info.shape)) > 1 and dtype.itemsize > 0
    return is_matrix and prod(info.shape) == count and are_castable(info.dtype, dtype)


def _turned(checkpoints: Sides[DigestedTensors], origin: str, key: str) -> Plain | None:
    """The ops that put a tensor's dimensions in the other's order, if that makes it equal."""
    import torch

    dtype = checkpoints.target.catalog[key].dtype
    source, target = (
        read_as(checkpoints.source, origin, dtype),
        read_as(checkpoints.target, key, dtype),
    )
    plain, wanted = plain_shape(tuple(source.shape)), plain_shape(tuple(target.shape))
    for order in orders_between(plain, wanted):
        if torch.equal(_bits(source.reshape(plain).permute(order)), _bits(target.reshape(wanted))):
            return reordering(tuple(source.shape), tuple(target.shape), order)
    return None


def orders_between(plain: Shape, wanted: Shape) -> Iterator[tuple[int, ...]]:
    """The orders of dimensions, but for the one that they have, that make one shape the other.

    >>> list(orders_between((3, 4, 4), (4, 4, 3)))
    [(1, 2, 0), (2, 1, 0)]
    """
    if len(plain) == len(wanted) <= MAX_DIMENSIONS:
        for order in permutations(range(len(plain))):
            if tuple(plain[axis] for axis in order) == wanted and list(order) != sorted(order):
                yield order


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as integers, so that NaN equals itself."""
    import torch

    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(
        tensor.element_size()
    )
    return tensor.contiguous().view(whole) if whole else tensor


def reordering(source: Shape, target: Shape, order: Sequence[int]) -> Plain:
    """A transpose, or a `rearrange` of all dimensions, with the ones that are added or go; `order`
    is that of the source's dimensions without ones.

    >>> reordering((8, 4), (4, 8), (1, 0))
    ['transpose']
    >>> reordering((8, 4, 1), (4, 8), (1, 0))
    [{'rearrange': 'a b 1 -> b a'}]
    >>> reordering((8, 4, 1, 1), (1, 1, 4, 8), (1, 0))
    [{'rearrange': 'a b c d -> c d b a'}]
    """
    plain = plain_shape(source)
    if source == plain and len(source) == len(target) == 2:
        return ["transpose"]
    for usual in _USUAL.get(len(source), ()) if len(source) == len(target) else ():
        if _is_as_usual(usual, source, target, order):
            names = "abcd"[: len(source)]
            turned = " ".join(names[axis] for axis in usual)
            return [{"rearrange": f"{' '.join(names)} -> {turned}"}]
    names = "abcdefgh"[: len(plain)]
    left, right = iter(names), iter([names[axis] for axis in order])
    return [{"rearrange": f"{_dims(source, left)} -> {_dims(target, right)}"}]


def _is_as_usual(usual: Sequence[int], source: Shape, target: Shape, order: Sequence[int]) -> bool:
    """Whether an order of all dimensions is, without the ones, the order that was found."""
    long = [axis for axis in usual if source[axis] != 1]
    ranks = [sorted(long).index(axis) for axis in long]
    return tuple(source[axis] for axis in usual) == target and ranks == list(order)


def _dims(shape: Shape, names: Iterator[str]) -> str:
    return " ".join("1" if size == 1 else next(names) for size in shape)
