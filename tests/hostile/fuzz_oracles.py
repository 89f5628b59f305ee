"""Other readers as oracles: a file that they read is read the same, or refused."""

import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import FunctionType
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.archives.tar_directory import read_members
from ckpt_tool.formats.archives.zip_directory import read_directory
from ckpt_tool.formats.checkpoint import Checkpoint
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.pickle.unreadable import claimed_size
from ckpt_tool.torch_bridge import tensor_info, to_bytes
from tests.hostile.fuzz_files import MAX_BYTES, check_file
from tests.hostile.fuzz_unpicklers import Array, ArraysAlone, TensorsAlone
from tests.hostile.promises import Misread

MAX_ARRAYS = 200


def check_against_safetensors(raw: bytes, path: Path) -> None:
    path.write_bytes(raw)
    try:
        with safe_open(path, "pt") as opened:
            theirs = {key: opened.get_tensor(key) for key in opened.keys() if opened.get_slice(key).get_dtype()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError, MemoryError):
        return check_file(raw, path)
    with suppress(InputError), open_checkpoint(str(path)) as checkpoint:
        if set(checkpoint.catalog) != set(theirs):
            raise Misread(f"keys {list(checkpoint.catalog)} and {list(theirs)}")
        for key, tensor in theirs.items():
            compare(checkpoint, key, tensor)
    return None


def _loaded(path: Path) -> object:
    """What torch reads: as it would for a stranger's file, or what it would not, protocol 4 say, with Python's unpickler for tensors alone."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=TensorsAlone)


def check_against_weights_only(raw: bytes, path: Path) -> None:
    """As torch reads a stranger's file, and no other way: the unpickler beside it doesn't know what states do."""
    check_against_torch(raw, path, lambda path: torch.load(path, map_location="cpu", weights_only=True))


def check_against_torch(raw: bytes, path: Path, load: Callable[[Path], object] = _loaded) -> None:
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = load(path)
        except Exception:
            return check_file(raw, path)
    return _check_all(path, dict(tensors_of(loaded, "")))


def _check_all(path: Path, theirs: dict[str, torch.Tensor]) -> None:
    """Where we read the file too, all of their tensors, by path, are ours or named, and ours are theirs."""
    with suppress(InputError), open_checkpoint(str(path)) as checkpoint:
        prefix = f"{checkpoint.contents.taken}." if checkpoint.contents.taken else ""
        for key in checkpoint.catalog:
            if prefix + key not in theirs:
                raise Misread(f"`{key}` is none of {list(theirs)[:20]}")
            if checkpoint.catalog[key].nbytes < MAX_BYTES:
                compare(checkpoint, key, theirs[prefix + key])
        ours = {prefix + key for key in checkpoint.catalog} | {info.key for info in checkpoint.contents.elsewhere}
        lost = theirs.keys() - ours - {extra.path for extra in checkpoint.extras}
        if lost:
            raise Misread(f"they have {sorted(lost)[:20]}, which we don't")


def check_against_numpy(raw: bytes, path: Path) -> None:
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = np.load(BytesIO(raw), allow_pickle=False)
            theirs = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        except Exception:
            return check_file(raw, path)
    with suppress(InputError), open_checkpoint(str(path)) as checkpoint:
        lost = theirs.keys() - set(checkpoint.catalog) - {extra.path for extra in checkpoint.extras}
        if lost or set(checkpoint.catalog) - theirs.keys():
            raise Misread(f"keys {list(checkpoint.catalog)} and {list(theirs)}")
        for key in checkpoint.catalog:
            compare(checkpoint, key, _as_tensor(theirs[key]))
    return None


def _as_tensor(array: np.ndarray) -> torch.Tensor | np.ndarray:
    """Texts, dates and structures stay what they are: they are no tensors of ours either."""
    is_number = array.dtype.kind in "biufc"
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C")) if is_number and array.dtype.itemsize <= 16 else array


def tensors_of(value: object, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of what torch loaded under dotted paths; nothing where its keys are no texts, or cycles make it endless."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif path.count(".") < 20 and isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from tensors_of(child, f"{path}.{_key_text(key)}" if path else _key_text(key))


def _key_text(key: object) -> str:
    """Keys that are no texts, as this project calls them."""
    if isinstance(key, torch.Tensor):
        return describe(key)
    return f"{key.__module__}.{key.__qualname__}" if isinstance(key, FunctionType | type) else str(key)


def describe(tensor: torch.Tensor) -> str:
    """The name that a tensor has where it is the key of another."""
    info = tensor_info("", tensor)
    return f"tensor {info.dtype.value} {claimed_size(info.shape)}"


def compare(checkpoint: Checkpoint, key: str, tensor: torch.Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise Misread(f"`{key}` is {tensor.layout}")
    info, wanted = checkpoint.catalog[key], tensor_info(key, tensor)
    if (info.dtype, info.shape) != (wanted.dtype, wanted.shape):
        raise Misread(f"`{key}` is {info.dtype} {info.shape}, not {wanted.dtype} {wanted.shape}")
    if info.nbytes < MAX_BYTES and checkpoint.raw(key) != bytes(to_bytes(tensor)):
        raise Misread(f"the bytes of `{key}` differ")


def check_against_zipfile(raw: bytes, path: Path) -> None:
    """Whoever reads the archive otherwise finds the same members in it."""
    check_file(raw, path)
    try:
        with SourceFile(str(path)) as file:
            archive = read_directory(file)
            ours = {name: archive.read(name, MAX_BYTES) for name in archive.members}
    except InputError:
        return
    with suppress(BadZipFile, NotImplementedError), ZipFile(path) as theirs:  # comments with an end's letters, versions of tomorrow
        if ours != {_name_in_zip(info): theirs.read(info) for info in theirs.infolist()}:
            raise Misread("zipfile reads other members")


def _name_in_zip(info: ZipInfo) -> str:
    """zipfile takes names that don't say they are UTF-8 for those of an old computer."""
    return info.filename if info.flag_bits & 0x800 else info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")


def check_against_tarfile(raw: bytes, path: Path) -> None:
    """tarfile finds the same files in it, and torch the same tensors."""
    check_against_torch(raw, path)
    try:
        with SourceFile(str(path)) as file:
            ours = {name: raw[start:end] for name, (start, end) in read_members(file).items()}
    except InputError:
        return
    if not ours:
        return
    with tarfile.open(path, "r:") as theirs:
        files = {one.name.removeprefix("./"): theirs.extractfile(one).read() for one in theirs if one.isfile()}
    if ours != {name.encode("utf-8", "surrogateescape").decode("latin-1"): content for name, content in files.items()}:
        raise Misread(f"tarfile reads {list(files)}, not {list(ours)}")


def check_against_unpickler(raw: bytes, path: Path) -> None:
    """Arrays that Python's unpickler and numpy make are the tensors."""
    check_file(raw, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = ArraysAlone(BytesIO(raw), encoding="latin1").load()
            theirs = dict(islice(_arrays(loaded, ""), MAX_ARRAYS))
    except Exception:
        return
    if len(theirs) < MAX_ARRAYS:
        _check_all(path, theirs)


def _arrays(value: object, path: str) -> Iterator[tuple[str, torch.Tensor | np.ndarray]]:
    """All arrays under dotted paths, as tensors where torch has their type."""
    if isinstance(value, Array):
        yield path, _as_tensor(value.made)
    elif path.count(".") < 6 and isinstance(value, dict | list | tuple):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            if type(key) not in (str, int):
                raise ValueError("what such a key is called is ours to say")
            yield from _arrays(child, f"{path}.{key}" if path else str(key))
