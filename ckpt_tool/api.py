"""Opens files and calls the packages below, in order: what commands and scripts both call."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ckpt_tool.diff import Diff, compare_values, diff_catalogs
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.keys.relations import equal_positions, prefix_rule
from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.engine import Mismatch, Written
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import InvertedRules, Plan, RuleSet
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.training import LoadReport

DTypePolicy = Literal["strict", "target", "source"] | DType
"""What happens where dtypes differ: see `ckpt_tool.mapping.dtypes`."""
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class How:
    """How tensors are mapped: by rule files and inline rules, or `by` name, position or alignment.

    `settings` are the numbers of parameters (`--set`); `dtypes` says what happens where dtypes differ; `expect` is the
    number of target tensors that must be mapped.
    """

    rules: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    by: Literal["name", "position"] | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    dtypes: DTypePolicy = "strict"
    force_order: bool = False
    expect: int | None = None


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


def diff_checkpoints(a: str, b: str, values: bool = False) -> Diff:
    """The difference of two checkpoints, any formats; with `values`, of their tensors' values too."""
    with open_checkpoint(a) as ours, open_checkpoint(b) as theirs:
        return diff_open(ours, theirs, values)


def diff_open(ours: Checkpoint, theirs: Checkpoint, values: bool = False) -> Diff:
    if not values:
        return diff_catalogs(ours.catalog, theirs.catalog)
    for side in (ours, theirs):
        if not side.has_values:
            raise InputError(side.path, "is a key list, which has no values to compare")
    return diff_catalogs(ours.catalog, theirs.catalog, lambda key: compare_values(ours, theirs, key, ours.catalog[key].dtype))


def diff_hints(result: Diff, names: tuple[str, str]) -> list[str]:
    """What to try where little pairs by name: the prefix that explains it, or a draft of the rules."""
    counts = result.counts
    if not (counts["only_a"] and counts["only_b"]) or 2 * (counts["same"] + counts["value"]) > min(len(result.a), len(result.b)):
        return []
    if rule := prefix_rule(result.a, result.b):
        text, count = rule
        which = f"all {count} keys" if count == len(result.a) else f"{count} keys"
        return [f"{which} of {names[0]} are keys of {names[1]} after -e '{text}'"]
    count = equal_positions(result.a, result.b) if result.a.is_ordered and result.b.is_ordered else 0
    if 2 * count < min(len(result.a), len(result.b)):
        return []
    return [f"the first {count} tensors have equal shapes, one by one: ckpt plan {shlex.join(names)} --by position"]


def read_rules(how: How) -> RuleSet | None:
    """The rules that `how` names, files before inline ones; None where it names none."""
    from ckpt_tool.mapping import join, read_inline_rules, read_rule_files

    inline = read_inline_rules(how.inline, how.drop, how.keep) if how.inline or how.drop or how.keep else None
    if not how.rules:
        return inline
    rules = read_rule_files([find_rules(name) for name in how.rules], _beside)
    rules = replace(rules, files=tuple(_shown(path) for path in rules.files))
    return join(rules, inline) if inline else rules


def _shown(path: str) -> str:
    """What a rule file is called in a report: a shipped one not by its place in the installation."""
    return f"mappings/{Path(path).name}" if Path(path).parent in mapping_folders() else path


def find_rules(name: str) -> str:
    """The path of a rule file: as it is given, else among the shipped mappings. Raises InputError."""
    if os.path.exists(name):
        return name
    for folder in mapping_folders():
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.is_file() and os.sep not in name:
                return str(candidate)
    from ckpt_tool.keys import nearest

    near = nearest(name, shipped_mappings())
    raise InputError(name, "no such file, and no shipped mapping has that name", f"did you mean {near}?" if near else None)


def mapping_folders() -> list[Path]:
    """Where the shipped mappings are: inside the installed package, or beside it in a checkout of the project."""
    here = Path(__file__).parent
    return [folder for folder in (here / "mappings", here.parent / "mappings") if folder.is_dir()]


