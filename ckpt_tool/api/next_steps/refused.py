"""The way on from what was refused: a command that was tried, in memory, before it is proposed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.attempts import Attempt, fresh_values, rank
from ckpt_tool.api.next_steps.casting import casting, casts_plainly, is_strict
from ckpt_tool.api.next_steps.commands import (
    WayOn,
    arguments,
    command,
    free_path,
    suffix_for,
)
from ckpt_tool.api.next_steps.drafts import asks_for_pairs, look, to_decide
from ckpt_tool.api.next_steps.leftovers import keys_beyond, leftovers_of
from ckpt_tool.api.next_steps.said import (
    is_part_alone,
    more_hint,
    numbers_hint,
    says_enough,
    says_it_all,
)
from ckpt_tool.api.next_steps.swapped import are_swapped, swapped
from ckpt_tool.api.options import MappingOptions, stated
from ckpt_tool.api.requirements import has_values
from ckpt_tool.api.rule_files import read_named, read_rules
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.opening import STDIN

if TYPE_CHECKING:
    from ckpt_tool.api.planning import Planned
    from ckpt_tool.api.shipped import ShippedMapping
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.errors import Problem
    from ckpt_tool.mapping import Plan
    from ckpt_tool.mapping.rules import Selector

MAX_PATTERNS = 16
"""Patterns of keys that one command names; nobody reads more."""


def way_on(planned: Planned, options: MappingOptions, verb: str, *more: str) -> WayOn:
    """The way on after a refusal: the same command in a way that goes through; else a look at what
    stands in the way.

    `more` are words that the command ends with. A side that came from stdin can't be read again:
    then there is none.
    """
    sides = [planned.source.path, *([planned.target_path] if planned.target_path else [])]
    if STDIN in sides:
        return WayOn()
    if planned.target is None:
        is_said = all(map(says_it_all, planned.problems))
        return WayOn(None if is_said else command("show", sides))
    if _has_rivals(planned.source):
        chosen = _with_rival(planned, options, verb, more)
        return WayOn(chosen or command("show", sides[:1]))
    if _has_rivals(planned.target):
        return WayOn(command("show", sides[1:]))
    if are_swapped(planned.source, planned.target, options, planned.problems):
        return swapped(sides[0], sides[1], options)
    more = *more, *_output_words(verb, planned, more)
    if cast := casting(planned.source, planned.target, options, planned.problems):
        return WayOn(command(verb, sides, *arguments(cast), *more))
    trying = Trying(planned.source, planned.target, options)
    if best := _respelt(planned.source, planned.target, options, planned.problems) or trying.best():
        line = command(_verb(verb, planned, best), sides, *arguments(best.options), *more)
        if line:
            return WayOn(line)
    if undecided := to_decide(options, planned.problems):
        return WayOn(None, undecided)
    return _look(planned, options, trying, sides)


def _look(planned: Planned, options: MappingOptions, trying: Trying, sides: Sequence[str]) -> WayOn:
    """A look at what stands in the way, where that says more than the problems; and hints."""
    numbers = numbers_hint(trying.lacking)
    if says_enough(planned.problems, options) or is_part_alone(planned.source, planned.problems):
        return WayOn(None, numbers or more_hint(planned.problems, options))
    return WayOn(look(trying.aligns, sides, options), numbers)


def _respelt(
    source: TensorSource,
    target: TensorSource,
    options: MappingOptions,
    problems: Sequence[Problem],
) -> Attempt | None:
    """What was asked for with its misspelt patterns corrected, where that goes through."""
    from ckpt_tool.api.next_steps.misspelt import as_it_is, respelt

    meant = respelt(options, problems, source.catalog, target.catalog)
    if meant and meant.rest_stays:
        return as_it_is(source, target, meant)
    return Trying(source, target, meant).asked() if meant else None


def _with_rival(
    planned: Planned, options: MappingOptions, verb: str, more: Sequence[str]
) -> str | None:
    """The command with the one of several state dicts that fits the target; None where
    none does.
    """
    assert planned.target is not None
    chosen = _choose_rival(planned.source, planned.target, options)
    if chosen is None:
        return None
    path, its_options = chosen
    return command(verb, [path, planned.target.path], *arguments(its_options), *more)


def _has_rivals(side: TensorSource) -> bool:
    """Whether it is a file of several equally likely state dicts."""
    return isinstance(side, Checkpoint) and bool(side.contents.rivals)


def _output_words(verb: str, planned: Planned, given: Sequence[str]) -> tuple[str, ...]:
    """Where to write, for a command that writes and doesn't say it."""
    says = {"-o", "--in-place"} & {*given} or (planned.rules and planned.rules.output)
    if verb != "map" or says:
        return ()
    sides = [planned.target_path or "", planned.source.path]
    return "-o", free_path("mapped", suffix_for(*sides))


