"""The files of several processes in a folder, told by their names: what they are parts of."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection
from typing import Literal

from ckpt_tool.formats.folder import Folder, LocalFolder, names_in
from ckpt_tool.frozen import frozen

METADATA = ".metadata"
DATA_SUFFIX = ".distcp"
"""What describes a distributed checkpoint, in the folder of its files, and how these end."""
Kind = Literal["zero", "zero steps", "universal", "safetensors", "ranks"]


@frozen
class Parts:
    """A folder whose files are read together; `kind` says how."""

    folder: Folder
    kind: Kind
    names: tuple[str, ...]


_ZERO = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_(?:model|optim)_states\.pt")
_STEP = re.compile(r"global_step[0-9]{1,18}(?:_universal)?")
_SAFETENSORS = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")
RANK = re.compile(
    r"(?P<before>.*?(?:world_size_(?P<world>[0-9]{1,6})_)?rank[-_.]?)(?P<rank>[0-9]{1,6})"
    r"(?P<after>\.(?:pt|pth|bin|ckpt))",
    re.DOTALL,
)
"""How a process's file is called by verl, accelerate and most people's own code."""


def find_parts(folder: Folder, names: Collection[str]) -> Parts | None:
    """The parts of one checkpoint that a folder holds, if it does."""
    kinds: tuple[tuple[Kind, bool], ...] = (
        ("universal", "zero" in names and _is_universal(folder)),
        ("zero", any(map(_ZERO.fullmatch, names))),
        ("safetensors", any(map(_SAFETENSORS.fullmatch, names))),
        ("ranks", _are_of_ranks(names)),
    )
    found = next((kind for kind, is_there in kinds if is_there), None)
    return Parts(folder, found, tuple(sorted(names))) if found else None


def _is_universal(folder: Folder) -> bool:
    """Whether `zero` is a folder of folders in which a parameter's weights are."""
    if not isinstance(folder, LocalFolder):
        return False
    inside = LocalFolder(folder.join("zero"))
    return any(os.path.lexists(inside.join(f"{name}/fp32.pt")) for name in names_in(inside))


def _are_of_ranks(names: Collection[str]) -> bool:
    """Whether there are surely files of processes: `lora_rank16.pt` is none. Their numbers begin at
    0, or at 1 where that one is missing.
    """
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for match in filter(None, map(RANK.fullmatch, names)):
        if match["world"] is not None or "fsdp" in match["before"].lower():
            return True
        numbers[match["before"], match["after"]].add(int(match["rank"]))
    return any(
        0 in ranks or (len(ranks) > 1 and ranks == set(range(1, len(ranks) + 1)))
        for ranks in numbers.values()
    )


def find_inner(folder: Folder, names: Collection[str]) -> Parts | None:
    """What a folder without a checkpoint of its own leads to: DeepSpeed's, in which `latest` names
    the folder of the last step, and torch's, with the parts that were not joined.
    """
    if "latest" in names and _is_file(folder, "latest"):
        return Parts(folder, "zero steps", tuple(sorted(names)))
    inner = LocalFolder(folder.join("sharded"))
    if "sharded" in names and isinstance(folder, LocalFolder):
        found = find_parts(inner, names_in(inner))
        return found if found and found.kind == "safetensors" else None
    return None


def steps_in(folder: Folder, names: Collection[str]) -> list[str]:
    """The folders in it that hold DeepSpeed's files of a step, in the order of their numbers."""
    if not isinstance(folder, LocalFolder):
        return []
    steps = [name for name in names if _STEP.fullmatch(name) and os.path.isdir(folder.join(name))]
    return sorted(steps, key=lambda name: (int(name.rpartition("step")[2].split("_")[0]), name))


def _is_file(folder: Folder, name: str) -> bool:
    return not isinstance(folder, LocalFolder) or os.path.isfile(folder.join(name))
