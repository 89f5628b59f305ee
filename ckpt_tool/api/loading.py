"""A checkpoint into a live model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.refused import with_next
from ckpt_tool.api.options import DTypePolicy, MappingOptions, Method, stated
from ckpt_tool.api.remarks.left_behind import left_behind_text
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.api.sides import open_source, refuse_rivals
from ckpt_tool.deprecated import with_old_arguments
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.mapping import Plan
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.training import LiveState, LoadReport


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
    options: MappingOptions | None = None,
) -> LoadReport:
    """Loads a checkpoint, a state dict or another module into a live model, and reports what was
    loaded, kept fresh and dropped.

    `rules` names rule files, or is rules of the form `SOURCE -> TARGET`; `by` pairs by name (the
    default), position or alignment (auto). `drop` and `keep` are patterns of the source's keys to
    leave behind and of the model's keys that stay fresh; every other key is loaded, or there is an
    error, unless `partial` says that the rest may stay, or `expect` how many keys are loaded,
    exactly. By name, heads for another number of classes stay fresh by themselves, if nothing else
    is left. `dtypes`, `params` and what else there is are those of `MappingOptions`, which can be given as
    a whole, as `options`. The model may be wrapped in DataParallel, DistributedDataParallel or torch.compile; its
    inner module's keys count.

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
    from ckpt_tool.training import (
        LiveState,
        apart_from,
        load_plan,
        state_dict_of,
        together,
        unwrapped,
    )

    more = MappingOptions(
        rules or (), (), drop or (), keep or (), by, params or {}, dtypes or "strict", expect=expect, partial=partial  # type: ignore[arg-type]
    )  # fmt: skip
    way = _joined(options or MappingOptions(), more)
    rule_set = read_rules(way)
    module = unwrapped(model)
    with together(module) as processes, ExitStack() as stack:
        target = LiveState(type(module).__name__, module.state_dict(keep_vars=True), is_target=True)
        opened_source: Checkpoint | LiveState
        if isinstance(source, str | os.PathLike):
            opened_source = stack.enter_context(
                open_source(os.fspath(source), rule_set.unwrap if rule_set else ())
            )
        else:
            opened_source = (
                source
                if isinstance(source, Checkpoint)
                else LiveState("the state dict", apart_from(module, state_dict_of(source)))
            )
        with_values(opened_source, "to load")
        others = opened_source.others if isinstance(opened_source, LiveState) else ()
        try:
            refuse_rivals(opened_source)
            plan = draft_open(opened_source, target, rule_set, way)
            _check_dtypes(plan, target.catalog)
        except RuleError as error:
            raise with_next(error, opened_source, target, way) from None
        return load_plan(
            plan,
            opened_source,
            module,
            [*_notes_on_others(others), *_notes_on_rest(opened_source)],
            processes,
        )


def _joined(options: MappingOptions, more: MappingOptions) -> MappingOptions:
    """The same with what was given beside it. Raises InputError where the two say different things."""
    source, target = stated(options), stated(more)
    for name in source.keys() & target.keys():
        if source[name] != target[name]:
            raise InputError(name, "is given twice, by itself and in `options`")
    return MappingOptions(**{**source, **target})  # type: ignore[arg-type]


def _check_dtypes(plan: Plan, target: Catalog) -> None:
    """Raises RuleError where a plan asks for other types than a live model has: it keeps its own."""
    odd = [key for key in plan.producers if plan.outputs[key].dtype is not target[key].dtype]
    if odd:
        one = plan.outputs[odd[0]].dtype.value
        message = f"`{odd[0]}` would become {one}, and a live model keeps its own types, here {target[odd[0]].dtype.value}"
        raise RuleError(
            [
                Problem(
                    "dtype", message, None, ('`dtypes="target"` casts', f"{len(odd)} keys in all")
                )
            ]
        )


def _notes_on_rest(source: Checkpoint | LiveState) -> list[str]:
    """What of a file stays behind."""
    text = left_behind_text(source.contents.left_behind) if isinstance(source, Checkpoint) else ""
    return [text] if text else []


def _notes_on_others(keys: Sequence[str]) -> list[str]:
    """What is said of a state dict's keys that are no weights."""
    if not keys:
        return []
    count = (
        "1 key of the source is no tensor"
        if len(keys) == 1
        else f"{len(keys)} keys of the source are no tensors"
    )
    return [
        f"{count} of weights: {', '.join(f'`{key}`' for key in keys[:3])}{' …' if len(keys) > 3 else ''}"
    ]
