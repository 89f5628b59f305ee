"""A file in torch's cache, which knows its address: whoever can't use it hears both, and what has
just come and is no checkpoint doesn't stay.
"""

from __future__ import annotations

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import AGAIN, SourceFile, Truncated
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.web import torch_cache
from ckpt_tool.formats.remote.web.address import Address
from ckpt_tool.formats.unsupported import AGAIN as DOWNLOAD_AGAIN


class CachedFile(SourceFile):
    """A file in the cache, as any file here."""

    __slots__ = ("_access", "_address")

    def __init__(self, path: str, address: Address, access: Access) -> None:
        super().__init__(path)
        self._address, self._access = address, access

    def refused(self, error: FormatError, is_known: bool = True) -> FormatError:
        """The error with the address. A download that is of no known format or cut is removed
        again; so is one that may be cut, as its server told no length.
        """
        if error.path != self.path:
            return error
        is_wrong = not is_known or isinstance(error, Truncated) or not self._has_length()
        if self._is_new() and is_wrong and self._is_unchecked():
            torch_cache.remove(self.path)
            found = "nothing was kept; " + ("run it again" if is_known else "is the address right?")
        elif self._is_new():
            found = f"it is in {self.path}"
        elif self._access.refresh:
            found = f"its server still has the same; {self.path} is the copy in the cache"
        else:
            again = self._access.option("refresh")
            found = f"{self.path} is from an earlier download; {again} asks for it again"
        hint = found if error.hint in (None, AGAIN, DOWNLOAD_AGAIN) else f"{error.hint}; {found}"
        return FormatError(self._address.shown, error.fact, hint, error.place)

    def _is_new(self) -> bool:
        return self._address.url in self._access.memory.downloaded

    def _has_length(self) -> bool:
        """Whether its server had told how long it is."""
        return self._access.memory.downloaded.get(self._address.url, True)

    def _is_unchecked(self) -> bool:
        """Whether no digest has told that it is the file that it should be."""
        return not torch_cache.wanted_digests(self.path, self._access)
