"""numpy's arrays, dtypes and scalars as their pickles describe them, without numpy."""

from __future__ import annotations

import struct

from ckpt_tool.formats.limits import DIMENSIONS
from ckpt_tool.formats.pickle.values import ArrayRef, ArrayType, Global, PickleFault
from ckpt_tool.tensors import DType

ARRAY_TYPES = {
    "f8": DType.F64, "f4": DType.F32, "f2": DType.F16, "i8": DType.I64, "i4": DType.I32,
    "i2": DType.I16, "i1": DType.I8,
    "u8": DType.U64, "u4": DType.U32, "u2": DType.U16, "u1": DType.U8, "b1": DType.BOOL,
    "c8": DType.C64, "c16": DType.C128,
    "bfloat16": DType.BF16, "float8_e4m3fn": DType.F8_E4M3, "float8_e5m2": DType.F8_E5M2,
    "float8_e8m0fnu": DType.F8_E8M0,
    "float8_e4m3fnuz": DType.F8_E4M3FNUZ, "float8_e5m2fnuz": DType.F8_E5M2FNUZ,
}  # fmt: skip
"""numpy's names of element types, without their byte order, and those that ml_dtypes adds (jax's
arrays have them).
"""

_SCALARS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q",
    "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip

_TEXTS = ("U", "S", "a", "M", "m")
EXTENSIONS = ("ml_dtypes", "jaxlib.xla_extension")
"""Modules whose classes are element types; jaxlib had them before ml_dtypes did."""


def make_type(args: tuple[object, ...]) -> object:
    """`numpy.dtype('f8', False, True)` or `numpy.dtype(ml_dtypes.bfloat16, False, True)`; the byte
    order comes with its state.
    """
    named = args[0] if args else None
    if type(named) is Global:
        return ArrayType(
            named.name
            if named.module in EXTENSIONS and named.name in ARRAY_TYPES
            else named.full_name
        )
    return ArrayType(named if type(named) is str else "")


def give_type_state(target: ArrayType, state: tuple[object, ...]) -> None:
    """The state is (version, byte order, subarray, names, fields, size, alignment, flags)."""
    if target.is_taken:
        raise PickleFault("changes the type of elements of an array that is made already")
    if len(state) < 5 or state[1] not in ("<", ">", "|", "="):
        raise PickleFault("has a type of elements as numpy never writes it")
    order, structure = state[1], state[2:5]
    if any(part is not None for part in structure):
        target.text = ""
    elif "." not in target.text:
        target.text = f"{order}{target.text.lstrip('<>|=')}"


def make_array(args: tuple[object, ...]) -> object:
    """`numpy.core.multiarray._reconstruct`: an array that its state fills."""
    return ArrayRef()


def give_array_state(target: ArrayRef, state: tuple[object, ...]) -> None:
    """The state is (version, shape, dtype, is Fortran order, content)."""
    if len(state) not in (4, 5):
        raise PickleFault("has an array as numpy never writes it")
    shape, kind, is_fortran, content = state[-4:]
    fill_array(target, shape, kind, bool(is_fortran), content)


def fill_array(
    target: ArrayRef, shape: object, kind: object, is_fortran: bool, content: object
) -> None:
    """Gives an array its shape, type and content. Raises PickleFault for an impossible shape."""
    if (
        type(shape) is not tuple
        or len(shape) > DIMENSIONS
        or not all(type(size) is int and size >= 0 for size in shape)
    ):
        raise PickleFault("has an array of an impossible shape")
    target.shape, target.is_fortran = shape, is_fortran
    target.type_text = _take(kind)
    if isinstance(content, bytes | str):
        target.content = as_bytes(content)
    elif isinstance(content, list):
        target.objects = tuple(content)


def _take(kind: object) -> str:
    """numpy's text of a type, which nothing may change from now on."""
    if type(kind) is not ArrayType:
        return ""
    kind.is_taken = True
    return kind.text


def as_bytes(content: bytes | str) -> bytes:
    """Bytes of an array, which Python 2 wrote as a text: numpy takes them by their numbers too."""
    try:
        return content.encode("latin-1") if isinstance(content, str) else content
    except UnicodeEncodeError:
        raise PickleFault("has an array whose content is a text") from None


def make_from_buffer(args: tuple[object, ...]) -> object:
    """`numpy._core.numeric._frombuffer(content, dtype, shape, order)`: how protocol 5 writes
    arrays.
    """
    content, kind, shape, order, *_ = args
    array = ArrayRef()
    fill_array(array, shape, kind, order == "F", content)
    return array


def make_scalar(args: tuple[object, ...]) -> object:
    """`numpy.core.multiarray.scalar(dtype, content)` as a Python number, or an array without
    dimensions.
    """
    kind, content = args
    if isinstance(content, str):
        content = as_bytes(content)
    if type(kind) is ArrayType and isinstance(content, bytes):
        text = _take(kind)
        code = _SCALARS.get(text.lstrip("<>|="))
        if code and struct.calcsize(code) == len(content):
            return struct.unpack((">" if text[:1] == ">" else "<") + code, content)[0]
        return ArrayRef(text, (), False, content)
    return ArrayRef()


def element_type(type_text: str) -> tuple[DType, bool] | None:
    """The element type of numpy's text, and whether its bytes are big-endian; None for texts,
    dates, objects, structures.
    """
    dtype = ARRAY_TYPES.get(type_text.lstrip("<>|="))
    return (dtype, type_text[:1] == ">" and dtype.itemsize > 1) if dtype else None


def is_numeric(array: ArrayRef) -> bool:
    """Whether an array is one of numbers, of objects or of structures: not a text or a date, and
    not a scalar of an unknown type.
    """
    return not is_text(array.type_text) if array.type_text else bool(array.shape)


def is_text(type_text: str) -> bool:
    """Whether numpy's text of a type is that of texts or dates."""
    return type_text.lstrip("<>|=")[:1] in _TEXTS