def _verb(verb: str, planned: Planned, best: Attempt) -> str:
    """The command that can be given in this way: key lists can be planned for, and have nothing to
    be written.
    """
    can_write = has_values(planned.source) and (has_values(planned.target) or not best.fresh)
    return verb if can_write else "plan"


def _choose_rival(
    source: Checkpoint, target: TensorSource, options: MappingOptions
) -> tuple[str, MappingOptions] | None:
    """The one of several state dicts that fits a target, where no other does as well, with the way
    in which it is mapped.
    """
    found: list[tuple[Attempt, str]] = []
    for name in source.contents.rivals:
        path = f"{source.path}#{name}"
        with open_checkpoint(path) as one:
            if best := Trying(one, target, options).best():
                found.append((best, path))
    found.sort(key=lambda each: each[0].fresh)
    if not found or (len(found) > 1 and found[0][0].fresh == found[1][0].fresh):
        return None
    return found[0][1], found[0][0].options


def with_next(
    error: RuleError, source: TensorSource, target: TensorSource | None, options: MappingOptions
) -> RuleError:
    """The error of a library's call, with keyword arguments with which it goes through, where some
    are known.
    """
    best = None
    if target is not None:
        best = _respelt(source, target, options, error.problems)
        best = best or Trying(source, target, options).best()
    return RuleError(error.problems, error.tally, stated(best.options) if best else None)


