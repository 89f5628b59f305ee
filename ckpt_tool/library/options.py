"""What the functions of the door are told of how to map, as one value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ckpt_tool.api import DTypePolicy, MappingOptions, Method, dtype_policy


def options_from(
    rules: str | os.PathLike[str] | Sequence[str],
    drop: str | Sequence[str],
    keep: str | Sequence[str],
    by: Method | None,
    partial: bool,
    expect: int | None,
    dtypes: DTypePolicy | str,
    params: Mapping[str, int] | None,
    min_confidence: float | None,
) -> MappingOptions:
    """The options of `plan`, `map` and `verify`. Raises InputError for what means nothing."""
    return MappingOptions(
        rules=rules,  # type: ignore[arg-type]
        drop=drop,  # type: ignore[arg-type]
        keep=keep,  # type: ignore[arg-type]
        by=by,
        params=params or {},
        dtypes=dtype_policy(dtypes),
        expect=expect,
        min_confidence=min_confidence,
        partial=partial,
    )
