"""A plan into a live module, tensor by tensor, and the report of what arrived."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.formats.opening import collector_paused
from ckpt_tool.keys import fold
from ckpt_tool.mapping.accounting.ties import tied_with
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog
from ckpt_tool.training.live import keys_of_parameters
from ckpt_tool.training.load_hooks.run import Hooked, call_post_hooks, run_hooks
from ckpt_tool.training.memory.filling import LiveTensors, has_own_class
from ckpt_tool.training.memory.handed import fill_from
from ckpt_tool.training.memory.left_on_meta import without_values
from ckpt_tool.training.memory.mapped import MappedFiles
from ckpt_tool.training.memory.reads import Reads, reading_threads
from ckpt_tool.training.memory.transfer import transfer
from ckpt_tool.training.memory.values import step_values
from ckpt_tool.training.overlaps import check_overlaps
from ckpt_tool.training.registered import own_state
from ckpt_tool.training.report import LoadReport
from ckpt_tool.training.snapshots import exchange
from ckpt_tool.training.together import Processes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.training.live import LiveState
    from ckpt_tool.training.memory.handed import Loader

LOADED_IN_PART = "what was loaded may be wrong; load again"


def load_plan(
    plan: Plan,
    source: Checkpoint | LiveState,
    module: nn.Module,
    notes: Sequence[str] = (),
    processes: Processes | None = None,
    assign: bool = False,
    loader: Loader | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> LoadReport:
    """Copies what the plan says into the module's own tensors, on their devices; tensors on the
    meta device are replaced.

    Everything is checked before: tensors that can't be filled and hooks that fail raise InputError,
    wrong checksums FormatError, values that a rule forbids or that tied tensors can't have
    RuleError. One group of tensors is in memory at a time, but for modules with load hooks.
    `processes` are those that hold parts of the module; all of them must call this. `state` is the
    module's state dict with its own tensors, where it was asked for it.
    """
    import torch

    processes = processes or Processes(module)
    state = own_state(module) if state is None else state
    with collector_paused():
        tensors = LiveTensors(module, state)
        parameters = keys_of_parameters(module, state)
        tensors.check(plan.producers)
    processes.agree(plan, source)
    read = processes.share([key for step in plan.steps for key in step.inputs])
    source.check(read, reading_threads())
    processes.agree()
    with torch.inference_mode(False), torch.no_grad(), ExitStack() as undo:
        _try_steps(plan, source, tensors)
        covered = check_overlaps(plan, source, tensors)
        hooked = run_hooks(module, plan, source, tensors, undo)
        _fill_own_classes(plan, source, tensors, hooked, undo)
        _check_unchanged(source, "nothing was loaded; try again")
        processes.go()
        undo.pop_all()
        mapped = MappedFiles(source) if assign and isinstance(source, Checkpoint) else None
        try:
            _fill(plan, source, module, tensors, hooked, mapped, loader)
        except FormatError as error:
            raise FormatError(error.path, error.fact, LOADED_IN_PART, error.place) from None
    _check_unchanged(source, LOADED_IN_PART)
    more = [*_mapped_notes(mapped, source), *_loader_notes(loader, hooked, source)]
    report = _report(plan, module, (*notes, *more), covered, hooked, parameters, tensors.had_meta)
    call_post_hooks(module, report.fresh, plan.dropped)
    return report


def _try_steps(plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors) -> None:
    """Runs the steps whose ops look at values, which may forbid them, for nothing but that."""
    for step in plan.steps:
        if step.ops and any(op.checks_values for op in step.ops):
            step_values(step, source, tensors)


def _check_unchanged(source: Checkpoint | LiveState, hint: str) -> None:
    for file in source.files:
        if file.has_changed():
            raise FormatError(file.path, "changed while it was read", hint)


def _fill_own_classes(
    plan: Plan,
    source: Checkpoint | LiveState,
    tensors: LiveTensors,
    hooked: Hooked,
    undo: ExitStack,
) -> None:
    """Fills the tensors whose classes have a say in it, as long as all can be undone. Raises
    InputError where one refuses.
    """
    for tensor, value in hooked.values.values():
        if has_own_class(tensor):
            tensors.try_fill(tensor, value, undo)
            hooked.in_place.add(id(tensor))
    own = {key for key in plan.producers if has_own_class(tensors[key])}
    for step in plan.steps if own else ():
        if not own.isdisjoint(step.outputs):
            for key, value in zip(step.outputs, step_values(step, source, tensors), strict=True):
                if key in own and not hooked.has(tensors[key]):
                    tensors.try_fill(tensors[key], value, undo)
                    hooked.in_place.add(id(tensors[key]))


def _fill(
    plan: Plan,
    source: Checkpoint | LiveState,
    module: nn.Module,
    tensors: LiveTensors,
    hooked: Hooked,
    mapped: MappedFiles | None,
    loader: Loader | None,
) -> None:
    if loader is not None:
        fill_from(loader, plan, tensors, hooked)
    else:
        wanted = {key for key in plan.producers if not hooked.has(tensors[key])}
        if mapped is not None:
            steps = [step for step in plan.steps if not step.ops and step.outputs[0] in wanted]
            wanted -= {
                step.outputs[0] for step in steps if mapped.give(step, tensors, step.outputs[0])
            }
        tensors.reserve(wanted)
        with collector_paused(), Reads() as reads:
            for step in plan.steps:
                if some := [key for key in step.outputs if key in wanted]:
                    transfer(step, source, tensors, some, reads)
    for tensor, value in hooked.values.values():
        if id(tensor) not in hooked.in_place:
            tensors.fill(tensor, value)
    tensors.commit()
    exchange(module, tensors.replaced)


def _mapped_notes(mapped: MappedFiles | None, source: Checkpoint | LiveState) -> list[str]:
    """What is to be said of tensors that are the file's own bytes."""
    if mapped is None or not mapped.count:
        return []
    count = "1 tensor is" if mapped.count == 1 else f"{mapped.count} tensors are"
    return [
        f"{count} mapped from {source.path}: leave the file as it is while the model is in use, "
        "and replace it rather than write into it"
    ]


