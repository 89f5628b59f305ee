"""What the opcodes see of the machine that runs them: its stack, its memo, its place in the stream,
and the few things it does for them; and what it sees of who reads some objects in one step.
"""

from collections.abc import Iterable
from typing import Protocol

from ckpt_tool.formats.pickle.values import Global


class Machine(Protocol):
    """The state of one run over one pickle. `end` is the length of `data`, `pos` the next byte to
    be read.
    """

    data: bytes
    pos: int
    end: int
    stack: list[object]
    marks: list[list[object]]
    memo: dict[int, object]
    made: int

    def persistent(self, identity: object, /) -> object:
        """What stands for a persistent id. Raises PickleFault."""
        ...

    def find_global(self, module: str, name: str) -> Global:
        """What stands for a name: the same object each time."""
        ...

    def call(self, callee: object, args: object) -> object:
        """A description of what a call would make."""
        ...

    def count_copies(self, values: Iterable[object]) -> None:
        """Notes that these are copied once more. Raises PickleFault for too much."""
        ...

    def need_whole_memo(self) -> None:
        """Starts the run again without shortcuts where the memo lacks values."""
        ...

    def note_call(self, name: str) -> None:
        """Adds the name of what unpickling would have called."""
        ...


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
