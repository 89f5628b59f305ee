"""The commands, and what holds for all of them."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = {
    "show": "show",
    "diff": "diff",
    "check": "check",
    "suggest": "suggest",
    "plan": "plan",
    "map": "map_",
    "verify": "verify",
    "mappings": "mappings",
    "trace": "trace",
}
"""The function of each command, in the module of `cli` that is named as the command."""


class _MadeOnUse(Mapping[str, object]):
    """The commands by name, each imported and made when it is asked for: that costs more than many
    a command takes.
    """

    def __init__(self) -> None:
        self._made: dict[str, object] = {}

    def __getitem__(self, name: str) -> object:
        function = COMMANDS[name]
        if name not in self._made:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name)(getattr(import_module(f"ckpt_tool.cli.{name}"), function))
            self._made[name] = get_command(alone)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(TyperGroup):
    def __init__(self, **given: object) -> None:
        super().__init__(**(given | {"commands": _MadeOnUse()}))  # type: ignore[arg-type]


app = typer.Typer(
    cls=_Commands,
    help="Show, compare and map neural-network checkpoints. Nothing in a file is ever executed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 the answer is yes, 1 the answer is no, 2 there is no answer.",
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", hidden=True)] = False,
) -> None:
    if version:
        from ckpt_tool.cli.parts.versions import versions_text

        typer.echo(versions_text(verbose))
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")
    if verbose:
        name = context.invoked_subcommand
        context.fail(f"-v stands behind the command: ckpt {name} -v")
