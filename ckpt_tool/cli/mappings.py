"""`ckpt mappings [A B]`: which rule files are shipped, and which of them account for this pair? Or
one of another library's.
"""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.looks import TableFormat, check_table_format, show_table
from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Settings,
    mapping_options,
)
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
from ckpt_tool.errors import InputError
from ckpt_tool.tensors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt_tool.api import ShippedMapping
    from ckpt_tool.report.parts.style import Style


class Library(str, Enum):
    """Libraries whose tables can be written as rules."""

    transformers = "transformers"


EXAMPLES = (
    "ckpt mappings",
    "ckpt mappings vit",
    "ckpt mappings resnet50.pth detector.pth",
    "ckpt mappings --schema",
)


@takes_addresses
def mappings(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[A]",
            autocompletion=state_dicts,
            help=f"The source: {CHECKPOINT}. With --from: a model type.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Argument(metavar="[B]", autocompletion=state_dicts, help="The target.")
    ] = None,
    params: Settings = None,
    library: Annotated[
        Library | None,
        typer.Option(
            "--from",
            help="Write a rule file from this library's own conversions, for model type A.",
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of rule files, for editors.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write the rule file or the schema; default: stdout.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the output if it exists.")
    ] = False,
    format_: TableFormat = "table",
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """List the shipped mappings, or those that fit two checkpoints.

    Those that fit account for every key of both. One word alone, as in `ckpt mappings vit`,
    searches names and descriptions.

    With --from, write a rule file from another library's own conversions, as in
    `ckpt mappings --from transformers mixtral`.

    Exit 0 when there is one, 1 when there is none, 2 when a file can't be read.
    """
    from ckpt_tool import api

    check_table_format(format_, json)
    if schema:
        if output is not None:
            api.write_text(output, api.rules_schema(), force, ())
        else:
            show_file(api.rules_schema())
        raise typer.Exit(YES)
    if output is not None and library is None:
        raise InputError("-o", "a list is not written to a file", "it is for --from and --schema")
    if library is not None:
        raise typer.Exit(_import(library, source, output, force))
    from ckpt_tool.report.mappings import mappings_json
    from ckpt_tool.report.parts.json_text import to_json

    options = mapping_options(params=params)
    found = api.mappings(source, target, options)
    onwards = api.after_mappings(found, source, target, options)
    if json:
        show_result(to_json(mappings_json(found) | {"next": onwards}))
    elif format_ != "table" and not quiet:
        from ckpt_tool.report.parts.style import plural
        from ckpt_tool.report.tables.mappings import mappings_table

        show_table(mappings_table(found), format_, plural(len(found), "mapping"))
        print_next(onwards)
    elif not quiet:
        show_report(_text(found, style_of(color, False), source if target is None else None))
        print_next(onwards)
    raise typer.Exit(YES if found else NO)


def _text(found: "Sequence[ShippedMapping]", style: "Style", words: str | None) -> str:
    from ckpt_tool.report.mappings import NONE_FITS, mappings_text
    from ckpt_tool.report.parts.style import safe

    nothing = f"no shipped mapping is about `{safe(words)}`" if words else NONE_FITS
    return mappings_text(found, style, nothing)


def _import(library: Library, model_type: str | None, output: str | None, force: bool) -> int:
    from ckpt_tool import api

    if model_type is None:
        raise InputError(
            f"--from {library.value}",
            "needs a model type",
            f"ckpt mappings --from {library.value} mixtral",
        )
    imported = api.import_mapping(model_type)
    if output:
        api.write_text(output, imported.yaml, force)
    else:
        show_file(imported.yaml)
    for line in imported.not_expressed:
        print_note(f"no rule can express: {line}")
    where = f"wrote {output}: " if output else ""
    unsaid = counted(len(imported.not_expressed), "operation")
    rest = f", {unsaid} not expressed" if imported.not_expressed else ""
    print_note(f"{where}{counted(imported.rules, 'rule')} for {imported.architecture}{rest}")
    return NO if imported.not_expressed else YES
