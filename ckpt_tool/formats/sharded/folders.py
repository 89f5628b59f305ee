"""A folder as a checkpoint: the index or the one file in it that holds the weights, or its numbered
shards.
"""

import os
import re

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.key_list import CHECKPOINT_SUFFIXES
from ckpt_tool.formats.sharded.numbered import Numbered, numbered_sets
from ckpt_tool.formats.sharded.parts import (
    DATA_SUFFIX,
    METADATA,
    Parts,
    find_inner,
    find_parts,
    steps_in,
)
from ckpt_tool.tensors import counted

STEMS = ("model", "diffusion_pytorch_model", "adapter_model", "pytorch_model")
"""Names that Hugging Face's libraries give to weights."""
SUFFIXES = (".safetensors.index.json", ".bin.index.json", ".safetensors", ".bin")
"""In this order: an index stands for all its shards."""
MAX_FOLDERS = 20
_OWN_METADATA = re.compile(r"__[0-9]+\.metadata")
_OTHERS = (
    ("manifest.ocdbt", "is an orbax checkpoint", "convert it with orbax and numpy.savez"),
    ("_METADATA", "is an orbax checkpoint", "convert it with orbax and numpy.savez"),
    ("saved_model.pb", "is a TensorFlow SavedModel", "convert it with tensorflow and numpy.savez"),
)  # fmt: skip
_PARTS: tuple[tuple[str, str, str], ...] = (
    (r"mp_rank_\d+_model_states\.pt",
     "holds DeepSpeed's model states, {} tensor-parallel parts of one model",
     "join them with the library that wrote them; one file is a part: show it by its name"),
    (r"consolidated\.\d+\.(?:pth|safetensors)",
     "holds a model in {} tensor-parallel parts, as Meta ships Llama",
     "transformers 4's convert_llama_weights_to_hf.py joins them; one file is a part: "
     "show it by its name"),
    (r"mp_rank_\d+(?:_\d+)?",
     "holds a Megatron checkpoint in {} folders, "
     "each a tensor- or pipeline-parallel part of one model",
     "convert it with Megatron's tools/checkpoint/convert.py; or show a file in one of them"),
)  # fmt: skip
"""How files of several processes are called, what they are, and what makes a whole of them."""
_ONLY_PART = re.compile(r"consolidated(?:\.00)?\.(?:pth|safetensors)|mp_rank_00_model_states\.pt")
"""The name of the first part of a model, which may be the only one."""


def find_checkpoint(folder: Folder) -> str | Numbered | Parts:
    """The name of the file to open, or the shards, or the parts of several processes. Raises
    InputError where there is none, or more than one.
    """
    names, path = set(folder.names()), folder.path
    found = _indexes(names) or _usual_names(names, SUFFIXES[2:])
    if METADATA in names:
        found.append(METADATA)
    if len(found) == 1:
        _refuse_shards_beside(path, found[0], names)
        return found[0]
    if found:
        raise InputError(
            path,
            f"is a folder with {len(found)} checkpoints: {', '.join(found[:20])}",
            "name one of them",
        )
    if parts := find_parts(folder, names):
        return parts
    _refuse_parts(path, names)
    return _numbered(folder, names)


def _usual_names(names: set[str], suffixes: tuple[str, ...]) -> list[str]:
    usual = [f"{stem}{suffix}" for suffix in suffixes for stem in STEMS]
    return [name for name in usual if name in names]


def _indexes(names: set[str]) -> list[str]:
    """The indexes, those of usual names first."""
    usual = _usual_names(names, SUFFIXES[:2])
    return usual + sorted(name for name in names - set(usual) if name.endswith(SUFFIXES[:2]))


def _refuse_shards_beside(folder: str, found: str, names: set[str]) -> None:
    """Raises InputError for numbered shards that are all there beside a whole file: two
    checkpoints, and neither is meant more.
    """
    sets = (
        []
        if found.endswith(SUFFIXES[:2])
        else [one for one in numbered_sets(names) if not one.missing]
    )
    if sets:
        fact = (
            f"is a folder with {1 + len(sets)} checkpoints: {found}, "
            f"and the {sets[0].count} shards from {sets[0].names[0]} on"
        )
        raise InputError(folder, fact, f"name {found}, or move it away")


