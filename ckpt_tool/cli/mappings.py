"""`ckpt mappings [A B]`: which rule files are shipped, and which of them account for this pair?"""

from typing import Annotated

import typer

from ckpt_tool.cli.options import CHECKPOINT, Color, ColorOption, Debug, Json, Quiet, Settings, how
from ckpt_tool.cli.output import NO, YES, show_result, style_of


def mappings(
    source: Annotated[str | None, typer.Argument(metavar="[A]", help=f"The source: {CHECKPOINT}.")] = None,
    target: Annotated[str | None, typer.Argument(metavar="[B]", help="The target.")] = None,
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """List the shipped mappings; with two checkpoints or key lists, those whose rules account for every key of both."""
    from ckpt_tool import api
    from ckpt_tool.report.jsons import to_json
    from ckpt_tool.report.mappings import mappings_json, mappings_text

    found = api.mappings(source, target, how(settings=settings))
    if json:
        show_result(to_json(mappings_json(found)))
    elif not quiet:
        show_result(mappings_text(found, style_of(color, False)))
    raise typer.Exit(YES if found else NO)
