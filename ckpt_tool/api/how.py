"""How tensors are to be mapped: everything that a command line can say about it, as one value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ckpt_tool.errors import InputError
from ckpt_tool.tensors import DType

Way = Literal["name", "position", "auto"]

DTypePolicy = Literal["strict", "target", "source"] | DType
"""What happens where dtypes differ: see `ckpt_tool.mapping.dtypes`."""


@dataclass(frozen=True, slots=True)
class How:
    """How tensors are mapped: by rule files and inline rules, or `by` name, position or alignment.

    `settings` are the numbers of parameters (`--set`); `dtypes` says what happens where dtypes differ; `expect` is the
    number of target tensors that must be mapped; `min_confidence` (0 to 1) is what pairs by alignment need. A text or a path
    stands for a tuple of one. Raises InputError for what means nothing.
    """

    rules: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    by: Way | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    dtypes: DTypePolicy = "strict"
    force_order: bool = False
    expect: int | None = None
    min_confidence: float | None = None

    def __post_init__(self) -> None:
        for name in ("rules", "inline", "drop", "keep"):
            object.__setattr__(self, name, _texts(getattr(self, name)))
        if self.by is not None and self.by not in get_args(Way):
            raise InputError("by", f"`{self.by}` is no way of mapping", f"it is one of {', '.join(get_args(Way))}")
        if not isinstance(self.dtypes, DType) and self.dtypes not in ("strict", "target", "source"):
            raise InputError("dtypes", f"`{self.dtypes}` means nothing", "say `target`, `source`, `strict` or a ckpt_tool.DType")
        for name, number in {"expect": self.expect, **self.settings}.items():
            if number is not None and (type(number) is not int or number < 0):
                raise InputError(name, f"{number!r} is no number of the kind 0, 1, 2, …")
        check_confidence(self.min_confidence)


def _texts(given: object) -> tuple[str, ...]:
    """Texts and paths as a tuple, also where one stands alone."""
    each = (given,) if isinstance(given, str | os.PathLike) else tuple(given or ())  # type: ignore[arg-type]
    return tuple(os.fspath(one) for one in each)


def check_confidence(given: float | None) -> None:
    """Raises InputError for what is no confidence."""
    if given is not None and not 0 <= given <= 1:
        raise InputError("--min-confidence", f"{given:g} is not between 0 and 1")
