"""`ckpt check RULES [A [B]]`: are the rules sound, for these keys?"""

from typing import Annotated

import typer

from ckpt_tool.cli.options import CHECKPOINT, Color, ColorOption, Debug, Json, Quiet, Settings, how
from ckpt_tool.cli.output import NO, YES, say, show_result, style_of


def check(
    rules: Annotated[str, typer.Argument(metavar="RULES", help="A rule file, from the working directory or the shipped mappings.")],
    source: Annotated[str | None, typer.Argument(metavar="[A]", help=f"The source's keys: {CHECKPOINT}.")] = None,
    target: Annotated[str | None, typer.Argument(metavar="[B]", help="The target's keys.")] = None,
    settings: Settings = None,
    concise: Annotated[bool, typer.Option("--concise", help="One line a problem, for editors.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Check rules by themselves and their `tests:`, and with key lists or checkpoints everything else. Writes nothing."""
    from ckpt_tool import api
    from ckpt_tool.report.jsons import to_json
    from ckpt_tool.report.problems import check_json, concise_text, problems_text, sound_text

    result = api.check(rules, source, target, how((rules,), None, None, None, None, settings, None, False, None))
    if json:
        show_result(to_json(check_json(rules, result.problems)))
    elif concise:
        for problem in result.problems:
            show_result(concise_text(problem))
    elif result.problems:
        say(problems_text(result.problems, style_of(color, False)))
    elif not quiet:
        show_result(sound_text(rules, result.rules, result.tests, source, target))
    raise typer.Exit(NO if result.problems else YES)
