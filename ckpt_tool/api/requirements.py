"""What an answer needs of a side, refused in the same words wherever it is missing."""

from __future__ import annotations

from typing import Protocol, TypeVar

from ckpt_tool.errors import InputError


class HasPath(Protocol):
    """A side: an open checkpoint, a model, a state dict, a key list."""

    @property
    def path(self) -> str:
        """What messages call it."""
        ...


S = TypeVar("S", bound=HasPath)


def with_values(side: S, purpose: str = "to compare") -> S:
    """The side. Raises InputError for a key list, which has no values; `purpose` says what they are
    needed for.
    """
    if not has_values(side):
        raise InputError(
            side.path, f"is a key list: it has no values {purpose}", "give a checkpoint"
        )
    return side


def has_values(side: object) -> bool:
    """Whether a side has tensors, and not their names alone."""
    return bool(getattr(side, "has_values", True))
