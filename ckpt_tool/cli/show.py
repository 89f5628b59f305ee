"""`ckpt show A`: what is in it?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.looks import (
    Filter,
    Sort,
    SortOption,
    TableFormat,
    check_table_format,
    show_table,
)
from ckpt_tool.cli.options import (
    CHECKPOINT,
    Color,
    ColorOption,
    Debug,
    Json,
    Quiet,
    Verbose,
)
from ckpt_tool.cli.output import NO, YES, show_file, show_report, show_result, style_of
from ckpt_tool.cli.parts.addresses import takes_addresses
from ckpt_tool.cli.parts.completing import state_dicts
from ckpt_tool.cli.parts.page import Html, write_page
from ckpt_tool.cli.parts.progress import watching
from ckpt_tool.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.report.parts.style import Style
    from ckpt_tool.watching import Watch


EXAMPLES = (
    "ckpt show resnet50.pth",
    "ckpt show resnet50.pth --tree --depth 1 --sort size",
    "ckpt show resnet50.pth --filter 'layer4.**' -v",
    "ckpt show 'run.pth#model_ema' --format csv",
    "ckpt show resnet50.pth --health",
)


@takes_addresses
def show(
    path: Annotated[
        str,
        typer.Argument(
            metavar="A", autocompletion=state_dicts, help=f"What to look into: {CHECKPOINT}."
        ),
    ],
    tree: Annotated[
        bool, typer.Option("--tree", help="Show a tree of modules with their sizes.")
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", min=0, metavar="N", help="Levels of modules in the tree. Default: 2."
        ),
    ] = None,
    sort: SortOption = Sort.order,
    filters: Filter = None,
    format_: TableFormat = "table",
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
            "--checksum", help="Print the SHA-256 of each of its files, in sha256sum's format."
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
            help="Read every value, and report NaN, zeros, damage and what contradicts config.json "
            "(exit 1 if there is any).",
        ),
    ] = False,
    html: Html = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: ColorOption = Color.auto,
    debug: Debug = False,
) -> None:
    """Show what a checkpoint contains.

    Its tensors, with dtypes, shapes and sizes, and what else is in the file.

    Exit 0 when it is shown, 2 when it can't be read; --strict and --health also exit 1.
    """
    from ckpt_tool import api
    from ckpt_tool.formats import open_checkpoint
    from ckpt_tool.report.show import checksums_text, show_json

    is_tree = tree or depth is not None
    asked = {
        "--tree": is_tree, "--health": health, "--checksum": checksum, "--digests": digests,
        "--keys": keys, "--json": json,
    }  # fmt: skip
    lists = [name for name, is_asked in asked.items() if is_asked]
    check_table_format(format_)
    _check_lists(lists)
    _check_looks(lists, format_, sort, filters, strict)
    if health:
        if html:
            raise InputError("--health", "has no report page")
        raise typer.Exit(_show_health(path, json, quiet, style_of(color, verbose)))
    with open_checkpoint(path) as opened:
        checkpoint = api.filtered(opened, filters) if filters else opened
        if html:
            from ckpt_tool.report.page.show import show_page
            from ckpt_tool.report.show import closing_text

            answer = closing_text(checkpoint, opened.catalog if filters else None)
            write_page(html, show_page(checkpoint, answer), quiet)
        if json:
            from ckpt_tool.report.parts.json_text import to_json

            sums = {"sha256": checkpoint.checksums(watching(False))} if checksum else {}
            report = show_json(checkpoint) | sums
            show_result(to_json(report | {"next": None}))
        elif checksum:
            show_file(checksums_text(checkpoint.checksums(watching(not quiet))))
        elif keys or digests:
            show_file(_key_list(checkpoint, digests, watching(digests and not quiet)))
        elif not quiet:
            look = _Look(is_tree, depth, sort.value, format_, bool(filters))
            _show(checkpoint, opened, look, style_of(color, verbose))
        raise typer.Exit(NO if strict and checkpoint.asked else YES)


@dataclass(frozen=True, slots=True)
class _Look:
    """How tensors are listed."""

    is_tree: bool
    depth: int | None
    sort: str
    table: str
    is_filtered: bool


_TOGETHER = ({"--digests", "--keys"}, {"--checksum", "--json"}, {"--health", "--json"})
"""Lists that are one when they are asked for together."""
_WHOLE = ("--health", "--checksum")
"""Lists that are of whole files, whatever is filtered."""
_OF_WHOLE = "that is of whole files; leave out --filter"


def _check_lists(lists: "Sequence[str]") -> None:
    """Raises InputError for lists of which only one could be printed."""
    if len(lists) > 1 and set(lists) not in _TOGETHER:
        raise InputError(lists[0], f"can't be asked together with {lists[1]}", "leave out one")


def _check_looks(
    lists: "Sequence[str]", table: str, sort: Sort, filters: list[str] | None, strict: bool
) -> None:
    """Raises InputError for options that would change nothing of the list that is asked for."""
    if table != "table" and lists:
        raise InputError("--format", "is for the list of tensors", f"leave out {lists[0]}")
    if sort is not Sort.order and lists not in ([], ["--tree"]):
        fact = f"is for the list of tensors and --tree; {lists[0]} has an order of its own"
        raise InputError("--sort", fact, "leave it out")
    if filters and (whole := [name for name in lists if name in _WHOLE]):
        raise InputError("--filter", f"can't be asked together with {whole[0]}", _OF_WHOLE)
    if strict and "--health" in lists:
        raise InputError(
            "--strict", "can't be asked together with --health", "run one after the other"
        )


def _show(checkpoint: "Checkpoint", opened: "Checkpoint", look: _Look, style: "Style") -> None:
    """Prints the tensors as a list, as a tree, or as a table of some format."""
    from ckpt_tool.report.show import closing_text, show_text

    of = opened.catalog if look.is_filtered else None
    if look.table != "table":
        from ckpt_tool.report.tables import show as tables

        table = tables.show_table(checkpoint, style, look.sort)
        show_table(table, look.table, closing_text(checkpoint, of))
    elif look.is_tree:
        from ckpt_tool.report.layouts.tree import tree_text

        show_report(tree_text(checkpoint, style, look.depth, look.sort, of), style)
    else:
        show_report(show_text(checkpoint, style, look.sort, of), style)


def _show_health(path: str, json: bool, quiet: bool, style: "Style") -> int:
    """Prints what is wrong, and gives the exit status."""
    from ckpt_tool.examining import examine_path
    from ckpt_tool.mapping.params import read_config
    from ckpt_tool.report.health import health_json, health_text

    found = examine_path(path, read_config, watching(not quiet))
    if json:
        from ckpt_tool.report.parts.json_text import to_json

        show_result(to_json(health_json(found)))
    elif not (quiet and found.is_healthy):
        show_report(health_text(found, style), style)
    return YES if found.is_healthy else NO


def _key_list(checkpoint: "Checkpoint", digests: bool, watch: "Watch") -> str:
    """Its key list. Raises InputError where digests are asked of what has no values."""
    from ckpt_tool.formats import format_key_list

    if digests and not checkpoint.has_digests:
        raise InputError(checkpoint.path, "is a key list without digests: it has no values")
    if not digests:
        return format_key_list(checkpoint.catalog)
    with watch(checkpoint.catalog.nbytes) as on_progress:

        def digest(key: str) -> str:
            found = checkpoint.digest(key)
            on_progress(checkpoint.catalog[key].nbytes)
            return found

        return format_key_list(checkpoint.catalog, digest)
