"""transformers' table of checkpoint conversions (since version 5) as a rule file, one model type at
a time.

transformers renames keys by a sequence of regular expressions and converts tensors by a closed set
of operations (`transformers.conversion_mapping`, `transformers.core_model_loading`). What these do
to the keys of one model, built without memory for its tensors, is observed key by key; the rules
are drafted from that and checked by the planner.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from ckpt_tool.align import Pair, draft_rules
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.formats.remote.named_weights import ONE_RELEASE, is_of_another_torch
from ckpt_tool.importing.operations import NotExpressible, express_operations
from ckpt_tool.keys import fold, nearest
from ckpt_tool.mapping import compile_plan, read_rule_text
from ckpt_tool.mapping.reading.writing import flow, scalar
from ckpt_tool.tensors import Catalog, TensorInfo, counted
from ckpt_tool.torch_bridge import DTYPES

if TYPE_CHECKING:
    import torch

HEADS = (
    "CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ",
    "IMAGE_CLASSIFICATION", "OBJECT_DETECTION", "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION",
    "VIDEO_CLASSIFICATION", "CTC", "MASKED_LM", "PRETRAINING",
)  # fmt: skip
"""transformers' tables of architectures with heads, in the order in which one is looked for; else
the bare model.
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """A rule file's text, and what it can't say: a line for each operation, with how many target
    tensors it makes.
    """

    yaml: str
    architecture: str
    rules: int
    not_expressed: tuple[str, ...]


@dataclass(slots=True)
class Traced:
    """What transformers does to one model's checkpoint: catalogs of both sides, and the pairs."""

    source: Catalog
    target: Catalog
    pairs: list[Pair] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    not_expressed: dict[str, int] = field(default_factory=dict)


def import_mapping(model_type: str) -> Imported:
    """The rule file for `MODEL_TYPE` or `MODEL_TYPE:ARCHITECTURE`, for files as `save_pretrained`
    writes them.

    Raises InputError where transformers isn't installed, doesn't know the type, or can't build it.
    """
    model = _build(model_type)
    traced = trace(model)
    lines = draft_rules(traced.pairs, list(traced.source))
    text = _document(model_type, model, traced, lines)
    return Imported(text, type(model).__name__, len(lines), tuple(_not_expressed(traced, text)))


def _build(model_type: str) -> Any:
    """A model of this type without memory for its tensors."""
    import torch

    name, _, architecture = model_type.partition(":")
    auto = _transformers("transformers.models.auto.configuration_auto", name)
    if name not in auto.CONFIG_MAPPING_NAMES:
        near = nearest(name, auto.CONFIG_MAPPING_NAMES)
        raise InputError(
            name,
            "is not a model type of the installed transformers",
            f"did you mean {near}?" if near else None,
        )
    found = architecture_of(name, architecture)
    try:
        with torch.device("meta"):
            return found(auto.AutoConfig.for_model(name)).eval()
    except Exception as error:
        raise InputError(
            model_type,
            f"transformers can't build {found.__name__} from its default configuration: {error}",
        ) from None


def _transformers(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            name,
            "transformers is not installed, or older than version 5",
            "pip install 'transformers>=5'",
        ) from None


def architecture_of(name: str, wanted: str) -> Any:
    """The class to build: the one that is asked for, else the first with a head, else the bare
    model.
    """
    import transformers

    tables = _transformers("transformers.models.auto.modeling_auto", name)
    if wanted and not hasattr(transformers, wanted):
        raise InputError(wanted, "is not an architecture of the installed transformers")
    chosen = wanted or next(_architectures(tables, name), None)
    if chosen is None:
        raise InputError(name, "transformers has no model of this type")
    try:
        return getattr(transformers, chosen)
    except Exception as error:
        cause = error.__cause__ or error
        hint = ONE_RELEASE if is_of_another_torch(cause) else None
        raise InputError(name, f"transformers can't import {chosen}: {cause}", hint) from None


