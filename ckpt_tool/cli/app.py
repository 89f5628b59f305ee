"""The commands, and what holds for all of them."""

from typing import Annotated

import typer

from ckpt_tool.cli.check import check
from ckpt_tool.cli.diff import diff
from ckpt_tool.cli.map import map_
from ckpt_tool.cli.mappings import mappings
from ckpt_tool.cli.plan import plan
from ckpt_tool.cli.show import show
from ckpt_tool.cli.suggest import suggest
from ckpt_tool.cli.trace import trace
from ckpt_tool.cli.verify import verify

app = typer.Typer(
    help="Show, compare and map neural-network checkpoints. Nothing in a file is ever executed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 the answer is yes, 1 the answer is no, 2 there is no answer.",
)

app.command("show")(show)
app.command("diff")(diff)
app.command("check")(check)
app.command("suggest")(suggest)
app.command("plan")(plan)
app.command("map")(map_)
app.command("verify")(verify)
app.command("mappings")(mappings)
app.command("trace")(trace)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ckpt_tool import __version__

        typer.echo(f"ckpt {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