def _loader_notes(
    loader: Loader | None, hooked: Hooked, source: Checkpoint | LiveState
) -> list[str]:
    """What is to be said of tensors that the loader was not asked for."""
    count = len({*hooked.values, *hooked.in_place}) if loader is not None else 0
    if not count:
        return []
    tensors = "1 tensor was" if count == 1 else f"{count} tensors were"
    return [
        f"{tensors} read from {source.path}, not by the loader: their modules have code for loading"
    ]


def _report(
    plan: Plan,
    module: nn.Module,
    notes: Sequence[str],
    covered: Mapping[str, str],
    hooked: Hooked,
    parameters: tuple[tuple[str, ...], ...],
    had_meta: bool,
) -> LoadReport:
    tied = _tied_to(plan, covered)
    also = dict.fromkeys((*tied, *covered, *hooked.filled))
    fresh = tuple(key for key in plan.kept if key not in also)
    all_notes = [
        *notes,
        *_loaded_with("is tied to", "are tied to", tied, plan),
        *_loaded_with("lies in the memory of", "lie in the memory of", covered, plan),
        *_hook_notes(hooked, plan),
        *(without_values(module, fresh) if had_meta else ()),
    ]
    loaded = (*plan.producers, *also)
    changed = tuple(dict.fromkeys(hooked.changed))
    return LoadReport(plan, loaded, fresh, plan.dropped, tuple(all_notes), changed, parameters)


def _tied_to(plan: Plan, covered: Container[str]) -> dict[str, str]:
    """Keys that the plan keeps, but that are one tensor of the model with one that was loaded."""
    kept = [key for key in plan.kept if key not in covered]
    loaded = [*plan.producers, *(key for key in plan.kept if key in covered)]
    return {
        key: first
        for first, keys in tied_with(plan.target or Catalog([]), loaded, kept).items()
        for key in keys
    }


def _loaded_with(is_so: str, are_so: str, others: Mapping[str, str], plan: Plan) -> list[str]:
    """What is to be said of keys that were loaded with others: one line a pattern."""
    return [
        f"`{one.pattern}` {is_so} `{others[one.keys[0]]}`, and was loaded with it"
        if len(one.keys) == 1
        else f"`{one.pattern}` ({len(one.keys):,}) {are_so} other keys, and were loaded with them"
        for one in fold(dict.fromkeys(others), plan.target or ())
    ]


def _hook_notes(hooked: Hooked, plan: Plan) -> list[str]:
    """What is to be said of values that modules' own code has made: one line a pattern."""
    facts = {"changed by": hooked.changed, "filled by": hooked.filled}
    return [
        f"`{one.pattern}` {'was' if len(one.keys) == 1 else 'were'} {fact} the module's own "
        "load hooks, as by `load_state_dict`"
        for fact, keys in facts.items()
        for one in fold(dict.fromkeys(keys), plan.target or ())
    ]
