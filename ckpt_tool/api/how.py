"""How tensors are to be mapped: everything that a command line can say about it, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckpt_tool.tensors import DType

DTypePolicy = Literal["strict", "target", "source"] | DType
"""What happens where dtypes differ: see `ckpt_tool.mapping.dtypes`."""


@dataclass(frozen=True, slots=True)
class How:
    """How tensors are mapped: by rule files and inline rules, or `by` name, position or alignment.

    `settings` are the numbers of parameters (`--set`); `dtypes` says what happens where dtypes differ; `expect` is the
    number of target tensors that must be mapped; `min_confidence` (0 to 1) is what pairs by alignment need.
    """

    rules: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    by: Literal["name", "position", "auto"] | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    dtypes: DTypePolicy = "strict"
    force_order: bool = False
    expect: int | None = None
    min_confidence: float | None = None
