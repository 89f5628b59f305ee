"""What wraps a tensor, by its name and by what stands beside it: adapters, reparametrisations,
masks, quantisation.
"""

from __future__ import annotations

import re

from ckpt_tool.tensors import Catalog, DType, TensorInfo

_WRITTEN_OUT = [
    # What FSDP, activation checkpointing and torch.compile put inside a name.
    (re.compile(r"(?<![^.])(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\."), ""),
    # torch's parametrisations, in the names of the hooks that they replaced.
    (re.compile(r"\.parametrizations\.(\w+)\.original0$"), r".\1_g"),
    (re.compile(r"\.parametrizations\.(\w+)\.original1$"), r".\1_v"),
    (re.compile(r"\.parametrizations\.(\w+)\.original$"), r".\1_orig"),
    (re.compile(r"\.parametrizations\.(\w+)\.0\._(u|v)$"), r".\1_\2"),
    # PEFT's: the module below an adapter, the trained copy of a module.
    (re.compile(r"\.base_layer(?=\.)"), ""),
    (re.compile(r"\.modules_to_save\.[^.]+(?=\.)"), ""),
    # LoRA's two matrices, as kohya, diffusers and PEFT (with the adapter's own name) call them.
    (re.compile(r"[._]lora([._]linear_layer)?[._](down|A)(\.[^.]+)?(?=\.weight$)"), ".lora_A"),
    (re.compile(r"[._]lora([._]linear_layer)?[._](up|B)(\.[^.]+)?(?=\.weight$)"), ".lora_B"),
]


def plain_name(key: str) -> str:
    """A key with what wraps its tensor written in one way; most keys are returned as they are."""
    for pattern, replacement in _WRITTEN_OUT:
        key = pattern.sub(replacement, key)
    return key


_ADAPTER = re.compile(
    r"\.(lora_A|lora_B|lora_embedding_[AB]|lora_magnitude_vector|hada_w\w+|lokr_w\w+|oft_\w+|ia3_l)"
    r"(\.[^.]+)?(\.weight)?$"
)
_SCALES = ("weight_scale_inv", "weight_scale", "scale_weight", "scales", "qzeros", "SCB", "scale")
_BESIDE = ("absmax", "quant_state", "quant_map", "nested_absmax")


class States:
    """What the neighbours of a catalog's tensors make of them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._names = {plain_name(key) for key in catalog} | set(catalog)
        self._stems = {name.rpartition(".")[0] for name in self._names}
        self._adapted = {
            found.string[: found.start()]
            for name in self._names
            if (found := _ADAPTER.search(name))
        }

    def why_not_plain(self, key: str) -> str | None:
        """Why a tensor is not what its module computes with; None for a plain one."""
        name = plain_name(key)
        stem = name.removesuffix("_orig")
        if ".original_module." in key:
            return "it is the untrained copy of a module that was trained"
        if stem != name and f"{stem}_u" in self._names:
            return "its module divides it by its spectral norm"
        if stem != name and f"{stem}_mask" in self._names:
            return "its module masks a part of it"
        if name.endswith("_v") and f"{name[:-2]}_g" in self._names:
            return "it is a direction, whose length is a tensor beside it"
        return self._coded(name, self._catalog[key]) or self._with_adapter(name)

    def _coded(self, name: str, info: TensorInfo) -> str | None:
        module, _, leaf = name.rpartition(".")
        if "weight" not in leaf or not _may_be_codes(info.dtype):
            return None
        has_scale = any(f"{module}.{each}" in self._names for each in _SCALES)
        is_beside = any(
            f"{name}.{each}" in self._names or f"{name}.{each}" in self._stems for each in _BESIDE
        )
        return (
            "it holds codes, whose scale is a tensor beside it" if has_scale or is_beside else None
        )

    def _with_adapter(self, name: str) -> str | None:
        module, _, leaf = name.rpartition(".")
        return (
            "an adapter beside it isn't merged into it"
            if leaf == "weight" and module in self._adapted
            else None
        )


def _may_be_codes(dtype: DType) -> bool:
    return dtype.bits <= 8 or dtype in (DType.I32, DType.U32, DType.I16, DType.U16)
