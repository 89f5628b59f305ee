"""What a model notes of the normalisations that it holds, so that a hold that was lost is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ckpt_tool.training.freezing.holding import (
    hold_in_eval,
    is_held,
    momentum_of,
    restore_below,
)
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    from torch import nn

# On the module that was frozen: paths, with the momenta that the normalisations have in training.
_NOTE = "_held_momenta"


def note(module: nn.Module, path: str, owner: nn.Module) -> None:
    """Notes that the module at a path is held."""
    vars(module).setdefault(_NOTE, {})[path] = momentum_of(owner)


def forget(module: nn.Module, paths: Iterable[str]) -> None:
    """Drops what is noted of these paths."""
    gone = set(paths)
    for prefix, noting in list(_noting(module)):
        known = {
            path: momentum
            for path, momentum in vars(noting)[_NOTE].items()
            if prefix + path not in gone
        }
        vars(noting)[_NOTE] = known
        if not known:
            del vars(noting)[_NOTE]


def hold_again(module: nn.Module) -> tuple[str, ...]:
    """Holds what is noted and not held any more, since other code has rebuilt it from what was
    held, or since it was unpickled; the paths.

    The momentum 0 that was left behind is the sign of it: other modules in these places are new
    ones.
    """
    lost = []
    modules = dict(module.named_modules())
    noted = [
        (prefix + path, momentum)
        for prefix, noting in _noting(module)
        for path, momentum in vars(noting)[_NOTE].items()
    ]
    for path, momentum in noted:
        owner = modules.get(path)
        if owner is None or is_held(owner):
            continue
        if getattr(owner, "momentum", None) != 0:
            forget(module, [path])
            continue
        if "_momentum_in_training" not in vars(owner):
            owner.momentum = momentum
        restore_below(owner, momentum)
        hold_in_eval(owner)
        lost.append(path)
    return tuple(lost)


def lost_text(lost: tuple[str, ...]) -> str:
    """What is said of modules whose hold was lost."""
    some = f"`{lost[0]}`" + (" …" if lost[1:] else "")
    return (
        f"{plural(len(lost), 'module')}, rebuilt or unpickled since frozen, no longer stayed in "
        f"eval mode (frozen again unless thawed): {some}"
    )


def _noting(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that have notes, with the prefix of their paths."""
    for path, each in module.named_modules():
        if _NOTE in vars(each):
            yield path and f"{path}.", each
