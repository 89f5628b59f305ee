"""What is fuzzed: for each parser its inputs, the ways to change them, and what must hold of whatever comes out."""

import json
import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from types import FunctionType
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ckpt_tool.errors import CkptError, InputError
from ckpt_tool.formats import format_key_list, open_checkpoint
from ckpt_tool.formats.checkpoint import Checkpoint
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.pickle_calls import size_text
from ckpt_tool.formats.tar_directory import read_members
from ckpt_tool.formats.zip_directory import read_directory
from ckpt_tool.report.jsons import to_json
from ckpt_tool.report.show import show_json, show_text
from ckpt_tool.report.style import Style
from ckpt_tool.torch_bridge import tensor_info, to_bytes
from tests.hostile import seeds
from tests.hostile.broken_files import torch_file
from tests.hostile.fuzz_names import catalog_pairs, check_catalogs, check_formula, check_params, formulas, params
from tests.hostile.fuzz_rules import check_pattern, check_rules
from tests.hostile.fuzz_shortcuts import check_header, check_steps, headers, state_dicts
from tests.hostile.mutations import change_bytes, change_fields, change_header, change_opcodes, change_words
from tests.hostile.promises import Misread, check_error, check_shown

Change = Callable[[bytes, list[bytes], Random], bytes]
MOST_BYTES = 1 << 20
"""Larger tensors are listed, but their bytes not asked for."""


@dataclass(frozen=True)
class Target:
    """`seeds` makes the inputs, `changes` are tried in turn by chance, `check` raises for what must not be."""

    seeds: Callable[[], list[bytes]]
    changes: tuple[Change, ...]
    check: Callable[[bytes, Path], None]


def check_file(raw: bytes, path: Path) -> None:
    """Read, or refused with one line; whatever is shown is fit for a terminal."""
    path.write_bytes(raw)
    with suppress(InputError), _reading(str(path)) as checkpoint:
        read_all(checkpoint)


class _reading:  # noqa: N801, a context manager
    """An open checkpoint; an error of ours is checked for its text and passed on."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Checkpoint:
        try:
            self.checkpoint = open_checkpoint(self.path)
        except InputError as error:
            check_error(error)
            raise
        return self.checkpoint

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.checkpoint.close()
        if isinstance(error, CkptError):
            check_error(error)


def read_all(checkpoint: Checkpoint) -> None:
    check_shown(show_text(checkpoint, Style(is_folded=False)))
    check_shown(show_text(checkpoint))
    json.loads(to_json(show_json(checkpoint)))
    listed = format_key_list(checkpoint.catalog)
    check_shown(listed.replace("\t", " "))
    for key, info in checkpoint.catalog.items():
        if checkpoint.has_values and info.nbytes < MOST_BYTES:
            assert len(checkpoint.raw(key)) == info.nbytes, key


def check_zip(raw: bytes, path: Path) -> None:
    """Whoever reads the archive otherwise finds the same members in it."""
    check_file(raw, path)
    try:
        with SourceFile(str(path)) as file:
            archive = read_directory(file)
            ours = {name: archive.read(name, MOST_BYTES) for name in archive.members}
    except InputError:
        return
    try:
        with ZipFile(path) as theirs:
            if ours != {_name_in_zip(info): theirs.read(info) for info in theirs.infolist()}:
                raise Misread("zipfile reads other members")
    except (BadZipFile, NotImplementedError, RuntimeError) as error:
        raise Misread(f"zipfile: {error}") from error


def _name_in_zip(info: ZipInfo) -> str:
    """zipfile takes names that don't say they are UTF-8 for those of an old computer."""
    return info.filename if info.flag_bits & 0x800 else info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")


def check_tar(raw: bytes, path: Path) -> None:
    """tarfile finds the same files in it."""
    check_file(raw, path)
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


def check_pickle(raw: bytes, path: Path) -> None:
    check_file(raw, path)
    check_file(seeds.with_pickle(raw), path)


def check_index(raw: bytes, path: Path) -> None:
    for name, content in (("a.safetensors", save({"a": seeds.W})), ("b.bin", torch_file({"b": seeds.W}))):
        if not (path.parent / name).exists():
            (path.parent / name).write_bytes(content)
    check_file(raw, path.with_name("model.safetensors.index.json"))


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
            _compare(checkpoint, key, tensor)
    return None


