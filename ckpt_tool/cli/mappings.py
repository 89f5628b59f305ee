"""`ckpt mappings [A B]`: which rule files are shipped, and which of them account for this pair? Or
one of another library's.
"""

from enum import Enum
from typing import Annotated

import typer

from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Settings,
    mapping_options,
    takes_addresses,
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
from ckpt_tool.errors import InputError


class Library(str, Enum):
    """Libraries whose tables can be written as rules."""

    transformers = "transformers"


@takes_addresses
def mappings(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[A]", help=f"The source: {CHECKPOINT}. With --from: a model type."),
    ] = None,
    target: Annotated[str | None, typer.Argument(metavar="[B]", help="The target.")] = None,
    params: Settings = None,
    library: Annotated[
        Library | None,
        typer.Option("--from", help="Write rules out of this library's table, for model type A."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of rule files, for editors.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where the rule file goes; else stdout."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the output if it exists.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """List the shipped mappings; with two checkpoints or key lists, those whose rules account for
    every key of both.

    With --from, a rule file out of another library's table:
    `ckpt mappings --from transformers mixtral`.
    """
    from ckpt_tool import api

    if schema:
        show_file(api.rules_schema())
        raise typer.Exit(YES)
    if library is not None:
        raise typer.Exit(_import(library, source, output, force))
    from ckpt_tool.report.mappings import mappings_json, mappings_text
    from ckpt_tool.report.parts.json_text import to_json

    options = mapping_options(params=params)
    found = api.mappings(source, target, options)
    onwards = api.after_mappings(found, source, target, options)
    if json:
        show_result(to_json(mappings_json(found) | {"next": onwards}))
    elif not quiet:
        show_report(mappings_text(found, style_of(color, False)))
        print_next(onwards)
    raise typer.Exit(YES if found else NO)


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
        print_note(f"can't say: {line}")
    where = f"wrote {output}: " if output else ""
    rest = f", {len(imported.not_expressed)} things unsaid" if imported.not_expressed else ""
    print_note(f"{where}{imported.rules} rules for {imported.architecture}{rest}")
    return NO if imported.not_expressed else YES
