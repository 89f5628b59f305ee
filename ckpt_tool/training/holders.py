"""Objects that hold others in another way than collections and attributes do, and how what they
hold is replaced: slots, variables of closures, default arguments, arguments of partials.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CellType, FunctionType, MemberDescriptorType
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Variable:
    """The variable of a closure, which may have no value yet."""

    cell: CellType

    def contents(self) -> list[object]:
        """Its value."""
        try:
            return [self.cell.cell_contents]
        except ValueError:
            return []

    def put(self, contents: list[object]) -> None:
        """Gives it another."""
        if contents:
            self.cell.cell_contents = contents[0]
        elif self.contents():
            del self.cell.cell_contents


@dataclass(frozen=True, slots=True)
class Defaults:
    """The default arguments of a function; those by name are a dict like others."""

    function: FunctionType

    def contents(self) -> list[object]:
        """The tuple of them, or None."""
        return [self.function.__defaults__]

    def put(self, contents: list[object]) -> None:
        """Gives the function others."""
        self.function.__defaults__ = contents[0]  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The positional arguments of a partial; those by name are a dict like others."""

    partial: partial[Any]

    def contents(self) -> list[object]:
        """The tuple of them."""
        return [self.partial.args]

    def put(self, contents: list[object]) -> None:
        """Gives the partial others."""
        own = self.partial
        own.__setstate__((own.func, contents[0], own.keywords, vars(own) or None))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of an object, written past its own `__setattr__`."""

    owner: object
    members: tuple[MemberDescriptorType, ...]

    def contents(self) -> list[object]:
        """Pairs of those that have a value, with that."""
        return [(each, value) for each in self.members for value in self._value(each)]

    def put(self, contents: list[object]) -> None:
        """Gives them others."""
        values: dict[MemberDescriptorType, object] = dict(contents)  # type: ignore[arg-type]
        for member in self.members:
            if member in values:
                member.__set__(self.owner, values[member])
            elif self._value(member):
                member.__delete__(self.owner)

    def _value(self, member: MemberDescriptorType) -> list[object]:
        try:
            return [member.__get__(self.owner)]
        except AttributeError:
            return []


Holder: TypeAlias = Variable | Defaults | Arguments | Slots


def holders_in(value: object) -> Iterator[Holder]:
    """What an object is, or has, of these."""
    if isinstance(value, CellType):
        yield Variable(value)
    elif isinstance(value, FunctionType):
        yield Defaults(value)
    elif isinstance(value, partial):
        yield Arguments(value)
    kind: type = type(value)
    if members := _members(kind):
        yield Slots(value, members)


@lru_cache(maxsize=1 << 12)
def _members(kind: type) -> tuple[MemberDescriptorType, ...]:
    """The slots that classes of Python have declared; those of C are not written."""
    return tuple(
        member
        for each in kind.__mro__
        if "__slots__" in vars(each)
        for member in vars(each).values()
        if isinstance(member, MemberDescriptorType)
    )
