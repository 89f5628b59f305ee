"""`ckpt_tool.scan`: what `ckpt scan` says, as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ckpt_tool.examining.calls import Scan
from ckpt_tool.examining.calls import scan as scan_files
from ckpt_tool.library.notebook import PrintedInNotebooks
from ckpt_tool.report.scan import scan_text
from ckpt_tool.wording import plural


@dataclass(frozen=True, slots=True, repr=False)
class ScanReport(PrintedInNotebooks):
    """What unpickling files would call or import; `print()` shows it as `ckpt scan` does.

    `files` have a `path`, the `calls`, and a `fault` where the file can't be read. `is_clean` says
    that all were read, and that none would call anything.
    """

    files: tuple[Scan, ...]

    @property
    def is_clean(self) -> bool:
        """Whether all files were read, and none would call or import anything."""
        return not any(each.calls or each.fault for each in self.files)

    def __str__(self) -> str:
        return scan_text(self.files)

    def __repr__(self) -> str:
        calling = sum(bool(each.calls) for each in self.files)
        files = plural(len(self.files), "file")
        return f"ScanReport({files}, {calling} would call or import something)"


def scan(*paths: str | os.PathLike[str]) -> ScanReport:
    """What unpickling these files would call or import besides plain tensors; nothing of it is run.

    Of a folder, the checkpoints and pickles in it and in its folders. A pickle need not hold a
    tensor; a file that can't be read is reported with its `fault`. Raises InputError for a folder
    without any.

    >>> import ckpt_tool, pickle, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "settings.pkl")
    >>> with open(path, "wb") as file:
    ...     pickle.dump({"run": os.getcwd}, file)
    >>> ckpt_tool.scan(path).files[0].calls
    ('posix.getcwd',)
    """
    return ScanReport(scan_files(os.fspath(path) for path in paths))
