"""Models that a factory builds: the user's own code, run because the user named it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.training.own_code import place_of, running
from ckpt_tool.wording import type_text

if TYPE_CHECKING:
    from torch import nn


def build_model(factory: str) -> nn.Module:
    """The model that `package.module:function` returns, or the one that has this name. Raises
    InputError.
    """
    from torch import nn

    module_name, _, name = factory.partition(":")
    if not (module_name and name):
        raise InputError(factory, "names no function", "give `package.module:function`")
    with _importing_from(os.getcwd()), running(factory):
        try:
            build = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as error:
            place = place_of(error)  # none where it is the module or the function that isn't there
            at = f" (at {place})" if place else ""
            fact = f"can't be imported: {error}{at}"
            hint = None if place else _meant(module_name, name)
            raise InputError(factory, fact, hint) from (error if place else None)
        if isinstance(build, nn.Module):
            return build
        if not callable(build):
            raise InputError(factory, f"is {type_text(build)}, not a function")
        model = build()
    if not isinstance(model, nn.Module):
        raise InputError(factory, f"returned a {type(model).__name__}, not an nn.Module")
    return model


def _meant(module_name: str, name: str) -> str | None:
    """What a factory that isn't there was probably meant to be."""
    module = sys.modules.get(module_name)
    if module is not None:
        near = get_close_matches(name, [each for each in vars(module) if each[0] != "_"], 1)
        return f"did you mean {module_name}:{near[0]}?" if near else None
    here = [path.stem for path in Path.cwd().glob("*.py")]
    bare = module_name.removesuffix(".py")
    found = bare if os.path.isfile(bare.replace(".", os.sep) + ".py") else None
    near = [found] if found else get_close_matches(module_name, here, 1)
    return f"did you mean {near[0]}:{name}?" if near else None


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """Modules of a folder can be imported here, as `python -m` could; afterwards the search path is
    what it was.
    """
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the code that was imported may have changed it itself
            sys.path.remove(folder)
