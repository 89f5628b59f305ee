"""A tensor of a distributed checkpoint, put together from its parts: each is a whole archive of
torch.save inside of a `.distcp` file, with nothing but one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.dcp.metadata import ByteRange, SavedTensor
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.values import OpaqueTensor, TensorRef
from ckpt_tool.formats.placements.assembled import Box, Placement, assemble
from ckpt_tool.formats.placements.boxes import BoxFault, check_filled
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.views import View
from ckpt_tool.formats.torch_files.tensor_layout import check_inside, measure_tensor
from ckpt_tool.formats.torch_files.zip_archive import read_object
from ckpt_tool.formats.window import FileWindow
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, Shape, shape_text
from ckpt_tool.torch_bridge import DTYPES, unpacked_shape

PART_PICKLE_BYTES = MiB
"""The pickle of one tensor has 300."""
Files = Mapping[str, SourceFile]


def check_parts(tensor: SavedTensor, path: str) -> None:
    """Raises FormatError unless the parts of a tensor fill it, none over another."""
    try:
        check_filled(tensor.regions, tensor.shape)
    except BoxFault as fault:
        raise FormatError(path, str(fault), None, f"`{tensor.key[:200]}`") from None


def locate(tensor: SavedTensor, files: Files, path: str) -> Placement:
    """Where the bytes of a tensor lie. Raises FormatError for a part that is none: costs reading
    its archive's records.
    """
    dtype = DTYPES[tensor.type_name]
    boxes = [
        _box(tensor.key, dtype, region, files[place.name], place)
        for region, place in zip(tensor.regions, tensor.ranges, strict=True)
    ]
    try:
        return assemble(boxes, unpacked_shape(dtype, tensor.shape), dtype)
    except BoxFault as fault:
        raise FormatError(path, str(fault), None, f"`{tensor.key[:200]}`") from None


def _box(key: str, dtype: DType, region: Region, file: SourceFile, place: ByteRange) -> Box:
    window = FileWindow(file, place.offset, place.length, key[:200])
    expected = unpacked_shape(dtype, region.shape)
    placement = _read_part(window, dtype, expected)
    offsets = unpacked_shape(dtype, region.offsets) if region.offsets else ()
    return Box(Region(offsets, expected), placement)


def _read_part(window: FileWindow, dtype: DType, shape: Shape) -> Extent | View:
    """Where a part's bytes lie in the whole file. Raises FormatError for all but one tensor of this
    type and shape.
    """
    found = read_object(window, PART_PICKLE_BYTES)
    asked = (*found.asked.calls, *found.asked.imports)
    if asked:
        raise FormatError(
            window.path,
            f"its pickle would call or import {asked[0][:100]}, which no tensor needs",
            "nothing was executed; don't load it with anything else",
        )
    if type(found.root) is OpaqueTensor:
        raise FormatError(window.path, f"is not a plain tensor, but {describe(found.root)}")
    if type(found.root) is not TensorRef or found.root.storage.content is not None:
        raise FormatError(window.path, "holds something else than one tensor")
    measured = measure_tensor(found.root, "", window.path, {})
    info = measured.info
    if (info.dtype, info.shape) != (dtype, shape):
        raise FormatError(
            window.path,
            f"is {info.dtype.value} {shape_text(info.shape)}, "
            f"where `.metadata` says {dtype.value} {shape_text(shape)}",
        )
    check_inside(measured, window.path, found.bytes_of)
    placement = found.place(measured)
    if isinstance(placement, View):
        storage = window.outside(placement.storage)
        return View(
            storage,
            placement.offset,
            placement.stride,
            placement.swapped,
            placement.conjugate,
            placement.negative,
            placement.skip,
        )
    outside = window.outside(placement) if isinstance(placement, Extent) else None
    assert isinstance(outside, Extent)
    return outside
