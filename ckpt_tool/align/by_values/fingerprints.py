"""What tensors hold, by digests: of all bytes, of them as another dtype, of the elements in
any order, of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Protocol

from ckpt_tool.tensors import Catalog, DType, Shape

if TYPE_CHECKING:
    import torch

MIN_MATRIX_WIDTH = 32
"""The last dimension from which on three dimensions are matrices, stacked, and no convolution's
kernel along a line. A judgement: most of these are shorter, and most matrices wider.
"""
MIN_TELLING = 16
"""Bytes below which equal content may be chance."""


class DigestedTensors(Protocol):
    """What is asked of a checkpoint, on disk or in memory."""

    catalog: Catalog

    def chunks(self, key: str) -> Iterator[bytes]:
        """A tensor's bytes in pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """What a tensor holds. One that `tells` has elements that differ, and enough of them: ones and
    counters are everywhere.
    """

    digest: bytes
    tells: bool


def content_of(checkpoint: DigestedTensors, key: str) -> Content:
    """Of a tensor's bytes, whatever its shape; reads it once, in pieces."""
    info = checkpoint.catalog[key]
    return _content(checkpoint.chunks(key), info.dtype, info.nbytes)


def cast_content(checkpoint: DigestedTensors, key: str, dtype: DType) -> Content:
    """Of a tensor's bytes as another dtype."""
    from ckpt_tool.torch_bridge import shown, to_bytes, torch_dtype

    own, wanted = checkpoint.catalog[key].dtype, torch_dtype(dtype)
    pieces = (
        bytes(to_bytes(shown(chunk, own).to(wanted))) for chunk in checkpoint.chunks(key) if chunk
    )
    return _content(pieces, dtype, prod(checkpoint.catalog[key].shape) * dtype.itemsize)


def _content(pieces: Iterator[bytes], dtype: DType, nbytes: int) -> Content:
    digest, size = blake2b(digest_size=32), dtype.itemsize or 1
    first, differs = b"", False
    for piece in filter(None, pieces):
        digest.update(piece)
        first = first or piece[:size]
        differs = differs or not _is_one(piece, first)
    return Content(digest.digest(), differs and nbytes >= MIN_TELLING)


def _is_one(piece: bytes, element: bytes) -> bool:
    """Whether a piece is an element again and again."""
    head = piece[:256]
    return head == element * (len(head) // len(element)) and piece == element * (
        len(piece) // len(element)
    )


def tensor_digest(tensor: torch.Tensor) -> bytes:
    """The digest that `content_of` gives a tensor's bytes."""
    from ckpt_tool.torch_bridge import to_bytes

    return blake2b(to_bytes(tensor), digest_size=32).digest()


def read_as(checkpoint: DigestedTensors, key: str, dtype: DType) -> torch.Tensor:
    """A tensor, as another dtype where its own differs."""
    from ckpt_tool.torch_bridge import to_tensor, torch_dtype

    info = checkpoint.catalog[key]
    tensor = to_tensor(bytearray().join(checkpoint.chunks(key)), info.dtype, info.shape)
    return tensor if info.dtype is dtype else tensor.to(torch_dtype(dtype))


def elements_of(tensor: torch.Tensor) -> int:
    """A number that tensors of the same elements share, in whatever order these stand."""
    import torch

    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(
        tensor.element_size()
    )
    if whole is None:
        return 0
    total, parts = 0, max(1, tensor.numel() >> 20)
    for part in tensor.contiguous().reshape(-1).view(whole).tensor_split(parts):
        mixed = part.to(torch.int64) * -7046029254386353131
        mixed = (mixed ^ (mixed >> 29)) * -4658895280553007687
        total += int((mixed ^ (mixed >> 32)).sum())
    return total & ((1 << 64) - 1)


def plain_shape(shape: Shape) -> Shape:
    """A shape without its ones.

    >>> plain_shape((8, 1, 3))
    (8, 3)
    """
    return tuple(size for size in shape if size != 1)


def row_length(shape: Shape, is_turned: bool) -> int:
    """Elements of a row, as `rows_of` cuts them; 0 for what has none.

    >>> row_length((8, 4), is_turned=False), row_length((8, 4), is_turned=True)
    (4, 8)
    >>> row_length((8, 4, 3, 3), is_turned=False)
    36
    """
    plain = plain_shape(shape)
    if len(plain) < 2:
        return 0
    if has_blocks(plain):
        return plain[-2] if is_turned else plain[-1]
    return prod(plain) // plain[1 if is_turned else 0]


def rows_of(tensor: torch.Tensor, is_turned: bool) -> list[bytes]:
    """Digests of a tensor's rows, in order; turned, of its columns. Matrices stacked are one long
    matrix.
    """
    from ckpt_tool.torch_bridge import to_bytes

    shape = plain_shape(tuple(tensor.shape))
    turned = tensor.reshape(shape)
    if is_turned:
        turned = turned.transpose(-2, -1) if has_blocks(shape) else turned.transpose(0, 1)
    raw = to_bytes(turned)
    size = row_length(shape, is_turned) * tensor.element_size()
    return [
        blake2b(raw[start : start + size], digest_size=16).digest()
        for start in range(0, len(raw), size)
    ]


def has_blocks(plain: Shape) -> bool:
    """Whether a tensor's rows lie along its last dimension, as a matrix's or stacked ones' do; a
    kernel's are all that one output has.
    """
    return len(plain) == 2 or (len(plain) == 3 and plain[-1] >= MIN_MATRIX_WIDTH)
