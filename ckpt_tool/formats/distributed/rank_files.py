"""The files of several processes, each a pickle in torch's archive: opened together, read as
data.
"""

from __future__ import annotations

import os

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Extra
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.folder import Folder, LocalFolder
from ckpt_tool.formats.limits import EXTRAS, OPEN_SHARDS
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.formats.torch_files.tensor_layout import Measured, check_inside, measure_tensor
from ckpt_tool.formats.torch_files.zip_archive import read_pickle

MAX_RANKS = 1 << 16
"""Processes of one training run; the largest that are known had some ten thousand."""
SHOWN = 3
"""Names that a message lists before it counts the others."""


class RankFiles:
    """The open files of a folder by name, each with its pickle. Whoever can't use them closes
    them.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.pickles: dict[str, PickledFile] = {}
        self._files: dict[str, SourceFile] = {}

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The files in the order in which they were opened."""
        return tuple(self._files.values())

    def open(self, name: str) -> PickledFile:
        """One more. Raises FormatError for what is not an archive of torch, or leads elsewhere."""
        check_stays(self.folder, name)
        file = self._files[name] = self.folder.open(name)
        self.pickles[name] = read_pickle(_archive(file))
        if len(self._files) > OPEN_SHARDS:
            file.release()
        return self.pickles[name]

    def close(self) -> None:
        """Closes all of them."""
        for file in self.files:
            file.close()

    @property
    def asked(self) -> tuple[Extra, ...]:
        """What unpickling the files would call or import, each once, with the first that asks."""
        found: dict[tuple[str, str], Extra] = {}
        for name, pickled in self.pickles.items():
            for kind, texts in (("call", pickled.asked.calls), ("import", pickled.asked.imports)):
                for text in texts:
                    found.setdefault((kind, text[:200]), Extra(name, kind, text[:200]))
        return tuple(found.values())[:EXTRAS]


def check_stays(folder: Folder, name: str) -> None:
    """Raises FormatError for a link that leads out of the folder; a hub cache's lead to the blobs
    beside its snapshots.
    """
    path = folder.join(name)
    if not isinstance(folder, LocalFolder):
        return
    real, home = os.path.realpath(path), os.path.realpath(folder.path)
    cache, is_cached, _ = home.rpartition(f"{os.sep}snapshots{os.sep}")
    if real.startswith(home + os.sep):
        return
    if is_cached and os.path.dirname(real) == os.path.join(cache, "blobs"):
        return
    raise FormatError(path, "is a link out of its folder", "copy the files of one run together")


def _archive(file: SourceFile) -> SourceFile:
    if not file.size:
        raise FormatError(file.path, "is empty (zero bytes)", AGAIN)
    if file.read(0, min(4, file.size)) != b"PK\3\4":
        raise FormatError(
            file.path, "is not an archive of torch (1.6 and later), as the other parts are", AGAIN
        )
    return file


def measure(tensor: TensorRef, key: str, pickled: PickledFile) -> Measured:
    """A tensor's description, checked. Raises FormatError."""
    measured = measure_tensor(tensor, key, pickled.path, {})
    check_inside(measured, pickled.path, pickled.bytes_of)
    return measured


def locate(tensor: TensorRef, key: str, pickled: PickledFile) -> tuple[Measured, Placement]:
    """A tensor's description, checked, and where its bytes lie. Raises FormatError."""
    measured = measure(tensor, key, pickled)
    return measured, pickled.place(measured)


def refuse_missing(folder: Folder, missing: list[str], count: int) -> None:
    """Raises FormatError that names the files that aren't there."""
    if not missing:
        return
    more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
    are = "is" if len(missing) == 1 else "are"
    fact = (
        f"has {count - len(missing):,} of the files of {count:,} ranks; "
        f"{', '.join(missing[:SHOWN])}{more} {are} missing"
    )
    raise FormatError(folder.path, fact, "copy the files of all ranks into it")
