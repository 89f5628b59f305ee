"""Frozen dataclasses that are made in a fifth of the time.

Before Python 3.13, `dataclass(frozen=True)` compiles six functions for each class. A command of
0.1 s has some ninety classes, and a quarter of its time went into that. Here only `__init__` is
compiled; the other functions are the same for all classes.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

T = TypeVar("T")

if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True)
    def frozen(cls: type[T]) -> type[T]:
        """As `dataclass(frozen=True, slots=True)`."""

else:

    def frozen(cls: type[T]) -> type[T]:
        """As `dataclass(frozen=True, slots=True)`, for classes without bases whose fields have
        nothing but defaults.

        >>> @frozen
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> Point(1) == Point(1, 0), Point(2)
        (True, Point(x=2, y=0))
        """
        if sys.version_info >= (3, 13):
            return dataclass(frozen=True, slots=True)(cls)
        if cls.__bases__ != (object,):
            raise TypeError(f"{cls.__name__} has bases: make it by dataclass(frozen=True)")
        cls.__doc__ = cls.__doc__ or ""  # else its signature is looked at to make one
        made = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
        made.__dataclass_params__.frozen = True  # for classes that are derived from it
        parts = fields(made)
        compared = [each.name for each in parts if each.compare]
        shown = [each.name for each in parts if each.repr]
        own = {
            "__init__": _init(made, parts),
            "__setattr__": _set,
            "__delattr__": _delete,
            "__getstate__": _state,
            "__setstate__": _restore,
            "__repr__": _repr(shown),
            **_comparisons(compared),
        }
        for name, function in own.items():
            if vars(cls).get(name) is None:  # a class with an `__eq__` has no `__hash__`: None
                setattr(made, name, function)
        return made


def _init(cls: type, parts: Sequence[Field[Any]]) -> Callable[..., None]:
    known: dict[str, Any] = {"MISSING": MISSING}
    arguments, lines = [], []
    for at, part in enumerate(parts):
        name, value = part.name, part.name
        if part.kw_only or not part.init or part.hash is not None:
            raise TypeError(f"{cls.__name__}.{name}: make it by dataclass(frozen=True)")
        argument = name
        if part.default is not MISSING:
            known[f"default{at}"], argument = part.default, f"{name}=default{at}"
        elif part.default_factory is not MISSING:
            known[f"make{at}"], argument = part.default_factory, f"{name}=MISSING"
            value = f"make{at}() if {name} is MISSING else {name}"
        known[f"set{at}"] = vars(cls)[name].__set__
        arguments.append(argument)
        lines.append(f"  set{at}(self, {value})\n")
    if hasattr(cls, "__post_init__"):
        lines.append("  self.__post_init__()\n")
    text = f"def __init__(self, {', '.join(arguments)}):\n{''.join(lines) or '  pass'}"
    exec(text, known)
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    made.__annotations__ = {part.name: part.type for part in parts} | {"return": None}
    return made


def _comparisons(names: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """`__eq__` and `__hash__` of these fields, which are those of a tuple of them."""
    values: Callable[[object], tuple[object, ...]] = (
        attrgetter(*names)
        if len(names) > 1
        else lambda self: tuple(getattr(self, name) for name in names)
    )

    def equal(self: object, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def hashed(self: object) -> int:
        return hash(values(self))

    return {"__eq__": equal, "__hash__": hashed}


def _repr(names: Sequence[str]) -> Callable[[object], str]:
    def shown(self: object) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({values})"

    return shown


def _set(self: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:
    return [getattr(self, part.name) for part in fields(self)]


def _restore(self: Any, state: list[object]) -> None:
    for part, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, part.name, value)
