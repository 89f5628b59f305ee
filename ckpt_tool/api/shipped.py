"""The shipped mappings, and which of them account for a pair of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import config_of, draft_open, path_of_config
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.remarks.long_names import check_names
from ckpt_tool.api.rule_files import beside, find_shipped, shipped_mappings
from ckpt_tool.api.sides import open_side, open_target
from ckpt_tool.errors import InputError, RuleError

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import RuleSet

TRIED_NUMBERS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)
"""Numbers of heads that networks have: where rules that lack theirs fit with one of them, they fit
but for the number.
"""


@dataclass(frozen=True, slots=True)
class ShippedMapping:
    """A shipped rule file; for a pair that it accounts for, how many tensors it maps, keeps and
    drops.

    `needs` are parameters that it lacks for this pair, each with the keys of a config that would
    say it.
    """

    name: str
    path: str
    about: str
    counts: dict[str, int] | None = None
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def mappings(
    source: Given | None, target: Given | None, options: MappingOptions
) -> list[ShippedMapping]:
    """The shipped mappings; for a word, those that have it in their name or description; for a
    pair, those that account for every key of both sides, the ones that map most first.
    """
    if source is None and target is None:
        return [listed for listed, _ in _all()]
    if isinstance(source, str) and target is None:
        found = [listed for listed, _ in _all() if _speaks_of(listed, source)]
        # A folder may have the name of a network: a single word is a word.
        if found or not os.path.exists(source):
            return found
    if source is None or target is None:
        raise InputError(
            "mappings", "takes a source and a target, or a word to search for, or nothing"
        )
    with open_side(source) as opened_source, open_target(target, opened_source) as opened_target:
        check_names(opened_source.path, opened_source.catalog)
        check_names(opened_target.path, opened_target.catalog)
        return fitting_mappings(opened_source, opened_target, options)


def _speaks_of(listed: ShippedMapping, words: str) -> bool:
    """Whether all words are in its name or description."""
    text = f"{listed.name} {listed.about}".lower()
    return all(word in text for word in words.lower().split())


def fitting_mappings(
    source: TensorSource, target: TensorSource, options: MappingOptions
) -> list[ShippedMapping]:
    """The shipped mappings that account for every key of two open sides, the ones that map most
    first; those that need a number last.
    """
    found = [
        fitted
        for listed, rules in _all()
        if (fitted := _fitted(listed, rules, source, target, options))
    ]
    return sorted(found, key=lambda each: (bool(each.needs), -(each.counts or {})["mapped"]))


def _all() -> Iterator[tuple[ShippedMapping, RuleSet]]:
    from ckpt_tool.mapping import read_rule_files

    for name in shipped_mappings():
        path = find_shipped(name)
        rules = read_rule_files([path], beside)
        yield ShippedMapping(name, path, rules.about), rules


def _fitted(
    listed: ShippedMapping,
    rules: RuleSet,
    source: TensorSource,
    target: TensorSource,
    options: MappingOptions,
) -> ShippedMapping | None:
    """The mapping with what it does for a pair; None where it doesn't account for it."""
    declared = {param.name for param in rules.params}
    params = {name: number for name, number in options.params.items() if name in declared}
    try:
        return replace(
            listed, counts=_counts(rules, source, target, replace(options, params=params))
        )
    except RuleError as error:
        if not error.problems or any(problem.code != "unset-param" for problem in error.problems):
            return None
    needs = _lacking(rules, source, target, params)
    for number in TRIED_NUMBERS:
        try:
            counts = _counts(
                rules,
                source,
                target,
                replace(options, params={**params, **dict.fromkeys(needs, number)}),
            )
        except RuleError:
            continue
        return replace(listed, counts=counts, needs=needs)
    return None


def _counts(
    rules: RuleSet, source: TensorSource, target: TensorSource, options: MappingOptions
) -> dict[str, int]:
    """What the rules do for a pair. Raises RuleError, with no problems where they are not
    for it, or move every tensor under the name that it has.
    """
    from ckpt_tool.mapping.compile import may_fit

    config = config_of([path_of_config(source), path_of_config(target)]) if rules.params else {}
    # To say what is wrong with rules that don't fit costs much more than to see that they don't.
    if not may_fit(rules, source.catalog, target.catalog, options.params, config):
        raise RuleError(())
    plan = draft_open(source, target, rules, options)
    if all(step.inputs == step.outputs and not step.ops for step in plan.steps):
        raise RuleError(())  # names alone pair these
    return plan.counts


def _lacking(
    rules: RuleSet, source: TensorSource, target: TensorSource, params: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """The parameters that nothing gives a number, of those that are not worked out of others."""
    from ckpt_tool.mapping.params import resolve_params

    config = config_of([path_of_config(source), path_of_config(target)])
    known, _ = resolve_params(rules, params, config, source.catalog, target.catalog)
    return {
        param.name: param.config_keys
        for param in rules.params
        if param.name not in known and param.formula is None
    }
