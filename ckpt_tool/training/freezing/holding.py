"""Normalisations that stay in eval mode whatever `train()` says, also in deep copies of
the model, until they are released.
"""

from __future__ import annotations

import copy
import copyreg
import sys
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def hold_in_eval(module: nn.Module) -> None:
    """Keeps a normalisation in eval mode: it uses its running statistics and doesn't update them.

    Its class becomes one of the same name that `train()` doesn't reach. In a pickle it is of the
    class that it was, so that nobody needs this package to read it; there it keeps its statistics
    since the momentum of torch's normalisations is set to 0.
    """
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.utils.parametrize import is_parametrized

    if not is_held(module):
        own: type = type(module)
        module.__class__ = _held_parametrized(module) if is_parametrized(module) else _held(own)
        module._training_asked_for = module.training  # type: ignore[assignment]
    module.training = False
    if isinstance(module, _NormBase):
        if not hasattr(module, "_momentum_in_training"):
            module._momentum_in_training = module.momentum  # type: ignore[assignment]
        module.momentum = 0.0


def release(module: nn.Module, parent: nn.Module | None) -> None:
    """Lets a normalisation train again, in the mode of its parent (without one, that last asked
    for), with the momentum that it had; also one that was held when it was pickled.
    """
    from torch.nn.utils.parametrize import is_parametrized

    if is_held(module):
        if is_parametrized(module):
            module.__class__ = _released_parametrized(module)
        else:
            module.__class__ = type(module)._held  # type: ignore[attr-defined]
        # Lightning restores modes without a call of `train()`: that last asked for is then wrong.
        asked = module._training_asked_for if parent is None else parent.training
        module.training = asked  # type: ignore[assignment]
        del module._training_asked_for
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
    training: bool
    _training_asked_for: bool

    def train(self, mode: bool = True) -> Held:
        """Leaves this module in eval mode; those inside of it train as ever."""
        self.training = False
        self._training_asked_for = mode
        for child in self.children():  # type: ignore[attr-defined]
            child.train(mode)
        return self

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """As ever; but torch's conversion to SyncBatchNorm asks for them when it has made a module
        of its own, which is held, too.
        """
        from torch.nn import SyncBatchNorm

        asking = sys._getframe(1)
        if asking.f_code is SyncBatchNorm.convert_sync_batchnorm.__code__:
            _hold_alike(asking.f_locals["module_output"], self)  # type: ignore[arg-type]
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


def _hold_alike(module: nn.Module, model: nn.Module) -> None:
    """Holds a module that comes in the place of another one that is held."""
    hold_in_eval(module)
    for name in ("_momentum_in_training", "_training_asked_for"):
        if name in vars(model):
            setattr(module, name, getattr(model, name))


@cache
def _held(kind: type) -> type:
    names = {
        "_held": kind,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    return type(kind.__name__, (Held, kind), names)


def _held_parametrized(module: nn.Module) -> type:
    """torch gives such a module a class of its own, with the parametrizations, whose base it takes
    back when these are removed.
    """
    kind = type(module)
    names = {
        name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")
    }
    return type(kind.__name__, (_held(kind.__bases__[0]),), names)


def _released_parametrized(module: nn.Module) -> type:
    kind = type(module)
    names = {
        name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")
    }
    return type(kind.__name__, (kind.__bases__[0]._held,), names)  # type: ignore[attr-defined]
