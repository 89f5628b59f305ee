"""What was loaded into a model, and what a training script does next with it: freeze it, group its
parameters, move the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypedDict

from ckpt_tool.errors import InputError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.training.freezing import Frozen, freeze_keys
from ckpt_tool.training.live import unwrapped

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.optimizers.saved import Form
    from ckpt_tool.training.optimizers.state import Given, OptimizerState


class _Group(TypedDict):
    params: list[nn.Parameter]
    lr: float
    group: str


class ParameterGroup(_Group, total=False):
    """What `torch.optim` takes; `group` is `fresh` or `loaded`, `layer` a block where rates fall
    towards the input, `weight_decay` there where it was asked for.
    """

    layer: str
    weight_decay: float


@dataclass(frozen=True, repr=False)
class LoadReport:
    """What became of every key: `loaded` and `fresh` are the model's keys, `dropped` the source's;
    `changed` are those loaded whose values the model's own load hooks changed, `parameters` all
    keys of each parameter, in the model's order.

    `print(report)` gives the counts and the notes; `report.plan` has where each tensor came from.
    """

    plan: Plan
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    parameters: tuple[tuple[str, ...], ...] = ()

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

    def freeze(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Frozen:
        """Freezes exactly what was loaded, running statistics too; `model.train()` doesn't thaw
        them. An `optimizer` that exists already is checked, as by `ckpt_tool.freeze`.

        Raises InputError for a model that has other keys than the one that was loaded into.

        >>> import ckpt_tool, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 2))
        >>> source = {"0.weight": torch.ones(10, 4), "0.bias": torch.ones(10)}
        >>> report = ckpt_tool.load_into(model, source, keep="1.*")
        >>> report.freeze(model)
        Frozen(2 parameters, 0 modules)
        >>> model[0].weight.requires_grad, model[1].weight.requires_grad
        (False, True)
        """
        self._own(model)
        return freeze_keys(model, self.loaded, optimizer)

    def parameter_groups(
        self,
        model: nn.Module,
        lr: float,
        loaded_lr: float | None = None,
        *,
        decay: float | None = None,
        layers: Sequence[str] = (),
        weight_decay: float | None = None,
    ) -> list[ParameterGroup]:
        """The trainable parameters, each once: fresh ones with `lr`, loaded ones with `loaded_lr`;
        empty groups are left out.

        With `decay` (0.75, say) loaded parameters get a group for each layer, as BEiT has them:
        `loaded_lr` (by default `lr`) behind the last block, `decay` times that in the last block,
        `decay`² in the one before it, and least before the first. Layers are the network's blocks
        in the order of registration, or `layers`, patterns in order, each a layer, or one for every
        number it has (`encoder.layer.{i}.**`).

        With `weight_decay` each group is split in two: biases, norms and other parameters of at
        most one dimension, and those that the model's own `no_weight_decay()` names (timm's do),
        get 0, all others this much.

        Raises InputError for a model that has other keys than the one that was loaded into, where
        `loaded_lr` is for nothing because all that was loaded is frozen, where it is missing, where
        nothing is trainable, and where the order of blocks isn't certain.

        >>> import ckpt_tool, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 2))
        >>> source = {"0.weight": torch.ones(10, 4), "0.bias": torch.ones(10)}
        >>> report = ckpt_tool.load_into(model, source, keep="1.*")
        >>> groups = report.parameter_groups(model, lr=1e-3, loaded_lr=1e-5)
        >>> [(group["group"], group["lr"]) for group in groups]
        [('fresh', 0.001), ('loaded', 1e-05)]
        """
        if (decay is None and layers) or (decay is not None and not 0 < decay <= 1):
            raise ValueError(f"decay={decay!r}; it is above 0 and at most 1, and `layers` needs it")
        module = self._own(model)
        state = module.state_dict(keep_vars=True)
        loaded = {id(state[key]) for key in self.loaded}
        groups: dict[str, list[nn.Parameter]] = {"fresh": [], "loaded": []}
        for parameter in module.parameters():  # each once, however many names it has
            if parameter.requires_grad:
                groups["loaded" if id(parameter) in loaded else "fresh"].append(parameter)
        if decay is not None and loaded_lr is None and groups["loaded"]:
            loaded_lr = lr
        _check_rates(type(module).__name__, groups, loaded_lr)
        rates = {"fresh": lr, "loaded": lr if loaded_lr is None else loaded_lr}
        listed: list[ParameterGroup] = [
            {"params": params, "lr": rates[name], "group": name}
            for name, params in groups.items()
            if params
        ]
        if decay is not None and groups["loaded"]:
            by_layer = _by_layer(module, groups["loaded"], rates["loaded"], decay, layers)
            listed = [*listed[:-1], *by_layer]
        if weight_decay is None:
            return listed
        return [part for one in listed for part in _split(module, one, weight_decay)]

    def optimizer_state(
        self,
        given: Given,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        fresh: Sequence[str] = (),
        names: Sequence[str] | Sequence[Sequence[str]] | None = None,
        form: Form | None = None,
    ) -> OptimizerState:
        """The state of the optimizer that the source was trained with, moved as its parameters
        were: for `optimizer.load_state_dict`.

        `given` is its state dict, torch's own or by names (`get_optimizer_state_dict`, flat or
        not), that optimizer, or a checkpoint that has it (`run.ckpt`, `run#optim`). `model` and
        `optimizer` are the ones that go on training; without them numbers are given in the order of
        the model's parameters, in the source's groups. `fresh` are patterns of the model's
        parameters that begin without a state. `names` are the source's parameters in the order of
        its model, or a list for each group of its optimizer, where order and shapes leave more than
        one pairing. `form` is that of the result: `ids` for `optimizer.load_state_dict`, `names` or
        `flat` for `set_optimizer_state_dict`; without it the source's, `ids` for a checkpoint.
        Raises RuleError with every parameter whose state has no exact way, InputError where it is
        not certain which parameter is which.
        """
        from ckpt_tool.training.optimizers.state import optimizer_state

        module = None if model is None else self._own(model)
        return optimizer_state(
            self.plan, given, module, optimizer, fresh, names, form, self.changed, self.parameters
        )

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


def _split(
    module: nn.Module, group: ParameterGroup, weight_decay: float
) -> Iterator[ParameterGroup]:
    """A group in two, by which weights decay; without an empty one."""
    own = getattr(module, "no_weight_decay", None)
    named = [str(name) for name in own()] if callable(own) else []
    exempt = {
        id(one)
        for name, one in module.named_parameters()
        if name.endswith(".bias") or any(fnmatchcase(name, each) for each in named)
    }
    decaying = [one for one in group["params"] if one.ndim > 1 and id(one) not in exempt]
    known = {id(one) for one in decaying}
    others = [one for one in group["params"] if id(one) not in known]
    for params, value in ((decaying, weight_decay), (others, 0.0)):
        if params:
            yield {**group, "params": params, "weight_decay": value}


def _by_layer(
    module: nn.Module,
    loaded: Sequence[nn.Parameter],
    lr: float,
    decay: float,
    layers: Sequence[str],
) -> list[ParameterGroup]:
    """A group for each layer that has any of the parameters, from the input on."""
    from ckpt_tool.training.layers import depths

    wanted = {id(parameter) for parameter in loaded}
    names = {name: one for name, one in module.named_parameters() if id(one) in wanted}
    found = depths(module, names, layers)
    groups: dict[int, ParameterGroup] = {}
    for name, parameter in names.items():
        number, label = found.layers[name]
        rate = lr * found.scale(name, decay)
        fresh: ParameterGroup = {"params": [], "lr": rate, "group": "loaded", "layer": label}
        groups.setdefault(number, fresh)["params"].append(parameter)
    return [groups[number] for number in sorted(groups)]


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