def _architectures(tables: Any, name: str) -> Iterator[str]:
    """transformers' classes for a model type, those with a head first."""
    for table in (*(f"MODEL_FOR_{head}_MAPPING_NAMES" for head in HEADS), "MODEL_MAPPING_NAMES"):
        found = getattr(tables, table, {}).get(name) or ()
        yield from [found] if isinstance(found, str) else found


def trace(model: Any) -> Traced:
    """What transformers' loader does to a file that its `save_pretrained` wrote of this model;
    tensors may be without memory.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
        revert_weight_conversion,
    )

    state, ties = _untied(model)
    stored = revert_weight_conversion(model, dict(state))
    transforms = get_model_conversion_mapping(model, add_legacy=False)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    traced = Traced(catalog_of(stored), catalog_of(model.state_dict()))
    groups: dict[str, dict[str, list[str]]] = {}
    for key in sorted(stored, key=dot_natural_key):
        name, pattern = rename_source_key(
            key, renamings, converters, model.base_model_prefix, state
        )
        if name not in state and key in state:
            name, pattern = key, None
        if pattern is None:
            traced.pairs.append(_tied(Pair(((key,),), ((name,),)), ties))
        else:
            groups.setdefault(name, {}).setdefault(pattern, []).append(key)
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    for name, collected in groups.items():
        use = _Conversion(by_pattern[next(iter(collected))], name, collected)
        _add_converted(traced, model, use, stored, ties)
    return traced


@dataclass(frozen=True, slots=True)
class _Conversion:
    """One use of a converter: the keys that it takes, by the pattern that they match."""

    converter: Any
    name: str
    collected: Mapping[str, list[str]]

    @property
    def patterns(self) -> list[str]:
        """The converter's patterns that have keys, in its order."""
        return [each for each in self.converter.source_patterns if each in self.collected]

    @property
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The keys of each pattern."""
        return tuple(tuple(self.collected[pattern]) for pattern in self.patterns)

    def run(self, model: Any, stored: Mapping[str, torch.Tensor]) -> Mapping[str, object]:
        """What the converter itself makes of the tensors, by the target's keys."""
        from copy import deepcopy

        running = deepcopy(self.converter)
        for pattern, keys in self.collected.items():
            for key in keys:
                running.add_tensor(self.name, key, pattern, stored[key])
        found: Mapping[str, object] = running.convert(self.name, model=model, config=model.config)
        return found


