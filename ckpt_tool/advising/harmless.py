"""Tensors that a network does without: counters, buffers that code computes anew, observers, and
second copies of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ckpt_tool.tensors import Shape

COUNTERS = re.compile(r"(^|\.)num_batches_tracked$")
"""Of batch norms; torch before 0.4.1 has none, and `nn.BatchNorm2d` begins at 0 without one
(torch/nn/modules/batchnorm.py).
"""

COMPUTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|freqs_(cis|cos|sin)|rope\.freqs|relative_position_index|relative_coords_table|attn_mask|causal_mask|"
    r"masked_bias|cos_cached|sin_cached|rotary_emb\.\w+|rotary_pos_emb\.\w+)$"
)
"""Buffers that modules compute from their sizes."""

CONSTANTS = re.compile(
    r"(^|\.)(version|_float_tensor|num_updates|pixel_mean|pixel_std|anchor_grid)$"
)
"""Buffers without which a network works as well: marks of a version (fairseq), the means of images
(detectron2), anchors (YOLOv5).
"""

_MASK = re.compile(r"(^|\.)(bias|mask|tril)$")

OBSERVERS = re.compile(
    r"(^|\.)(\w*fake_quant\w*|activation_post_process\w*|\w*observer\w*)\.(.*\.)?"
    r"(min_vals?|max_vals?|scale|zero_point|eps|histogram|averaging_constant|quant_m\w+|ch_axis)$"
    r"|(^|\.)(fake_quant_enabled|observer_enabled|total_ops|total_params)$"
)
"""What quantisation-aware training notes beside the weights, and what counters of operations do."""

_AVERAGED = re.compile(
    r"(^|[._])(ema|model_ema|ema_model|averaged|swa|shadow\w*|momentum\w*|encoder_k|key_encoder|target_(encoder|net\w*))(?=[._]|$)"
)
"""Names of copies that follow the trained weights: averages, and the slow encoder of MoCo or BYOL.
"""

_PART_OF_A_WEIGHT = re.compile(
    r"(^|[._])(modules_to_save|lora_\w+|hada_w\w+|ia3_l\w*|adapter\w*|weight_(orig|mask|g|v|u|packed)|parametrizations|original[01]?)(?=[._]|$)"
)
"""Names of what makes another value of the weight beside it: adapters, masks, re-parametrisations.
"""

_ORIGINAL = re.compile(r"(^|\.)original_module(?=\.)")
_SAVED = "modules_to_save"
"""PEFT keeps the module before training beside the trained one (peft/utils/other.py,
`ModulesToSaveWrapper`).
"""


def is_computed(key: str) -> bool:
    """Whether a module makes this tensor itself, so that it is neither missed nor missing."""
    return bool(COUNTERS.search(key) or COMPUTED.search(key) or OBSERVERS.search(key))


def is_constant(key: str, shape: Shape) -> bool:
    """Whether a tensor that only the source has holds nothing that was learned: constants, and
    masks of causal attention.

    GPT-2 calls these `attn.bias`: 1×1×N×N (transformers/models/gpt2/modeling_gpt2.py).
    """
    is_mask = len(shape) > 2 and shape[-1] == shape[-2] > 1 == max(shape[:-2]) and _MASK.search(key)
    return bool(is_mask or CONSTANTS.search(key))


def is_idle_adapter(key: str, made: Collection[str]) -> bool:
    """Whether this is a fresh LoRA of a weight that is mapped: as its second matrix begins at zero,
    the layer computes what it did.

    peft/tuners/lora/layer.py, `reset_lora_parameters`.
    """
    stem, mark, _ = key.partition(".lora_")
    return bool(mark) and any(
        name in made for name in (f"{stem}.weight", f"{stem}.base_layer.weight")
    )


_NETWORK = re.compile(
    r"(^|[._])(encoder|decoder|generator|discriminator|critic|actor|policy|value|q|qf|teacher|student|query|passage|ctx|context|question|"
    r"text|vision|visual|image|audio|video|net\w*|backbone|tower|unet|vae|prior|quantizer)(_?(model|encoder|decoder|net|network|tower))?\d*$"
)


def is_network(path: str) -> bool:
    """Whether a name says that what is below it is a network of its own, which may well repeat the
    names of another.
    """
    return _NETWORK.search(path) is not None


def is_averaged(path: str) -> bool:
    """Whether a name says that what is below it is a copy of other weights of the same file."""
    return _AVERAGED.search(path) is not None


def changes_a_weight(key: str) -> bool:
    """Whether a name says that this tensor and others make a weight together, so that it is never
    left by itself.
    """
    return _PART_OF_A_WEIGHT.search(key) is not None


def is_untrained(key: str, taken: Collection[str]) -> bool:
    """Whether this is PEFT's untrained copy of a module whose trained one is taken."""
    place = _ORIGINAL.search(key)
    if not place:
        return False
    head, tail = key[: place.start()], key[place.end() :]
    return any(other.startswith(f"{head}.{_SAVED}.") and other.endswith(tail) for other in taken)


def flat(key: str) -> str:
    """A name without what separates its parts: `layer1.0.conv1` and `layer1_0_conv1` are one."""
    return key.replace(".", "").replace("_", "").lower()
