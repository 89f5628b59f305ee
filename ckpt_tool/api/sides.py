"""The two sides of a mapping, opened: the source's state dict, and the target, which may be a model
that a factory builds.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ckpt_tool.api.rule_files import FACTORY
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.opening import STDIN, split_fragment
from ckpt_tool.formats.remote.addresses import is_address, is_named

if TYPE_CHECKING:
    from typing import TypeAlias

    from torch import nn

    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import RuleSet

    Given: TypeAlias = str | os.PathLike[str] | Checkpoint | nn.Module | Mapping[str, object]
    """A side as people give it: a path, an open checkpoint, a module, a state dict."""


MAX_CODE = 1 << 20
"""Characters of a module in which a name is looked for."""


@contextmanager
def open_side(given: Given, like: Checkpoint | None = None) -> Iterator[Checkpoint]:
    """A path opened, and closed again; an open checkpoint as it is; a state dict or a module as
    one.

    What the open checkpoint `like` describes by the same bytes is not read again. Raises InputError
    for anything else.
    """
    if isinstance(given, str | os.PathLike):
        with open_checkpoint(given, like) as checkpoint:
            yield checkpoint
    else:
        yield in_memory(given)


def in_memory(given: Checkpoint | nn.Module | Mapping[str, object]) -> Checkpoint:
    """An open checkpoint as it is; a state dict or a module as one. Raises InputError."""
    if isinstance(given, Checkpoint):
        return given
    from ckpt_tool.training import LiveCheckpoint

    name = "the state dict" if isinstance(given, Mapping) else type(given).__name__
    return LiveCheckpoint(given, name)


@contextmanager
def open_source(given: Given, unwrap: Sequence[str]) -> Iterator[Checkpoint]:
    """The source; of several state dicts in its file, the first that `unwrap:` names."""
    if isinstance(given, str | os.PathLike):
        with _unwrapped(os.fspath(given), unwrap) as checkpoint:
            yield checkpoint
    else:
        yield in_memory(given)


def _unwrapped(path: str, unwrap: Sequence[str]) -> Checkpoint:
    checkpoint = open_checkpoint(path)
    found = {state_dict.path for state_dict in checkpoint.contents.state_dicts}
    wanted = next((name for name in unwrap if name in found), None)
    if wanted is None or wanted == checkpoint.contents.taken or "#" in path:
        return checkpoint
    checkpoint.close()
    return open_checkpoint(f"{path}#{wanted}", checkpoint)


def refuse_rivals(side: object) -> None:
    """Raises RuleError for a file of several state dicts of which none is meant more than the
    others: it is never guessed.
    """
    if isinstance(side, Checkpoint):
        try:
            side.definite()
        except InputError as error:
            notes = (error.hint,) if error.hint else ()
            raise RuleError(
                [Problem("several-state-dicts", f"{error.path} {error.fact}", None, notes)]
            ) from None


@contextmanager
def open_target(given: Given, like: Checkpoint | None = None) -> Iterator[TensorSource]:
    """A checkpoint, or the state of the model that `package.module:factory` builds; what is in
    memory as it is. `like` is that of `open_side`.
    """
    if isinstance(given, str) and is_factory(given):
        from ckpt_tool.training.factories import build_model
        from ckpt_tool.training.live import LiveState, keys_of_parameters, unwrapped
        from ckpt_tool.training.own_code import running

        model = build_model(given)
        with running(given):
            state, parameters = model.state_dict(), keys_of_parameters(unwrapped(model))
        yield LiveState(given, state, parameters=parameters, is_of_model=True)
    else:
        if isinstance(given, str) and (meant := _factory_meant(given)):
            raise InputError(given, "no such file", f"did you mean {meant}?")
        with open_side(given, like) as checkpoint:
            yield checkpoint


def _factory_meant(path: str) -> str | None:
    """`package.module:function` where that is what a path was probably meant for that leads
    nowhere: `net.build`, `nets/net.py:build`.
    """
    found = re.fullmatch(r"([\w./]+?)(?:\.py:|\.)([A-Za-z_]\w*)", path)
    if found is None or os.path.lexists(path):
        return None
    module = found[1].removeprefix("./").replace("/", ".")
    return f"{module}:{found[2]}" if _defines(module, found[2]) else None


def _defines(module: str, name: str) -> bool:
    """Whether a module of the working directory seems to have a function or a model of this
    name.
    """
    try:
        with open(module.replace(".", os.sep) + ".py", encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_CODE)
    except OSError:
        return False
    return re.search(rf"^(?:(?:def|class)\s+{name}\b|{name}\s*=)", text, re.M) is not None


def is_model(given: object) -> bool:
    """Whether it is a model, or names the code that builds one."""
    if isinstance(given, str):
        return is_factory(given)
    return not isinstance(given, os.PathLike | Checkpoint | Mapping)


def is_factory(path: str) -> bool:
    """Whether a path is none, and names code that builds a model: `package.module:function`."""
    names_code = re.fullmatch(FACTORY, path) is not None and not is_named(path)
    return names_code and not os.path.exists(path)


def target_of(rules: RuleSet) -> str | None:
    """The target that a rule file names. Raises InputError for a factory and an address: what is
    read runs nothing and asks nobody, what the user types may.
    """
    if rules.target and is_factory(rules.target):
        hint = "if you trust it, name the target on the command line"
        raise InputError(
            rules.files[0],
            f"names code for its target, `{rules.target}`, and a rule file runs nothing",
            hint,
        )
    return _not_elsewhere(rules.target, "target", rules)


def source_of(rules: RuleSet) -> str | None:
    """The source that a rule file names. Raises InputError for an address."""
    return _not_elsewhere(rules.source, "source", rules)


def _not_elsewhere(path: str | None, side: str, rules: RuleSet) -> str | None:
    if path and is_address(path):
        raise InputError(
            rules.files[0],
            f"names an address for its {side}, `{path}`, and a rule file asks no server",
            f"if you trust it, name the {side} on the command line",
        )
    return path


def files_read(sides: Iterable[str | None], rules: RuleSet | None = None) -> list[str]:
    """Every file that a command reads: those of its checkpoints, the configs beside them, rule
    files, and the code of a factory.
    """
    from ckpt_tool.mapping.params import CONFIG_NAMES

    found = list(rules.paths) if rules else []
    for side in sides:
        if side is None or side == STDIN:
            continue
        if is_factory(side):
            found += _code_of(side.partition(":")[0])
            continue
        with open_checkpoint(side) as checkpoint:
            found += [file.path for file in checkpoint.files]
        place = split_fragment(side)[0]
        if is_address(place):
            continue
        folder = place if os.path.isdir(place) else os.path.dirname(place)
        found += [os.path.join(folder, name) for name in CONFIG_NAMES]
    return found


def _code_of(module: str) -> list[str]:
    """The files of a module and of the packages that it is in, as they were imported."""
    parts = module.split(".")
    modules = (sys.modules.get(".".join(parts[:count])) for count in range(1, len(parts) + 1))
    return [file for each in modules if (file := getattr(each, "__file__", None))]


def label_of(side: Checkpoint) -> str:
    """A checkpoint's path, with the state dict that was taken where there are several."""
    taken = side.contents.taken
    return (
        f"{side.path}#{taken}"
        if taken and len(side.contents.state_dicts) > 1 and "#" not in side.path
        else side.path
    )


def path_of(given: str | os.PathLike[str] | None) -> str | None:
    """A path as text."""
    return None if given is None else os.fspath(given)
