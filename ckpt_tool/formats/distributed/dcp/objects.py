"""What a distributed checkpoint holds besides tensors: each is what `torch.save` wrote, or bytes of
its owner. The small ones are described.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.dcp.metadata import ByteRange
from ckpt_tool.formats.distributed.dcp.parts import Files
from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.pickle.graph import holders
from ckpt_tool.formats.pickle.values import Asked, UnreadObject
from ckpt_tool.formats.torch_files.zip_archive import read_object
from ckpt_tool.formats.window import FileWindow

MAX_READ = 200
"""Objects that are looked into; an optimizer may have thousands."""
MAX_BYTES = MiB // 16


class Objects:
    """The objects by key. `asked` is what unpickling those that were looked into would ask for."""

    def __init__(self, places: Mapping[str, ByteRange], files: Files, are_here: bool) -> None:
        self._places, self._files = places, files
        self._left = MAX_READ if are_here else 0
        self.asked = Asked()

    def describe(self, key: str) -> object:
        """What the object is as data; a stand-in where it is large, or has tensors, or is none of
        torch's archives.
        """
        place = self._places[key]
        stand_in = UnreadObject(f"(object, {place.length:,} bytes, not read)")
        if self._left <= 0 or place.length > MAX_BYTES:
            return stand_in
        self._left -= 1
        window = FileWindow(self._files[place.name], place.offset, place.length, key[:200])
        if window.read(0, min(4, window.size)) != b"PK\3\4":
            return stand_in
        try:
            found = read_object(window, MAX_BYTES)
        except FormatError:
            # What is wrong with it is no matter of the weights; it stays what it is, unread.
            return stand_in
        self.asked = self.asked.and_also(found.asked)
        holding, _ = holders(found.root)
        return stand_in if holding else found.root
