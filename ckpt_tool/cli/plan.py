"""`ckpt plan [A [B]]`: can it be done, and how?"""

from typing import Annotated

import typer

from ckpt_tool.cli.options import (
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


def plan(
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
    why: Annotated[list[str] | None, typer.Option("--why", metavar="KEY", help="Say what becomes of one key. Repeatable.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Say what becomes of every key of both sides, or list every reason why it can't be done. Writes nothing."""
    from ckpt_tool import api
    from ckpt_tool.report.jsons import to_json
    from ckpt_tool.report.plan import names_of, plan_json, plan_text, unknown_key, why_text
    from ckpt_tool.report.problems import problems_text

    style = style_of(color, verbose)
    with api.planned(source, target, how(rules, inline, drop, keep, by, settings, dtype, force_order, expect)) as work:
        names = names_of(work.source.path, work.target_path, work.rules, by and by.value)
        if json:
            show_result(to_json(plan_json(work.plan, names, work.source.catalog, work.target_catalog, work.problems)))
        elif work.plan is None:
            say(problems_text(work.problems, style))
        elif why:
            for key in why:
                lines = why_text(work.plan, key)
                if not lines:
                    raise unknown_key(work.plan, key)
                show_result("\n".join(lines))
        elif not quiet:
            show_result(plan_text(work.plan, names, style))
        raise typer.Exit(NO if work.plan is None else YES)
