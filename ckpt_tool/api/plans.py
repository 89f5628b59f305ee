"""Both sides opened, the plan drafted, and what becomes of it: written, loaded, verified."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.api.how import How, Way
from ckpt_tool.api.long_names import check_names
from ckpt_tool.api.rule_files import FACTORY, read_rules
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.engine import Mismatch, Written
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import Plan, RuleSet
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.training import LoadReport


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with the open checkpoints it is for. `problems` are the reasons why there is none."""

    source: Checkpoint
    target: TensorSource | None
    rules: RuleSet | None
    plan: Plan | None
    problems: tuple[Problem, ...] = ()

    @property
    def target_path(self) -> str | None:
        return self.target.path if self.target else None

    @property
    def target_catalog(self) -> Catalog | None:
        return self.target.catalog if self.target else None

    def checked(self) -> Plan:
        """The plan. Raises RuleError where there are problems."""
        if self.plan is None:
            raise RuleError(self.problems)
        return self.plan


@contextmanager
def planned(
    source: str | os.PathLike[str] | None, target: str | os.PathLike[str] | None, how: How, in_place: bool = False
) -> Iterator[Planned]:
    """Opens both sides and drafts the plan; the checkpoints stay open inside the block.

    `source` and `target` may be left out where a rule file names them. `in_place` restores a source whose renaming in place was
    stopped before it is opened. Raises InputError for what can't be used, RuleError
    for rules that can't be understood; what doesn't fit is in `problems`.
    """
    rules = read_rules(how)
    source, target = _path(source), _path(target)
    if rules:
        source, target = source or rules.source, target or _target_of(rules)
    if source is None:
        raise InputError("source", "no source is given, and no rule file names one", "ckpt map SOURCE TARGET, or `source:` in the rules")
    if in_place:
        from ckpt_tool.engine import restore

        restore(source)
    with ExitStack() as stack:
        ours = stack.enter_context(open_source(source, rules.unwrap if rules else ()))
        theirs = stack.enter_context(open_target(target)) if target else None
        if target and theirs:
            check_names(source, ours.catalog)
            check_names(target, theirs.catalog)
        try:
            plan = draft_open(ours, theirs, rules, how)
        except RuleError as error:
            yield Planned(ours, theirs, rules, None, error.problems)
        else:
            yield Planned(ours, theirs, rules, plan)


def _path(given: str | os.PathLike[str] | None) -> str | None:
    return None if given is None else os.fspath(given)


def _target_of(rules: RuleSet) -> str | None:
    """The target that a rule file names. Raises InputError for a factory: what is read runs nothing, what the user types may."""
    if rules.target and re.fullmatch(FACTORY, rules.target) and not os.path.exists(rules.target):
        hint = "if you trust it, name the target on the command line"
        raise InputError(rules.files[0], f"names code for its target, `{rules.target}`, and a rule file runs nothing", hint)
    return rules.target


def open_source(path: str, unwrap: Sequence[str]) -> Checkpoint:
    """The source; of several state dicts in it, the first that `unwrap:` names."""
    checkpoint = open_checkpoint(path)
    found = {state_dict.path for state_dict in checkpoint.contents.state_dicts}
    wanted = next((name for name in unwrap if name in found), None)
    if wanted is None or wanted == checkpoint.contents.taken or "#" in path:
        return checkpoint
    checkpoint.close()
    return open_checkpoint(f"{path}#{wanted}")


@contextmanager
def open_target(path: str) -> Iterator[TensorSource]:
    """A checkpoint, or the state of the model that `package.module:factory` builds."""
    if re.fullmatch(FACTORY, path) and not os.path.exists(path):
        from ckpt_tool.training.live import LiveState, build_model

        sys.path.insert(0, os.getcwd())
        yield LiveState(path, build_model(path).state_dict())
    else:
        with open_checkpoint(path) as checkpoint:
            yield checkpoint


def draft_open(source: Checkpoint, target: TensorSource | None, rules: RuleSet | None, how: How) -> Plan:
    return draft(source.catalog, target.catalog if target else None, rules, how, source.path)


def draft(source: Catalog, target: Catalog | None, rules: RuleSet | None, how: How, path: str | None = None) -> Plan:
    """The plan for two catalogs; a config.json beside the source's `path` may give the numbers of parameters. Raises RuleError."""
    from ckpt_tool.mapping import compile_plan, plan_by_name, plan_by_position, read_config

    if rules is not None:
        if how.by:
            raise InputError("--by", "rules and another way of mapping exclude each other")
        config = read_config(path) if path and rules.params else {}
        plan = compile_plan(rules, source, target, how.settings, config, how.dtypes)
    elif target is None:
        raise InputError("target", "no target is given", "mapping without rules needs one")
    elif how.by == "auto":
        from ckpt_tool.align import MIN_CONFIDENCE, plan_by_alignment

        least = MIN_CONFIDENCE if how.min_confidence is None else how.min_confidence
        plan = plan_by_alignment(source, target, how.dtypes, least)
    elif how.by == "position":
        plan = plan_by_position(source, target, how.dtypes, how.force_order)
    else:
        plan = plan_by_name(source, target, how.dtypes)
    mapped = plan.counts["mapped"]
    if how.expect is not None and mapped != how.expect:
        notes = tuple(plan.notes)
        raise RuleError([Problem("expect", f"{mapped} mapped, but {how.expect} are expected", None, notes)])
    return plan


