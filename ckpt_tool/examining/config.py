"""What a config.json says of the network, against its tensors: layers, sizes, vocabulary, experts,
ties, element type.

The names are those of transformers' configurations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from ckpt_tool.examining.findings import Finding
from ckpt_tool.tensors import Catalog, DType, TensorInfo, counted, shape_text

Config = Mapping[str, object]

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_EXTRA_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
"""Layers behind the last that predict further tokens (DeepSeek-V3, GLM)."""
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_OTHER_WIDTH = ("embedding_size", "word_embed_proj_dim", "embedding_dim", "emb_dim", "d_embed",
                "hidden_size_per_layer_input")  # fmt: skip
"""Networks whose word embeddings have a width of their own."""
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
_WORDS = re.compile(
    r"(?:(?:.*\.)?(?:text_model|language_model|model|decoder|transformer)\.)?"
    r"(?:embed_tokens|wte|tok_embeddings|word_embeddings|embed_in|embeddings\.word_embeddings)\.weight"
)
_HEAD = re.compile(r"(?:.*\.)?(?:[^.]*head[^.]*|embed_out|output)\.weight")
_STACK = re.compile(
    r"(?:(?:model|transformer|language_model|text_model|gpt_neox|bert|roberta|encoder|decoder)\.)*"
    r"(?:layers|h|layer|blocks|block)\.(\d+)\..*"
)
_EXPERT = re.compile(r".*\.experts\.(\d+)\..*")
_DTYPES = {
    "float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16, "float64": DType.F64,
}  # fmt: skip


def tied_values_findings(
    catalog: Catalog, config: Config, path: str, sizes: Mapping[str, float]
) -> Iterator[Finding]:
    """An output layer that is to be the word embeddings, and isn't; `sizes` are the sums of squares
    of the tensors.
    """
    text = _text_config(config)
    words, heads = _words(catalog), [key for key in catalog if _HEAD.fullmatch(key)]
    ties = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if ties is not True or words is None or len(heads) != 1 or "decoder." in words.key:
        return  # some encoder-decoders state the flag and tie nothing
    head = catalog[heads[0]]
    is_other = sizes.get(head.key) != sizes.get(words.key) and not (head.tied_to or words.tied_to)
    if head.shape == words.shape and head.dtype is words.dtype and is_other:
        fact = f"`tie_word_embeddings` is true; `{head.key}` is another tensor than `{words.key}`"
        yield Finding("config", path, fact)


def config_findings(catalog: Catalog, config: Config, path: str) -> Iterator[Finding]:
    """What the two say differently; nothing of what only one of them says."""
    if not config:
        return
    text = _text_config(config)
    for fact in (
        *_wrong_layers(catalog, text),
        *_wrong_sizes(catalog, text),
        *_wrong_experts(catalog, text),
        *_wrong_ties(catalog, config, text),
        *_wrong_dtype(catalog, config, text),
    ):
        yield Finding("config", path, fact)


def _text_config(config: Config) -> Config:
    """The part that describes the language model, where there are several."""
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if isinstance(part, Mapping):
            return part
    return config


def _first(config: Config, names: tuple[str, ...]) -> tuple[str, int] | None:
    for name in names:
        value = config.get(name)
        if type(value) is int:
            return name, value
    return None


def _wrong_layers(catalog: Catalog, config: Config) -> Iterator[str]:
    """The longest numbered stack at the top of the network, where the config has one number of
    layers alone.
    """
    stated = _first(config, _LAYERS)
    if stated is None or _has_several_stacks(config):
        return
    stacks: dict[str, set[int]] = {}
    for key in catalog:
        if found := _STACK.fullmatch(key):
            stacks.setdefault(key[: found.start(1)], set()).add(int(found[1]))
    if len(stacks) != 1:
        return
    (prefix, numbers), (name, count) = next(iter(stacks.items())), stated
    more = _first(config, _EXTRA_LAYERS)
    last, gone = max(numbers), sorted(set(range(max(numbers) + 1)) - numbers)
    if last in range(count - 1, count + (more[1] if more else 0)):
        if gone:
            yield f"`{name}` is {count}; `{prefix}{gone[0]}` is not there"
    elif not gone:  # else these numbers aren't those of layers
        layers = counted(last + 1, "layer")
        yield f"`{name}` is {count}; the tensors have {layers}, up to `{prefix}{last}`"


def _has_several_stacks(config: Config) -> bool:
    marks = (
        "decoder_layers",
        "encoder_layers",
        "num_decoder_layers",
        "depths",
        "num_hidden_groups",
    )
    return any(config.get(mark) is not None for mark in marks)


def _words(catalog: Catalog) -> TensorInfo | None:
    found = [
        info for key, info in catalog.items() if _WORDS.fullmatch(key) and len(info.shape) == 2
    ]
    return found[0] if len({info.shape for info in found}) == 1 else None


def _wrong_sizes(catalog: Catalog, config: Config) -> Iterator[str]:
    words = _words(catalog)
    if words is None or not words.dtype.is_floating:
        return
    vocabulary = _first(config, ("vocab_size",))
    if vocabulary and words.shape[0] - vocabulary[1] not in (0, 1):  # one more for the padding
        yield f"`vocab_size` is {vocabulary[1]}; `{words.key}` is {shape_text(words.shape)}"
    hidden = _first(config, _HIDDEN)
    if hidden and not _first(config, _OTHER_WIDTH) and words.shape[1] != hidden[1]:
        yield f"`{hidden[0]}` is {hidden[1]}; `{words.key}` is {shape_text(words.shape)}"


def _wrong_experts(catalog: Catalog, config: Config) -> Iterator[str]:
    stated = _first(config, _EXPERTS)
    found = [int(match[1]) for key in catalog if (match := _EXPERT.fullmatch(key))]
    more = _first(config, ("zero_expert_num",))  # LongCat's, which compute nothing
    allowed = {stated[1], stated[1] + (more[1] if more else 0)} if stated else set()
    if stated and found and max(found) + 1 not in allowed:
        yield f"`{stated[0]}` is {stated[1]}; the tensors have experts 0 to {max(found)}"


def _wrong_ties(catalog: Catalog, config: Config, text: Config) -> Iterator[str]:
    """An output layer that is to have weights of its own, and has none."""
    ties = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    architectures = config.get("architectures")
    is_language_model = isinstance(architectures, list) and any(
        str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in architectures
    )
    has_head = any(map(_HEAD.fullmatch, catalog))
    if ties is False and is_language_model and _words(catalog) and not has_head:
        yield "`tie_word_embeddings` is false; there is no output layer (`lm_head.weight`)"


def _wrong_dtype(catalog: Catalog, config: Config, text: Config) -> Iterator[str]:
    name = next(
        (part[key] for part in (config, text) for key in ("dtype", "torch_dtype") if key in part),
        None,
    )
    stated = _DTYPES.get(str(name).removeprefix("torch."))
    if stated is None or "quantization_config" in config:
        return
    sizes: Counter[DType] = Counter()
    for info in catalog.values():
        if info.dtype.is_floating:
            sizes[info.dtype] += info.nbytes * 8 // info.dtype.bits
    if sizes and not sizes[stated]:
        most = sizes.most_common(1)[0][0]
        yield f"the element type is `{name}`; no tensor has it, most are {most.value}"
