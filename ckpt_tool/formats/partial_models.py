"""What kind of file this is where it is no whole model: a process's part, placeholders, an adapter,
packed weights; in one sentence.

By what is in the file first, by its name and its neighbours second. Each sentence says what would
make a whole of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.folder import Folder, names_in
from ckpt_tool.tensors import Catalog, DType

_EIGHT_BITS = frozenset(dtype for dtype in DType if dtype.bits == 8 and dtype is not DType.BOOL)
_FLOATS = frozenset(dtype for dtype in _EIGHT_BITS if dtype.is_floating)
_SCALES = (
    "{}_scale_inv", "{}_scale", "scale_{}", "{}_scales", "q_scale_{}", "qscale_{}", "{}_qscale",
    "scale_inv", "scale", "scales", "SCB",
    "{}.scale", "{}._scale", "{}_quantizer._scale",
)  # fmt: skip
"""What the scale of a weight is called in its module: by DeepSeek and transformers, ComfyUI,
Mistral, bitsandbytes, modelopt and torch.
"""
_FOLDER = "open its folder, which is read as the whole when the files of all ranks are in it"
_GATHERED = (
    "the program that wrote it gathers a whole one (torch's get_model_state_dict with "
    "full_state_dict=True), or its library does"
)


def layout_of(contents: Contents, folder: Folder, name: str) -> str:
    """The sentence, or an empty text for a plain file. Looks at the names beside the file, and
    opens none.
    """
    names = Names(contents)
    for describe in (
        _placeholders,
        _optimizer_part,
        _rank_part,
        _flat_parameters,
        _tensor_parallel,
        _deepspeed,
        _adapter,
        _quantised,
    ):
        if sentence := describe(contents, names, name, folder):
            return sentence
    return ""


def with_layout(contents: Contents, folder: Folder, name: str) -> Contents:
    """The same, with the sentence."""
    sentence = layout_of(contents, folder, name) or _numbered_part(name)
    return replace(contents, layout=sentence, is_whole=False) if sentence else contents


class Names:
    """The keys of a file, the last parts of them, of which there are few, and the names at the
    file's top.
    """

    def __init__(self, contents: Contents) -> None:
        self.keys = [*contents.catalog, *contents.catalog.unreadable]
        self.ends = {key.rpartition(".")[2] for key in self.keys}
        self.top = {one.path.rpartition("#")[2] for one in contents.left_behind}

    def has(self, *ends: str) -> bool:
        """Whether a key ends so."""
        return not self.ends.isdisjoint(ends)

    def count(self, *parts: str) -> int:
        """How many keys have one of these in them."""
        return sum(any(part in key for part in parts) for key in self.keys)


def _placeholders(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    catalog = contents.catalog
    empty = sum([0 in info.shape for info in catalog.values()])
    if not empty or 2 * empty < len(catalog):
        return ""
    return (
        "DeepSpeed ZeRO-3 leaves such placeholders: "
        f"{empty} of {len(catalog)} tensors have no elements here; "
        "the values are in the files of its optimizer (*_optim_states.pt); "
        "open the folder, which is read as zero_to_fp32.py reads it"
    )


def _optimizer_part(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    if contents.catalog or not any(one.kind == "optimizer" for one in contents.left_behind):
        return ""
    is_zero = (
        any(extra.path.endswith((".zero_stage", ".partition_count")) for extra in contents.extras)
        or "zero_pp_rank_" in name
    )
    if is_zero:
        return (
            "a process's part of a DeepSpeed ZeRO optimizer, without a state dict; "
            "open its folder, which is read as the whole model"
        )
    return "the state of an optimizer, without a state dict"


def _rank_part(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    kinds = [tensor.kind for tensor in contents.catalog.unreadable.values()]
    for kind in ("DTensor", "ShardedTensor"):
        if count := kinds.count(kind):
            some = f"{count} {kind}{'' if count == 1 else 's'}, of which a part is here"
            return (
                f"a process's part of a model that FSDP or the like has sharded ({some}); {_FOLDER}"
            )
    if "DCP_SHARDING_INFO" in contents.metadata:
        return (
            "a process's part of a distributed checkpoint (DCP_SHARDING_INFO in its metadata); "
            f"{_FOLDER}"
        )
    found = re.search(r"world_size_(\d+)_rank_(\d+)\.", name)
    if found and int(found[1]) > 1:
        return (
            f"by its name the part of process {int(found[2])} of {int(found[1])} (FSDP); {_FOLDER}"
        )
    return ""


def _flat_parameters(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    if not any(end.startswith(("_flat_param", "flat_param")) for end in names.ends):
        return ""
    return (
        "FSDP1's flat parameters: one tensor holds the weights of a whole module, "
        "or of a process's part of it; " + _GATHERED
    )


def _tensor_parallel(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    """Meta's `consolidated.00.pth` beside `.01`, DeepSpeed's and Megatron's `mp_rank_00` beside
    others.
    """
    for pattern, text, where in (
        (r"consolidated\.(\d+)\.(?:pth|safetensors)", name, folder),
        (r"mp_rank_(\d+)_model_states\.pt", name, folder),
        (r"mp_rank_(\d+)(?:_\d+)?", folder.name, folder.parent()),
    ):
        if (found := re.fullmatch(pattern, text)) and (count := _count_beside(where, pattern)) > 1:
            part = f"tensor-parallel part {int(found[1]) + 1} of {count}"
            return (
                f"{part}: each matrix is cut among them, and the library that wrote them joins them"
            )
    return ""


def _numbered_part(name: str) -> str:
    """`model-00001-of-00002.safetensors`, opened by itself."""
    found = re.fullmatch(r".*?([0-9]{2,6})-of-([0-9]{2,6})\.(?:safetensors|bin|pth|pt)", name)
    if not found or int(found[2]) < 2:
        return ""
    return (
        f"by its name shard {int(found[1])} of {int(found[2])}, a part of a model; "
        "its folder or its index is the whole"
    )


def _count_beside(folder: Folder, pattern: str) -> int:
    return sum(map(bool, map(re.compile(pattern).fullmatch, names_in(folder))))


def _deepspeed(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    if not {"ds_version", "ds_config"} & names.top:
        return ""
    return (
        "DeepSpeed's model states, in the type that it trained in; "
        "the full precision is in its optimizer's files: open the folder"
    )


def _adapter(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    for what, (mark, parts) in _ADAPTERS.items():
        count = names.count(*parts) if any(mark in key for key in names.keys) else 0
        if not count:
            continue
        share = f"({count} of {len(contents.catalog)} tensors)"
        if 2 * count >= len(contents.catalog):
            return (
                f"a {what} adapter {share}, which adds to a base model; "
                "merged into that it gives a whole one"
            )
        return f"weights with {what} matrices beside them {share}, which are not merged"
    if name.startswith("adapter_model") and "adapter_config.json" in names_in(folder):
        return "a PEFT adapter, which adds to a base model (adapter_config.json is beside it)"
    return ""


_ADAPTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "LoRA": ("lora", (
        "lora_A", "lora_B", "lora_up", "lora_down", "lora_embedding_", "lora.up.", "lora.down.",
        "lora_linear_layer", "lora_magnitude",
    )),
    "LoHa": ("hada_w", ("hada_w1_", "hada_w2_")),
    "LoKr": ("lokr_w", ("lokr_w1", "lokr_w2")),
}  # fmt: skip
"""By what adapters are called: what all of their names have, and the parts that mark them."""


def _quantised(contents: Contents, names: Names, name: str, folder: Folder) -> str:
    for describe in (_bitsandbytes, _gptq, _eight_bit, _torchs):
        if sentence := describe(contents.catalog, names):
            return sentence
    return ""


def _bitsandbytes(catalog: Catalog, names: Names) -> str:
    kind = _bitsandbytes_kind(names)
    if not kind:
        return ""
    count = names.count(".SCB") if kind == "int8" else sum(map(_is_absmax, catalog))
    return (
        f"weights quantised by bitsandbytes ({kind}, {count} of them): packed numbers, "
        "which mean nothing without their scales"
    )


def _bitsandbytes_kind(names: Names) -> str:
    for kind in ("nf4", "fp4"):
        if names.has(f"bitsandbytes__{kind}"):
            return kind
    if names.has("SCB"):
        return "int8"
    return "4 bits" if names.has("absmax") and names.has("quant_map") else ""


def _is_absmax(key: str) -> bool:
    """Whether these are the scales of one weight, and not those of other scales."""
    return key.endswith(".absmax") and ".nested_" not in key


def _gptq(catalog: Catalog, names: Names) -> str:
    if names.has("weight_packed"):
        return (
            "weights quantised by compressed-tensors: packed integers with scales, "
            "which that library unpacks"
        )
    if not (names.has("qweight") and names.has("scales")):
        return ""
    which = "GPTQ" if names.has("g_idx") else "GPTQ or AWQ"
    count = names.count(".qweight")
    return (
        f"weights quantised as {which} does ({count} of them): packed integers with scales, "
        "which its library unpacks"
    )


def _eight_bit(catalog: Catalog, names: Names) -> str:
    small = [
        info.dtype
        for key, info in catalog.items()
        if info.dtype in _EIGHT_BITS and len(info.shape) > 1 and _has_scale(key, catalog)
    ]
    if not small:
        return ""
    kind = "FP8" if any(dtype in _FLOATS for dtype in small) else "8-bit integers"
    return (
        f"weights in {kind} ({len(small)} of them), each to be multiplied with the scale beside it"
    )


def _has_scale(key: str, catalog: Catalog) -> bool:
    module, dot, leaf = key.rpartition(".")
    return any(f"{module}{dot}{name.format(leaf)}" in catalog for name in _SCALES)


def _torchs(catalog: Catalog, names: Names) -> str:
    kinds = [tensor.kind for tensor in catalog.unreadable.values()]
    if count := kinds.count("quantised"):
        return (
            f"quantised weights ({count} of them), which can't be read here; "
            "dequantise them where they were made"
        )
    if count := kinds.count("subclass"):
        classes = sorted(
            {
                tensor.text.partition(",")[0]
                for tensor in catalog.unreadable.values()
                if tensor.kind == "subclass"
            }
        )
        return (
            f"{count} tensors of classes that can't be read here ({', '.join(classes[:3])}); "
            "save plain ones where they were made"
        )
    return ""
