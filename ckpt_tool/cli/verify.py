"""`ckpt verify OUT A [B]`: is OUT what the plan says?"""

from typing import Annotated

import typer

from ckpt_tool.api import How
from ckpt_tool.cli.options import CHECKPOINT, Color, ColorOption, Debug, Json, Quiet, Source, Target, Verbose, takes_how
from ckpt_tool.cli.output import NO, YES, say, show_result, style_of


@takes_how
def verify(
    way: How,
    output: Annotated[str, typer.Argument(metavar="OUT", help=f"The checkpoint that was written: {CHECKPOINT}.")],
    source: Source = None,
    target: Target = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Prove, bit by bit, that a checkpoint is what the plan says; or name the first tensor that isn't, and where it differs."""
    from ckpt_tool import api
    from ckpt_tool.report.parts.json_text import to_json
    from ckpt_tool.report.parts.problems import problems_text
    from ckpt_tool.report.verify import asked_text, verified_json, verified_text

    with api.planned(source, target, way) as work:
        mismatches = api.verify(work, output) if work.plan else ()
        asked = api.asked_by(output) if work.plan else ()
        if json:
            show_result(to_json(verified_json(output, work.plan, mismatches, work.problems, asked)))
        elif not work.plan:
            say(problems_text(work.problems, style_of(color, verbose)))
        elif mismatches or not quiet:
            show_result(verified_text(output, work.plan, mismatches, verbose))
        if asked and not json:
            say(asked_text(output, asked))
        raise typer.Exit(YES if work.plan and not mismatches else NO)
