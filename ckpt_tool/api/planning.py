"""Both sides opened, and the plan drafted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.remarks.long_names import check_names
from ckpt_tool.api.rule_files import check_numbers, read_rules
from ckpt_tool.api.sides import (
    label_of,
    open_source,
    open_target,
    refuse_rivals,
    source_of,
    target_of,
)
from ckpt_tool.errors import InputError, Problem, RuleError, Tally
from ckpt_tool.formats import Checkpoint, LeftBehind
from ckpt_tool.formats.remote.addresses import is_address
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import Plan, RuleSet
    from ckpt_tool.mapping.plan import Draft
    from ckpt_tool.tensors import Catalog


@frozen
class Planned:
    """A plan with the open checkpoints it is for. `problems` are the reasons why there is none,
    `tally` how far it would have come, `draft` what there was of it, if anything.
    """

    source: Checkpoint
    target: TensorSource | None
    rules: RuleSet | None
    plan: Plan | None
    problems: tuple[Problem, ...] = ()
    tally: Tally | None = None
    draft: Draft | None = None

    @property
    def target_path(self) -> str | None:
        """What the target is called, where there is one."""
        return self.target.path if self.target else None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of what was opened by one, or built by the code that it names."""
        sides = (side for side in (self.source, self.target) if side is not None)
        return tuple(side.path for side in sides if getattr(side, "is_file", True))

    @property
    def labels(self) -> tuple[str, str | None]:
        """What the sides are called, with the state dict that was taken where there are several."""
        target = label_of(self.target) if isinstance(self.target, Checkpoint) else self.target_path
        return label_of(self.source), target

    @property
    def target_catalog(self) -> Catalog | None:
        """The target's keys, where there is one."""
        return self.target.catalog if self.target else None

    @property
    def left_behind(self) -> tuple[tuple[LeftBehind, ...], tuple[LeftBehind, ...]]:
        """What of the source's file and of the target's is outside of what is taken."""
        sides = (
            side.contents.left_behind if isinstance(side, Checkpoint) else ()
            for side in (self.source, self.target)
        )
        source, target = sides
        return source, target

    @property
    def layouts(self) -> tuple[str, ...]:
        """What kind of files the two sides are, where they are no whole models."""
        sides = (
            side
            for side in (self.source, self.target)
            if isinstance(side, Checkpoint) and side.contents.layout
        )
        return tuple(f"{side.path}: {side.contents.layout}" for side in sides)

    def checked(self) -> Plan:
        """The plan. Raises RuleError where there are problems."""
        if self.plan is None:
            raise RuleError(self.problems, self.tally)
        return self.plan


@contextmanager
def plan_checkpoint(
    source: Given | None,
    target: Given | None,
    options: MappingOptions,
    in_place: bool = False,
) -> Iterator[Planned]:
    """Opens both sides and drafts the plan; the checkpoints stay open inside the block.

    `source` and `target` may be left out where a rule file names them. `in_place` restores a source
    whose renaming in place was stopped before it is opened. Raises InputError for what can't be
    used, RuleError for rules that can't be understood; what doesn't fit is in `problems`.
    """
    rules = read_rules(options)
    if rules and target is None:
        target = target_of(rules)
    source = _named_source(source, rules)
    if in_place:
        _restore(source)
    with ExitStack() as stack:
        opened_source = stack.enter_context(open_source(source, rules.unwrap if rules else ()))
        opened_target = (
            None if target is None else stack.enter_context(open_target(target, opened_source))
        )
        if opened_target is not None:
            check_names(opened_source.path, opened_source.catalog)
            check_names(opened_target.path, opened_target.catalog)
        try:
            refuse_rivals(opened_source)
            refuse_rivals(opened_target)
            plan = draft_open(opened_source, opened_target, rules, options)
            check_numbers(rules, options)
        except RuleError as error:
            from ckpt_tool.mapping.plan import Draft

            draft = error.draft if isinstance(error.draft, Draft) else None
            yield Planned(
                opened_source, opened_target, rules, None, error.problems, error.tally, draft
            )
        else:
            yield Planned(opened_source, opened_target, rules, plan)


def _named_source(given: Given | None, rules: RuleSet | None) -> Given:
    """The source that was given, or that a rule file names. Raises InputError where there
    is none.
    """
    source = source_of(rules) if given is None and rules else given
    if source is None:
        raise InputError(
            "source",
            "no source is given, and no rule file names one",
            "give SOURCE and TARGET, or `source:` in the rules",
        )
    return source


def _restore(source: Given) -> None:
    """Finishes or takes back a renaming in place that was stopped. Raises InputError for what is in
    memory.
    """
    from ckpt_tool.engine import restore

    if not isinstance(source, str | os.PathLike):
        raise InputError("source", "is in memory: in place, a file is renamed", "give a path")
    if is_address(os.fspath(source)):
        raise InputError(os.fspath(source), "is an address: in place, a file here is renamed")
    restore(os.fspath(source))