def shipped_mappings() -> list[str]:
    return sorted({path.name for folder in mapping_folders() for path in folder.glob("*.yaml")})


def _beside(rule_file: str, path: str) -> str:
    """A path in a rule file is meant from its folder; in a shipped mapping, from the working directory."""
    if os.path.isabs(path) or "://" in path or FACTORY.fullmatch(path) or path == "-":
        return path
    if Path(rule_file).parent in mapping_folders():
        return path
    return os.path.join(os.path.dirname(rule_file), path)


@contextmanager
def planned(source: str | None, target: str | None, how: How) -> Iterator[Planned]:
    """Opens both sides and drafts the plan; the checkpoints stay open inside the block.

    `source` and `target` may be left out where a rule file names them. Raises InputError for what can't be used, RuleError
    for rules that can't be understood; what doesn't fit is in `problems`.
    """
    rules = read_rules(how)
    if rules:
        source, target = source or rules.source, target or rules.target
    if source is None:
        raise InputError("source", "no source is given, and no rule file names one", "ckpt map SOURCE TARGET, or `source:` in the rules")
    with ExitStack() as stack:
        ours = stack.enter_context(_open_source(source, rules.unwrap if rules else ()))
        theirs = stack.enter_context(open_target(target)) if target else None
        try:
            plan = _draft(ours, theirs, rules, how)
        except RuleError as error:
            yield Planned(ours, theirs, rules, None, error.problems)
        else:
            yield Planned(ours, theirs, rules, plan)


def _open_source(path: str, unwrap: Sequence[str]) -> Checkpoint:
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
    if FACTORY.fullmatch(path) and not os.path.exists(path):
        from ckpt_tool.training.live import LiveState, build_model

        sys.path.insert(0, os.getcwd())
        yield LiveState(path, build_model(path).state_dict())
    else:
        with open_checkpoint(path) as checkpoint:
            yield checkpoint


def _draft(source: Checkpoint, target: TensorSource | None, rules: RuleSet | None, how: How) -> Plan:
    return draft(source.catalog, target.catalog if target else None, rules, how, os.path.dirname(source.path) or ".")


def draft(source: Catalog, target: Catalog | None, rules: RuleSet | None, how: How, folder: str | None = None) -> Plan:
    """The plan for two catalogs; `folder` is where a config.json may give the numbers of parameters. Raises RuleError."""
    from ckpt_tool.mapping import compile_plan, plan_by_name, plan_by_position, read_config

    if rules is not None:
        if how.by:
            raise InputError("--by", "rules and another way of mapping exclude each other")
        config = read_config(folder) if folder and rules.params else {}
        plan = compile_plan(rules, source, target, how.settings, config, how.dtypes)
    elif target is None:
        raise InputError("target", "no target is given", "mapping without rules needs one")
    elif how.by == "position":
        plan = plan_by_position(source, target, how.dtypes, how.force_order)
    else:
        plan = plan_by_name(source, target, how.dtypes)
    mapped = plan.counts["mapped"]
    if how.expect is not None and mapped != how.expect:
        notes = tuple(plan.notes)
        raise RuleError([Problem("expect", f"{mapped} mapped, but {how.expect} are expected", None, notes)])
    return plan


