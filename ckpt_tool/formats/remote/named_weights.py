"""Weights by the names of torchvision and timm, as the addresses that these libraries have for
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ckpt_tool.errors import InputError

OF_ANOTHER_TORCH = "its operators are not those of the torch that is installed"
ONE_RELEASE = "install torch and torchvision of one release and of one build (CPU or CUDA)"


def is_of_another_torch(error: BaseException) -> bool:
    """Whether something can't be imported since torchvision is built for another torch."""
    return "torchvision::" in str(error)


def address_of(name: str) -> str:
    """The https or hf address of `torchvision:ResNet50_Weights.IMAGENET1K_V2` or
    `timm:vit_base_patch16_224.augreg_in21k`. Costs importing the library. Raises InputError.
    """
    library, _, wanted = name.partition(":")
    return _torchvision(name, wanted) if library == "torchvision" else _timm(name, wanted)


def _torchvision(name: str, wanted: str) -> str:
    library = "torchvision"
    try:
        from torchvision.models import get_model_weights, get_weight, list_models
    except Exception as error:  # builds that don't fit torch raise anything
        raise _not_imported(name, library, error) from None
    try:
        return str(get_weight(wanted).url)
    except (ValueError, KeyError, AttributeError, TypeError):
        if wanted in list_models():
            each = " or ".join(f"{library}:{one}" for one in _names(get_model_weights(wanted)))
            hint = f"name its weights: {each}" if each else None
            raise InputError(name, f"{library} knows a model of this name", hint) from None
        known = {one for each in list_models() for one in _names(get_model_weights(each))}
        raise _unknown(name, library, wanted, known) from None


def _names(weights: Iterable[Enum]) -> list[str]:
    return [f"{type(one).__name__}.{one.name}" for one in weights]


def _timm(name: str, wanted: str) -> str:
    try:
        from timm.models import get_pretrained_cfg, list_pretrained
    except Exception as error:
        raise _not_imported(name, "timm", error) from None
    try:
        config = get_pretrained_cfg(wanted)
    except RuntimeError:
        config = None
    if config is None:
        raise _unknown(name, "timm", wanted, list_pretrained())
    url = config.url[0] if isinstance(config.url, tuple | list) else config.url
    if config.hf_hub_id:
        address = str(config.hf_hub_id)
        if address.partition("/")[0] and config.hf_hub_filename:
            return f"hf://{address}/{config.hf_hub_filename}"
        return f"hf://{address}"
    if url:
        return str(url)
    raise InputError(name, "timm has no weights for it, only the architecture")


def _unknown(name: str, library: str, wanted: str, known: Iterable[str]) -> InputError:
    from difflib import get_close_matches

    near = get_close_matches(wanted, sorted(known), 3)
    each = " or ".join(f"{library}:{one}" for one in near)
    hint = f"did you mean {each}?" if near else None
    return InputError(name, f"{library} has no weights of this name", hint)


def _not_imported(name: str, library: str, error: Exception) -> InputError:
    if isinstance(error, ModuleNotFoundError) and error.name == library:
        return InputError(
            name, f"needs {library}, which is not installed", f"pip install {library}"
        )
    if is_of_another_torch(error):
        return InputError(name, f"torchvision can't be imported: {OF_ANOTHER_TORCH}", ONE_RELEASE)
    return InputError(name, f"{library} can't be imported: {str(error)[:200]}", "reinstall it")
