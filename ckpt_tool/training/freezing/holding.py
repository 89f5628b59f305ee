"""Normalisations that stay in eval mode whatever `train()` says, also in deep copies of
the model, until they are released.
"""

from __future__ import annotations

import copy
import copyreg
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from ckpt_tool.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# What a layer's statistics are before its first batch.
_AT_FIRST = {"running_mean": 0, "running_var": 1}
_COUNT = "num_batches_tracked"


def hold_in_eval(module: nn.Module) -> None:
    """Keeps a normalisation in eval mode: it uses its running statistics and doesn't update them.

    Its class becomes one of the same name that `train()` doesn't reach. In a pickle it is of the
    class that it was, so that nobody needs this package to read it; there it keeps its statistics
    since the momentum of torch's normalisations is set to 0.
    """
    from torch.nn.modules.batchnorm import _NormBase

    if not is_held(module):
        module.__class__ = _held_class_of(module)
        module._training_asked_for = module.training  # type: ignore[assignment]
    module.training = False
    if isinstance(module, _NormBase):
        if not hasattr(module, "_momentum_in_training"):
            module._momentum_in_training = module.momentum  # type: ignore[assignment]
        module.momentum = 0.0


def check_holdable(path: str, module: nn.Module) -> None:
    """Raises InputError for a module whose class takes no class of its own below it."""
    try:
        if not is_held(module):
            _held_class_of(module)
    except Exception as error:
        kind = type(module).__name__
        fact = f"can't be held in eval mode: a class below {kind} can't be made ({error})"
        hint = "leave its running statistics out, and give the module `eval()` yourself"
        raise InputError(f"`{path}`", fact, hint) from error


def momentum_of(module: nn.Module) -> float | None:
    """The momentum that a held normalisation, or one that was pickled when it was held, has when it
    trains; of others that which it has.
    """
    own = getattr(module, "momentum", None)
    return getattr(module, "_momentum_in_training", own)


def release(module: nn.Module, parent: nn.Module | None) -> None:
    """Lets a normalisation train again, in the mode of its parent (without one, that last asked
    for), with the momentum that it had; also one that was held when it was pickled.
    """
    if is_held(module):
        module.__class__ = _released(type(module))
        # Lightning restores modes without a call of `train()`: that last asked for is then wrong.
        asked = module._training_asked_for if parent is None else parent.training
        module.training = asked  # type: ignore[assignment]
        del module._training_asked_for
        vars(module).pop("_count_at_reset", None)
    if hasattr(module, "_momentum_in_training"):
        if module.momentum == 0:
            module.momentum = module._momentum_in_training
        del module._momentum_in_training


def is_held(module: nn.Module) -> bool:
    """Whether it stays in eval mode, whatever is said."""
    return hasattr(type(module), "_held")