def write(
    work: Planned,
    output: str | os.PathLike[str] | None,
    force: bool = False,
    checksum: bool = False,
    shard_bytes: int | None = None,
    tell: Callable[[int], None] = lambda nbytes: None,
    jobs: int | None = None,
) -> Written:
    """Writes what a plan says: to a file, or with `shard_bytes` to a folder of files of at most so many bytes.

    `checksum` asks for the SHA-256 of what is written; `tell` hears how many bytes were; `jobs` threads copy at a time.
    Raises RuleError for the plan's problems, OutputError for what can't be written.
    """
    from ckpt_tool.engine import Job, write_checkpoint

    plan = work.checked()
    path = _path(output) or (work.rules.output if work.rules else None)
    if not path:
        raise InputError("-o", "no output is given, and no rule file names one")
    needs_target = plan.kept or any(getattr(op, "needs_target", False) for step in plan.steps for op in step.ops)
    if needs_target and work.target is not None and not getattr(work.target, "has_values", True):
        raise InputError(work.target.path, "is a key list: it has no values for the keys that are kept", "give a checkpoint")
    if plan.steps and not work.source.has_values:
        raise InputError(work.source.path, "is a key list: it has no values to map", "give a checkpoint")
    job = Job(plan, work.source, work.target, force, checksum, tell, jobs)
    if shard_bytes is None:
        return write_checkpoint(job, path)
    if shard_bytes < 1:
        raise InputError("shard_bytes", f"{shard_bytes} is no size for a file", "give bytes, 5_000_000_000 say")
    from ckpt_tool.engine import write_sharded

    return write_sharded(job, path, shard_bytes)


def rename(work: Planned) -> Written:
    """Gives the source's tensors their new names in its own file. Raises RuleError and OutputError, and leaves the file as it was."""
    from ckpt_tool.engine import Job, rename_in_place

    return rename_in_place(Job(work.checked(), work.source), work.source)


def verify(work: Planned, output: str) -> tuple[Mismatch, ...]:
    """The keys of a written checkpoint that are not what the plan says. Raises RuleError where there is no plan."""
    from ckpt_tool.engine import verify_output

    plan = work.checked()
    with open_checkpoint(output) as written:
        for side in (written, work.source, *((work.target,) if work.target else ())):
            if not getattr(side, "has_values", True):
                raise InputError(side.path, "is a key list: it has no values to compare", "give a checkpoint")
        return verify_output(plan, work.source, work.target, written)


def load_into(
    model: nn.Module,
    source: str | os.PathLike[str] | Checkpoint | nn.Module | Mapping[str, object],
    *,
    rules: str | os.PathLike[str] | Sequence[str] | None = None,
    by: Way | None = None,
    how: How | None = None,
) -> LoadReport:
    """Loads a checkpoint, a state dict or another module into a live model, and reports what was loaded, kept fresh and dropped.

    `rules` names one rule file or several; `by` pairs by name (the default), position or alignment (auto); `how` says everything else.
    The model may be wrapped in DataParallel, DistributedDataParallel or torch.compile; its inner module's keys count.
    Raises RuleError with every problem before anything is loaded, InputError for what can't be used.
    """
    from ckpt_tool.training import LiveState, apart_from, load_plan, state_dict_of, together, unwrapped

    way = _joined(how or How(), How(rules or (), by=by))  # type: ignore[arg-type]
    rule_set = read_rules(way)
    module = unwrapped(model)
    with together(module) as processes, ExitStack() as stack:
        target = LiveState(type(module).__name__, module.state_dict(keep_vars=True))
        ours: Checkpoint | LiveState
        if isinstance(source, str | os.PathLike):
            ours = stack.enter_context(open_source(os.fspath(source), rule_set.unwrap if rule_set else ()))
        else:
            ours = source if isinstance(source, Checkpoint) else LiveState("the state dict", apart_from(module, state_dict_of(source)))
        if not ours.has_values:
            raise InputError(ours.path, "is a key list: it has no values to load", "give a checkpoint")
        path, others = (None, ours.others) if isinstance(ours, LiveState) else (ours.path, ())
        plan = draft(ours.catalog, target.catalog, rule_set, way, path)
        _check_dtypes(plan, target.catalog)
        return load_plan(plan, ours, module, _notes_on_others(others), processes)


def _joined(how: How, more: How) -> How:
    """The same with rules and a way that were given beside it. Raises InputError where both say something."""
    for name in ("rules", "by"):
        if getattr(how, name) and getattr(more, name):
            raise InputError(name, "is given twice, by itself and in `how`")
    return replace(how, rules=how.rules or more.rules, by=how.by or more.by)


def _check_dtypes(plan: Plan, target: Catalog) -> None:
    """Raises RuleError where a plan asks for other types than a live model has: it keeps its own."""
    odd = [key for key in plan.producers if plan.outputs[key].dtype is not target[key].dtype]
    if odd:
        one = plan.outputs[odd[0]].dtype.value
        message = f"`{odd[0]}` would become {one}, and a live model keeps its own types, here {target[odd[0]].dtype.value}"
        raise RuleError([Problem("dtype", message, None, ('`dtypes="target"` casts', f"{len(odd)} keys in all"))])


def _notes_on_others(keys: Sequence[str]) -> list[str]:
    """What is said of a state dict's keys that are no weights."""
    if not keys:
        return []
    count = "1 key of the source is no tensor" if len(keys) == 1 else f"{len(keys)} keys of the source are no tensors"
    return [f"{count} of weights: {', '.join(f'`{key}`' for key in keys[:3])}{' …' if len(keys) > 3 else ''}"]


def map_checkpoint(
    source: str | os.PathLike[str] | None,
    target: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    how: How | None = None,
    force: bool = False,
    shard_bytes: int | None = None,
) -> Written:
    """Maps `source` onto `target`'s keys and writes `output`: the one-call form of `ckpt map`."""
    with planned(source, target, how or How()) as work:
        return write(work, output, force, shard_bytes=shard_bytes)
