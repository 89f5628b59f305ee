"""What a pattern's text alone says of the names of its keys: enough to see that most pairs of
patterns have no key in common.
"""

from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ckpt_tool.frozen import frozen
from ckpt_tool.keys.match import Matcher
from ckpt_tool.keys.pattern import Choice, Hole, Rest, Text


class _Name(NamedTuple):
    """What a name begins with and ends with; of a name that is known both are all of it."""

    begin: str
    end: str
    is_known: bool

    def allows(self, name: str) -> bool:
        """Whether a known name has this beginning and this end, one behind the other."""
        is_long_enough = len(self.begin) + len(self.end) <= len(name)
        return is_long_enough and name.startswith(self.begin) and name.endswith(self.end)


@frozen
class _Outline:
    """What a pattern's text says of the names of its keys, up to the first hole that may stand for
    several names.

    `back` is the same from the back, with the letters reversed; `is_whole` says that there is
    no such hole.
    """

    front: tuple[_Name, ...]
    back: tuple[_Name, ...]
    is_whole: bool


_OUTLINES: WeakKeyDictionary[Matcher, _Outline] = WeakKeyDictionary()
"""Each follows from its pattern alone, and goes with it."""


def may_share_keys(one: Matcher, other: Matcher) -> bool:
    """Whether the names that the patterns' texts fix go together; where not, no key
    matches both.
    """
    source, target = _outline(one), _outline(other)
    if source.is_whole and target.is_whole and len(source.front) != len(target.front):
        return False
    return all(map(_go_together, source.front, target.front)) and all(
        map(_go_together, source.back, target.back)
    )


def _outline(matcher: Matcher) -> _Outline:
    if (found := _OUTLINES.get(matcher)) is None:
        parts = [
            token.text if isinstance(token, Text) else _may_have_dots(token)
            for token in matcher.pattern.tokens
        ]
        front, is_whole = _names(parts)
        back, _ = _names(
            [part[::-1] if isinstance(part, str) else part for part in reversed(parts)]
        )
        found = _OUTLINES[matcher] = _Outline(front, back, is_whole)
    return found


def _may_have_dots(hole: Hole) -> bool:
    return isinstance(hole, Rest) or (
        isinstance(hole, Choice) and any("." in word for word in hole.words)
    )


def _names(parts: Iterable[str | bool]) -> tuple[tuple[_Name, ...], bool]:
    """The names that texts and holes make, and whether that is all; True is a hole that may have
    dots.
    """
    names: list[_Name] = []
    begin, end = "", None
    for part in parts:
        if part is True:
            return (*names, _Name(begin, "", False)), False
        if part is False:
            end = ""
            continue
        first, *others = str(part).split(".")
        begin, end = (begin + first, None) if end is None else (begin, end + first)
        for text in others:
            names.append(_name(begin, end))
            begin, end = text, None
    return (*names, _name(begin, end)), True


def _name(begin: str, end: str | None) -> _Name:
    return _Name(begin, begin, True) if end is None else _Name(begin, end, False)


def _go_together(one: _Name, other: _Name) -> bool:
    """Whether one name can be both."""
    if one.is_known:
        return one.begin == other.begin if other.is_known else other.allows(one.begin)
    if other.is_known:
        return one.allows(other.begin)
    begins = one.begin.startswith(other.begin) or other.begin.startswith(one.begin)
    return begins and (one.end.endswith(other.end) or other.end.endswith(one.end))
