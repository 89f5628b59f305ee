"""What must hold of every file, whatever is in it: it is read, or refused with one line; whatever is shown is fit for a terminal."""

import json
from contextlib import suppress
from pathlib import Path

from ckpt_tool.errors import CkptError, InputError
from ckpt_tool.formats import format_key_list, open_checkpoint
from ckpt_tool.formats.checkpoint import Checkpoint
from ckpt_tool.report.parts.json_text import to_json
from ckpt_tool.report.parts.style import Style
from ckpt_tool.report.show import show_json, show_text
from tests.hostile.promises import check_error, check_shown

MAX_BYTES = 1 << 20
"""Larger tensors are listed, but their bytes not asked for."""


def check_file(raw: bytes, path: Path) -> None:
    path.write_bytes(raw)
    with suppress(InputError), _reading(str(path)) as checkpoint:
        read_all(checkpoint)


class _reading:  # noqa: N801, a context manager
    """An open checkpoint; an error of ours is checked for its text and passed on."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Checkpoint:
        try:
            self.checkpoint = open_checkpoint(self.path)
        except InputError as error:
            check_error(error)
            raise
        return self.checkpoint

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.checkpoint.close()
        if isinstance(error, CkptError):
            check_error(error)


def read_all(checkpoint: Checkpoint) -> None:
    check_shown(show_text(checkpoint, Style(is_folded=False)))
    check_shown(show_text(checkpoint))
    json.loads(to_json(show_json(checkpoint)))
    listed = format_key_list(checkpoint.catalog)
    check_shown(listed.replace("\t", " "))
    for key, info in checkpoint.catalog.items():
        if checkpoint.has_values and info.nbytes < MAX_BYTES:
            assert len(checkpoint.raw(key)) == info.nbytes, key
