"""What Tab completes: shipped mappings, rule files, the state dicts of a file."""

from __future__ import annotations

import os
import re
from glob import escape, glob

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
_PLAIN = re.compile(r"~?[\w./#@%+=:,-]+")
"""Characters that mean nothing to bash, zsh and fish inside of a word."""
RULE_FILES = (".yaml", ".yml", ".json")


def rule_files(incomplete: str) -> list[str]:
    """Rule files and folders that begin so, and shipped mappings."""
    from ckpt_tool.api import shipped_mappings

    found = sorted(glob(f"{escape(os.path.expanduser(incomplete))}*"))
    local = [
        f"{path}/" if os.path.isdir(path) else path
        for path in found
        if os.path.isdir(path) or path.endswith(RULE_FILES)
    ]
    shipped = [os.path.basename(path) for path in shipped_mappings()]
    return _harmless([*local, *(name for name in shipped if name.startswith(incomplete))])


def state_dicts(incomplete: str) -> list[str]:
    """`run.pth#model`, `run.pth#ema` for `run.pth#`; nothing for a name without `#`, which shells
    complete as a file's. No address is opened.
    """
    from ckpt_tool.formats import open_checkpoint
    from ckpt_tool.formats.remote.addresses import is_address

    path, mark, begun = incomplete.rpartition("#")
    if not mark or is_address(path):
        return []
    try:
        with open_checkpoint(os.path.expanduser(path)) as checkpoint:
            contents = checkpoint.contents
            names = [one.path for one in contents.state_dicts] + [*contents.rivals]
    except Exception:  # whatever it is: a Tab prints no error
        return []
    return _harmless(
        [f"{path}#{name}" for name in dict.fromkeys(names) if name and name.startswith(begun)]
    )


def _harmless(words: list[str]) -> list[str]:
    """Those that a shell takes as they are: they are put on the command line unquoted, and names
    come from files.
    """
    return [word for word in words if _PLAIN.fullmatch(word)]


def with_shell(arguments: list[str]) -> list[str]:
    """The command line with the shell that this runs in, where completion is asked for no other."""
    asked = {"--show-completion", "--install-completion"}
    if len(arguments) == 1 and arguments[0] in asked and (shell := _shell()):
        return [*arguments, shell]
    return arguments


def _shell() -> str | None:
    """The shell around this process, or the user's own."""
    from shellingham import (  # type: ignore[import-untyped]
        ShellDetectionFailure,
        detect_shell,
    )

    try:
        name = detect_shell()[0]
    except ShellDetectionFailure:
        name = os.path.basename(os.environ.get("SHELL", ""))
    return name if name in SHELLS else None


def print_completion(shell: str) -> None:
    """Prints the script that completes `ckpt` in a shell."""
    print(_script(shell))


def install_completion(shell: str) -> None:
    """Writes that script where the shell reads it, and says where."""
    from typer.completion import (  # type: ignore[attr-defined]
        completion_init,
        install,
    )

    completion_init()
    name, path = install(shell=shell, prog_name="ckpt", complete_var="_CKPT_COMPLETE")
    if shell == "zsh":
        path.write_text(f"{_script(shell)}\n")
    print(f"wrote {path}: completion for {name}, in shells that start from now on")


def _script(shell: str) -> str:
    """typer's script. zsh loads the file as a function at the first Tab, which has to complete too:
    typer's only defines there what completes from the second Tab on.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script: str = get_completion_script(
        prog_name="ckpt", complete_var="_CKPT_COMPLETE", shell=shell
    )
    if shell != "zsh":
        return script
    defined = script.removesuffix("compdef _ckpt_completion ckpt")
    return f"""{defined.replace("_ckpt_completion", "_ckpt")}
if [[ $funcstack[1] == _ckpt ]]; then
  _ckpt "$@"
else
  compdef _ckpt ckpt
fi"""
