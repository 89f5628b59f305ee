"""Pickles written anew from spans of others: whatever stream the machine reads, the new one says the same, or it is refused."""

from pathlib import Path

from ckpt_tool.engine.whole.outline import Outline, OutlineFault
from ckpt_tool.engine.whole.places import entries
from ckpt_tool.engine.whole.proof import NotProven, prove
from ckpt_tool.engine.whole.removing import removal
from ckpt_tool.engine.whole.splicing import Edit, spliced
from ckpt_tool.errors import FormatError
from ckpt_tool.formats.pickle.graph import key_text
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.torch_files.zip_archive import StorageIds
from tests.hostile import seeds


def streams() -> list[bytes]:
    """The pickles of torch's archives, and others."""
    archives = [seeds.members_of(raw) for raw in seeds.torch_zip() if raw.startswith(b"PK")]
    return seeds.pickles() + [members["data.pkl"] for members in archives if "data.pkl" in members]


def check_splicing(raw: bytes, path: Path) -> None:
    """A stream kept as it is, moved as a whole, and without one of its entries."""
    try:
        root = PickleMachine(raw, persistent=StorageIds().find).load("", "")
        outline = Outline(raw)
    except (FormatError, OutlineFault):
        return
    item = outline.root
    for edits in ([], [Edit(item.start, item.end, lambda splicer: splicer.keep(item.start, item.end, is_moved=True))]):
        _prove(root, outline, edits, ())
    if isinstance(root, dict) and entries(item) and len({key_text(key) for key in root}) == len(root) == len(entries(item)):
        name = outline.name(entries(item)[0][0])
        if name.startswith("\0"):  # no plain value, by whose name nothing is looked for
            return
        try:
            edit = removal(outline, (name,))
        except OutlineFault:
            return
        _prove(root, outline, [edit], [(name,)])


def _prove(root: object, outline: Outline, edits: list[Edit], removed: object) -> None:
    try:
        made = spliced(outline, edits).content
    except OutlineFault:
        return
    try:
        prove(root, made, (), removed)
    except NotProven as error:
        if "can't be compared" not in str(error):
            raise AssertionError(f"the new pickle {error}") from None
