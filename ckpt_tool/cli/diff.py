"""`ckpt diff A B`: are they the same?"""

import os
from typing import Annotated

import typer

from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Verbose,
    takes_addresses,
)
from ckpt_tool.cli.output import NO, NO_ANSWER, YES, print_next, show_report, show_result, style_of
from ckpt_tool.cli.parts.page import Html, answer_of, write_page


@takes_addresses
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=f"One side: {CHECKPOINT}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other side.")],
    values: Annotated[
        bool, typer.Option("--values", help="Compare the values too; NaN equals NaN.")
    ] = False,
    renames: Annotated[
        bool,
        typer.Option(
            "--renames",
            help=(
                "Find tensors that have another name: by names and shapes, with --values by "
                "what they hold."
            ),
        ),
    ] = False,
    rtol: Annotated[
        float | None,
        typer.Option(
            "--rtol",
            metavar="R",
            help="With --values: |a-b| up to atol + R·|b| counts as the same.",
        ),
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option(
            "--atol",
            metavar="A",
            help="With --values: |a-b| up to A + rtol·|b| counts as the same.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Compare these keys alone. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave these keys out. Repeatable."),
    ] = None,
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Compare two checkpoints: keys, shapes, dtypes, and on request values.

    Exit 0 when they are the same, 1 when they differ, 2 when nothing differs but not all could be
    compared.
    """
    if values:
        # Keys are compared side by side, one on each processor; more threads of numpy and torch
        # would only be in the way.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
    from ckpt_tool import api
    from ckpt_tool.report.diff import diff_json, diff_text

    asked = api.Comparison(values, renames, tuple(include or ()), tuple(exclude or ()), rtol, atol)
    with api.open_side(a) as source, api.open_side(b, source) as target:
        sides = (source, target)
        result = api.diff_checkpoints(*sides, options=asked)
        if html:
            from ckpt_tool.report.page.diff import diff_page

            onwards = api.after_diff(result, (a, b), asked, sides)
            answer = answer_of(diff_text(result, result.labels))
            hints = api.diff_hints(result, (a, b))
            page = diff_page(result, result.labels, answer, hints, onwards)
            write_page(html, page, quiet)
        if json:
            from ckpt_tool.report.parts.json_text import to_json

            show_result(
                to_json(
                    diff_json(result, (a, b), verbose)
                    | {"next": api.after_diff(result, (a, b), asked, sides)}
                )
            )
        elif not quiet:
            show_report(
                diff_text(
                    result, result.labels, style_of(color, verbose), api.diff_hints(result, (a, b))
                )
            )
            print_next(api.after_diff(result, (a, b), asked, sides))
    raise typer.Exit(NO if result.differs else YES if result.is_whole else NO_ANSWER)
