"""Arguments and options that several commands share, and what they mean."""

from collections.abc import Callable, Sequence
from enum import Enum
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.parts.completing import rule_files, state_dicts
from ckpt_tool.cli.parts.helping import MAPPING, PRINTING
from ckpt_tool.errors import InputError

if TYPE_CHECKING:
    from ckpt_tool.api import MappingOptions

CHECKPOINT = (
    "a checkpoint file or folder, an address (https://, hf://, s3://), an index.json, "
    "a key list (`-`: on stdin); FILE#NAME picks a state dict inside it"
)


class Color(str, Enum):
    """When text is coloured."""

    auto = "auto"
    always = "always"
    never = "never"


class By(str, Enum):
    """Ways of pairing keys without rules."""

    name = "name"
    position = "position"
    auto = "auto"


Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=PRINTING, help="Print JSON for programs.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=PRINTING, help="Print nothing but errors.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", rich_help_panel=PRINTING, help="List every key: fold nothing."),
]
ColorOption = Annotated[
    Color,
    typer.Option(
        "--color",
        rich_help_panel=PRINTING,
        help="Whether to colour the text; NO_COLOR is respected.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", rich_help_panel=PRINTING, help="Show the traceback of an error.")
]
Github = Annotated[
    bool,
    typer.Option(
        "--github",
        rich_help_panel=PRINTING,
        help="Also print each problem as an annotation for GitHub Actions.",
    ),
]

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[SOURCE]",
        autocompletion=state_dicts,
        help=f"Where the values come from: {CHECKPOINT}. A rule file may name it.",
    ),
]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TARGET]",
        autocompletion=state_dicts,
        help=(
            "What gives the output its keys, shapes and own values: a checkpoint, or "
            "`package.module:name`, a model or a function that returns one."
        ),
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rules",
        "-r",
        metavar="FILE",
        autocompletion=rule_files,
        rich_help_panel=MAPPING,
        help="A rule file, or the name of a shipped mapping. Repeatable.",
    ),
]
Inline = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        "-e",
        metavar="RULE",
        rich_help_panel=MAPPING,
        help="One rule, 'SOURCE -> TARGET', instead of a file. Repeatable.",
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="PATTERN",
        rich_help_panel=MAPPING,
        help="Source keys that are not mapped, on purpose. Repeatable.",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="PATTERN",
        rich_help_panel=MAPPING,
        help="Target keys that keep the target's own values. Repeatable.",
    ),
]
ByOption = Annotated[
    By | None,
    typer.Option(
        "--by",
        rich_help_panel=MAPPING,
        help="Pair by equal names (the default), by position, or by alignment.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=NUMBER",
        rich_help_panel=MAPPING,
        help="The number of a rule's parameter. Repeatable.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="WHICH",
        rich_help_panel=MAPPING,
        help=(
            "What to do if dtypes differ: `target` casts, `source` keeps them; BF16, F32 … "
            "casts all floats. Default: an error."
        ),
    ),
]
ForceOrder = Annotated[
    bool,
    typer.Option(
        "--force-order",
        rich_help_panel=MAPPING,
        help="Map by position even if the keys are sorted.",
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        metavar="P",
        rich_help_panel=MAPPING,
        help="Confidence that a pair by alignment needs, 0 to 1. Default: 0.9.",
    ),
]
ExpectOption = Annotated[
    int | None,
    typer.Option(
        "--expect",
        metavar="N",
        rich_help_panel=MAPPING,
        help="Refuse unless exactly N target tensors are mapped; other keys are dropped or kept.",
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        rich_help_panel=MAPPING,
        help=(
            "Map what matches; drop and keep the rest without naming it (`rest:` in a rule file)."
        ),
    ),
]


def mapping_options(
    rules: Rules = None,
    inline: Inline = None,
    drop: Drop = None,
    keep: Keep = None,
    by: ByOption = None,
    params: Settings = None,
    dtype: Dtype = None,
    force_order: ForceOrder = False,
    expect: ExpectOption = None,
    min_confidence: MinConfidence = None,
    partial: Partial = False,
) -> "MappingOptions":
    """The options that say how to map, as one value. Raises InputError for what can't be
    understood.
    """
    from ckpt_tool.api import MappingOptions, dtype_policy

    return MappingOptions(
        tuple(rules or ()),
        tuple(inline or ()),
        tuple(drop or ()),
        tuple(keep or ()),
        by.value if by else None,
        _settings(params or ()),
        dtype_policy(dtype or "strict"),
        force_order,
        expect,
        min_confidence,
        partial,
    )


def takes_mapping_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `options` is made of those of `mapping_options`, which stand in its
    usage behind its own.
    """
    own, shared = signature(command).parameters, signature(mapping_options).parameters

    def run(**given: object) -> None:
        some = {name: given.pop(name) for name in shared}
        command(options=mapping_options(**some), **given)  # type: ignore[arg-type]

    parameters = [
        *(parameter for name, parameter in own.items() if name != "options"),
        *shared.values(),
    ]
    asked_for = Signature([each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters])
    run.__signature__ = asked_for  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = command.__doc__
    return run


def _settings(texts: Sequence[str]) -> dict[str, int]:
    """The numbers by their names. Raises InputError for a name that is given two numbers."""
    numbers: dict[str, int] = {}
    for name, number in map(_setting, texts):
        if numbers.setdefault(name, number) != number:
            fact = f"`{name}` is given twice: {numbers[name]} and {number}"
            raise InputError("--set", fact, "give one of them")
    return numbers


def _setting(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not (name and equals and number.isdecimal() and len(number) <= 18):
        raise InputError("--set", f"`{text}` is not NAME=NUMBER")
    return name, int(number)
