"""What a word on the command line was probably meant for that stands where none belongs."""

import os
import re
from collections.abc import Sequence

from ckpt_tool.report.parts.style import safe

_NO_COMMAND = re.compile(r"no such command '(.+?)'(?:\. Did you mean '(\w+)'\?)?\.?$")
_EXTRA = re.compile(r"unexpected extra argument(?:s|\(s\))? \((\S+)\)")

GUESSES = {
    "show": "ls list info inspect print cat view keys head summary describe tree dump load open",
    "diff": "compare cmp",
    "map": "convert rename remap transform export cast merge save write",
    "suggest": "align match draft guess",
    "check": "validate",
    "verify": "prove test",
    "--help": "help",
    "--version": "version",
}
"""What other tools call what a command or an option does."""


def said_of(fact: str, options: Sequence[str], commands: Sequence[str]) -> str:
    """What the command line's parser refuses, with what was probably meant; `options` are those of
    the command that was given, `commands` all there are.

    >>> said_of("no such command 'ls'", [], ["show", "diff"])
    "no such command 'ls'; did you mean `ckpt show`? the commands are show, diff"
    """
    if found := _NO_COMMAND.match(fact):
        word, near = found.groups()
        return f"no such command '{safe(word)}'{_command_for(word, near, commands)}"
    found = _EXTRA.search(fact)
    extra = found[1] if found else ""
    if extra.endswith((".yaml", ".yml")) and "rules" in options:
        return f"{safe(fact)}; rules are given with `--rules {safe(extra)}`"
    if extra and "in_place" in options:  # map's own
        return f"{safe(fact)}; the output is given with `-o {safe(extra)}`"
    return safe(fact)


def _command_for(word: str, near: str | None, commands: Sequence[str]) -> str:
    """What to say of a word that is no command: a file, another tool's word, or a slip."""
    if os.path.lexists(word.partition("#")[0]):
        verb = "check" if word.endswith((".yaml", ".yml")) else "show"
        return f"; did you mean `ckpt {verb} {safe(word)}`?"
    meant = next((verb for verb, words in GUESSES.items() if word in words.split()), near)
    guess = f"did you mean `ckpt {meant}`? " if meant else ""
    return f"; {guess}the commands are {', '.join(commands)}"
