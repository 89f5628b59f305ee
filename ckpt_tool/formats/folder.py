"""The place that a checkpoint's files lie in: what is in it, and how to open one of them. A folder
here; other places in `formats/remote`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Protocol

from ckpt_tool.errors import InputError
from ckpt_tool.formats.files import SourceFile


class Folder(Protocol):
    """What readers of several files need of the place where these lie."""

    @property
    def path(self) -> str:
        """What it is called, as a person may write it."""

    @property
    def is_here(self) -> bool:
        """Whether opening a file costs next to nothing; else many are opened at a time."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    def names(self) -> Collection[str]:
        """The names in it, nothing where it can't be listed. Raises InputError."""

    def has(self, name: str) -> bool:
        """Whether this name is in it; also true where only opening it would tell."""

    def open(self, name: str, header: int = 0) -> SourceFile:
        """A file in it, whose header should have so many bytes, where that is known. Raises
        InputError.
        """

    def join(self, name: str) -> str:
        """The path of what is in it."""

    def parent(self) -> Folder:
        """The folder that it is in."""


class LocalFolder:
    """A folder on this machine; an empty path is the working directory."""

    __slots__ = ("path",)
    is_here = True

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(os.path.abspath(self.path or "."))

    def names(self) -> list[str]:
        """The names in it. Raises InputError."""
        try:
            return os.listdir(self.path or ".")
        except OSError as error:
            raise InputError(self.path, str(error.strerror).lower()) from None

    def has(self, name: str) -> bool:
        """Whether this name is in it, be it a link to nowhere."""
        return os.path.lexists(self.join(name))

    def open(self, name: str, header: int = 0) -> SourceFile:
        """A file in it. Raises InputError."""
        return SourceFile(self.join(name))

    def join(self, name: str) -> str:
        """The path of what is in it."""
        return os.path.join(self.path, name)

    def parent(self) -> LocalFolder:
        """The folder that it is in."""
        return LocalFolder(os.path.dirname(os.path.abspath(self.path or ".")))


def folder_of(path: str) -> LocalFolder:
    """The folder that a file lies in."""
    return LocalFolder(os.path.dirname(path))


def names_in(folder: Folder) -> Collection[str]:
    """The names in it, as far as they are known."""
    try:
        return folder.names()
    except InputError:
        return ()