class Trying:
    """Tries ways of mapping for two open sides. Costs an alignment at most, and what reading the
    shipped mappings takes.
    """

    def __init__(self, source: TensorSource, target: TensorSource, options: MappingOptions) -> None:
        self._source, self._target, self._options = source, target, options
        self._least: int | None = None
        self._aligns = False
        self.lacking: list[ShippedMapping] = []

    def best(self) -> Attempt | None:
        """The way that leaves least fresh; None where none is safe, or one that isn't would leave
        less.
        """
        found: list[Attempt] = []
        for options in self._ways():
            if any(self._is_best(attempt) for attempt in found):
                break
            found += self._attempt(options)
        as_many = [attempt for attempt in found if self._options.expect in (None, attempt.mapped)]
        best = min(as_many, key=rank, default=None)
        return best if best and (self._least is None or best.fresh <= self._least) else None

    def _is_best(self, attempt: Attempt) -> bool:
        """Whether no other way can leave less. One that names no key leaves nothing but a head for
        another number of classes, for which the source has nothing else.
        """
        return not attempt.fresh or (not attempt.named and self._options.expect is None)

    def asked(self) -> Attempt | None:
        """The way that was asked for, if it is safe, completed with what it leaves."""
        return next(iter(self._attempt(next(self._ways()))), None)

    @property
    def aligns(self) -> bool:
        """Whether a look at an alignment shows something."""
        is_by_rules = bool(self._options.rules or self._options.inline)
        return self._aligns or is_by_rules or asks_for_pairs(self._source, self._target)

    def _ways(self) -> Iterator[MappingOptions]:
        """The asked one first, then what may account for more. Rules that a person wrote are
        completed, never replaced.
        """
        asked = replace(self._options, expect=None, partial=False)
        yield asked
        if asked.rules or asked.inline:
            return
        plain = replace(asked, params={})
        yield from (
            replace(plain, by=by) for by in (None, "auto") if (by or "name") != (asked.by or "name")
        )
        yield from self._by_prefixes(plain)
        yield from (
            replace(plain, by=None, rules=(name,), params=asked.params)
            for name in self._shipped(asked)
        )

    def _by_prefixes(self, plain: MappingOptions) -> Iterator[MappingOptions]:
        from ckpt_tool.advising import patterns_of, prefixes, without_place

        source, target = self._source.catalog, self._target.catalog
        for prefix in prefixes(source, target):
            drop = patterns_of(without_place(prefix, source, target), source)
            yield replace(
                plain,
                by=None,
                inline=(f"{prefix.strip}** -> {prefix.add}**",),
                drop=(*plain.drop, *drop),
            )

    def _shipped(self, options: MappingOptions) -> Iterator[str]:
        from ckpt_tool.api.shipped import fitting_mappings

        for each in fitting_mappings(
            self._source, self._target, MappingOptions(params=options.params, dtypes=options.dtypes)
        ):
            if each.needs:
                self.lacking.append(each)
            else:
                yield each.name

    def _attempt(self, options: MappingOptions) -> Iterator[Attempt]:
        try:
            yield from self._completed(options)
        except RuleError as error:
            cast = replace(options, dtypes="target")
            if is_strict(error.problems, options) and casts_plainly(
                self._source, self._target, cast
            ):
                yield from self._attempt(cast)
        except InputError:
            return

    def _completed(self, options: MappingOptions) -> Iterator[Attempt]:
        """The way with what it leaves named, if that is safe. Raises RuleError for what doesn't
        fit.
        """
        plan, has_place = self._placed(replace(options, partial=True))
        self._note(plan, options)
        if not plan.steps:
            return
        named = read_named(self._options)
        left = [key for key in plan.dropped if not _is_named(key, named.drop)]
        fresh = [key for key in plan.kept if not _is_named(key, named.keep)]
        may_go = options.by != "auto" and has_place
        if not (left or fresh) or (may_go and self._goes_through(options)):
            yield Attempt(options, plan.counts["mapped"], fresh_values(plan), 0)
            return
        if self._may_leave(plan, left, fresh):
            yield from self._naming(plan, options, left, fresh)

    def _placed(self, asked: MappingOptions) -> tuple[Plan, bool]:
        """The plan, without what its rules give names that the target lacks; and whether there is
        nothing of that. Raises RuleError for what doesn't fit.
        """
        try:
            return self._draft(asked), True
        except RuleError as error:
            beyond = keys_beyond(error, self._target)
            if not beyond:
                raise
        from ckpt_tool.advising import patterns_of

        drop = patterns_of(beyond, self._source.catalog)
        return self._draft(replace(asked, drop=(*asked.drop, *drop))), False

    def _naming(
        self, plan: Plan, options: MappingOptions, left: Sequence[str], fresh: Sequence[str]
    ) -> Iterator[Attempt]:
        """The way with what it leaves named by a few patterns, where that maps the same."""
        from ckpt_tool.advising import patterns_of

        drop = patterns_of(left, self._source.catalog)
        keep = patterns_of(fresh, self._target.catalog)
        if len(drop) + len(keep) > MAX_PATTERNS:
            return
        completed = replace(
            options, drop=(*self._options.drop, *drop), keep=(*self._options.keep, *keep)
        )
        again = self._draft(completed)
        if again.producers.keys() == plan.producers.keys():
            yield Attempt(
                completed, again.counts["mapped"], fresh_values(again), len(left) + len(fresh)
            )

    def _may_leave(self, plan: Plan, left: Sequence[str], fresh: Sequence[str]) -> bool:
        """Whether these can be dropped and kept without making a wrong network."""
        from ckpt_tool.advising import judge

        is_part = isinstance(self._source, Checkpoint) and not self._source.contents.is_whole
        if fresh and is_part:
            return False
        return judge(leftovers_of(plan, self._source, self._target, left, fresh)).is_safe

    def _draft(self, options: MappingOptions) -> Plan:
        return draft_open(self._source, self._target, read_rules(options), options)

    def _goes_through(self, options: MappingOptions) -> bool:
        try:
            self._draft(options)
        except RuleError as error:
            if all(
                problem.code in ("unmapped-source", "unmapped-target") for problem in error.problems
            ):
                return False
            raise
        return True

    def _note(self, plan: Plan, options: MappingOptions) -> None:
        self._aligns = self._aligns or options.by == "auto"
        # by position counts what is left of the shapes, whatever they are of
        if options.by != "position":
            fresh = fresh_values(plan)
            self._least = fresh if self._least is None else min(fresh, self._least)


def _is_named(key: str, selectors: Sequence[Selector]) -> bool:
    return any(selector.matcher.match(key) is not None for selector in selectors)
