"""`ckpt show A`: what is in it?"""

from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Verbose,
    takes_addresses,
)
from ckpt_tool.cli.output import NO, YES, print_next, show_file, show_report, show_result, style_of
from ckpt_tool.cli.parts.page import Html, answer_of, write_page
from ckpt_tool.errors import InputError

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.report.parts.style import Style


@takes_addresses
def show(
    path: Annotated[str, typer.Argument(metavar="A", help=f"What to look into: {CHECKPOINT}.")],
    keys: Annotated[
        bool,
        typer.Option("--keys", help="Print a key list: key, dtype and shape, with tabs between."),
    ] = False,
    digests: Annotated[
        bool,
        typer.Option("--digests", help="Print a key list with the digest of each tensor's values."),
    ] = False,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum", help="Print the SHA-256 of each of its files, as sha256sum does."
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit 1 when unpickling the file would call or import something."
        ),
    ] = False,
    health: Annotated[
        bool,
        typer.Option(
            "--health",
            help="Read every value, and exit 1 with each thing that is wrong: NaN, zeros, damage, "
            "what config.json contradicts.",
        ),
    ] = False,
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Show what a checkpoint contains: keys, dtypes, shapes, sizes, and what is no tensor."""
    from ckpt_tool import api
    from ckpt_tool.formats import open_checkpoint
    from ckpt_tool.report.show import checksums_text, show_json, show_text

    if health:
        if keys or digests or checksum:
            raise InputError("--health", "can't be asked together with another list")
        raise typer.Exit(_show_health(path, json, quiet, style_of(color, verbose)))
    with open_checkpoint(path) as checkpoint:
        if html:
            from ckpt_tool.report.page.show import show_page

            answer, onwards = answer_of(show_text(checkpoint)), api.after_show(checkpoint)
            write_page(html, show_page(checkpoint, answer, onwards), quiet)
        if json:
            from ckpt_tool.report.parts.json_text import to_json

            sums = {"sha256": checkpoint.checksums()} if checksum else {}
            report = show_json(checkpoint) | sums
            show_result(to_json(report | {"next": api.after_show(checkpoint)}))
        elif checksum:
            show_file(checksums_text(checkpoint.checksums()))
        elif keys or digests:
            show_file(_key_list(checkpoint, digests))
        elif not quiet:
            show_report(show_text(checkpoint, style_of(color, verbose)))
            print_next(api.after_show(checkpoint))
        raise typer.Exit(NO if strict and checkpoint.asked else YES)


def _show_health(path: str, json: bool, quiet: bool, style: "Style") -> int:
    """Prints what is wrong, and gives the exit status."""
    from ckpt_tool.cli.parts.progress import Progress
    from ckpt_tool.examining import examine_path
    from ckpt_tool.mapping.params import read_config
    from ckpt_tool.report.health import health_json, health_text

    found = examine_path(path, read_config, lambda nbytes: Progress(nbytes, not quiet))
    if json:
        from ckpt_tool.report.parts.json_text import to_json

        show_result(to_json(health_json(found)))
    elif found.findings or not quiet:
        show_report(health_text(found, style))
    return YES if found.is_healthy else NO


def _key_list(checkpoint: "Checkpoint", digests: bool) -> str:
    """Its key list. Raises InputError where digests are asked of what has no values."""
    from ckpt_tool.formats import format_key_list

    if digests and not checkpoint.has_digests:
        raise InputError(checkpoint.path, "is a key list without digests: it has no values")
    return format_key_list(checkpoint.catalog, checkpoint.digest if digests else None)
