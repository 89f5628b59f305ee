"""The commands, and what holds for all of them."""

from collections.abc import Iterator, Mapping
from enum import Enum
from importlib import import_module
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ckpt_tool.cli.parts.completing import install_completion, print_completion
from ckpt_tool.cli.parts.helping import Command

COMMANDS = {
    "show": "show:show",
    "diff": "diff:diff",
    "check": "check:check",
    "suggest": "suggest:suggest",
    "plan": "plan:plan",
    "map": "map:map_",
    "verify": "verify:verify",
    "mappings": "mappings:mappings",
    "trace": "trace:trace",
    "lint": "git.lint:lint",
    "scan": "git.scan:scan",
    "textconv": "git.textconv:textconv",
}
"""The function of each command, behind its module in `cli`."""


class _MadeOnUse(Mapping[str, object]):
    """The commands by name, each imported and made when it is asked for: that costs more than many
    a command takes.
    """

    def __init__(self) -> None:
        self._made: dict[str, object] = {}

    def __getitem__(self, name: str) -> object:
        place, _, function = COMMANDS[name].partition(":")
        if name not in self._made:
            module = import_module(f"ckpt_tool.cli.{place}")
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name, cls=Command)(getattr(module, function))
            made = get_command(alone)
            if isinstance(made, Command):
                made.examples = module.EXAMPLES
                made.takes_any_name = getattr(module, "TAKES_ANY_NAME", False)
            self._made[name] = made
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(TyperGroup):
    def __init__(self, **given: object) -> None:
        super().__init__(**(given | {"commands": _MadeOnUse()}))  # type: ignore[arg-type]


class Shell(str, Enum):
    """Shells that completion is written for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"
    pwsh = "pwsh"


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    help="Show, compare and map neural-network checkpoints. Nothing in a file is ever executed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 yes, 1 no, 2 no answer (an error, or not all could be compared).",
)


@app.callback(invoke_without_command=True)
def _everywhere(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version; with -v, also those of Python and the packages."
        ),
    ] = False,
    show_completion: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            metavar="[SHELL]",
            help="Print the completion script for bash, zsh, fish or powershell.",
        ),
    ] = None,
    install: Annotated[
        Shell | None,
        typer.Option(
            "--install-completion",
            metavar="[SHELL]",
            help="Install the completion script for this shell, or the one that is named.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", hidden=True)] = False,
) -> None:
    if show_completion or install:
        if show_completion:
            print_completion(show_completion.value)
        if install:
            install_completion(install.value)
        raise typer.Exit
    if version:
        from ckpt_tool.cli.parts.versions import versions_text

        typer.echo(versions_text(verbose))
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")
    if verbose:
        name = context.invoked_subcommand
        context.fail(f"-v goes after the command: ckpt {name} -v")