def _refuse_parts(folder: str, names: set[str]) -> None:
    """Raises FormatError for the files of several processes that are not joined here."""
    for pattern, fact, hint in _PARTS:
        count = sum(map(bool, map(re.compile(pattern).fullmatch, names)))
        if count > 1:
            raise FormatError(folder, fact.format(count), hint)


def _numbered(folder: Folder, names: set[str]) -> str | Numbered | Parts:
    """The one set of numbered shards, or the only part of a model in one part."""
    sets = numbered_sets(names)
    if len(sets) == 1 or _is_only_whole_set(sets):
        return sets[0]
    if sets:
        names_of = ", ".join(one.names[0] for one in sets[:5])
        raise InputError(
            folder.path,
            f"is a folder with {len(sets)} sets of numbered shards: {names_of}, …",
            "keep those of one in it",
        )
    alone = [name for name in names if _ONLY_PART.fullmatch(name)]
    if len(alone) == 1:
        return alone[0]
    if inner := find_inner(folder, names):
        return inner
    if steps := steps_in(folder, names):
        listed = ", ".join(steps) if len(steps) < 4 else f"{steps[0]}, …, {steps[-1]}"
        fact = f"is a folder of {counted(len(steps), 'step')} of DeepSpeed, without `latest`"
        raise InputError(folder.path, f"{fact}: {listed}", f"name one: {folder.join(steps[-1])}")
    raise _nothing(folder.path, names)


def _is_only_whole_set(sets: list[Numbered]) -> bool:
    """Whether the first set is all there, and no other is."""
    return bool(sets) and not sets[0].missing and all(one.missing for one in sets[1:])


def _nothing(folder: str, names: set[str]) -> InputError:
    for name, fact, hint in _OTHERS:
        if name in names:
            return FormatError(folder, fact, hint)
    if any(name.endswith(DATA_SUFFIX) for name in names):
        return _without_metadata(folder, names)
    if inner := sorted(name for name in names if _is_distributed(folder, name))[:MAX_FOLDERS]:
        listed = ", ".join(inner[:3]) + (", …" if len(inner) > 3 else "")
        fact = f"is a folder of distributed checkpoints (DCP): {listed}"
        return InputError(folder, fact, f"name one: {os.path.join(folder, inner[-1])}")
    if some := sorted(filter(_is_named_checkpoint, names)):
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        fact = f"is a folder without a known checkpoint file, but with {', '.join(some[:3])}{more}"
        return InputError(folder, fact, "name one of them")
    return InputError(
        folder,
        f"is a folder without a known checkpoint file ({STEMS[0]}.safetensors, "
        "an *.index.json, ...)",
        "name the file itself",
    )


def _without_metadata(folder: str, names: set[str]) -> FormatError:
    """The error of the data files of a distributed checkpoint that nothing describes."""
    own = sorted(filter(_OWN_METADATA.fullmatch, names))
    if own:
        return FormatError(
            folder,
            f"is a distributed checkpoint (DCP) whose {len(own)} processes each wrote "
            f"a `.metadata` of its own ({own[0]}, …)",
            "torch loads it in as many processes; save it with collectives (use_collectives=True)",
        )
    if f"{METADATA}.tmp" in names:
        return FormatError(
            folder,
            "is a distributed checkpoint (DCP) that was not finished: its `.metadata` is missing, "
            "and `.metadata.tmp` is there",
            "take an earlier one",
        )
    return FormatError(
        folder,
        "holds the data of a distributed checkpoint (DCP) without its `.metadata`, "
        "which is written last",
        "copy the whole folder; if it was never written, take an earlier one",
    )


def _is_distributed(folder: str, name: str) -> bool:
    """Whether a name in a folder is that of a distributed checkpoint's own folder."""
    return os.path.lexists(os.path.join(folder, name, METADATA))


def _is_named_checkpoint(name: str) -> bool:
    return name.lower().endswith(CHECKPOINT_SUFFIXES) or name.endswith(".ckpt.index")
