"""The plan for two catalogs: by rules, by name, by position or by alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.rule_files import read_named
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint

if TYPE_CHECKING:
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import Plan, RuleSet
    from ckpt_tool.mapping.plan import Draft
    from ckpt_tool.tensors import Catalog


def draft_open(
    source: TensorSource,
    target: TensorSource | None,
    rules: RuleSet | None,
    options: MappingOptions,
) -> Plan:
    """The plan for two open sides. A head is that of another network only in a whole one: a rank's
    part has fewer rows everywhere.
    """
    paths = (path_of_config(source), path_of_config(target))
    is_whole = all(
        side.contents.is_whole for side in (source, target) if isinstance(side, Checkpoint)
    )
    return draft(
        source.catalog,
        target.catalog if target else None,
        rules,
        options,
        *paths,
        is_whole=is_whole,
    )


def path_of_config(side: TensorSource | None) -> str | None:
    """The path beside which a config may lie; None for what is no file."""
    return side.path if isinstance(side, Checkpoint) and side.is_file else None


def config_of(paths: Sequence[str | None]) -> dict[str, object]:
    """What the configs beside the two sides say; where both say something, the first one counts."""
    from ckpt_tool.mapping import read_config

    found: dict[str, object] = {}
    for path in paths:
        found = {**(read_config(path) if path else {}), **found}
    return found


def draft(
    source: Catalog,
    target: Catalog | None,
    rules: RuleSet | None,
    options: MappingOptions,
    path: str | None = None,
    target_path: str | None = None,
    is_whole: bool = True,
) -> Plan:
    """The plan for two catalogs; a config.json beside the source's `path`, or the target's, may
    give the numbers of parameters.

    Every key of both sides is mapped, or named by `options` or the rules; `options.partial`, or a
    number that is expected, names the rest. Raises RuleError with every reason why there is no
    plan.
    """
    if rules is not None:
        if options.by:
            raise InputError("--by", "rules and another way of mapping exclude each other")
        plan = _by_rules(_with_rest(rules, options), source, target, options, [path, target_path])
    elif target is None:
        raise InputError(
            "target",
            "no target is given",
            "mapping without rules needs one; `-e '** -> **'` maps everything as it is",
        )
    else:
        plan = _by_pairing(
            _with_rest(read_named(options), options), source, target, options, is_whole
        )
    mapped = plan.counts["mapped"]
    if options.expect is not None and mapped != options.expect:
        message = f"{mapped} mapped, but {options.expect} are expected"
        problem = Problem("expect", message, None, tuple(plan.notes))
        raise _refused(problem, plan)
    return plan


def _by_rules(
    rules: RuleSet,
    source: Catalog,
    target: Catalog | None,
    options: MappingOptions,
    paths: Sequence[str | None],
) -> Plan:
    from ckpt_tool.mapping import compile_plan

    config = config_of(paths) if rules.params else {}
    return compile_plan(rules, source, target, options.params, config, options.dtypes)


def _by_pairing(
    named: RuleSet, source: Catalog, target: Catalog, options: MappingOptions, is_whole: bool
) -> Plan:
    from ckpt_tool.mapping import plan_by_name, plan_by_position
    from ckpt_tool.mapping.accounting.account import check_left

    check_left(named, source, target)
    if options.by == "auto":
        return _by_alignment(named, source, target, options)
    if options.by == "position":
        return plan_by_position(source, target, options.dtypes, options.force_order, named)
    return plan_by_name(source, target, options.dtypes, named, excuses_heads=is_whole)


def _by_alignment(
    named: RuleSet, source: Catalog, target: Catalog, options: MappingOptions
) -> Plan:
    """The plan of what belongs together, whatever types it has; types that differ are a problem of
    their own, where nobody said what becomes of them.
    """
    from ckpt_tool.align import MIN_CONFIDENCE, plan_by_alignment

    least = MIN_CONFIDENCE if options.min_confidence is None else options.min_confidence
    if options.dtypes != "strict":
        return plan_by_alignment(source, target, options.dtypes, least, named)
    try:
        plan = plan_by_alignment(source, target, "source", least, named)
    except RuleError as error:
        found = _types_that_differ(getattr(error.draft, "plan", None))
        if not found:
            raise
        raise RuleError([*found, *error.problems], error.tally, draft=error.draft) from None
    if found := _types_that_differ(plan):
        raise RuleError(found, draft=_whole(plan))
    return plan


def _types_that_differ(plan: Plan | None) -> list[Problem]:
    from ckpt_tool.mapping.accounting.target_shapes import check_target_shapes

    faults = check_target_shapes(plan, plan.target) if plan and plan.target else ()
    return [fault for fault in faults if fault.code == "dtype"]


def _with_rest(rules: RuleSet, options: MappingOptions) -> RuleSet:
    """The rules, or what was named besides another way of mapping; all that nothing names stays,
    where that is wished.
    """
    if not options.rest_stays:
        return rules
    return replace(rules, rest_source="drop", rest_target="keep")


def _refused(problem: Problem, plan: Plan) -> RuleError:
    """The error for a plan that is whole, and not what is wished."""
    from ckpt_tool.mapping.accounting.coverage import tally_of

    tally = tally_of(plan.producers, plan.kept, plan.dropped, plan.target)
    return RuleError([problem], tally, draft=_whole(plan))


def _whole(plan: Plan) -> Draft:
    """A draft that leaves nothing undecided."""
    from ckpt_tool.mapping.plan import Draft

    return Draft(plan, frozenset(), frozenset())
