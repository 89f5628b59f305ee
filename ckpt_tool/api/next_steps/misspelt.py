"""What was asked for, with its misspelt patterns as they were probably meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.attempts import Attempt, fresh_values
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.mapping.accounting.nearest import meant_pattern
from ckpt_tool.mapping.accounting.wrappers import wrapper_prefix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.errors import Problem

_OPTIONS = {"--drop": "drop", "--keep": "keep", "-e": "inline"}


def respelt(
    options: MappingOptions,
    problems: Iterable[Problem],
    source: Collection[str],
    target: Collection[str],
) -> MappingOptions | None:
    """The options with each pattern of the command line that matches no key replaced by the one
    that was probably meant; None where there is none, or for one of them nothing is near.
    """
    dead = [each.where for each in problems if each.code == "dead-rule"]
    for where in dead:
        if where is None or where.file not in _OPTIONS:
            return None
        start = where.column - 1
        end = start + where.length
        keys = target if where.file == "--keep" else source
        meant = _below_wrapper(where.text[start:end], keys) or meant_pattern(
            where.text[start:end], keys
        )
        if meant is None:
            return None
        field = _OPTIONS[where.file]
        texts = list(getattr(options, field))  # each text is a line of its option
        texts[where.line - 1] = where.text[:start] + meant + where.text[end:]
        changed: dict[str, Any] = {field: tuple(texts)}
        options = replace(options, **changed)
    return options if dead else None


def _below_wrapper(pattern: str, keys: Collection[str]) -> str | None:
    """The pattern with the wrapper's prefix that all keys have, where it matches some then."""
    from ckpt_tool.keys import Matcher, parse

    prefix = wrapper_prefix(keys)
    if not prefix or pattern.startswith(prefix):
        return None
    matcher = Matcher(parse(f"{prefix}{pattern}"))
    return f"{prefix}{pattern}" if any(matcher.match(key) is not None for key in keys) else None


def as_it_is(source: TensorSource, target: TensorSource, options: MappingOptions) -> Attempt | None:
    """A way that leaves the rest as it is, for whoever asked for a part; None where it doesn't go
    through.
    """
    try:
        plan = draft_open(source, target, read_rules(options), options)
    except (InputError, RuleError):
        return None
    return Attempt(options, plan.counts["mapped"], fresh_values(plan), 0) if plan.steps else None
