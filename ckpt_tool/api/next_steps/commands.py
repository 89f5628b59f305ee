"""Commands as lines that a shell takes as they stand."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence

from ckpt_tool.api.options import DTypePolicy, MappingOptions
from ckpt_tool.api.sides import is_factory
from ckpt_tool.formats.opening import STDIN, split_fragment
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import DType

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl")
"""Those of the formats that are written."""

FILES_ONLY = ("show", "diff")
"""Commands whose sides are files: none is code that builds a model."""


@frozen
class WayOn:
    """The command to go on with, that was tried, and what else is known of a way; both may be
    missing.
    """

    command: str | None = None
    hint: str = ""


def command(verb: str, paths: Sequence[str], *words: str) -> str | None:
    """A line that a shell takes as it stands; None where it would hold what a terminal can't show,
    and nobody can paste, and where the command takes no model that a factory builds.

    >>> command("map", ["-a.pth", "b.pth"], "--drop", "fc.*")
    "ckpt map ./-a.pth b.pth --drop 'fc.*'"
    """
    if verb in FILES_ONLY and any(map(is_factory, paths)):
        return None
    line = shlex.join(
        [
            "ckpt",
            verb,
            *(f"./{path}" if path.startswith("-") and path != STDIN else path for path in paths),
            *words,
        ]
    )
    return line if line.isprintable() else None


def arguments(options: MappingOptions) -> list[str]:
    """The options of a command that map in this way."""
    dtypes, least = options.dtypes, options.min_confidence
    return [
        *_repeated("--rules", options.rules),
        *_repeated("-e", options.inline),
        *_repeated("--drop", options.drop),
        *_repeated("--keep", options.keep),
        *_repeated("--set", [f"{name}={number}" for name, number in options.params.items()]),
        *_valued("--by", options.by),
        *_valued("--dtype", _dtype_word(dtypes)),
        *["--force-order"] * options.force_order,
        *_valued("--expect", options.expect),
        *_valued("--min-confidence", None if least is None else f"{least:g}"),
        *["--partial"] * options.partial,
    ]


def _repeated(option: str, texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in (option, text)]


def _valued(option: str, value: object) -> list[str]:
    """An option with its value; nothing where it has none."""
    return [] if value is None else [option, str(value)]


def _dtype_word(dtypes: DTypePolicy) -> str | None:
    if isinstance(dtypes, DType):
        return dtypes.value
    return None if dtypes == "strict" else dtypes


def map_command(source: str, target: str, options: MappingOptions) -> str | None:
    """The command that maps one checkpoint onto another in this way, into a file that isn't there
    yet.
    """
    return command(
        "map",
        [source, target],
        *arguments(options),
        "-o",
        free_path("mapped", suffix_for(target, source)),
    )


def shipped_of(line: str) -> str | None:
    """The shipped mapping that a command names; a file of this name in the working directory would
    come first.
    """
    words = shlex.split(line)
    named = (words[i + 1] for i, word in enumerate(words[:-1]) if word == "--rules")
    return next((name for name in named if not os.path.lexists(name)), None)


def suffix_for(*paths: str) -> str:
    """The end of a name that tells the format: that of the first of these files that is written
    too, else that of safetensors.
    """
    ends = (os.path.splitext(split_fragment(path)[0])[1].lower() for path in paths)
    return next((end for end in ends if end in SUFFIXES), SUFFIXES[0])


def free_path(stem: str, suffix: str) -> str:
    """A name in the working directory that nothing has."""
    number = 1
    while os.path.lexists(path := f"{stem}{f'_{number}' if number > 1 else ''}{suffix}"):
        number += 1
    return path


def is_read_once(*paths: str) -> bool:
    """Whether one of these is stdin, which another command can't read again."""
    return STDIN in paths
