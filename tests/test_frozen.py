"""`frozen` gives what `dataclass(frozen=True, slots=True)` gives, value by value."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import (
    FrozenInstanceError,
    asdict,
    astuple,
    dataclass,
    field,
    fields,
    make_dataclass,
    replace,
)
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_tool.frozen import frozen


def body() -> dict[str, Any]:
    return {
        "a": 3,
        "b": field(default_factory=tuple),
        "note": field(default="", compare=False),
        "hidden": field(default=None, repr=False),
        "__annotations__": {"x": "int", "a": "int", "b": "tuple", "note": "str", "hidden": "object"},
        "__module__": __name__,
    }


Own = frozen(type("Own", (), {"__doc__": "Ours.", **body(), "__qualname__": "Value"}))
Value = dataclass(frozen=True, slots=True)(type("Value", (), {"__doc__": "Theirs.", **body()}))


@frozen
class One:
    """With one field, and what must be so."""

    x: float

    def __post_init__(self) -> None:
        if self.x == 7:
            raise ValueError("seven")


@frozen
class Empty:
    """Without fields."""


@dataclass(frozen=True)
class Derived(One):
    """A class that is derived by `dataclass`."""

    y: int = 2


VALUES = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.tuples(st.booleans()), st.sampled_from("ab"), st.none() | st.integers(0, 1)
)


@given(VALUES, VALUES)
def test_values_are_those_of_a_dataclass(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    mine, others = Own(*one), Own(*other)
    theirs, their_others = Value(*one), Value(*other)
    assert repr(mine) == repr(theirs)
    assert (mine == others) is (theirs == their_others)
    assert (hash(mine) == hash(others)) is (hash(theirs) == hash(their_others))
    assert asdict(mine) == asdict(theirs)
    assert astuple(mine) == one
    assert replace(mine, a=9) == Own(one[0], 9, *one[2:])
    assert [each.name for each in fields(mine)] == [each.name for each in fields(theirs)]
    assert Own.__match_args__ == Value.__match_args__
    assert copy.deepcopy(mine) == mine


def test_defaults_are_made_anew() -> None:
    assert astuple(Own(1)) == astuple(Value(1)) == (1, 3, (), "", None)
    assert Own(x=1, a=2) == Own(1, 2)
    with pytest.raises(TypeError):
        Own()
    with pytest.raises(TypeError):
        Own(1, unknown=2)


def test_nothing_can_be_changed() -> None:
    one = One(1.0)
    for change in (lambda: setattr(one, "x", 2.0), lambda: setattr(one, "y", 2.0), lambda: delattr(one, "x")):
        with pytest.raises((FrozenInstanceError, TypeError)):
            change()
    assert not hasattr(one, "__dict__")
    assert one.x == 1.0


def test_it_is_checked_pickled_and_derived_from() -> None:
    with pytest.raises(ValueError, match="seven"):
        One(7)
    assert pickle.loads(pickle.dumps(One(2.5))) == One(2.5)
    assert Derived(1.0) == Derived(1.0, 2) != Derived(1.0, 3)
    assert repr(Derived(1.0)) == "Derived(x=1.0, y=2)"
    assert (Empty() == Empty(), repr(Empty()), hash(Empty()) == hash(Empty())) == (True, "Empty()", True)
    assert One(1.0) != Derived(1.0)
    nan = float("nan")
    reference = make_dataclass("Reference", ["x"], frozen=True)
    assert (One(nan) == One(nan)) is (reference(nan) == reference(nan))  # from Python 3.13 on no NaN equals itself


def test_methods_of_the_class_stay() -> None:
    @frozen
    class Caseless:
        """Equal whatever the case."""

        name: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Caseless) and self.name.lower() == other.name.lower()

        def __repr__(self) -> str:
            return self.name

    assert Caseless("A") == Caseless("a")
    assert repr(Caseless("A")) == "A"
    assert hash(Caseless("A")) != hash(Caseless("a"))  # as dataclass does


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="dataclass makes them there")
def test_what_it_can_not_make_is_refused() -> None:
    with pytest.raises(TypeError, match="has bases"):

        @frozen
        class Below(One):
            """With a base."""

    with pytest.raises(TypeError, match="dataclass"):

        @frozen
        class Named:
            """With a field that is given by name."""

            x: int = field(default=1, kw_only=True)

    with pytest.raises(TypeError, match="dataclass"):

        @frozen
        class Unhashed:
            """With a field that is compared and not hashed."""

            x: int = field(default=1, hash=False)
