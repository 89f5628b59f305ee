"""`ckpt plan [A [B]]`: can it be done, and how?"""

from typing import Annotated

import typer

from ckpt_tool.api import MappingOptions
from ckpt_tool.cli.options import (
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Source,
    Target,
    Verbose,
    takes_addresses,
    takes_mapping_options,
)
from ckpt_tool.cli.output import NO, YES, print_note, show_report, show_result, style_of
from ckpt_tool.cli.parts.page import Html, answer_of, write_page


@takes_addresses
@takes_mapping_options
def plan(
    options: MappingOptions,
    source: Source = None,
    target: Target = None,
    why: Annotated[
        list[str] | None,
        typer.Option("--why", metavar="KEY", help="Say what becomes of one key. Repeatable."),
    ] = None,
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Say what becomes of every key of both sides, or list every reason why it can't be done.
    Writes nothing.
    """
    from ckpt_tool import api
    from ckpt_tool.report.parts.problems import refusal_text
    from ckpt_tool.report.plan import plan_json, plan_names, plan_text, unknown_key, why_text

    style = style_of(color, verbose)
    with api.plan_checkpoint(source, target, options) as planned:
        names = plan_names(
            *((planned.source.path, planned.target_path) if json else planned.labels),
            planned.rules,
            options.by,
        )
        onwards = api.WayOn() if planned.plan else api.way_on(planned, options, "plan")
        if html:
            from ckpt_tool.report.page.plan import plan_page, refused_page

            if planned.plan:
                page = plan_page(planned.plan, names, answer_of(plan_text(planned.plan, names)))
            else:
                page = refused_page(planned, names, onwards.command)
            write_page(html, page, quiet)
        if json:
            from ckpt_tool.report.parts.json_text import to_json

            report = plan_json(
                planned.plan,
                names,
                planned.source.catalog,
                planned.target_catalog,
                planned.problems,
                planned.tally,
            )
            show_result(to_json(report | {"next": onwards.command}))
        elif planned.plan is None:
            print_note(refusal_text(planned, onwards, style))
        elif why:
            for key in why:
                lines = why_text(planned.plan, key)
                if not lines:
                    raise unknown_key(planned.plan, key)
                show_report("\n".join(lines))
        elif not quiet:
            show_report(plan_text(planned.plan, names, style))
        raise typer.Exit(NO if planned.plan is None else YES)
