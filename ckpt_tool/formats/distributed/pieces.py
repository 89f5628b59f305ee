"""Tensors of which each file has a piece: checked to fill them, then assembled when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.placements.assembled import Box, Placement, assemble
from ckpt_tool.formats.placements.boxes import BoxFault, check_filled
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.views import View
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, Shape


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a tensor, and what gives the place of its bytes."""

    region: Region
    dtype: DType
    locate: Callable[[], Placement]


def check_pieces(key: str, pieces: Sequence[Piece], shape: Shape, folder: str, hint: str) -> None:
    """Raises FormatError unless the pieces are of one type and fill the tensor exactly."""
    types = sorted({piece.dtype.value for piece in pieces})
    if len(types) > 1:
        fact = f"`{key[:200]}` is {' and '.join(types)} in different files"
        raise FormatError(folder, fact, hint)
    try:
        check_filled([piece.region for piece in pieces], shape)
        if pieces and not pieces[0].dtype.itemsize:
            assemble(_boxes(pieces), shape, pieces[0].dtype)
    except BoxFault as fault:
        raise FormatError(folder, f"`{key[:200]}` {fault}", hint) from None


def assembled(pieces: Sequence[Piece], shape: Shape) -> Callable[[], Placement]:
    """What gives the place of the whole, of pieces that fill it."""
    return partial(_assembled, tuple(pieces), shape)


def _assembled(pieces: tuple[Piece, ...], shape: Shape) -> Placement:
    return assemble(_boxes(pieces), shape, pieces[0].dtype)


def _boxes(pieces: Iterable[Piece]) -> list[Box]:
    boxes = []
    for piece in pieces:
        if prod(piece.region.shape):
            place = piece.locate()
            assert isinstance(place, Extent | View)
            boxes.append(Box(piece.region, place))
    return boxes


class Deferred(Mapping[str, Placement]):
    """Where tensors lie; a placement is made when it is asked for."""

    __slots__ = ("_makers",)

    def __init__(self, makers: Mapping[str, Callable[[], Placement]]) -> None:
        self._makers = makers

    def __getitem__(self, key: str) -> Placement:
        return self._makers[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
