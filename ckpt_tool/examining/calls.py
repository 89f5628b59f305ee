"""What unpickling files would call or import: nothing of it is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ckpt_tool.errors import InputError, WithoutTensors
from ckpt_tool.formats import open_checkpoint


@dataclass(frozen=True, slots=True)
class Scan:
    """A file, and the names that unpickling it would call or import besides those of plain tensors;
    `fault` says why it couldn't be read, where that is so.
    """

    path: str
    calls: tuple[str, ...] = ()
    fault: str | None = None


def scan(paths: Iterable[str]) -> tuple[Scan, ...]:
    """Each file or folder, in this order. A pickle need not hold a tensor."""
    return tuple(map(_scan, paths))


def _scan(path: str) -> Scan:
    try:
        with open_checkpoint(path) as checkpoint:
            return Scan(path, checkpoint.asked)
    except WithoutTensors as error:
        return Scan(path, error.asked)
    except InputError as error:
        return Scan(path, fault=f"{error.fact}; {error.hint}" if error.hint else error.fact)