def _untied(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """The model's tensors without those that are tied to another, and the tied keys by the key that
    a file keeps.
    """
    state = model.state_dict(keep_vars=True)
    listed = set(getattr(model, "all_tied_weights_keys", None) or ())
    first: dict[int, str] = {}
    for key in sorted(state, key=lambda key: key in listed):
        first.setdefault(id(state[key]), key)
    kept = set(first.values())
    ties: dict[str, list[str]] = {}
    for key, tensor in state.items():
        if key not in kept:
            ties.setdefault(first[id(tensor)], []).append(key)
    return {key: tensor.detach() for key, tensor in state.items() if key in kept}, ties


def catalog_of(tensors: Mapping[str, torch.Tensor]) -> Catalog:
    """The keys, shapes and dtypes of a state dict."""
    return Catalog(
        TensorInfo(key, DTYPES[str(each.dtype).removeprefix("torch.")], tuple(each.shape))
        for key, each in tensors.items()
    )


def _tied(pair: Pair, ties: Mapping[str, list[str]]) -> Pair:
    """A rename whose target is tied to others gives them a copy."""
    from ckpt_tool.ops import parse_ops

    others = ties.get(pair.targets[0][0], ())
    return (
        Pair(pair.sources, (*pair.targets, *((key,) for key in others)), parse_ops("copy"))
        if others
        else pair
    )


def _add_converted(
    traced: Traced,
    model: Any,
    use: _Conversion,
    stored: Mapping[str, torch.Tensor],
    ties: Mapping[str, list[str]],
) -> None:
    """The pair of one use of a converter: its own `convert` tells the target keys."""
    results = use.run(model, stored)
    targets = [key for key in results if key in traced.target]
    converter, slots = use.converter, use.slots
    shapes = [tuple(stored[key].shape) for slot in slots for key in slot]
    try:
        expressed = express_operations(
            converter.operations,
            use.patterns,
            converter.target_patterns,
            targets,
            slots,
            shapes,
            model,
        )
        if len(targets) < len(results) or any(key in ties for key in targets):
            raise NotExpressible("targets that the model doesn't have, or that are tied")
    except NotExpressible as error:
        traced.not_expressed[str(error)] = traced.not_expressed.get(str(error), 0) + len(targets)
        return
    traced.params |= expressed.params
    traced.pairs.append(Pair(slots, tuple((key,) for key in targets), expressed.ops))


def _document(model_type: str, model: Any, traced: Traced, lines: list[str]) -> str:
    import transformers

    architecture = type(model).__name__
    parts = [
        f"# Written by `ckpt mappings --from transformers {model_type}` out of the table of "
        f"transformers {transformers.__version__}.",
        "# The source is a file as `save_pretrained` writes it, the target the model's own "
        "state dict.",
        f"about: {scalar(f'{model_type} as files hold it -> {architecture} of transformers 5')}",
    ]
    if traced.params:
        parts += ["params:", *(f"  {name}: {{from: {key}}}" for name, key in traced.params.items())]
    parts += ["rules:", *(f"  - {line}" for line in lines)]
    named = {key for pair in traced.pairs for key in chain(*pair.sources)}
    made = {key for pair in traced.pairs for key in chain(*pair.targets)}
    parts += _section("drop", [key for key in traced.source if key not in named], traced.source)
    parts += _section("keep", [key for key in traced.target if key not in made], traced.target)
    parts += _tests(traced.pairs)
    parts += [
        f"# No rule can express: {what} ({counted(count, 'tensor')})"
        for what, count in traced.not_expressed.items()
    ]
    return "\n".join(parts) + "\n"


def _tests(pairs: Sequence[Pair]) -> list[str]:
    """The section that says of the first and the last rename what they are to give."""
    notable = [pair for pair in pairs if pair.sources[0][0] != pair.targets[0][0]] or pairs
    if not notable:
        return []
    tests = {pair.sources[0][-1]: pair.targets[0][-1] for pair in (notable[0], notable[-1])}
    return ["tests:", *(f"  {scalar(source)}: {flow(target)}" for source, target in tests.items())]


def _section(name: str, keys: list[str], catalog: Catalog) -> list[str]:
    return (
        [
            f"{name}:",
            *(f"  - {scalar(each.pattern)}" for each in fold(dict.fromkeys(keys), catalog)),
        ]
        if keys
        else []
    )


def _not_expressed(traced: Traced, text: str) -> Iterator[str]:
    """What is missing from the rules: operations that can't be said, and every pair that the plan
    has otherwise.
    """
    yield from (
        f"{what} ({counted(count, 'tensor')})" for what, count in traced.not_expressed.items()
    )
    params = dict.fromkeys(traced.params, 1)
    try:
        plan = compile_plan(read_rule_text(text, "the rules"), traced.source, None, params)
    except RuleError as error:
        yield from (problem.message for problem in error.problems)
        return
    planned = {key: set(step.inputs) for step in plan.steps for key in step.outputs}
    for pair in traced.pairs:
        sources = set(chain(*pair.sources))
        for slot in pair.targets:
            if any(planned.get(key) != sources for key in slot):
                would = sorted(planned.get(slot[0], ())) or "nothing"
                yield f"`{slot[0]}` would come from {would}, and comes from {sorted(sources)[:3]}"
