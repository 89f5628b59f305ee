"""`ckpt textconv FILE`: what `git diff` compares of a checkpoint."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.options import Debug
from ckpt_tool.cli.output import show_file

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint

LFS_POINTER = b"version https://git-lfs"

EXAMPLES = ("ckpt textconv resnet50.pth",)
TAKES_ANY_NAME = True


def textconv(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A checkpoint, as git gives it.")],
    debug: Debug = False,
) -> None:
    """Print a checkpoint as lines that `git diff` can compare.

    One line for each tensor, with the digest of its values; then the other values.

    Set up with `git config diff.ckpt.textconv "ckpt textconv"` and `*.safetensors diff=ckpt` in
    .gitattributes. It never fails, because git would stop: for a file that can't be read it prints
    the reason and the SHA-256, for a Git LFS pointer the pointer's own lines.
    """
    show_file("\n".join(_lines(path)))


def _lines(path: str) -> Iterator[str]:
    from ckpt_tool.errors import CkptError
    from ckpt_tool.formats import open_checkpoint

    try:
        pointer = _lfs_pointer(path)
    except OSError as error:
        yield f"# can't be read: {(error.strerror or str(error)).lower()}"
        return
    if pointer:
        yield from ("# Git LFS: the file itself is not here", *pointer)
        return
    try:
        with open_checkpoint(path) as checkpoint:
            lines = list(_of_checkpoint(checkpoint))
    except CkptError as error:
        lines = [f"# can't be read as a checkpoint: {getattr(error, 'fact', error)}", _sum(path)]
    yield from lines


def _of_checkpoint(checkpoint: "Checkpoint") -> Iterator[str]:
    """The key list of the state dict, then everything besides."""
    from ckpt_tool.formats import format_key_list
    from ckpt_tool.report.parts.style import safe

    for side in (checkpoint, checkpoint.outside()):
        digest = side.digest if side.has_digests and side.catalog else None
        yield from format_key_list(side.catalog, digest).splitlines()
        for key, unreadable in side.catalog.unreadable.items():
            yield f"{safe(key)}\t{safe(str(unreadable.kind))}"
    for name, text in sorted(checkpoint.metadata.items()):
        yield f"# metadata {safe(name)}: {safe(text)}"
    for extra in checkpoint.extras:
        where = f" {safe(extra.path)}" if extra.path else ""
        yield f"# {extra.kind}{where}: {safe(extra.text)}"


def _lfs_pointer(path: str) -> list[str]:
    with open(path, "rb") as file:
        head = file.read(1024)
    return head.decode(errors="replace").splitlines() if head.startswith(LFS_POINTER) else []


def _sum(path: str) -> str:
    from ckpt_tool.formats.files import sha256_at

    return f"sha256\t{sha256_at(path)}"
