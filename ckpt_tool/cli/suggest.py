"""`ckpt suggest A B`: which rules would map A onto B?"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ckpt_tool.cli.options import CHECKPOINT, Color, ColorOption, Debug, Json, MinConfidence, Quiet
from ckpt_tool.cli.output import (
    NO,
    YES,
    print_next,
    print_note,
    show_file,
    show_report,
    show_result,
    style_of,
)
from ckpt_tool.cli.parts.addresses import takes_addresses
from ckpt_tool.cli.parts.completing import state_dicts
from ckpt_tool.cli.parts.page import Html, answer_of, write_page
from ckpt_tool.cli.parts.progress import watching, working
from ckpt_tool.errors import InputError
from ckpt_tool.report.parts.style import safe

EXAMPLES = (
    "ckpt suggest resnet50.pth detector.pth",
    "ckpt suggest resnet50.pth detector.pth -o rules.yaml",
    "ckpt suggest resnet50.pth detector.pth --min-confidence 0.95 --json",
)


@takes_addresses
def suggest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="A",
            autocompletion=state_dicts,
            help=f"Where the values come from: {CHECKPOINT}.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="B",
            autocompletion=state_dicts,
            help="The target: a checkpoint, or `package.module:factory`.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write the rule file; default: stdout."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the output if it exists.")
    ] = False,
    hint: Annotated[
        list[str] | None,
        typer.Option(
            "--hint",
            metavar="'KEY -> KEY'",
            help="A pair that you know; it settles all blocks like it. Repeatable.",
        ),
    ] = None,
    values: Annotated[
        bool,
        typer.Option(
            "--values", help="Pair by equal values first, if both sides hold the same weights."
        ),
    ] = False,
    min_confidence: MinConfidence = None,
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Draft the rules that map one checkpoint onto another.

    The fewest rules, each with its confidence; what is ambiguous is listed.

    Exit 0 when rules are drafted and nothing is ambiguous or unsure, 1 when something is undecided
    or nothing pairs, 2 when a file can't be read.
    """
    from ckpt_tool import api
    from ckpt_tool.report.parts.json_text import to_json
    from ckpt_tool.report.suggest import drafted_text, suggestion_json, suggestion_notes

    if (
        output is not None
        and html is not None
        and os.path.realpath(output) == os.path.realpath(html)
    ):
        raise InputError("--html", "is the file that the rules go to", "give another name")
    is_shown = not (quiet or json)
    with working(is_shown and not values):
        found = api.suggest_rules(
            source, target, hint or (), min_confidence, values, watching(is_shown)
        )
    if output is not None:
        api.write_text(output, found.text, force, api.files_read([source, target]))
    asked = _words(hint or (), values, min_confidence)
    if html:
        from ckpt_tool.report.page.suggest import suggest_page

        onwards = api.after_suggestion(found, (source, target), output, asked)
        answer = answer_of(suggestion_notes(found))
        page = suggest_page(found, (source, target), answer, onwards)
        write_page(html, page, quiet)
    if json:
        onwards = api.after_suggestion(found, (source, target), output, asked)
        show_result(to_json(suggestion_json(found, (source, target)) | {"next": onwards}))
    elif not quiet:
        is_terminal = sys.stdout.isatty()
        if output is None and is_terminal:
            show_report(drafted_text(found.text, style_of(color, False)))
        elif output is None:
            show_file(found.text)
        print_note(suggestion_notes(found, output is None and is_terminal))
        if output is not None and "\n#   - " in found.text:
            print_note(
                f"hint: some lines of {safe(output)} are comments: uncomment those that are right"
            )
        with working(True, "looking for the next step"):
            onwards = api.after_suggestion(found, (source, target), output, asked)
        if onwards and (name := api.shipped_of(onwards)):
            print_note(
                f"hint: {safe(name)} is a shipped mapping that fits this pair: no draft needed"
            )
        print_next(onwards)
    raise typer.Exit(YES if found.is_complete else NO)


def _words(hints: Sequence[str], values: bool, min_confidence: float | None) -> list[str]:
    """The options that the draft was made with, for another command."""
    words = [word for text in hints for word in ("--hint", text)] + ["--values"] * values
    least = ["--min-confidence", f"{min_confidence:g}"] if min_confidence is not None else []
    return words + least
