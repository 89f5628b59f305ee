"""Writes docs/commands.md out of the help of the commands, by typer's own generator: `python docs/commands.py`."""

import re
from importlib import import_module
from pathlib import Path

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from ckpt_tool.cli.app import COMMANDS, app

HEAD = """\
# Commands

`ckpt COMMAND --help` (or `-h`) prints the same. Exit status: 0 yes, 1 no, 2 could not be answered (an error, or not all could be compared).

| you ask | command | 0 / 1 / 2 |
|---|---|---|
| what is in this file? | `ckpt show A` | shown / – / unreadable |
| are its weights [healthy](health.md)? | `ckpt show --health A` | yes / no / unreadable |
| what differs? | `ckpt diff A B`, `--values`, `--renames` | nothing / something / not all could be compared |
| are my rules sound? what is their inverse? | `ckpt check RULES [A [B]]`, `--invert` | sound / problems / unreadable |
| what would happen? why does this key get that? | `ckpt plan A B …`, `--why KEY` | complete / problems / unreadable |
| do it | `ckpt map A B … -o OUT` | written / refused / not possible |
| which rules lead from A to B? | `ckpt suggest A B` | drafted / something is undecided / unreadable |
| is there a mapping for my pair? | `ckpt mappings [A B]` | yes / no / unreadable |
| do two networks compute the same? where do they diverge? | `ckpt trace A [B] --model F --model-b G --input X` ([how](trace.md)) | the same / different, here / can't be compared |
| is this what the rules make of it, bit for bit? | `ckpt verify OUT A B …` | yes / no / not comparable |
| would unpickling it call something? | `ckpt scan FILE…` ([as a hook](git.md)) | nothing / something / unreadable |

If something is left to do, the output ends with `next:` and the next command, which was tried before it was printed.
[Problem codes](problems.md) says what to do about each problem. `--json` prints the whole answer for programs, see [JSON](json.md).

`ckpt --version` prints the version, `ckpt --version -v` also those of the packages that answers depend on. `ckpt --install-completion [SHELL]` sets up
completion in bash, zsh, fish or powershell, `ckpt --show-completion [SHELL]` prints its script.

"""


def text() -> str:
    """The page."""
    group = get_command(app)
    context = typer.Context(group, info_name="ckpt")
    pages = [HEAD]
    for name in COMMANDS:
        command = group.get_command(context, name)
        page = get_docs_for_click(obj=command, ctx=context, name=name, indent=1, call_prefix="ckpt")
        examples = import_module(f"ckpt_tool.cli.{COMMANDS[name].partition(':')[0]}").EXAMPLES
        shown = "\n".join(examples)
        pages.append(page.replace("**Usage**:", f"```console\n{shown}\n```\n\n**Usage**:", 1))
    joined = "".join(pages).replace("* `--help`: ", "* `-h, --help`: ")
    return re.sub(r"\n{3,}", "\n\n", joined).rstrip() + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(text())
