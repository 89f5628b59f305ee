"""A plan into a live module, tensor by tensor, and the report of what arrived."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.keys import fold
from ckpt_tool.mapping.accounting.ties import tied_with
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog
from ckpt_tool.training.filling import LiveTensors, has_own_class
from ckpt_tool.training.freezing import Frozen, freeze_keys
from ckpt_tool.training.live import unwrapped
from ckpt_tool.training.load_hooks.run import Hooked, call_post_hooks, run_hooks
from ckpt_tool.training.overlaps import check_overlaps
from ckpt_tool.training.snapshots import exchange
from ckpt_tool.training.together import Processes
from ckpt_tool.training.transfer import transfer
from ckpt_tool.training.values import step_values

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.optimizers.saved import Form
    from ckpt_tool.training.live import LiveState
    from ckpt_tool.training.optimizers.state import Given, OptimizerState


class ParameterGroup(TypedDict):
    """What `torch.optim` takes; `group` is `fresh` or `loaded`."""

    params: list[nn.Parameter]
    lr: float
    group: str


@dataclass(frozen=True, repr=False)
class LoadReport:
    """What became of every key: `loaded` and `fresh` are the model's keys, `dropped` the source's.

    `print(report)` gives the counts and the notes; `report.plan` has where each tensor came from.
    """

    plan: Plan
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"LoadReport({self._counts()})"

    def __str__(self) -> str:
        return "\n".join(
            [self._counts(), *(f"note: {note}" for note in (*self.plan.notes, *self.notes))]
        )

    def _counts(self) -> str:
        return (
            f"{len(self.loaded)} loaded, {len(self.fresh)} kept fresh, {len(self.dropped)} dropped"
        )

    def freeze(self, model: nn.Module) -> Frozen:
        """Freezes exactly what was loaded, running statistics too; `model.train()` doesn't thaw
        them.

        Raises InputError for a model that has other keys than the one that was loaded into.
        """
        return freeze_keys(self._own(model), self.loaded)

    def parameter_groups(
        self, model: nn.Module, lr: float, loaded_lr: float | None = None
    ) -> list[ParameterGroup]:
        """The trainable parameters, each once: fresh ones with `lr`, loaded ones with `loaded_lr`;
        empty groups are left out.

        Raises InputError for a model that has other keys than the one that was loaded into, where
        `loaded_lr` is for nothing because all that was loaded is frozen, where it is missing, and
        where nothing is trainable.
        """
        module = self._own(model)
        state = module.state_dict(keep_vars=True)
        loaded = {id(state[key]) for key in self.loaded}
        groups: dict[str, list[nn.Parameter]] = {"fresh": [], "loaded": []}
        for parameter in module.parameters():  # each once, however many names it has
            if parameter.requires_grad:
                groups["loaded" if id(parameter) in loaded else "fresh"].append(parameter)
        _check_rates(type(module).__name__, groups, loaded_lr)
        rates = {"fresh": lr, "loaded": lr if loaded_lr is None else loaded_lr}
        return [
            {"params": params, "lr": rates[name], "group": name}
            for name, params in groups.items()
            if params
        ]

    def optimizer_state(
        self,
        given: Given,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        fresh: Sequence[str] = (),
        names: Sequence[str] | None = None,
        form: Form | None = None,
    ) -> OptimizerState:
        """The state of the optimizer that the source was trained with, moved as its parameters
        were: for `optimizer.load_state_dict`.

        `given` is its state dict, torch's own or by names (`get_optimizer_state_dict`, flat or
        not), that optimizer, or a checkpoint that has it (`run.ckpt`, `run#optim`). `model` and
        `optimizer` are the ones that go on training; without them numbers are given in the order of
        the model's parameters, in the source's groups. `fresh` are patterns of the model's
        parameters that begin without a state. `names` are the source's keys in the order of its
        optimizer, where the shapes leave more than one. `form` is that of the result: `ids` for
        `optimizer.load_state_dict`, `names` or `flat` for `set_optimizer_state_dict`; without it
        the source's, `ids` for a checkpoint. Raises RuleError with every parameter whose state has
        no exact way, InputError where it is not certain which parameter is which.
        """
        from ckpt_tool.training.optimizers.state import optimizer_state

        module = None if model is None else self._own(model)
        return optimizer_state(self.plan, given, module, optimizer, fresh, names, form)

    def _own(self, model: nn.Module) -> nn.Module:
        module = unwrapped(model)
        known = module.state_dict(keep_vars=True)
        missing = next((key for key in self.loaded if key not in known), None)
        if missing is not None:
            raise InputError(
                type(module).__name__,
                f"has no key `{missing}`",
                "give the model that was loaded into",
            )
        target = self.plan.target or known
        strange = next(
            (name for name, _ in module.named_parameters() if name in known and name not in target),
            None,
        )
        if strange is not None:
            raise InputError(
                type(module).__name__,
                f"has `{strange}`, which the model that was loaded into has not",
                "give that one",
            )
        return module


def _check_rates(
    name: str, groups: Mapping[str, Sequence[nn.Parameter]], loaded_lr: float | None
) -> None:
    """Raises InputError where a rate is for nothing, or nothing says which rate is meant."""
    if not any(groups.values()):
        raise InputError(
            name, "has no trainable parameter", "freeze less, or there is nothing to train"
        )
    if loaded_lr is not None and not groups["loaded"]:
        fact = f"`loaded_lr={loaded_lr:g}` is for nothing: no loaded parameter is trainable"
        raise InputError(name, fact, "leave it out, or freeze less")
    if loaded_lr is None and groups["loaded"]:
        fact = f"{len(groups['loaded'])} of the loaded parameters are trainable, and have no rate"
        raise InputError(name, fact, "give `loaded_lr`, or freeze them first")


def load_plan(
    plan: Plan,
    source: Checkpoint | LiveState,
    module: nn.Module,
    notes: Sequence[str] = (),
    processes: Processes | None = None,
) -> LoadReport:
    """Copies what the plan says into the module's own tensors, on their devices; tensors on the
    meta device are replaced.

    Everything is checked before: tensors that can't be filled and hooks that fail raise InputError,
    wrong checksums FormatError, values that a rule forbids or that tied tensors can't have
    RuleError. One group of tensors is in memory at a time, but for modules with load hooks.
    `processes` are those that hold parts of the module; all of them must call this.
    """
    import torch

    processes = processes or Processes(module)
    tensors = LiveTensors(module)
    tensors.check(plan.producers)
    processes.agree(plan)
    source.check(processes.share([key for step in plan.steps for key in step.inputs]))
    processes.agree()
    with torch.inference_mode(False), torch.no_grad(), ExitStack() as undo:
        _try_steps(plan, source, tensors)
        covered = check_overlaps(plan, source, tensors)
        hooked = run_hooks(module, plan, source, tensors, undo)
        _fill_own_classes(plan, source, tensors, hooked, undo)
        _check_unchanged(source, "nothing was loaded; try again")
        processes.go()
        undo.pop_all()
        _fill(plan, source, module, tensors, hooked)
    _check_unchanged(source, "what was loaded may be wrong; load again")
    report = _report(plan, module, notes, covered, hooked)
    call_post_hooks(module, report.fresh, plan.dropped)
    return report


def _try_steps(plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors) -> None:
    """Runs the steps whose ops look at values, which may forbid them, for nothing but that."""
    for step in plan.steps:
        if any(op.checks_values for op in step.ops):
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
    for step in plan.steps:
        if any(has_own_class(tensors[key]) for key in step.outputs):
            for key, value in zip(step.outputs, step_values(step, source, tensors), strict=True):
                if has_own_class(tensors[key]) and not hooked.has(tensors[key]):
                    tensors.try_fill(tensors[key], value, undo)
                    hooked.in_place.add(id(tensors[key]))


def _fill(
    plan: Plan,
    source: Checkpoint | LiveState,
    module: nn.Module,
    tensors: LiveTensors,
    hooked: Hooked,
) -> None:
    tensors.reserve(key for key in plan.producers if not hooked.has(tensors[key]))
    for step in plan.steps:
        if wanted := [key for key in step.outputs if not hooked.has(tensors[key])]:
            transfer(step, source, tensors, wanted)
    for tensor, value in hooked.values.values():
        if id(tensor) not in hooked.in_place:
            tensors.fill(tensor, value)
    tensors.commit()
    exchange(module, tensors.replaced)


def _report(
    plan: Plan, module: nn.Module, notes: Sequence[str], covered: Mapping[str, str], hooked: Hooked
) -> LoadReport:
    tied = _tied_to(plan, covered)
    also = dict.fromkeys((*tied, *covered, *hooked.filled))
    fresh = tuple(key for key in plan.kept if key not in also)
    all_notes = [
        *notes,
        *_loaded_with("is tied to", "are tied to", tied, plan),
        *_loaded_with("lies in the memory of", "lie in the memory of", covered, plan),
        *_hook_notes(hooked, plan),
        *_without_values(module, fresh),
    ]
    return LoadReport(plan, (*plan.producers, *also), fresh, plan.dropped, tuple(all_notes))


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
        else f"`{one.pattern}` ({len(one.keys)}) {are_so} other keys, and were loaded with them"
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


def _without_values(module: nn.Module, fresh: Sequence[str]) -> list[str]:
    """What is to be said of tensors that have no memory yet: fresh ones, and those that no state
    dict has.
    """
    state = module.state_dict(keep_vars=True)
    known = {id(tensor) for tensor in state.values()}
    others = [
        name
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.is_meta and id(tensor) not in known
    ]
    return [
        *_empty("fresh tensor", [key for key in fresh if getattr(state[key], "is_meta", False)]),
        *_empty("tensor outside of the state dict", others),
    ]


def _empty(kind: str, keys: Sequence[str]) -> list[str]:
    if not keys:
        return []
    some = ", ".join(f"`{key}`" for key in keys[:3]) + (" …" if len(keys) > 3 else "")
    are = f"{kind} is" if len(keys) == 1 else f"{kind.replace('tensor', 'tensors', 1)} are"
    return [f"{len(keys)} {are} on the meta device, without any values: {some}"]
