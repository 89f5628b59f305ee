"""What unpickling files would call or import: nothing of it is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckpt_tool.errors import InputError, WithoutTensors
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.key_list import is_named_checkpoint
from ckpt_tool.formats.registry import FORMATS, HEAD
from ckpt_tool.formats.sharded.parts import DATA_SUFFIX, METADATA


@dataclass(frozen=True, slots=True)
class Scan:
    """A file, and the names that unpickling it would call or import besides those of plain tensors;
    `fault` says why it couldn't be read, where that is so.
    """

    path: str
    calls: tuple[str, ...] = ()
    fault: str | None = None


def scan(paths: Iterable[str]) -> tuple[Scan, ...]:
    """Each file in this order, of a folder the checkpoints and pickles in it and in its folders. A
    pickle need not hold a tensor.

    Raises InputError for a folder that has none.
    """
    return tuple([_scan(path) for given in paths for path in _files(given)])


def _files(path: str) -> list[str]:
    """What is to be read of a path: the files of a folder, else itself."""
    if not os.path.isdir(path):
        return [path]
    found = list(_files_below(path))
    if not found:
        raise InputError(path, "is a folder without checkpoints or other pickles")
    return found


def _files_below(folder: str) -> Iterator[str]:
    """Links to folders are not followed; a folder that can't be listed is named itself, for opening
    it says why.
    """
    unlisted: list[str] = []
    for place, folders, names in os.walk(
        folder, onerror=lambda error: unlisted.append(error.filename)
    ):
        folders.sort()
        # The data files of a distributed checkpoint are read by what describes them.
        is_described = METADATA in names
        for name in sorted(names):
            path = os.path.join(place, name)
            if not (is_described and name.endswith(DATA_SUFFIX)) and _is_readable(path):
                yield path
    yield from unlisted


def _is_readable(path: str) -> bool:
    """Whether a file is called a checkpoint, or begins as one; opening says why where it can't be
    read.
    """
    if is_named_checkpoint(path):
        return True
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
        return any(format.recognise(head, os.path.getsize(path)) for format in FORMATS)
    except OSError:
        return True


def _scan(path: str) -> Scan:
    try:
        with open_checkpoint(path) as checkpoint:
            return Scan(path, checkpoint.asked)
    except WithoutTensors as error:
        return Scan(path, error.asked)
    except InputError as error:
        return Scan(path, fault=f"{error.fact}; {error.hint}" if error.hint else error.fact)
