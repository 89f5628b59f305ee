"""`ckpt map [A [B]] -o OUT`: do it."""

import os
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.api import MappingOptions
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
from ckpt_tool.cli.parts.progress import Progress, working
from ckpt_tool.errors import InputError, RuleError

if TYPE_CHECKING:
    from ckpt_tool.api import Form, Planned, WayOn
    from ckpt_tool.engine import Written
    from ckpt_tool.report.plan import PlanNames


class To(str, Enum):
    """The formats of outputs."""

    safetensors = "safetensors"
    torch = "torch"
    dcp = "dcp"


EXAMPLES = (
    "ckpt map resnet50.pth detector.pth -r resnet50_to_yolo.yaml -o out.pth",
    "ckpt map resnet50.pth detector.pth --by auto --partial -o auto.safetensors",
    "ckpt map run.pth -e '** -> **' -o weights.safetensors",
    "ckpt map resnet50.pth -e '** -> **' --dtype BF16 --max-shard-size 5GB -o out",
)


@takes_addresses
@takes_mapping_options
def map_(
    options: MappingOptions,
    source: Source = None,
    target: Target = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help=(
                "The output file (.safetensors, .pth .pt .bin .ckpt .pkl), or a folder with "
                "--max-shard-size or --to dcp."
            ),
        ),
    ] = None,
    to: Annotated[
        To | None,
        typer.Option(
            "--to",
            help="The format, if OUT's name doesn't say it; dcp: a folder for dcp.load.",
        ),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            "--max-shard-size",
            metavar="SIZE",
            help="OUT is a folder of safetensors (or dcp) files of at most this size, such as 5GB.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Copy N tensors at a time; by default one for each processor, up to 4.",
        ),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place",
            help="Rename tensors inside SOURCE itself, without copying data. Takes no -o.",
        ),
    ] = False,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Keep everything in SOURCE (optimizer, epoch, …), not only the weights.",
        ),
    ] = False,
    only_weights: Annotated[
        bool, typer.Option("--only-weights", help="Write the weights alone: a bare state dict.")
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="#NAME",
            help="Another copy of the weights in SOURCE, such as '#ema', to map in the same way. "
            "Repeatable.",
        ),
    ] = None,
    fresh_optimizer: Annotated[
        list[str] | None,
        typer.Option(
            "--fresh-optimizer",
            metavar="PATTERN",
            help="Parameters that start with no optimizer state. Repeatable.",
        ),
    ] = None,
    optimizer_order: Annotated[
        str | None,
        typer.Option(
            "--optimizer-order",
            metavar="MODEL",
            help="What has the parameters of SOURCE's model in their order: "
            "package.module:function, a .pth or a key list.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the output if it exists.")
    ] = False,
    checksum: Annotated[
        bool,
        typer.Option("--checksum", help="Print the SHA-256 of the output, to compare it later."),
    ] = False,
    github: Github = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Map weights onto another model's keys and write the result.

    If anything fails, no output is left behind.

    Exit 0 when it is written, 1 when it is refused, 2 when a file can't be used.
    """
    # torch, where ops need it, takes large blocks in huge pages: their first touch would cost more
    # than most ops.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from ckpt_tool import api
    from ckpt_tool.engine.team import team_of_this_run
    from ckpt_tool.report.map import written_text
    from ckpt_tool.report.parts.problems import refusal_text
    from ckpt_tool.report.plan import plan_names, plan_text

    style, beside = style_of(color, verbose), note_style_of(color, verbose)
    if in_place and (output or shards or to):
        raise InputError(
            "--in-place", "writes no other file", "leave out -o, --to and --max-shard-size"
        )
    api.refuse_as_target(target, has_output=bool(output or in_place))
    kind = to.value if to else None
    form = api.form_of(whole, only_weights, also or (), fresh_optimizer or (), optimizer_order)
    is_shown = not (quiet or json)
    with (
        team_of_this_run() as team,
        working(is_shown and not (team and team.rank)) as done,
        api.plan_checkpoint(source, target, options, in_place) as planned,
    ):
        done()
        if team and in_place:
            raise InputError("--in-place", "is for one process", "run it without torchrun")
        labels = (planned.source.path, planned.target_path) if json else planned.labels
        names = plan_names(*labels, planned.rules, options.by, options.rest_stays)
        words = (
            *_output_words(output, shards, kind, in_place, force),
            *_writing_words(checksum, jobs),
        )
        written, onwards = None, api.WayOn()
        try:
            if planned.plan and in_place:
                written = api.rename(planned, form)
            elif planned.plan:
                size = api.size_of(shards)
                total = api.expected_bytes(planned, form, output)
                with Progress(total, is_shown and not (team and team.rank)) as progress:
                    written = api.write(
                        planned, output, force, checksum, size, progress, jobs, kind, team, form
                    )
            else:
                with working(is_shown, "looking for the next step"):
                    form, more = api.asked_again(planned, form, output, bool(kind or shards))
                    words = *words, *_form_words(form, optimizer_order)
                    onwards = api.way_on(planned, options, "map", *words)
                    planned = replace(planned, problems=(*planned.problems, *more))
        except RuleError as error:  # of what is beside the weights
            words = *words, *_form_words(form, optimizer_order)
            onwards = api.way_on_from(planned, options, error, *words)
            planned = replace(planned, plan=None, problems=error.problems)
        if team and not team.is_leader:
            raise typer.Exit(YES if written else NO)
        print_annotations(github, RuleError(planned.problems))
        if json:
            show_result(_json_text(planned, names, written, onwards))
        elif not planned.plan:
            print_note(refusal_text(planned, onwards, beside, "nothing was written"))
        elif written and not quiet:
            print_note(plan_text(planned.plan, names, beside) + "\n")
            show_report(written_text(written, *planned.left_behind, planned.layouts), style)
        raise typer.Exit(YES if written else NO)


def _json_text(
    planned: "Planned", names: "PlanNames", written: "Written | None", onwards: "WayOn"
) -> str:
    """All of the answer for machines."""
    from ckpt_tool.report.map import written_json
    from ckpt_tool.report.parts.json_text import to_json
    from ckpt_tool.report.parts.left_behind import left_behind_json
    from ckpt_tool.report.plan import plan_json

    report = plan_json(
        planned.plan,
        names,
        planned.source.catalog,
        planned.target_catalog,
        planned.problems,
        planned.tally,
    )
    is_whole = written is not None and written.is_whole
    left = written.left if written and is_whole else planned.left_behind[0]
    report |= {"left_behind": left_behind_json(left)}
    return to_json(report | {"output": written_json(written), "next": onwards.command})


def _output_words(
    output: str | None, shards: str | None, to: str | None, in_place: bool, force: bool
) -> list[str]:
    """The options that say where the output goes, for another command."""
    words = ["-o", output] if output else []
    words += ["--to", to] if to else []
    words += ["--max-shard-size", shards] if shards else []
    return words + ["--in-place"] * in_place + ["--force"] * force


def _writing_words(checksum: bool, jobs: int | None) -> list[str]:
    """The options that say how it is written, for another command."""
    return ["--checksum"] * checksum + (["--jobs", str(jobs)] if jobs else [])


def _form_words(form: "Form", optimizer_order: str | None) -> list[str]:
    """The options that say what the output is, for another command."""
    words = {True: ["--whole"], False: ["--only-weights"], None: []}[form.whole]
    words += [word for name in form.also for word in ("--also", name)]
    words += [word for pattern in form.fresh_optimizer for word in ("--fresh-optimizer", pattern)]
    return words + (["--optimizer-order", optimizer_order] if optimizer_order else [])
