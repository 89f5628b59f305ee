"""Names that the library had in version 0.1, and what they are called now. They go with the version
after the next.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar

RENAMED = {
    "How": ("ckpt_tool.api", "MappingOptions", "MappingOptions"),
    "diff_checkpoints": ("ckpt_tool.api", "diff_checkpoints", "diff"),
    "map_checkpoint": ("ckpt_tool.api", "map_checkpoint", "map"),
    "open_checkpoint": ("ckpt_tool.formats", "open_checkpoint", "open"),
    "planned": ("ckpt_tool.api", "plan_checkpoint", "plan"),
}
"""Old names of the package: where each is now, under which name, and what to use."""

ARGUMENTS = {"how": "options", "settings": "params"}
"""Old names of keyword arguments."""


def old_name(name: str) -> object:
    """What an old name of the package stood for, with a DeprecationWarning. Raises KeyError.

    >>> "How" in RENAMED
    True
    """
    module, attribute, new = RENAMED[name]
    value = getattr(import_module(module), attribute)
    warn(f"`ckpt_tool.{name}` is called `ckpt_tool.{new}`", depth=4)
    return with_old_arguments(value) if callable(value) else value


F = TypeVar("F", bound=Callable[..., Any])


def with_old_arguments(function: F) -> F:
    """A function that takes its keyword arguments under their old names, too."""

    @wraps(function)
    def call(*given: object, **named: object) -> object:
        return function(*given, **renamed_arguments(named))

    return call  # type: ignore[return-value]


def renamed_arguments(named: Mapping[str, object], depth: int = 4) -> dict[str, object]:
    """Keyword arguments under their new names, with a DeprecationWarning for each old one."""
    found: dict[str, object] = {}
    for name, value in named.items():
        if name in ARGUMENTS:
            warn(f"the argument `{name}` is called `{ARGUMENTS[name]}`", depth)
        found[ARGUMENTS.get(name, name)] = value
    return found


def warn(message: str, depth: int) -> None:
    """Warns whoever called, `depth` calls above."""
    warnings.warn(message, DeprecationWarning, stacklevel=depth)
