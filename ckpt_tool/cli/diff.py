"""`ckpt diff A B`: are they the same?"""

import os
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.looks import TableFormat, check_table_format, show_table
from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Verbose,
)
from ckpt_tool.cli.output import NO, NO_ANSWER, YES, print_next, show_report, show_result, style_of
from ckpt_tool.cli.parts.addresses import takes_addresses
from ckpt_tool.cli.parts.completing import state_dicts
from ckpt_tool.cli.parts.page import Html, write_page
from ckpt_tool.cli.parts.progress import watching, working
from ckpt_tool.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt_tool.comparing import Diff
    from ckpt_tool.report.parts.style import Style


EXAMPLES = (
    "ckpt diff resnet50.pth detector.pth",
    "ckpt diff resnet50.pth detector.pth --renames",
    "ckpt diff resnet50.pth finetuned.pth --values --rtol 1e-3",
    "ckpt diff resnet50.pth finetuned.pth --values --side-by-side --filter 'fc.*'",
    "ckpt diff run.pth 'run.pth#model_ema' --format markdown",
)


@takes_addresses
def diff(
    a: Annotated[
        str,
        typer.Argument(metavar="A", autocompletion=state_dicts, help=f"One side: {CHECKPOINT}."),
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", autocompletion=state_dicts, help="The other side.")
    ],
    values: Annotated[
        bool, typer.Option("--values", help="Compare the values too; NaN equals NaN.")
    ] = False,
    renames: Annotated[
        bool,
        typer.Option(
            "--renames",
            help="Find renamed tensors: by names and shapes, with --values by values.",
        ),
    ] = False,
    rtol: Annotated[
        float | None,
        typer.Option(
            "--rtol",
            metavar="R",
            help="With --values: treat |a-b| <= atol + R·|b| as the same.",
        ),
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option(
            "--atol",
            metavar="A",
            help="With --values: treat |a-b| <= A + rtol·|b| as the same.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            "--filter",
            metavar="PATTERN",
            help="Compare only these keys, and their partners under other names. Repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave these keys out. Repeatable."),
    ] = None,
    side_by_side: Annotated[
        bool,
        typer.Option("--side-by-side", help="Show both sides in two columns, equal tensors too."),
    ] = False,
    format_: TableFormat = "table",
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Compare two checkpoints: keys, shapes, dtypes and values.

    Exit 0 when they are the same, 1 when they differ, 2 when nothing differs but not all could be
    compared.
    """
    if values:
        # Keys are compared side by side, one on each processor; more threads of numpy and torch
        # would only be in the way.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
    from ckpt_tool import api

    check_table_format(format_, json)
    if side_by_side and (json or format_ != "table"):
        other = "--json" if json else "--format"
        hint = "leave it out; -v has equal tensors too"
        raise InputError("--side-by-side", f"can't be asked together with {other}", hint)
    asked = api.Comparison(values, renames, tuple(include or ()), tuple(exclude or ()), rtol, atol)
    with api.open_side(a) as source, api.open_side(b, source) as target:
        sides = (source, target)
        is_shown = not (quiet or json)
        with working(is_shown and renames and not values):
            result = api.diff_checkpoints(*sides, options=asked, watch=watching(is_shown))

        @cache
        def onwards() -> str | None:
            with working(is_shown, "looking for the next step"):
                return api.after_diff(result, (a, b), asked, sides)

        if html:
            from ckpt_tool.report.diff import closing_text
            from ckpt_tool.report.page.diff import diff_page

            answer = closing_text(result)
            hints = api.diff_hints(result, (a, b))
            page = diff_page(result, result.labels, answer, hints, onwards())
            write_page(html, page, quiet)
        if json:
            from ckpt_tool.report.layouts.diff_json import diff_json
            from ckpt_tool.report.parts.json_text import to_json

            show_result(to_json(diff_json(result, (a, b), verbose) | {"next": onwards()}))
        elif not quiet:
            style = style_of(color, verbose)
            if format_ == "table":
                hints = [] if side_by_side else api.diff_hints(result, (a, b))
                show_report(_text(result, style, hints, side_by_side), style)
            else:
                _show_table(result, format_, style)
            print_next(onwards())
    raise typer.Exit(NO if result.differs else YES if result.is_whole else NO_ANSWER)


def _text(result: "Diff", style: "Style", hints: "Sequence[str]", is_side_by_side: bool) -> str:
    if is_side_by_side:
        from ckpt_tool.report.layouts.side_by_side import side_by_side_text

        return side_by_side_text(result, result.labels, style)
    from ckpt_tool.report.diff import diff_text

    return diff_text(result, result.labels, style, hints)


def _show_table(result: "Diff", name: str, style: "Style") -> None:
    from ckpt_tool.report.diff import closing_text
    from ckpt_tool.report.tables.diff import diff_table

    show_table(diff_table(result, style), name, closing_text(result))
