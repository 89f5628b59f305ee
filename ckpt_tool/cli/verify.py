"""`ckpt verify OUT A [B]`: is OUT what the plan says?"""

from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.api import MappingOptions
from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Source,
    Target,
    Verbose,
    takes_mapping_options,
)
from ckpt_tool.cli.output import (
    NO,
    NO_ANSWER,
    YES,
    note_style_of,
    print_note,
    show_report,
    show_result,
    style_of,
)
from ckpt_tool.cli.parts.addresses import takes_addresses
from ckpt_tool.cli.parts.completing import state_dicts
from ckpt_tool.cli.parts.progress import watching

if TYPE_CHECKING:
    from ckpt_tool.api import Planned, WayOn
    from ckpt_tool.report.parts.style import Style

EXAMPLES = (
    "ckpt verify out.pth resnet50.pth detector.pth -r resnet50_to_yolo.yaml",
    "ckpt verify copy.safetensors resnet50.pth -e '** -> **'",
)


@takes_addresses
@takes_mapping_options
def verify(
    options: MappingOptions,
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            autocompletion=state_dicts,
            help=f"The checkpoint that was written: {CHECKPOINT}.",
        ),
    ],
    source: Source = None,
    target: Target = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Check a written checkpoint against its rules, bit for bit.

    Compares every tensor with what the rules make of SOURCE, and lists those that differ.

    Exit 0 when it is that, 1 when it differs, 2 when that can't be compared.
    """
    from ckpt_tool import api
    from ckpt_tool.report.parts.json_text import to_json
    from ckpt_tool.report.verify import asked_text, beside_text, verified_json, verified_text

    with api.plan_checkpoint(source, target, options) as planned:
        if not planned.plan:
            _show_refused(
                planned,
                output,
                api.way_to_verify(planned, options, output),
                json,
                note_style_of(color, verbose),
            )
            raise typer.Exit(NO_ANSWER)
        mismatches = api.verify(planned, output, watching(not (quiet or json)))
        asked = api.asked_by(output)
        if asked and not json:
            print_note(asked_text(output, asked))
        if json:
            show_result(to_json(verified_json(output, planned.plan, mismatches, (), asked)))
        elif mismatches or not quiet:
            if beside := api.beside_weights(output):
                print_note(beside_text(output, beside))
            show_report(
                verified_text(output, planned.plan, mismatches, verbose), style_of(color, verbose)
            )
        raise typer.Exit(NO if mismatches else YES)


def _show_refused(
    planned: "Planned", output: str, onwards: "WayOn", json: bool, style: "Style"
) -> None:
    """That nothing was compared, and why."""
    from ckpt_tool.report.parts.json_text import to_json
    from ckpt_tool.report.parts.problems import refusal_text
    from ckpt_tool.report.verify import not_compared_text, verified_json

    if json:
        report = verified_json(output, None, (), planned.problems, ())
        show_result(to_json(report | {"next": onwards.command}))
    else:
        print_note(refusal_text(planned, onwards, style, not_compared_text(output)))
