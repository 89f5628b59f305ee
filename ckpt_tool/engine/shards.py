"""An output of several files, as the hub has them: `model-00001-of-00003.safetensors`, …, and an index, which is written last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckpt_tool.engine.atomic import atomic_output
from ckpt_tool.engine.copying import write_at
from ckpt_tool.engine.run import Tell, Written, write_members
from ckpt_tool.errors import OutputError
from ckpt_tool.tensors import Catalog, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping.plan import Plan

INDEX = "model.safetensors.index.json"


def write_sharded(
    plan: Plan, source: TensorSource, target: TensorSource | None, folder: str, most: int, replace: bool = False, tell: Tell | None = None
) -> Written:
    """Writes what the plan says to safetensors files of at most `most` bytes of tensors each, in a folder.

    Each file is complete or absent, and the index comes last: without it the folder is no checkpoint. A tensor that is larger
    than `most` has a file of its own. Raises OutputError, and what `write_checkpoint` raises.
    """
    parts = list(_parts(plan.outputs, most))
    names = [f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)]
    _make_folder(folder, [*names, INDEX], replace)
    written = [
        write_members(plan, source, target, os.path.join(folder, name), Catalog(part), replace, tell)
        for name, part in zip(names, parts, strict=True)
    ]
    _write_index(folder, dict(zip(names, parts, strict=True)), replace)
    ties = tuple(tie for each in written for tie in each.ties)
    return Written(folder, "safetensors", len(plan.outputs), sum(each.nbytes for each in written), ties, tuple(names))


def _parts(outputs: Catalog, most: int) -> Iterator[list[TensorInfo]]:
    """The tensors in their order, as many at a time as have room together."""
    part: list[TensorInfo] = []
    size = 0
    for info in outputs.values():
        if part and size + info.nbytes > most:
            yield part
            part, size = [], 0
        part.append(info)
        size += info.nbytes
    yield part


def _make_folder(folder: str, names: list[str], replace: bool) -> None:
    """Raises OutputError where something is there already; files of other names stay untouched."""
    try:
        os.makedirs(folder, exist_ok=True)
        there = sorted(os.listdir(folder))
    except OSError as error:
        raise OutputError(folder, f"can't be made: {(error.strerror or str(error)).lower()}") from None
    taken = [name for name in there if name in names or name.endswith((".safetensors", ".index.json"))]
    if taken and not replace:
        raise OutputError(folder, f"holds `{taken[0]}` already", "`--force` replaces files of the same names")
    if stray := [name for name in taken if name not in names]:
        raise OutputError(folder, f"holds `{stray[0]}`, which would be taken for a part of this checkpoint", "give another folder")
    if replace and INDEX in there:
        # Until the new index is written, nothing says that old and new files belong together.
        os.unlink(os.path.join(folder, INDEX))


def _write_index(folder: str, parts: dict[str, list[TensorInfo]], replace: bool) -> None:
    total = sum(info.nbytes for part in parts.values() for info in part)
    weight_map = {info.key: name for name, part in parts.items() for info in part}
    content = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2, ensure_ascii=False).encode() + b"\n"
    with atomic_output(os.path.join(folder, INDEX), len(content), replace) as fd:
        write_at(fd, content, 0)
