"""The commands, and what holds for all of them."""

from typing import Annotated

import typer

from ckpt_tool.cli import check, diff, map, plan, show

app = typer.Typer(
    help="Show, compare and map neural-network checkpoints. Nothing in a file is ever executed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 the answer is yes, 1 the answer is no, 2 there is no answer.",
)

app.command("show")(show.show)
app.command("diff")(diff.diff)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("map")(map.map_)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ckpt_tool import __version__

        typer.echo(f"ckpt {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass
