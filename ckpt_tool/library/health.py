"""`ckpt_tool.health`: what `ckpt show --health` says, as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ckpt_tool.api import open_side
from ckpt_tool.examining import Health, examine, examine_path
from ckpt_tool.library.notebook import PrintedInNotebooks
from ckpt_tool.library.words import speaks_python
from ckpt_tool.mapping import read_config
from ckpt_tool.report.health import health_text
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given


@dataclass(frozen=True, slots=True, repr=False)
class HealthReport(PrintedInNotebooks, Health):
    """What is wrong with weights; `print()` shows it as `ckpt show --health` does.

    `is_healthy` is the answer: nothing is wrong, and no tensor of the state dict is `unreadable`.
    `findings` have a `kind`, a `subject` (the key or the file) and a
    `text`.
    """

    def __str__(self) -> str:
        return health_text(self)

    def __repr__(self) -> str:
        found = plural(len(self.findings), "finding") if self.findings else ""
        unread = f"{self.unreadable:,} unreadable" if self.unreadable else ""
        return f"HealthReport({', '.join(filter(None, (found, unread))) or 'healthy'})"


@speaks_python
def health(given: Given) -> HealthReport:
    """Reads every value of a checkpoint, a state dict or a module once, and reports what is wrong.

    NaN and infinity, tensors and rows of zeros, matrices that are far from those in the same place
    of other layers, storage that is shared for no reason that can be seen, scales that are zero or
    negative; of files also what is damaged, digests in the hub's cache, an index that is another's,
    and what a config.json beside them contradicts.

    Raises InputError for what can't be opened, or has no values.

    >>> import ckpt_tool, torch
    >>> layer = torch.nn.Linear(4, 10)
    >>> ckpt_tool.health(layer)
    HealthReport(healthy)
    >>> _ = torch.nn.init.constant_(layer.bias, float("nan"))
    >>> ckpt_tool.health(layer).findings[0].kind
    'nan'
    """
    if isinstance(given, str | os.PathLike):
        found = examine_path(given, read_config)
    else:
        with open_side(given) as checkpoint:
            found = examine(checkpoint)
    return HealthReport(**{each.name: getattr(found, each.name) for each in fields(Health)})
