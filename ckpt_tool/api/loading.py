"""A checkpoint into a live model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.refused import with_next
from ckpt_tool.api.options import DTypePolicy, MappingOptions, Method, stated
from ckpt_tool.api.remarks.left_behind import left_behind_text
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.api.sides import in_memory, open_source, refuse_rivals
from ckpt_tool.deprecated import with_old_arguments
from ckpt_tool.errors import FormatError, InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.mapping import Plan, RuleSet
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.training import LiveState, LoadReport
    from ckpt_tool.training.memory.handed import Loader


@with_old_arguments
def load_into(
    model: nn.Module,
    source: str | os.PathLike[str] | Checkpoint | nn.Module | Mapping[str, object],
    *,
    rules: str | os.PathLike[str] | Sequence[str] | None = None,
    by: Method | None = None,
    drop: str | Sequence[str] | None = None,
    keep: str | Sequence[str] | None = None,
    partial: bool = False,
    expect: int | None = None,
    dtypes: DTypePolicy | None = None,
    params: Mapping[str, int] | None = None,
    min_confidence: float | None = None,
    health: bool = False,
    assign: bool = False,
    loader: Loader | None = None,
    options: MappingOptions | None = None,
) -> LoadReport:
    """Loads a checkpoint, a state dict or another module into a live model, and reports what was
    loaded, kept fresh and dropped.

    `rules` names rule files, or is rules of the form `SOURCE -> TARGET`; `by` pairs by name (the
    default), position or alignment (auto). `drop` and `keep` are patterns of the source's keys to
    leave behind and of the model's keys that stay fresh; every other key is loaded, or there is an
    error, unless `partial` says that the rest may stay, or `expect` how many keys are loaded,
    exactly. By name, heads for another number of classes stay fresh by themselves, if nothing else
    is left. `dtypes`, `params` and what else there is are those of `MappingOptions`, which can be
    given as a whole, as `options`. `health` reads the source's values first, as `ckpt_tool.health`
    does, and raises FormatError where something is wrong with them. With `assign`, tensors that
    nothing changes are mapped from the file and read when they are used; the file must then stay as
    it is. `loader` reads in our place: called with the keys that are needed, it gives pairs of key
    and tensor, in any order and on any device (a library that reads straight into an accelerator,
    say). The model may be wrapped in
    DataParallel, DistributedDataParallel or torch.compile; its inner module's keys count.

    Raises RuleError with every problem before anything is loaded; its `next` are keyword arguments
    with which the call goes through, where some are known. Raises InputError for what can't be
    used.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 2))
    >>> backbone = {"weight": torch.ones(10, 4), "bias": torch.ones(10)}
    >>> report = ckpt_tool.load_into(model, backbone, rules="** -> 0.**", keep="1.*")
    >>> report
    LoadReport(2 loaded, 2 kept fresh, 0 dropped)
    >>> report.freeze(model)
    Frozen(2 parameters, 0 modules)
    """
    from ckpt_tool.training import LiveState, load_plan, together, unwrapped

    given = MappingOptions(
        rules=rules or (),  # type: ignore[arg-type]
        drop=drop or (),  # type: ignore[arg-type]
        keep=keep or (),  # type: ignore[arg-type]
        by=by,
        params=params or {},
        dtypes=dtypes or "strict",
        expect=expect,
        min_confidence=min_confidence,
        partial=partial,
    )
    wanted = _joined(options or MappingOptions(), given)
    rule_set = read_rules(wanted)
    module = unwrapped(model)
    with together(module) as processes, ExitStack() as stack:
        target = LiveState(type(module).__name__, module.state_dict(keep_vars=True), is_target=True)
        opened = stack.enter_context(_open_for(module, source, rule_set))
        with_values(opened, "to load")
        if assign or loader is not None:
            _need_file(opened, "assign" if assign else "loader")
        if health:
            _refuse_unhealthy(source, opened)
        try:
            refuse_rivals(opened)
            plan = draft_open(opened, target, rule_set, wanted)
            _check_dtypes(plan, target.catalog)
        except RuleError as error:
            raise with_next(error, opened, target, wanted) from None
        return load_plan(plan, opened, module, _notes_on(opened), processes, assign, loader)


def _need_file(opened: Checkpoint | LiveState, name: str) -> None:
    if not (isinstance(opened, Checkpoint) and opened.is_file):
        raise InputError(name, "is for a file, and this source is in memory", "leave it out")


def _refuse_unhealthy(
    source: str | os.PathLike[str] | Checkpoint | nn.Module | Mapping[str, object],
    opened: Checkpoint | LiveState,
) -> None:
    """Raises FormatError where something is wrong with the source's values."""
    from ckpt_tool.examining import examine
    from ckpt_tool.mapping import read_config

    if isinstance(source, str | os.PathLike):
        assert isinstance(opened, Checkpoint)
        found = examine(opened, read_config(os.fspath(source)))
    else:
        found = examine(in_memory(source))
    if found.findings:
        first, count = found.findings[0], len(found.findings)
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise FormatError(
            found.path,
            f"is not healthy: {first.subject}: {first.text}{more}",
            "`print(ckpt_tool.health(...))` lists all that was found",
        )


@contextmanager
def _open_for(
    module: nn.Module,
    source: str | os.PathLike[str] | Checkpoint | nn.Module | Mapping[str, object],
    rules: RuleSet | None,
) -> Iterator[Checkpoint | LiveState]:
    """The source; what of it lies in the memory of the module is copied before that is filled."""
    from ckpt_tool.training import LiveState, apart_from, state_dict_of

    if isinstance(source, str | os.PathLike):
        with open_source(source, rules.unwrap if rules else ()) as checkpoint:
            yield checkpoint
    elif isinstance(source, Checkpoint):
        yield source
    else:
        yield LiveState("the state dict", apart_from(module, state_dict_of(source)))


def _joined(options: MappingOptions, more: MappingOptions) -> MappingOptions:
    """The same with what was given beside it. Raises InputError where the two say
    different things.
    """
    source, target = stated(options), stated(more)
    for name in source.keys() & target.keys():
        if source[name] != target[name]:
            raise InputError(name, "is given twice, by itself and in `options`")
    return MappingOptions(**{**source, **target})  # type: ignore[arg-type]


def _check_dtypes(plan: Plan, target: Catalog) -> None:
    """Raises RuleError where a plan asks for other types than a live model has: it keeps
    its own.
    """
    odd = [key for key in plan.producers if plan.outputs[key].dtype is not target[key].dtype]
    if odd:
        one = plan.outputs[odd[0]].dtype.value
        message = (
            f"`{odd[0]}` would become {one}, and a live model keeps its own types, "
            f"here {target[odd[0]].dtype.value}"
        )
        raise RuleError(
            [
                Problem(
                    "dtype", message, None, ('`dtypes="target"` casts', f"{len(odd)} keys in all")
                )
            ]
        )


def _notes_on(source: Checkpoint | LiveState) -> list[str]:
    """What of a file stays behind; which keys of a state dict are no weights."""
    if isinstance(source, Checkpoint):
        text = left_behind_text(source.contents.left_behind)
        return [text] if text else []
    keys = source.others
    if not keys:
        return []
    count = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
    what = "is no tensor" if len(keys) == 1 else "are no tensors"
    names = ", ".join(f"`{key}`" for key in keys[:3]) + (" …" if len(keys) > 3 else "")
    return [f"{count} of the source {what} of weights: {names}"]
