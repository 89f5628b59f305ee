"""The files of several processes in a folder, told by their names: what they are parts of."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Kind = Literal["zero", "zero steps", "safetensors", "ranks"]


@dataclass(frozen=True, slots=True)
class Parts:
    """A folder whose files are read together; `kind` says how."""

    folder: str
    kind: Kind
    names: tuple[str, ...]


_ZERO = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_(?:model|optim)_states\.pt")
_SAFETENSORS = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors")
RANK = re.compile(
    r"(?P<before>.*?(?:world_size_(?P<world>[0-9]{1,6})_)?rank[-_.]?)(?P<rank>[0-9]{1,6})"
    r"(?P<after>\.(?:pt|pth|bin|ckpt))",
    re.DOTALL,
)
"""How a process's file is called by verl, accelerate and most people's own code."""


def find_parts(folder: str, names: Collection[str]) -> Parts | None:
    """The parts of one checkpoint that a folder holds, if it does."""
    kinds: tuple[tuple[Kind, bool], ...] = (
        ("zero", any(map(_ZERO.fullmatch, names))),
        ("safetensors", any(map(_SAFETENSORS.fullmatch, names))),
        ("ranks", any(map(_is_of_ranks, names))),
    )
    found = next((kind for kind, is_there in kinds if is_there), None)
    return Parts(folder, found, tuple(sorted(names))) if found else None


def _is_of_ranks(name: str) -> bool:
    """Whether a name is surely that of a process's file: `lora_rank16.pt` is none."""
    match = RANK.fullmatch(name)
    return match is not None and (
        int(match["rank"]) == 0 or match["world"] is not None or "fsdp" in name.lower()
    )


def find_steps(folder: str, names: Collection[str]) -> Parts | None:
    """A folder of DeepSpeed's in which `latest` names the one of the last step, if it is one."""
    is_there = "latest" in names and os.path.isfile(os.path.join(folder, "latest"))
    return Parts(folder, "zero steps", tuple(sorted(names))) if is_there else None
