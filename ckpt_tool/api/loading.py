"""A checkpoint into a live model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.refused import with_next
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.remarks.left_behind import left_behind_text
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.rule_files import check_numbers, read_rules
from ckpt_tool.api.sides import in_memory, open_source, refuse_rivals
from ckpt_tool.errors import FormatError, InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.formats.opening import collector_paused
from ckpt_tool.keys import Matcher, PatternError, parse

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.api.sides import Given
    from ckpt_tool.mapping import Plan, RuleSet
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.training import LiveState, LoadReport
    from ckpt_tool.training.memory.handed import Loader
    from ckpt_tool.training.memory.left_on_meta import Watched


def load_into(
    model: nn.Module,
    source: Given,
    options: MappingOptions,
    health: bool = False,
    assign: bool = False,
    loader: Loader | None = None,
) -> LoadReport:
    """Loads a checkpoint, a state dict or another module into a live model, as
    `ckpt_tool.load_into` says.
    """
    from ckpt_tool.training import unwrapped
    from ckpt_tool.training.memory.left_on_meta import Watched

    module, watched = unwrapped(model), Watched()
    report = _load_into(module, source, options, health, assign, loader, watched)
    return replace(report, notes=(*report.notes, *watched.notes(module)))


def _load_into(
    module: nn.Module,
    source: Given,
    options: MappingOptions,
    health: bool,
    assign: bool,
    loader: Loader | None,
    watched: Watched,
) -> LoadReport:
    """The load itself; what it holds of the model is gone when it returns."""
    from ckpt_tool.training import LiveState, load_plan, together
    from ckpt_tool.training.registered import own_state

    rule_set = read_rules(options)
    with together(module) as processes, ExitStack() as stack:
        state = own_state(module)
        watched.add(state)
        with collector_paused():
            target = LiveState(type(module).__name__, state, is_target=True, is_of_model=True)
        opened = stack.enter_context(_open_for(module, source, rule_set))
        with_values(opened, "to load")
        if assign or loader is not None:
            _need_file(opened, "assign" if assign else "loader")
        if health:
            _refuse_unhealthy(source, opened)
        try:
            refuse_rivals(opened)
            with collector_paused():
                plan = draft_open(opened, target, rule_set, options)
            check_numbers(rule_set, options)
            _check_dtypes(plan, target.catalog)
        except RuleError as error:
            more = _quantised_problems(module, options)
            told = RuleError((*more, *error.problems), error.tally) if more else error
            raise with_next(told, opened, target, options) from None
        return load_plan(plan, opened, module, _notes_on(opened), processes, assign, loader, state)


def _need_file(opened: Checkpoint | LiveState, name: str) -> None:
    if not (isinstance(opened, Checkpoint) and opened.is_file):
        raise InputError(name, "is for a file, and this source is in memory", "leave it out")


def _refuse_unhealthy(source: Given, opened: Checkpoint | LiveState) -> None:
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
    module: nn.Module, source: Given, rules: RuleSet | None
) -> Iterator[Checkpoint | LiveState]:
    """The source; what of it lies in the memory of the module is copied before that is filled."""
    from ckpt_tool.training import LiveState, apart_from, state_dict_of

    if isinstance(source, str | os.PathLike):
        with open_source(source, rules.unwrap if rules else ()) as checkpoint:
            yield checkpoint
    elif isinstance(source, Checkpoint):
        yield source
    else:
        state = apart_from(module, state_dict_of(source))
        yield LiveState("the state dict", state, is_of_model=not isinstance(source, Mapping))


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


def _quantised_problems(module: nn.Module, options: MappingOptions) -> list[Problem]:
    """What is to be said of parameters that are codes by now, where no wish to keep them is."""
    from ckpt_tool.torch_bridge import quantised_kind
    from ckpt_tool.training.registered import registered_parameters

    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name, one in registered_parameters(module):
        found.setdefault(id(one), (name, one))
    named = {name: quantised_kind(one) for name, one in found.values()}
    packed = {name: kind for name, kind in named.items() if kind}
    try:
        kept = [Matcher(parse(pattern)) for pattern in options.keep] if packed else []
    except PatternError:  # which is among the problems already
        return []
    packed = {k: v for k, v in packed.items() if not any(each.match(k) for each in kept)}
    if not packed:
        return []
    name, kind = next(iter(packed.items()))
    count = "" if len(packed) == 1 else f"; {len(packed)} parameters in all"
    notes = ("load before the model is quantised, or keep them and the keys beside them",)
    return [Problem("quantised", f"`{name}` of the model is {kind}{count}", None, notes)]


def _notes_on(source: Checkpoint | LiveState) -> list[str]:
    """What of a file is not copied; which keys of a state dict are no weights."""
    if isinstance(source, Checkpoint):
        text = left_behind_text(source.contents.left_behind)
        return [text] if text else []
    keys = source.others
    if not keys:
        return []
    count = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
    what = "is not a tensor" if len(keys) == 1 else "are not tensors"
    names = ", ".join(f"`{key}`" for key in keys[:3]) + (" …" if len(keys) > 3 else "")
    return [f"{count} of the source {what} of weights: {names}"]
