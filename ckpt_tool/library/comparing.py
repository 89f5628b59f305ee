"""`ckpt_tool.diff`: what `ckpt diff` says, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ckpt_tool.api import Comparison, diff_checkpoints, diff_hints
from ckpt_tool.comparing import Diff
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.library.words import speaks_python
from ckpt_tool.report.diff import diff_text
from ckpt_tool.wording import type_text

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given


@dataclass(frozen=True, slots=True, repr=False)
class DiffReport(Diff):
    """What differs between two sides; `print()` shows it as `ckpt diff` does.

    `identical` says whether all was compared and nothing differs, `counts` how many keys are the
    same and how many differ in which way, `changes` lists these, `hints` say what explains them.
    """

    hints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return diff_text(self, self.labels, hints=self.hints)

    def _repr_html_(self) -> str:
        from ckpt_tool.report.notebook.reprs import diff_html

        return diff_html(self, self.hints)

    def __repr__(self) -> str:
        found = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        return f"DiffReport({found or 'no tensors'})"


@speaks_python
def diff(
    a: Given,
    b: Given,
    *,
    values: bool = False,
    renames: bool = False,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    rtol: float | None = None,
    atol: float | None = None,
) -> DiffReport:
    """Compares two sides: keys, shapes and dtypes, and with `values` what the tensors hold.

    `a` and `b` are paths, open checkpoints, state dicts or modules. `renames` finds tensors under
    another name. `include` and `exclude` are patterns of keys (`backbone.**`). Values may differ by
    `atol + rtol * |b|`, as in `torch.isclose`, by default 0; NaN equals NaN.

    Costs reading both headers, with `values` both files. Raises InputError for what can't be
    opened or compared, FormatError for a broken file.

    >>> import ckpt_tool, torch
    >>> found = ckpt_tool.diff({"fc.weight": torch.zeros(10, 4)}, torch.nn.Linear(4, 10))
    >>> found
    DiffReport(1 only_a, 2 only_b)
    >>> found.identical, [change.key for change in found.changes]
    (False, ['fc.weight', 'weight', 'bias'])
    """
    options = Comparison(values, renames, _texts(include), _texts(exclude), rtol, atol)
    for name, given in (("a", a), ("b", b)):
        _check_side(name, given)
    found = diff_checkpoints(a, b, options=options)
    hints = tuple(diff_hints(found, found.labels))
    plain = {each.name: getattr(found, each.name) for each in fields(Diff)}
    return DiffReport(**plain, hints=hints)


def _check_side(name: str, given: object) -> None:
    """Raises InputError for what can't be compared, by the argument's own name."""
    known = isinstance(given, str | os.PathLike | Checkpoint | Mapping)
    if not known and not hasattr(given, "state_dict"):
        raise InputError(name, f"is {type_text(given)}", "give a path, a state dict or a module")


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
