"""What is repeated so often in a pickle that it is read in one step instead of by its opcodes."""

from __future__ import annotations

from typing import Protocol

OPCODES_OF_AN_OBJECT = 36
"""What a step stands for, when a pickle's opcodes are counted: those of a tensor."""


class NeedsMemo(Exception):
    """The stream asks the memo for something in a way for which nothing may be missing."""


class Shortcuts(Protocol):
    """A reader of one kind of object. `memo` is the run's; `taken` counts the objects,
    `has_skipped` says whether the memo lacks what was put there by them.

    It is asked where a reference to the memo is followed by `mark`. `keeps_numbers`: whether the
    memo counts what it lacks.
    """

    mark: bytes
    keeps_numbers: bool
    memo: dict[int, object]
    taken: int
    has_skipped: bool

    def read(self, position: int, stack: list[object]) -> int:
        """Puts the objects from this byte on onto the stack; where it stopped."""
