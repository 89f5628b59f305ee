"""`ckpt check RULES [A [B]]`: are the rules sound, for these keys?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Github,
    Json,
    Quiet,
    Settings,
    mapping_options,
)
from ckpt_tool.cli.output import (
    NO,
    YES,
    note_style_of,
    print_annotations,
    print_note,
    show_file,
    show_report,
    show_result,
    style_of,
)
from ckpt_tool.cli.parts.addresses import takes_addresses
from ckpt_tool.cli.parts.completing import rule_files, state_dicts
from ckpt_tool.errors import InputError, RuleError

if TYPE_CHECKING:
    from ckpt_tool.api import Checked, WayOn
    from ckpt_tool.mapping import InvertedRules


EXAMPLES = (
    "ckpt check resnet50_to_yolo.yaml",
    "ckpt check resnet50_to_yolo.yaml resnet50.pth detector.pth",
    "ckpt check resnet50_to_yolo.yaml --invert -o back.yaml",
)


@takes_addresses
def check(
    rules: Annotated[
        str,
        typer.Argument(
            metavar="RULES",
            autocompletion=rule_files,
            help="A rule file, or the name of a shipped mapping.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[A]", autocompletion=state_dicts, help=f"The source's keys: {CHECKPOINT}."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Argument(metavar="[B]", autocompletion=state_dicts, help="The target's keys."),
    ] = None,
    params: Settings = None,
    invert: Annotated[
        bool,
        typer.Option("--invert", help="Invert the rules: from the target back to the source."),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write the inverse; default: stdout."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the output if it exists.")
    ] = False,
    concise: Annotated[
        bool, typer.Option("--concise", help="Print one line per problem, for editors.")
    ] = False,
    github: Github = False,
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Check that rules are sound, alone or for two checkpoints.

    Without checkpoints, the rules and their `tests:`; with them (key lists will do), also that
    every key is accounted for.

    Exit 0 when they are sound, 1 when there are problems, 2 when a file can't be read.
    """
    from ckpt_tool import api

    options = mapping_options([rules], params=params)
    if output and not invert:
        raise InputError("--output", "is for the inverse", "add --invert, or leave it out")
    if invert:
        inverse = api.invert(source, target, options)  # imports a factory, whose code is read too
        inputs = api.files_read([source, target], api.read_rules(options)) if output else []
        raise typer.Exit(_show_inverse(inverse, output, force, json, inputs))
    result = api.check(source, target, options)
    print_annotations(github, RuleError(result.problems))
    if json:
        from ckpt_tool.report.parts.json_text import to_json
        from ckpt_tool.report.parts.problems import check_json

        onwards = api.after_check(result.problems, source, target, options).command
        show_result(to_json(check_json(rules, result.problems, result.notes) | {"next": onwards}))
    elif concise:
        _show_lines(result)
    else:
        _show_blocks(result, rules, (source, target), color, quiet)
        if not quiet:
            _print_way_on(api.after_check(result.problems, source, target, options))
    raise typer.Exit(NO if result.problems else YES)


def _show_inverse(
    inverse: InvertedRules, output: str | None, force: bool, json: bool, inputs: Sequence[str]
) -> int:
    from ckpt_tool import api
    from ckpt_tool.report.check import inverse_json, inverse_text
    from ckpt_tool.report.parts.json_text import to_json
    from ckpt_tool.report.parts.style import safe

    if json:
        show_result(to_json(inverse_json(inverse)))
    else:
        print_note(inverse_text(inverse))
    if inverse.yaml and output:
        api.write_text(output, inverse.yaml, force, inputs)
        print_note(f"wrote {safe(output)}")
    elif inverse.yaml and not json:
        show_file(inverse.yaml)
    return YES if inverse.yaml else NO


def _print_way_on(onwards: WayOn) -> None:
    from ckpt_tool.report.parts.problems import way_on_text

    if text := way_on_text(onwards):
        print_note(text)


def _show_lines(result: Checked) -> None:
    from ckpt_tool.report.parts.problems import concise_text

    for problem in result.problems:
        show_result(concise_text(problem))
    for note in result.notes:
        show_result(concise_text(note, is_note=True))


def _show_blocks(
    result: Checked, rules: str, sides: tuple[str | None, str | None], color: Color, quiet: bool
) -> None:
    from ckpt_tool.report.parts.problems import notes_text, problems_text, sound_text

    style = note_style_of(color, False)
    if result.notes and not quiet:
        print_note(notes_text(result.notes, style) + "\n")
    if result.problems:
        print_note(problems_text(result.problems, style))
    elif not quiet:
        show_report(sound_text(rules, result.rules, result.tests, *sides), style_of(color, False))
