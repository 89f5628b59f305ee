"""`ckpt lint RULES...`: are these rule files sound?"""

from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.options import Color, ColorOption, Debug, Github, Quiet
from ckpt_tool.cli.output import (
    NO,
    NO_ANSWER,
    YES,
    note_style_of,
    print_annotations,
    print_note,
    show_report,
)
from ckpt_tool.errors import CkptError, RuleError

if TYPE_CHECKING:
    from ckpt_tool.report.parts.style import Style

EXAMPLES = ("ckpt lint resnet50_to_yolo.yaml",)


def lint(
    paths: Annotated[list[str], typer.Argument(metavar="RULES...", help="Rule files.")],
    github: Github = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Check several rule files, each by itself.

    Exit 0 when all are sound, 1 when one has problems, 2 when one can't be read.
    """
    from ckpt_tool.report.parts.style import plural

    statuses = [_lint(path, github, note_style_of(color, False)) for path in paths]
    unsound = sum(status != YES for status in statuses)
    if unsound or not quiet:
        files = plural(len(paths), "rule file")
        show_report(f"{files}, {unsound} with problems" if unsound else f"{files} checked: sound")
    raise typer.Exit(NO if NO in statuses else max(statuses))


def _lint(path: str, github: bool, style: "Style") -> int:
    from ckpt_tool import api
    from ckpt_tool.cli.options import mapping_options
    from ckpt_tool.report.parts.problems import error_text

    try:
        problems = api.check(None, None, mapping_options([path])).problems
        error: CkptError | None = RuleError(problems) if problems else None
    except CkptError as raised:
        error = raised
    if error is None:
        return YES
    print_annotations(github, error)
    print_note(error_text(error, style) + "\n")
    return NO if isinstance(error, RuleError) else NO_ANSWER
