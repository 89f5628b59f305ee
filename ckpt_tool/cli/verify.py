"""`ckpt verify OUT A [B]`: is OUT what the plan says?"""

from typing import Annotated

import typer

from ckpt_tool.cli.options import (
    CHECKPOINT,
    ByOption,
    Color,
    ColorOption,
    Debug,
    Drop,
    Dtype,
    ExpectOption,
    ForceOrder,
    Inline,
    Json,
    Keep,
    Quiet,
    Rules,
    Settings,
    Source,
    Target,
    Verbose,
    how,
)
from ckpt_tool.cli.output import NO, YES, say, show_result, style_of


def verify(
    output: Annotated[str, typer.Argument(metavar="OUT", help=f"The checkpoint that was written: {CHECKPOINT}.")],
    source: Source = None,
    target: Target = None,
    rules: Rules = None,
    inline: Inline = None,
    drop: Drop = None,
    keep: Keep = None,
    by: ByOption = None,
    settings: Settings = None,
    dtype: Dtype = None,
    force_order: ForceOrder = False,
    expect: ExpectOption = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Prove, bit by bit, that a checkpoint is what the plan says; or name the first tensor that isn't, and where it differs."""
    from ckpt_tool import api
    from ckpt_tool.report.jsons import to_json
    from ckpt_tool.report.problems import problems_text
    from ckpt_tool.report.verified import verified_json, verified_text

    with api.planned(source, target, how(rules, inline, drop, keep, by, settings, dtype, force_order, expect)) as work:
        mismatches = api.verify(work, output) if work.plan else ()
        if json:
            show_result(to_json(verified_json(output, work.plan, mismatches, work.problems)))
        elif not work.plan:
            say(problems_text(work.problems, style_of(color, verbose)))
        elif mismatches or not quiet:
            show_result(verified_text(output, work.plan, mismatches, verbose))
        raise typer.Exit(YES if work.plan and not mismatches else NO)
