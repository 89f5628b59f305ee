"""`ckpt scan FILE...`: would unpickling them call something?"""

from typing import Annotated

import typer

from ckpt_tool.cli.options import Color, ColorOption, Debug, Github, Json, Quiet
from ckpt_tool.cli.output import NO, NO_ANSWER, YES, print_note, show_report, show_result, style_of
from ckpt_tool.cli.parts.addresses import takes_addresses

EXAMPLES = (
    "ckpt scan resnet50.pth",
    "ckpt scan resnet50.pth detector.pth --json",
    "ckpt scan .",
)


@takes_addresses
def scan(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Checkpoints or other pickles, or folders of them."),
    ],
    github: Github = False,
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """List what unpickling files would call or import.

    Nothing is run. Folders are scanned with all folders in them.
    Exit 0 when nothing is found, 1 when something is, 2 when a file can't be read.
    """
    from ckpt_tool.examining.calls import scan as scan_files
    from ckpt_tool.report.parts.annotations import annotation
    from ckpt_tool.report.scan import calls_text, scan_json, scan_text

    found = scan_files(paths)
    is_clean = not any(each.calls or each.fault for each in found)
    if github:
        for each in (each for each in found if each.calls or each.fault):
            fact = each.fault or f"unpickling it would call or import {calls_text(each.calls)}"
            print_note(annotation("ckpt: scan", fact, each.path))
    if json:
        from ckpt_tool.report.parts.json_text import to_json

        show_result(to_json(scan_json(found)))
    elif not (quiet and is_clean):
        show_report(scan_text(found, style_of(color, False)))
    calls = any(each.calls for each in found)
    raise typer.Exit(NO if calls else YES if is_clean else NO_ANSWER)
