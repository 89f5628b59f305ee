"""A description that was read by ranges: the values, and all that only the whole file can tell,
when they are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.remote.access import option

Read = Callable[[SourceFile], Contents]


def deferred(contents: Contents, file: SourceFile, read: Read) -> Contents:
    """The same, whose placements are found when the first is asked for: then the whole file is read
    as strictly as a file that lies here.
    """
    whole = _Whole(contents, file, read)
    return replace(
        contents,
        placements=_Deferred(contents.placements, lambda: whole.contents().placements),
        beside=_Deferred(contents.beside, lambda: whole.contents().beside),
    )


class _Whole:
    """The contents of the whole file, read once."""

    def __init__(self, described: Contents, file: SourceFile, read: Read) -> None:
        self._described, self._file, self._read = described, file, read
        self._contents: Contents | None = None
        self._lock = threading.Lock()

    def contents(self) -> Contents:
        """Raises FormatError where the file isn't what its description said."""
        with self._lock:
            if self._contents is None:
                self._contents = self._checked(self._whole())
            return self._contents

    def _whole(self) -> Contents:
        file = self._file.whole()
        try:
            return self._read(file)
        except FormatError as error:
            raise file.refused(error) from None

    def _checked(self, found: Contents) -> Contents:
        if dict(found.catalog) != dict(self._described.catalog) or (
            found.taken != self._described.taken
        ):
            raise FormatError(
                self._file.path,
                "has other tensors than the parts of it that were read before",
                f"it was changed meanwhile; run it again, with {option('refresh')}",
            )
        return found


class _Deferred(Mapping[str, Placement]):
    """Known keys, whose placements come later."""

    def __init__(
        self, known: Mapping[str, Placement], find: Callable[[], Mapping[str, Placement]]
    ) -> None:
        self._keys, self._find = dict.fromkeys(known), find

    def __getitem__(self, key: str) -> Placement:
        if key not in self._keys:
            raise KeyError(key)
        return self._find()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys
