"""What is written behind options, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from ckpt_tool.api import DTypePolicy


def setting(text: str) -> tuple[str, int]:
    """The name and the number of `--set`. Raises InputError."""
    name, equals, number = text.partition("=")
    if not (name and equals and number.isdecimal() and len(number) <= 18):
        raise InputError("--set", f"`{text}` is not NAME=NUMBER")
    return name, int(number)


def dtype_policy(text: str | None) -> DTypePolicy:
    """What `--dtype` says. Raises InputError."""
    if text is None:
        return "strict"
    if text.lower() == "target":
        return "target"
    if text.lower() == "source":
        return "source"
    found = next(
        (dtype for dtype in DType if dtype.value == text.upper() and dtype.is_floating), None
    )
    if found is None:
        names = " ".join(dtype.value for dtype in DType if dtype.is_floating)
        raise InputError(
            "--dtype", f"`{text}` is neither `target`, `source`, nor a floating type ({names})"
        )
    return found
