"""`ckpt trace A [B] --model F --input X`: do both compute the same, and where do they diverge?"""

from dataclasses import replace
from typing import Annotated

import typer

from ckpt_tool.api import MappingOptions
from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
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
from ckpt_tool.cli.parts.page import Html, answer_of, write_page
from ckpt_tool.errors import InputError, RuleError

FACTORY = "PACKAGE.MODULE:FUNCTION"


EXAMPLES = (
    "ckpt trace a.pth b.pth --model nets:build --random-input 2x4",
    "ckpt trace a.pth b.pth --model nets:build --model-b nets:other --input x.pt",
)


@takes_addresses
@takes_mapping_options
def trace(
    options: MappingOptions,
    source: Annotated[
        str,
        typer.Argument(
            metavar="A",
            autocompletion=state_dicts,
            help=f"What the first network is loaded with: {CHECKPOINT}.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            autocompletion=state_dicts,
            help="What the second one is loaded with; without it, A by the rules.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar=FACTORY, help="What builds the network that A is loaded into."
        ),
    ] = None,
    model_b: Annotated[
        str | None,
        typer.Option(
            "--model-b",
            metavar=FACTORY,
            help="What builds the second one; without it, the same as --model.",
        ),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="The input: a file with a tensor, or with several named as forward's arguments.",
        ),
    ] = None,
    inputs_b: Annotated[
        str | None,
        typer.Option(
            "--input-b", metavar="FILE", help="The second network's input, if it is another."
        ),
    ] = None,
    random_input: Annotated[
        str | None,
        typer.Option(
            "--random-input", metavar="SHAPE", help="Random normal numbers, such as 1x3x224x224."
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Run both in training mode, not in eval mode.")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", help="The random seed, the same for both networks.")
    ] = 0,
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Run two networks on one input and find where they diverge.

    A is loaded into the network of --model, and B into that of --model-b; without B, A is mapped
    into that by the rules. Your factories' code is run; nothing in a checkpoint is.

    Exit 0 when they compute the same, 1 when they differ, 2 when that can't be compared.
    """
    from ckpt_tool.api.tracing.traces import trace_checkpoints
    from ckpt_tool.report.parts.problems import error_text
    from ckpt_tool.report.trace import trace_json, trace_text

    if model is None:
        raise InputError(
            "--model",
            "is missing",
            "as in: ckpt trace a.pth b.pth --model pkg:build --input x.pt",
        )
    if target is None and model_b in (None, model) and inputs_b is None:
        _check_that_rules_change(options, source, model)
    try:
        found = trace_checkpoints(
            source,
            target,
            (model, model_b or model),
            (inputs, inputs_b, random_input),
            options,
            train=train,
            seed=seed,
        )
    except RuleError as error:
        print_note(error_text(error, note_style_of(color, verbose)))
        fact = f"the tensors don't fit: A is loaded into {model} by its own keys"
        more = ", B into the second network" if target else ", then by the rules into the second"
        raise InputError("trace", fact + more, "give the rules from A's network to B's") from None
    if html:
        from ckpt_tool.report.page.trace import trace_page

        page = trace_page(found, answer_of(trace_text(found)), found.names)
        write_page(html, page, quiet)
    if json:
        from ckpt_tool.report.parts.json_text import to_json

        show_result(to_json(trace_json(found)))
    elif not quiet:
        style = style_of(color, verbose)
        show_report(trace_text(found, style), style)
    raise typer.Exit(YES if found.is_same else NO if found.place else NO_ANSWER)


def _check_that_rules_change(options: MappingOptions, source: str, model: str) -> None:
    """Raises InputError where the second network would be the first one once more: that they are
    the same would say nothing.
    """
    plain = MappingOptions(by="name", expect=options.expect, params=options.params)
    if replace(options, by=options.by or "name") == plain:
        raise InputError(
            "trace",
            f"both networks would be {model} with {source}: nothing is compared",
            "give the second one's checkpoint, or --model-b with the rules to it",
        )
