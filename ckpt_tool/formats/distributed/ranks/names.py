"""Which files of a folder are those of the ranks of one checkpoint, and whether all are there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.distributed.rank_files import SHOWN, refuse_missing
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.sharded.parts import RANK

_TRAINING = ("optim", "extra_state", "rng", "random", "sched", "scaler", "loader", "sampler")
"""What files are called that hold no weights."""


@dataclass(frozen=True, slots=True)
class Family:
    """Files that differ by their rank; `before` and `after` are what stands around it in their
    names, the first of which is that of rank 0.
    """

    folder: Folder
    before: str
    after: str
    names: tuple[str, ...]
    is_counted: bool
    """Whether the names say how many there are."""

    def named(self, rank: int) -> str:
        """What a rank's file is called, whether it is there or not."""
        width = len(self.names[0]) - len(self.before) - len(self.after)
        return f"{self.before}{rank:0{width}}{self.after}"


def find_family(folder: Folder, names: Iterable[str], path: str, wanted: str) -> tuple[Family, str]:
    """The files of the model's ranks, and what is wanted of each of them; `wanted` may be what
    other files begin with: `optim`. Raises InputError where several are equally likely,
    FormatError for a rank that is missing.
    """
    families: dict[tuple[str, str], dict[int, re.Match[str]]] = defaultdict(dict)
    for name in sorted(names):
        if match := RANK.fullmatch(name):
            families[match["before"], match["after"]][int(match["rank"])] = match
    asked = [one for one in families if wanted and one[0].startswith(wanted)]
    models = [one for one in families if not any(word in one[0].lower() for word in _TRAINING)]
    found = asked or models or list(families)
    if len(found) > 1:
        each = ", ".join(families[one][min(families[one])][0] for one in found[:SHOWN])
        begins = found[0][0].split("_")[0]
        raise InputError(
            folder.path,
            f"has files of ranks of {len(found)} kinds: {each}",
            f"name what those begin with that you mean: {path}#{begins}",
        )
    family = _family(folder, found[0], families[found[0]])
    return family, "." if asked else wanted


def _family(folder: Folder, name: tuple[str, str], ranks: dict[int, re.Match[str]]) -> Family:
    one = next(iter(ranks.values()))
    count = int(one["world"]) if one["world"] else max(ranks) + 1
    if count <= max(ranks):
        fact = f"has a file of rank {max(ranks)}, and a name that says {count} ranks"
        raise FormatError(folder.path, f"{fact}: {ranks[max(ranks)][0]}")
    width = min(len(match["rank"]) for match in ranks.values())
    missing = [f"{name[0]}{rank:0{width}}{name[1]}" for rank in range(count) if rank not in ranks]
    refuse_missing(folder, missing, count)
    return Family(folder, *name, tuple(ranks[rank][0] for rank in range(count)), bool(one["world"]))
