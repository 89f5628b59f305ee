"""Which files of a folder are those of a DeepSpeed checkpoint, and whether all are there."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.rank_files import check_stays, refuse_missing
from ckpt_tool.formats.folder import Folder, LocalFolder

_OPTIMIZER = re.compile(
    r"(?P<before>(?:bf16_|fp16_)?zero_pp_rank_)(?P<rank>[0-9]{1,5})"
    r"(?P<after>_mp_rank_(?P<part>[0-9]{1,5})_optim_states\.pt)"
)
_MODEL = re.compile(
    r"(?:zero_pp_rank_(?P<rank>[0-9]{1,5})_)?mp_rank_(?P<part>[0-9]{1,5})_model_states\.pt"
)
_OTHERS = (
    (r"layer_[0-9]+_expert_[0-9]+_mp_rank_[0-9]+_model_states\.pt|expp_rank_.*_optim_states\.pt",
     "holds a DeepSpeed checkpoint whose experts are spread over the ranks"),
    (r"layer_[0-9]+-model_[0-9]+-model_states\.pt",
     "holds a DeepSpeed checkpoint in the parts of a pipeline"),
)  # fmt: skip
TO_UNIVERSAL = "DeepSpeed's ds_to_universal.py joins them; one file is a part: show it by its name"
LATEST = "latest"
"""A text with the name of the folder of the last step."""
_TAG_BYTES = 4096
MAX_NAME = 255
"""What file systems allow."""


@dataclass(frozen=True, slots=True)
class ZeroNames:
    """The files of a folder: the optimizer's in the order of their ranks, and the model's, the
    first of which has what all have.
    """

    folder: Folder
    optimizer: tuple[str, ...]
    model: tuple[str, ...]


def is_zero(names: Iterable[str]) -> bool:
    """Whether the optimizer's files of ZeRO are among these."""
    return any(map(_OPTIMIZER.fullmatch, names))


def zero_names(folder: Folder, names: Collection[str]) -> ZeroNames:
    """The files of all ranks. Raises FormatError for one that is missing, and for a checkpoint that
    is cut in other ways too.
    """
    found = [match for name in sorted(names) if (match := _OPTIMIZER.fullmatch(name))]
    models = [match for name in sorted(names) if (match := _MODEL.fullmatch(name))]
    _refuse_other_cuts(folder, names, {int(match["part"]) for match in (*found, *models)})
    by_rank = {int(match["rank"]): match[0] for match in found}
    if len(by_rank) < len(found):
        twice = next(match[0] for match in found if by_rank[int(match["rank"])] != match[0])
        raise FormatError(
            folder.path,
            f"has two files of one rank, {twice} and {by_rank[_rank_of(twice)]}",
            "keep those of one run in it",
        )
    count = max(by_rank) + 1
    missing = [_named_as(found[0], rank) for rank in range(count) if rank not in by_rank]
    refuse_missing(folder, missing, count)
    return ZeroNames(folder, tuple(by_rank[rank] for rank in range(count)), _models(folder, models))


def model_names(names: ZeroNames, ranks: int) -> list[str]:
    """What the files of the model's states of all ranks are called, whether they are there or
    not.
    """
    first = names.model[0]
    return [first.replace("zero_pp_rank_0_", f"zero_pp_rank_{rank}_", 1) for rank in range(ranks)]


def optimizer_names(names: ZeroNames, ranks: int) -> list[str]:
    """The same for those of the optimizer."""
    match = _OPTIMIZER.fullmatch(names.optimizer[0])
    assert match
    return [_named_as(match, rank) for rank in range(ranks)]


def _named_as(match: re.Match[str], rank: int) -> str:
    return f"{match['before']}{rank}{match['after']}"


def _rank_of(name: str) -> int:
    match = _OPTIMIZER.fullmatch(name)
    assert match
    return int(match["rank"])


def model_files(folder: Folder, names: Collection[str]) -> tuple[str, ...]:
    """The files of the model's states that are there, that of the first rank first. Raises
    FormatError where that isn't.
    """
    found = [match for name in sorted(names) if (match := _MODEL.fullmatch(name))]
    return _models(folder, [match for match in found if int(match["part"]) == 0])


def _models(folder: Folder, models: list[re.Match[str]]) -> tuple[str, ...]:
    """The one of stages 1 and 2, or those of all ranks that are there, the first of which must
    be.
    """
    alone = [match[0] for match in models if match["rank"] is None]
    by_rank = {int(match["rank"]): match[0] for match in models if match["rank"] is not None}
    if alone:
        return (alone[0],)
    if 0 not in by_rank:
        raise FormatError(
            folder.path,
            "has the optimizer's files of DeepSpeed ZeRO, and no mp_rank_00_model_states.pt or "
            "zero_pp_rank_0_mp_rank_00_model_states.pt, which has the parameters' names",
            "copy the whole folder",
        )
    return tuple(by_rank[rank] for rank in sorted(by_rank))


def _refuse_other_cuts(folder: Folder, names: Collection[str], parts: set[int]) -> None:
    for pattern, fact in _OTHERS:
        if any(map(re.compile(pattern).fullmatch, names)):
            raise FormatError(folder.path, fact, TO_UNIVERSAL)
    if parts - {0}:
        count = max(parts) + 1
        fact = f"holds a DeepSpeed ZeRO checkpoint of {count} tensor-parallel parts of each matrix"
        raise FormatError(folder.path, fact, TO_UNIVERSAL)


def latest_step(folder: Folder) -> str:
    """The path of the folder that `latest` names. Raises FormatError where it leads elsewhere or
    isn't there.
    """
    with folder.open(LATEST) as file:
        text = file.read(0, min(file.size, _TAG_BYTES)).decode("utf-8", "replace").strip()
    is_name = (
        len(text) <= MAX_NAME
        and text not in ("", ".", "..")
        and text.isprintable()
        and not set(text) & set("/\\:#")
    )
    if not is_name:
        raise FormatError(
            folder.join(LATEST),
            f"names {text[:100]!r}, which is not a folder beside it",
            "name the folder of a step",
        )
    step = folder.join(text)
    if isinstance(folder, LocalFolder):
        if not os.path.isdir(step):
            fact = f"its `latest` names {text}, which isn't there"
            raise FormatError(folder.path, fact, "copy it too")
        check_stays(folder, text)
    return step