def check_against_torch(raw: bytes, path: Path) -> None:
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            return check_file(raw, path)
    theirs = dict(_tensors(loaded, ""))
    with suppress(InputError), open_checkpoint(str(path)) as checkpoint:
        prefix = f"{checkpoint.contents.taken}." if checkpoint.contents.taken else ""
        for key in checkpoint.catalog:
            if checkpoint.catalog[key].nbytes < MOST_BYTES and prefix + key in theirs:
                _compare(checkpoint, key, theirs[prefix + key])
            elif prefix + key not in theirs:
                raise Misread(f"`{key}` is none of {list(theirs)[:20]}")
        ours = {prefix + key for key in checkpoint.catalog} | {info.key for info in checkpoint.contents.elsewhere}
        lost = theirs.keys() - ours - {extra.path for extra in checkpoint.extras}
        if lost:
            raise Misread(f"torch has {sorted(lost)[:20]}, which we don't")
    return None


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
            array = theirs[key]
            _compare(checkpoint, key, torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C")))
    return None


def _tensors(value: object, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of what torch loaded under dotted paths; nothing where its keys are no texts, or cycles make it endless."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif path.count(".") < 20 and isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            yield from _tensors(child, f"{path}.{_key_text(key)}" if path else _key_text(key))


def _key_text(key: object) -> str:
    """Keys that are no texts, as this project calls them."""
    if isinstance(key, torch.Tensor):
        return describe(key)
    return f"{key.__module__}.{key.__qualname__}" if isinstance(key, FunctionType | type) else str(key)


def describe(tensor: torch.Tensor) -> str:
    """The name that a tensor has where it is the key of another."""
    info = tensor_info("", tensor)
    return f"tensor {info.dtype.value} {size_text(info.shape)}"


def _compare(checkpoint: Checkpoint, key: str, tensor: torch.Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise Misread(f"`{key}` is {tensor.layout}")
    info, wanted = checkpoint.catalog[key], tensor_info(key, tensor)
    if (info.dtype, info.shape) != (wanted.dtype, wanted.shape):
        raise Misread(f"`{key}` is {info.dtype} {info.shape}, not {wanted.dtype} {wanted.shape}")
    if info.nbytes < MOST_BYTES and checkpoint.raw(key) != bytes(to_bytes(tensor)):
        raise Misread(f"the bytes of `{key}` differ")


def _change_member(raw: bytes, others: list[bytes], chance: Random) -> bytes:
    """A torch zip with one member changed and all checksums right; or, where it is none any more, with changed bytes."""
    members = seeds.members_of(raw)
    name = chance.choice(list(members))
    change = change_opcodes if name.endswith(".pkl") and chance.random() < 0.7 else change_bytes
    members[name] = change(members[name], [content for content in members.values() if content], chance)
    if chance.random() < 0.1:
        members[chance.choice(("data/1", "x", "data.pkl ", "Data/0", "../a", "version", "constants.pkl", "byteorder", ".data/x"))] = (
            members.pop(name)
        )
    return seeds.repacked(members, chance.random() < 0.2)


TARGETS = {
    "safetensors": Target(seeds.safetensors, (change_bytes, change_header, change_fields), check_file),
    "safetensors-oracle": Target(seeds.safetensors, (change_bytes, change_header, change_fields), check_against_safetensors),
    "zip": Target(seeds.torch_zip, (change_bytes, _change_member), check_zip),
    "torch-oracle": Target(lambda: seeds.torch_zip() + seeds.legacy(), (change_bytes,), check_against_torch),
    "member-oracle": Target(seeds.torch_zip, (_change_member,), check_against_torch),
    "pickle": Target(lambda: seeds.pickles() + seeds.bad_pickles(), (change_bytes, change_opcodes, change_opcodes), check_pickle),
    "legacy": Target(seeds.legacy, (change_bytes, change_opcodes), check_against_torch),
    "tar": Target(seeds.tars, (change_bytes,), check_tar),
    "arrays": Target(seeds.arrays, (change_bytes,), check_against_numpy),
    "gguf": Target(seeds.gguf, (change_bytes,), check_file),
    "index": Target(seeds.indexes, (change_bytes, change_words), check_index),
    "key-list": Target(seeds.key_lists, (change_bytes, change_words), check_file),
    "junk": Target(lambda: seeds.junk() + seeds.key_lists() + seeds.gguf()[:1], (change_bytes,), check_file),
    "rules": Target(seeds.rule_files, (change_words, change_words, change_bytes), check_rules),
    "patterns": Target(seeds.patterns, (change_words, change_bytes), check_pattern),
    "formulas": Target(formulas, (change_words, change_bytes), check_formula),
    "params": Target(params, (change_words, change_bytes), check_params),
    "catalogs": Target(catalog_pairs, (change_words, change_words, change_bytes), check_catalogs),
    "steps": Target(state_dicts, (change_bytes, change_opcodes), check_steps),
    "plain-header": Target(headers, (change_bytes, change_words), check_header),
    "torchscript": Target(seeds.torchscript, (_change_member, change_bytes), check_file),
}