class Held:
    """What a held module's class has before its own."""

    _held: type

    def __init_subclass__(cls, **_: object) -> None:
        """Not asked of the module's own class: it would take this for one of the user's."""

    def train(self, mode: bool = True) -> Held:
        """Leaves this module in eval mode; those inside of it train as ever."""
        # Set like this, not declared: TorchScript can't read declarations that are texts.
        vars(self).update(training=False, _training_asked_for=mode)
        for child in self.children():  # type: ignore[attr-defined]
            child.train(mode)
        return self

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """As ever; but conversions (torch's and timm's to SyncBatchNorm, timm's to split ones) ask
        for them when they have made a module with the same statistics, which is held, too.
        """
        for other in list(sys._getframe(1).f_locals.values()):
            if _has_statistics_of(other, self):  # type: ignore[arg-type]
                _hold_alike(other, self)  # type: ignore[arg-type]
        return super().named_children()  # type: ignore[misc, no-any-return]

    def __copy__(self) -> object:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        """As copy.deepcopy does it, but for the class, which stays."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # Not copyreg.__newobj__: pickle would ask that the class be this object's own.
        state = self.__getstate__() if hasattr(self, "__getstate__") else vars(self)
        return copyreg._reconstructor, (self._held, object, None), state  # type: ignore[attr-defined]


class HeldStatistics(Held):
    """The same of a normalisation, whose statistics are not begun anew either."""

    def reset_running_stats(self) -> None:
        """Leaves them as they are, but where all of the layer begins anew."""
        if sys._getframe(1).f_code.co_name == "reset_parameters":
            super().reset_running_stats()  # type: ignore[misc]
        else:
            _warn_of_reset()

    def __setattr__(self, name: str, value: object) -> None:
        """As ever, but for those of a new layer, which stand for a reset (Lightning's weight
        averaging), unless a state dict is loaded.
        """
        if (
            name in _AT_FIRST
            and sys._getframe(1).f_code.co_name != "_load_from_state_dict"
            and _is_reset(self, name, value)  # type: ignore[arg-type]
        ):
            count = vars(self)["_buffers"].get(_COUNT)
            if count is not None:  # it follows, and is set in place
                vars(self).setdefault("_count_at_reset", count.clone())
            _warn_of_reset()
        elif name == _COUNT and "_count_at_reset" in vars(self):
            vars(self)["_buffers"][_COUNT].copy_(vars(self).pop("_count_at_reset"))
        else:
            super().__setattr__(name, value)


def _is_reset(module: nn.Module, name: str, value: object) -> bool:
    from torch import Tensor

    current = module._buffers.get(name)
    if not (isinstance(value, Tensor) and isinstance(current, Tensor)):
        return False
    if value.is_meta or current.is_meta or value.shape != current.shape:
        return False
    first = _AT_FIRST[name]
    return bool((value == first).all()) and not bool((current == first).all())


def _warn_of_reset() -> None:
    text = (
        "running statistics that ckpt_tool holds are left as they were loaded, not reset; "
        "`ckpt_tool.thaw` those that are to be computed anew"
    )
    warnings.warn(text, UserWarning, stacklevel=3)


def _has_statistics_of(other: object, held: nn.Module) -> bool:
    """Whether it is another module with the very statistics of one that is held."""
    from torch import nn

    mean = held._buffers.get("running_mean")
    if mean is None or not isinstance(other, nn.Module) or is_held(other):
        return False
    return other._buffers.get("running_mean") is mean


def _hold_alike(module: nn.Module, model: nn.Module) -> None:
    """Holds a module that comes in the place of another one that is held; copies of its parameters
    are frozen where these are.
    """
    from torch.nn.modules.batchnorm import _NormBase

    hold_in_eval(module)
    for name in ("_momentum_in_training", "_training_asked_for"):
        if name in vars(model):
            setattr(module, name, getattr(model, name))
    restore_below(module, momentum_of(model))
    frozen = {
        name for name, one in model._parameters.items() if one is not None and not one.requires_grad
    }
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if name in frozen and parameter is not None and isinstance(part, _NormBase):
                parameter.requires_grad_(False)


def restore_below(module: nn.Module, momentum: float | None) -> None:
    """Gives normalisations inside of one (timm's split ones have some), which were made with the
    momentum 0 of one that is held, its own momentum.
    """
    from torch.nn.modules.batchnorm import _NormBase

    for part in module.modules():
        if part is not module and isinstance(part, _NormBase) and not is_held(part):
            part.momentum = momentum if part.momentum == 0 else part.momentum


def _held_class_of(module: nn.Module) -> type:
    from torch.nn.utils.parametrize import is_parametrized

    own: type = type(module)
    return _held_parametrized(module) if is_parametrized(module) else _held(own)


@cache
def _held(kind: type) -> type:
    names = {
        "_held": kind,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    first = HeldStatistics if hasattr(kind, "reset_running_stats") else Held
    return type(kind.__name__, (first, kind), names)


def _held_parametrized(module: nn.Module) -> type:
    """torch gives such a module a class of its own, with the parametrizations, whose base it takes
    back when these are removed.
    """
    kind = type(module)
    return type(kind.__name__, (_held(kind.__bases__[0]),), _own_names(kind))


def _released(kind: type) -> type:
    """The class without the hold, also where others (parametrizations, `fully_shard`) have made
    theirs of the held one.
    """
    if "_held" in vars(kind):
        return kind._held  # type: ignore[attr-defined,no-any-return]
    bases = tuple(_released(base) if issubclass(base, Held) else base for base in kind.__bases__)
    return type(kind.__name__, bases, _own_names(kind))


def _own_names(kind: type) -> dict[str, object]:
    return {
        name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")
    }
