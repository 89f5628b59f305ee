"""`ckpt plan [A [B]]`: can it be done, and how?"""

from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.api import MappingOptions
from ckpt_tool.cli.looks import TableFormat, check_table_format, show_table
from ckpt_tool.cli.options import (
    Color,
    ColorOption,
    Debug,
    Github,
    Json,
    Quiet,
    Source,
    Target,
    Verbose,
    takes_mapping_options,
)
from ckpt_tool.cli.output import (
    NO,
    YES,
    note_style_of,
    print_annotations,
    print_note,
    show_report,
    show_result,
    style_of,
)
from ckpt_tool.cli.parts.addresses import takes_addresses
from ckpt_tool.cli.parts.page import Html, write_page
from ckpt_tool.cli.parts.progress import working
from ckpt_tool.errors import InputError, RuleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckpt_tool.api.planning import Planned
    from ckpt_tool.mapping import Plan
    from ckpt_tool.report.parts.style import Style
    from ckpt_tool.report.plan import PlanNames


EXAMPLES = (
    "ckpt plan resnet50.pth detector.pth --rules resnet50_to_yolo.yaml",
    "ckpt plan resnet50.pth detector.pth --by position --partial",
    "ckpt plan resnet50.pth finetuned.pth --drop 'fc.*' --keep 'fc.*'",
    "ckpt plan resnet50.pth -e '** -> backbone.**' --why conv1.weight",
)


@takes_addresses
@takes_mapping_options
def plan(
    options: MappingOptions,
    source: Source = None,
    target: Target = None,
    why: Annotated[
        list[str] | None,
        typer.Option("--why", metavar="KEY", help="Show what becomes of one key. Repeatable."),
    ] = None,
    format_: TableFormat = "table",
    html: Html = None,
    github: Github = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Show what would become of every tensor; write nothing.

    Or list every reason why it can't be done.

    Exit 0 when the plan is complete, 1 when there are problems, 2 when a file can't be read.
    """
    from ckpt_tool import api
    from ckpt_tool.report.parts.problems import refusal_text
    from ckpt_tool.report.plan import (
        closing_text,
        plan_json,
        plan_names,
    )

    style = style_of(color, verbose)
    _check_format(format_, bool(why), json)
    is_shown = not (quiet or json)
    with working(is_shown) as done, api.plan_checkpoint(source, target, options) as planned:
        done()
        names = plan_names(
            *((planned.source.path, planned.target_path) if json else planned.labels),
            planned.rules,
            options.by,
            options.rest_stays,
        )
        if planned.plan is None:
            _check_asked(why or (), planned)
        with working(is_shown, "looking for the next step"):
            onwards = api.WayOn() if planned.plan else api.way_on(planned, options, "plan")
        print_annotations(github, RuleError(planned.problems))
        if html:
            from ckpt_tool.report.page.plan import plan_page, refused_page

            if planned.plan:
                page = plan_page(planned.plan, names, closing_text(planned.plan, names.unnamed))
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
            _show_whys(why or (), planned)
            print_note(refusal_text(planned, onwards, note_style_of(color, verbose)))
        elif why:
            _show_whys(why, planned)
        elif not quiet:
            _show(planned.plan, names, format_, style)
        raise typer.Exit(NO if planned.plan is None else YES)


def _check_format(name: str, is_asked: bool, json: bool) -> None:
    """Raises InputError for a table that there is not, or of which nothing would be printed."""
    if is_asked and name != "table":
        raise InputError(
            "--format", "is for the whole plan, not for --why", "leave one of them out"
        )
    check_table_format(name, json)


def _check_asked(keys: "Iterable[str]", planned: "Planned") -> None:
    """Raises InputError for a key that neither side of a refused plan has."""
    from ckpt_tool.report.plan import unknown_key

    source, target = planned.source.catalog, planned.target_catalog
    for key in keys:
        if target is not None and key not in source and key not in target:
            raise unknown_key(source, target, key)


def _show_whys(keys: "Iterable[str]", planned: "Planned") -> None:
    """Prints what becomes of keys, or what would but for the problems. Raises InputError for one
    that neither side has.
    """
    from ckpt_tool.report.plan import unknown_key, why_text

    draft = None if planned.plan else planned.draft
    plan = draft.plan if draft else planned.plan
    for key in keys:
        lines = why_text(plan, key, draft) if plan else []
        if lines:
            show_report("\n".join(lines))
        elif planned.plan:
            raise unknown_key(planned.plan.source, planned.plan.target, key)


def _show(plan: "Plan", names: "PlanNames", name: str, style: "Style") -> None:
    from ckpt_tool.report.plan import closing_text, plan_text

    if name == "table":
        show_report(plan_text(plan, names, style), style)
        return
    from ckpt_tool.report.tables.plan import plan_table

    show_table(plan_table(plan, style), name, closing_text(plan, names.unnamed))
