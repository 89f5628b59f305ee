"""A folder as a checkpoint: the index or the one file in it that holds the weights."""

import os

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.key_list import CHECKPOINT_SUFFIXES

STEMS = ("model", "diffusion_pytorch_model", "adapter_model", "pytorch_model")
"""Names that Hugging Face's libraries give to weights."""
SUFFIXES = (".safetensors.index.json", ".bin.index.json", ".safetensors", ".bin")
"""In this order: an index stands for all its shards."""
_OTHERS = (
    (".metadata", "is a distributed checkpoint of torch (DCP)",
     "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pth"),
    ("manifest.ocdbt", "is an orbax checkpoint", "convert it with orbax and numpy.savez"),
    ("_METADATA", "is an orbax checkpoint", "convert it with orbax and numpy.savez"),
    ("saved_model.pb", "is a TensorFlow SavedModel", "convert it with tensorflow and numpy.savez"),
    ("latest", "is a DeepSpeed checkpoint", "convert it with its zero_to_fp32.py, or open the mp_rank_00_model_states.pt inside"),
)  # fmt: skip


def find_checkpoint(folder: str) -> str:
    """The path to open. Raises InputError where there is none, or more than one."""
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise InputError(folder, str(error.strerror).lower()) from None
    indexes = [f"{stem}{suffix}" for suffix in SUFFIXES[:2] for stem in STEMS if f"{stem}{suffix}" in names]
    indexes += sorted(name for name in names - set(indexes) if name.endswith(SUFFIXES[:2]))
    found = indexes or [f"{stem}{suffix}" for suffix in SUFFIXES[2:] for stem in STEMS if f"{stem}{suffix}" in names]
    if len(found) == 1:
        return os.path.join(folder, found[0])
    if found:
        raise InputError(folder, f"is a folder with {len(found)} checkpoints: {', '.join(found[:20])}", "name one of them")
    raise _nothing(folder, names)


def _nothing(folder: str, names: set[str]) -> InputError:
    for name, fact, hint in _OTHERS:
        if name in names:
            return FormatError(folder, fact, hint)
    if any(name.endswith(".distcp") for name in names):
        return FormatError(folder, "holds the data of a distributed checkpoint (DCP) without its `.metadata`", "copy the whole folder")
    some = sorted(name for name in names if name.lower().endswith(CHECKPOINT_SUFFIXES) or name.endswith(".ckpt.index"))
    if some:
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        fact = f"is a folder without a checkpoint of a usual name, but with {', '.join(some[:3])}{more}"
        return InputError(folder, fact, "name one of them")
    known = " or ".join(f"{stem}.safetensors" for stem in STEMS[:1])
    return InputError(folder, f"is a folder without a checkpoint of a usual name ({known}, an *.index.json, ...)", "name the file itself")
