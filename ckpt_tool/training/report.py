"""What was loaded into a model, and what a training script does next with it: freeze it, group its
parameters, move the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import shape_text
from ckpt_tool.torch_bridge import odd_kind, quantised_kind
from ckpt_tool.training.freezing import Frozen, freeze_keys
from ckpt_tool.training.groups import ParameterGroups, by_layer, listed, split
from ckpt_tool.training.live import unwrapped
from ckpt_tool.training.registered import own_state

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.optimizers.saved import Form
    from ckpt_tool.training.optimizers.state import Given, OptimizerState


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
        them. To other buffers the model's own `forward` may go on writing. An `optimizer` that
        exists already is checked, as by `ckpt_tool.freeze`.

        Raises InputError for a model that has other keys than the one that was loaded into, or
        other shapes of what was loaded.

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
    ) -> ParameterGroups:
        """The trainable parameters, each once: fresh ones with `lr`, loaded ones with `loaded_lr`;
        empty groups are left out. A list of dicts for `torch.optim`, which prints as a table.

        With `decay` (0.75, say) loaded parameters get a group for each layer, as BEiT has them:
        `loaded_lr` (by default `lr`) behind the last block, `decay` times that in the last block,
        `decay`² in the one before it, and least before the first. Layers are the network's blocks
        in the order of registration, or `layers`, patterns in order, each a layer, or one for every
        number it has (`encoder.layer.{i}.**`).

        With `weight_decay` each group is split in two: biases, norms and other parameters of at
        most one dimension, and those that the model's own `no_weight_decay()` names (timm's do),
        get 0, all others this much.

        Raises InputError for a model that has other keys than the one that was loaded into, or
        other shapes of what was loaded, where
        `loaded_lr` has no parameter because all that was loaded is frozen, where it is missing,
        where nothing is trainable, and where it isn't certain how deep a loaded parameter lies.

        >>> import ckpt_tool, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 2))
        >>> source = {"0.weight": torch.ones(10, 4), "0.bias": torch.ones(10)}
        >>> report = ckpt_tool.load_into(model, source, keep="1.*")
        >>> groups = report.parameter_groups(model, lr=1e-3, loaded_lr=1e-5)
        >>> print(groups)
        group         lr  tensors  parameters
        fresh   1.00e-03        2          22
        loaded  1.00e-05        2          50
        <BLANKLINE>
        2 groups: 4 tensors, 72 parameters
        >>> [(group["group"], group["lr"]) for group in groups]
        [('fresh', 0.001), ('loaded', 1e-05)]
        """
        if (decay is None and layers) or (decay is not None and not 0 < decay <= 1):
            raise ValueError(f"decay={decay!r}; it is above 0 and at most 1, and `layers` needs it")
        module = self._own(model)
        state = own_state(module)
        loaded = {id(state[key]) for key in self.loaded}
        by_kind: dict[str, list[nn.Parameter]] = {"fresh": [], "loaded": []}
        for parameter in module.parameters():  # each once, however many names it has
            if parameter.requires_grad:
                by_kind["loaded" if id(parameter) in loaded else "fresh"].append(parameter)
        if decay is not None and loaded_lr is None and by_kind["loaded"]:
            loaded_lr = lr
        groups = listed(module, by_kind, lr, loaded_lr)
        if decay is not None and by_kind["loaded"]:
            groups = [*groups[:-1], *by_layer(module, groups[-1], decay, layers)]
        if weight_decay is not None:
            groups = [part for one in groups for part in split(module, one, weight_decay)]
        return ParameterGroups(groups)

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
        not certain which parameter is which, and for a model as in `freeze`.
        """
        from ckpt_tool.training.optimizers.state import optimizer_state

        module = None if model is None else self._own(model)
        return optimizer_state(
            self.plan, given, module, optimizer, fresh, names, form, self.changed, self.parameters
        )

    def _own(self, model: nn.Module) -> nn.Module:
        module = unwrapped(model)
        known = own_state(module)
        missing = next((key for key in self.loaded if key not in known), None)
        if missing is not None:
            raise InputError(
                type(module).__name__,
                f"has no key `{missing}`",
                "give the model that was loaded into",
            )
        self._check_shapes(type(module).__name__, known)
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

    def _check_shapes(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Raises InputError where a loaded key is a tensor of another shape by now."""
        known = self.plan.target or self.plan.outputs
        for key in self.loaded:
            now, loaded = _shape_of(state[key]), known[key].shape
            if now is not None and now != loaded:
                fact = f"`{key}` is {shape_text(now)} now, and was loaded as {shape_text(loaded)}"
                hint = "load again, or give the model that was loaded into"
                raise InputError(name, fact, hint)


def _shape_of(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """A tensor's shape; None for one that was quantised or packed since, which has another."""
    if odd_kind(tensor) or quantised_kind(tensor):
        return None
    return tuple(getattr(tensor, "ds_shape", tensor.shape))  # DeepSpeed parts it, and notes this