def verify(work: Planned, output: str) -> tuple[Mismatch, ...]:
    """The keys of a written checkpoint that are not what the plan says. Raises RuleError where there is no plan."""
    from ckpt_tool.engine import verify_output

    plan = work.checked()
    with open_checkpoint(output) as written:
        for side in (written, work.source, *((work.target,) if work.target else ())):
            if not getattr(side, "has_values", True):
                raise InputError(side.path, "is a key list: it has no values to compare", "give a checkpoint")
        return verify_output(plan, work.source, work.target, written)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found; `rules` and `tests` count what was read."""

    problems: tuple[Problem, ...]
    rules: int = 0
    tests: int = 0


def invert(source: str | None, target: str | None, how: How) -> InvertedRules:
    """The inverse of a rule file; with both sides' keys, sizes that the rules alone don't tell come from them.

    Raises RuleError for rules that are not sound.
    """
    from ckpt_tool.mapping import invert_rules

    if source is None:
        rules = read_rules(how)
        assert rules is not None
        return invert_rules(rules)
    with planned(source, target, how) as work:
        assert work.rules is not None
        return invert_rules(work.rules, work.checked())


def write_text(path: str, text: str, force: bool = False) -> None:
    """Writes a small text file, complete or not at all. Raises OutputError."""
    from ckpt_tool.engine.atomic import atomic_output
    from ckpt_tool.engine.copying import write_at

    content = text.encode()
    with atomic_output(path, len(content), force) as fd:
        write_at(fd, content, 0)


def check(name: str, source: str | None, target: str | None, how: How) -> Checked:
    """The problems of a rule file: by itself, with a source's keys, or with both sides'. Raises InputError."""
    from ckpt_tool.mapping import check_rules, read_config

    try:
        rules = read_rules(how)
    except RuleError as error:
        return Checked(error.problems)
    assert rules is not None
    counts = len(rules.rules), len(rules.tests)
    if source and target:
        with planned(source, target, how) as work:
            return Checked(work.problems, *counts)
    if source:
        with _open_source(source, rules.unwrap) as ours:
            config = read_config(os.path.dirname(source) or ".")
            return Checked(tuple(check_rules(rules, ours.catalog, how.settings, config)), *counts)
    return Checked(tuple(check_rules(rules)), *counts)


def write(work: Planned, output: str | None, force: bool = False) -> Written:
    """Writes what a plan says. Raises RuleError for its problems, OutputError for what can't be written."""
    from ckpt_tool.engine import write_checkpoint

    plan = work.checked()
    path = output or (work.rules.output if work.rules else None)
    if not path:
        raise InputError("-o", "no output is given, and no rule file names one")
    if plan.kept and work.target is not None and not getattr(work.target, "has_values", True):
        raise InputError(work.target.path, "is a key list: it has no values for the keys that are kept", "give a checkpoint")
    if plan.steps and not work.source.has_values:
        raise InputError(work.source.path, "is a key list: it has no values to map", "give a checkpoint")
    return write_checkpoint(plan, work.source, work.target, path, force)


def load_into(
    model: nn.Module,
    source: str | Checkpoint | Mapping[str, object],
    *,
    rules: str | Sequence[str] | None = None,
    by: Literal["name", "position"] | None = None,
    how: How | None = None,
) -> LoadReport:
    """Loads a checkpoint, or a state dict, into a live model, and reports what was loaded, kept fresh and dropped.

    `rules` names one rule file or several; `by` pairs by name (the default) or position; `how` says everything at once.
    The model may be wrapped in DataParallel, DistributedDataParallel or torch.compile; its inner module's keys count.
    Raises RuleError with every problem before anything is loaded, InputError for what can't be used.
    """
    from ckpt_tool.training import LiveState, load_plan, unwrapped

    way = how or How((rules,) if isinstance(rules, str) else tuple(rules or ()), by=by)
    rule_set = read_rules(way)
    module = unwrapped(model)
    target = LiveState(type(module).__name__, module.state_dict())
    with ExitStack() as stack:
        if isinstance(source, str | os.PathLike):
            ours = stack.enter_context(_open_source(os.fspath(source), rule_set.unwrap if rule_set else ()))
        else:
            ours = source if isinstance(source, Checkpoint) else LiveState("the state dict", source)  # type: ignore[assignment]
        if not ours.has_values:
            raise InputError(ours.path, "is a key list: it has no values to load", "give a checkpoint")
        folder = os.path.dirname(ours.path) or "." if isinstance(source, str) else None
        return load_plan(draft(ours.catalog, target.catalog, rule_set, way, folder), ours, module)


def map_checkpoint(source: str | None, target: str | None, output: str | None, how: How | None = None, force: bool = False) -> Written:
    """Maps `source` onto `target`'s keys and writes `output`: the one-call form of `ckpt map`."""
    with planned(source, target, how or How()) as work:
        return write(work, output, force)
