"""Python's unpickler with functions that make arrays, or tensors, and nothing else: hostile pickles can be given to it."""

import codecs
import pickle
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import IO

import numpy as np
import torch

SAFE = {("_codecs", "encode"): codecs.encode, ("collections", "OrderedDict"): OrderedDict, ("torch", "Size"): torch.Size}
SAFE |= {("torch._utils", name): getattr(torch._utils, name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")}
SAFE |= {("torch", name): kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype) or name.endswith("Storage")}
SAFE |= {("torch", name): object for name in vars(torch) if name.endswith("Tensor")} | {("torch.storage", "UntypedStorage"): torch.UntypedStorage}
"""Those of tensors' classes are named in tar archives, and not called."""


def _with_plain_keys(opcode: bytes, keys: slice) -> Callable[[pickle._Unpickler], None]:
    """What an opcode does, where the keys at these places of the stack are texts and numbers: tuples of tuples take ages to hash."""

    def load(self: pickle._Unpickler) -> None:
        if any(type(key) not in (str, int) for key in self.stack[keys]):  # type: ignore[attr-defined]
            raise ValueError("a key of another kind")
        pickle._Unpickler.dispatch[opcode[0]](self)

    return load


class _Plain(pickle._Unpickler):
    """Without sets: calling None is an error."""

    dispatch = pickle._Unpickler.dispatch | {
        b"s"[0]: _with_plain_keys(b"s", slice(-2, -1)), b"u"[0]: _with_plain_keys(b"u", slice(0, None, 2)),
        b"d"[0]: _with_plain_keys(b"d", slice(0, None, 2)), 0x8F: None, 0x90: None, 0x91: None,
    }  # fmt: skip


class _Tensors(_Plain):
    """Python's unpickler with torch's functions for tensors and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        return SAFE[module, name]


class TensorsAlone:
    """What `torch.load` takes for the module pickle."""

    Unpickler = _Tensors

    @staticmethod
    def load(file: IO[bytes], **options: object) -> object:
        return _Tensors(file, **options).load()


class ArrayType:
    """numpy's dtype, with a state that numpy writes; of others numpy can't be asked: it crashes."""

    def __init__(self, text: str, align: bool, copy: bool) -> None:
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        version, order, *structure, size, alignment, flags = state
        if version not in (3, 4) or structure != [None] * 3 or (size, alignment, flags) != (-1, -1, 0):
            raise ValueError
        self.dtype = np.dtype(self.dtype.newbyteorder(order))


class Array:
    """numpy's array."""

    def __init__(self, *made: object) -> None:
        self.made = np.empty(0)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        self.made = _made(content.encode("latin-1") if isinstance(content, str) else content, kind, shape, "F" if is_fortran else "C")


def _from_buffer(content: bytes, kind: ArrayType, shape: tuple[int, ...], order: str) -> Array:
    array = Array()
    array.made = _made(content, kind, shape, order)
    return array


def _made(content: bytes, kind: ArrayType, shape: tuple[int, ...], order: str) -> np.ndarray:
    if len(content) != prod(shape) * kind.dtype.itemsize or kind.dtype.hasobject:
        raise ValueError
    return np.ndarray(shape, kind.dtype, content, order=order)


class ArraysAlone(_Plain):
    """Python's unpickler with numpy's functions for arrays and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        made = {("_codecs", "encode"): codecs.encode, ("collections", "OrderedDict"): OrderedDict}
        made |= {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): ArrayType}
        for package in ("numpy.core", "numpy._core"):
            made |= {(f"{package}.multiarray", "_reconstruct"): Array, (f"{package}.numeric", "_frombuffer"): _from_buffer}
            made[f"{package}.multiarray", "scalar"] = lambda kind, content: None
        return made[module, name]
