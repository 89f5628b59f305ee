"""Whether DeepSpeed's files are of one run and one step, by what they say of it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Extra
from ckpt_tool.formats.distributed.rank_files import locate
from ckpt_tool.formats.distributed.zero.states import Partition
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.tensors import DType

_NUMBERS = {DType.F32: "<f", DType.F64: "<d", DType.I64: "<q", DType.I32: "<i"}
_NAMED = re.compile(r"global_step([0-9]{1,18})")
_HINT = "they are of different runs or steps"


def check_one_run(parts: Sequence[Partition], pickles: Sequence[PickledFile]) -> None:
    """Raises FormatError where the ranks' files of the optimizer are of different steps or versions
    of DeepSpeed, or one is a copy of another.
    """
    check_versions(pickles)
    known, first = frozenset[float](), ""
    for one, pickled in zip(parts, pickles, strict=True):
        if not any(flat.count for flat in one.groups):
            continue
        steps = frozenset(_steps(pickled))
        if not known:
            known, first = steps, pickled.path
        elif steps - known:
            own, others = min(steps - known), min(known)
            fact = f"its optimizer is at step {own:g}; that of {first} is at {others:g}"
            raise FormatError(pickled.path, fact, _HINT)
    _refuse_copies(parts)


def only_step(pickles: Iterable[PickledFile]) -> float | None:
    """The step of the optimizer, where files note one and all note the same."""
    steps = {step for pickled in pickles for step in _steps(pickled)}
    return steps.pop() if len(steps) == 1 else None


def check_versions(pickles: Iterable[PickledFile]) -> None:
    """Raises FormatError where files differ in `ds_version` or `global_steps`, as far as they have
    them.
    """
    seen: dict[str, tuple[object, str]] = {}
    for pickled in pickles:
        root = pickled.root if isinstance(pickled.root, dict) else {}
        for name, kind in (("ds_version", str), ("global_steps", int)):
            own = root.get(name)
            if type(own) is not kind:
                continue
            given, path = seen.setdefault(name, (own, pickled.path))
            if own != given:
                fact = f"its {name} is {str(own)[:60]}; that of {path} is {str(given)[:60]}"
                raise FormatError(pickled.path, fact, _HINT)


def step_notes(folder: Folder, pickled: PickledFile) -> Iterator[Extra]:
    """A note where a folder is named after another step than the one that its files are of."""
    named = _NAMED.fullmatch(folder.name)
    root = pickled.root if isinstance(pickled.root, dict) else {}
    step = root.get("global_steps")
    if named and type(step) is int and int(named[1]) != step:
        text = f"the folder is named after step {int(named[1])}; its files are of step {step:,}"
        yield Extra("", "note", text)


def _steps(pickled: PickledFile) -> Iterator[float]:
    """The steps that a file's optimizer has made, of each group as far as they are noted."""
    root = pickled.root if isinstance(pickled.root, dict) else {}
    states = root.get("optimizer_state_dict")
    for name in ("optimizer_state_dict", "base_optimizer_state"):
        base = states.get(name) if isinstance(states, dict) else None
        groups = base.get("state") if isinstance(base, dict) else base
        each = groups.values() if isinstance(groups, dict) else groups
        for group in each if isinstance(each, Iterable) else ():
            step = number_of(group.get("step"), pickled) if isinstance(group, dict) else None
            if step is not None:
                yield step


def number_of(value: object, pickled: PickledFile) -> float | None:
    """A plain number, or that of a tensor of one; None for anything else."""
    if type(value) is int or type(value) is float:
        return value if abs(value) < 1 << 62 else None
    if type(value) is not TensorRef:
        return None
    measured, place = locate(value, "step", pickled)
    code = _NUMBERS.get(measured.info.dtype)
    if code is None or type(place) is not Extent or place.length != struct.calcsize(code):
        return None
    number: float = struct.unpack(code, place.read())[0]
    return number


def _refuse_copies(parts: Sequence[Partition]) -> None:
    """By the archives' checksums, then by the bytes; those that are one number alone may be equal
    in several ranks, and so may those that are checked by nothing.
    """
    seen: dict[tuple[int, ...], Partition] = {}
    for one in parts:
        sums = [flat.extent.crc32 for flat in one.groups]
        known = tuple(each for each in sums if each is not None)
        if len(known) < len(sums) or not any(map(_has_numbers, _extents(one))):
            continue
        other = seen.setdefault(known, one)
        if other is not one and all(map(Extent.equals, _extents(one), _extents(other))):
            fact = f"its weights are those of {other.path}, byte by byte"
            raise FormatError(one.path, fact, "is it a copy? each rank has its own part")


def _extents(one: Partition) -> Iterator[Extent]:
    return (flat.extent for flat in one.groups)


def _has_numbers(extent: Extent) -> bool:
    """Whether there are two numbers that are neither equal nor zero, in its beginning."""
    size = min(extent.length, 1 << 16) & ~3
    words = struct.unpack(f"<{size // 4}I", extent.file.read(extent.offset, size))
    return len(set(words) - {0}) > 1
