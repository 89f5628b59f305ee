"""Matching keys against patterns, one at a time or many patterns at once, and rendering patterns
back into keys.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ckpt_tool.keys.affine import Bounds, LinearNumber, solve, unsolvable
from ckpt_tool.keys.pattern import (
    Choice,
    Hole,
    Number,
    Pattern,
    PatternError,
    Rest,
    Star,
    Text,
    Token,
)

Binding = dict[str, int | str]
"""What each hole stood for: a number by its name, a choice or table by the index of its word, stars
and rests by their text.
"""

MAX_TOGETHER = 100
"""Patterns that are one regular expression, which tries them one by one; more are found by the text
that they begin with.
"""
_NUMBER = "(0|[1-9][0-9]{0,17})"


class Matcher:
    """One pattern, ready to match.

    The regular expression is generated from the parsed pattern: its only loops are runs of digits,
    one name, and one rest, so a match takes at most the square of the key's length. No text of the
    user is read as a regular expression.
    """

    __slots__ = (
        "__weakref__",
        "_plain_numbers",
        "_readers",
        "_regex",
        "bounds",
        "expression",
        "pattern",
    )

    def __init__(self, pattern: Pattern, bounds: Bounds | None = None) -> None:
        """`bounds` adds ranges of numbers that were given elsewhere in the rule. Raises
        PatternError for insoluble numbers.
        """
        self.pattern = pattern
        self.bounds = {**(bounds or {}), **pattern.bounds}
        affines = [token.affine for token in pattern.tokens if isinstance(token, Number)]
        if (culprit := unsolvable(affines, self.bounds)) is not None:
            start, end = pattern.span(Number(culprit))
            message = (
                f"`{{{culprit}}}` can't be worked out backwards; bound all its numbers but one, "
                f"as in `{{j=0..2}}`"
            )
            raise PatternError(message, start, end - start)
        self._plain_numbers = _plain_numbers(pattern, self.bounds)
        self._readers = tuple(self._reader(hole) for hole in pattern.holes)
        self.expression = "".join(
            _expression(token, len(pattern.tokens)) for token in pattern.tokens
        )
        self._regex: re.Pattern[str] | None = None

    def _reader(self, hole: Hole) -> tuple[str, dict[str, int] | None, LinearNumber | None]:
        """How a hole's text is read: its id, and the places of its words or the sum to be
        solved.
        """
        if isinstance(hole, Choice):
            return hole.id, {word: i for i, word in enumerate(hole.words)}, None
        if isinstance(hole, Number):
            name = hole.affine.names[0]
            return name, None, None if name in self._plain_numbers else hole.affine
        return hole.id, None, None

    def match(self, key: str) -> Binding | None:
        """What the holes stand for if the whole key matches, else None."""
        if self._regex is None:
            self._regex = re.compile(self.expression, re.DOTALL)
        found = self._regex.fullmatch(key)
        return self.decode(found.groups()) if found else None

    def decode(self, texts: Sequence[str]) -> Binding | None:
        """The binding for the texts of the holes, or None where the numbers have no solution."""
        binding: Binding = {}
        equations = []
        for (id, words, affine), text in zip(self._readers, texts, strict=True):
            if words is not None:
                binding[id] = words[text]
            elif affine is not None:
                equations.append((affine, int(text)))
            elif id in self._plain_numbers:
                binding[id] = int(text)
            else:
                binding[id] = text
        if equations:
            numbers = solve(equations, self.bounds)
            if numbers is None:
                return None
            binding.update(numbers)
        return binding


def _plain_numbers(pattern: Pattern, bounds: Bounds) -> frozenset[str]:
    """Numbers that stand once, by themselves and without bounds: their text is their value, nothing
    is to be solved.
    """
    affines = [token.affine for token in pattern.tokens if isinstance(token, Number)]
    count = Counter(name for affine in affines for name in affine.names)
    plain = {affine.names[0] for affine in affines if _is_name_alone(affine)}
    return frozenset(name for name in plain if count[name] == 1 and name not in bounds)


def _is_name_alone(affine: LinearNumber) -> bool:
    return affine.constant == 0 and affine.terms == ((affine.names[0], 1),)


def _expression(token: Text | Star | Rest | Number | Choice, tokens: int) -> str:
    match token:
        case Text(text):
            return re.escape(text)
        case Star():
            return r"([^.]+)"
        case Rest():
            # Alone, `**` means every key, the empty one included.
            return r"(.+)" if tokens > 1 else r"(.*)"
        case Number():
            return _NUMBER
        case Choice(words=words):
            # Where several words fit, the longest is tried first.
            return f"({'|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True))})"


class PatternSet:
    """Several patterns in order of precedence; the first that matches a key takes it."""

    __slots__ = ("_all", "_by_head", "_lengths", "_order", "matchers")

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self.matchers = tuple(matchers)
        self._order: list[int] = []
        self._by_head: dict[str, list[int]] = defaultdict(list)
        self._all: re.Pattern[str] | None = None
        heads = [_head(matcher.pattern) for matcher in self.matchers]
        if len(heads) > MAX_TOGETHER:
            for i, (text, _) in enumerate(heads):
                self._by_head[text].append(i)
            self._lengths = sorted({len(text) for text in self._by_head})
            return
        shapes = [
            (text, "".join(_shape(token, len(matcher.pattern.tokens)) for token in rest), i)
            for i, (matcher, (text, rest)) in enumerate(zip(self.matchers, heads, strict=True))
        ]
        alternatives = "|".join(_alternatives(shapes, self._order))
        self._all = re.compile(alternatives, re.DOTALL) if self.matchers else None

    def first(self, key: str) -> tuple[int, Binding] | None:
        """The index of the first pattern that matches, with its binding."""
        if self._by_head:
            heads = (key[:length] for length in self._lengths if length <= len(key))
            return self._first_of(
                sorted(i for head in heads for i in self._by_head.get(head, ())), key
            )
        found = self._all.fullmatch(key) if self._all else None
        if not found or not found.lastindex:
            return None
        return self._first_of(range(self._order[found.lastindex - 1], len(self.matchers)), key)

    def _first_of(self, places: Iterable[int], key: str) -> tuple[int, Binding] | None:
        for i in places:
            if (binding := self.matchers[i].match(key)) is not None:
                return i, binding
        return None

    def all(self, key: str) -> list[int]:
        """The indices of all patterns that match."""
        return [i for i, matcher in enumerate(self.matchers) if matcher.match(key) is not None]


def _head(pattern: Pattern) -> tuple[str, tuple[Token, ...]]:
    """The text that a pattern begins with, and the tokens behind it."""
    first = pattern.tokens[0] if pattern.tokens else Text("")
    return (first.text, pattern.tokens[1:]) if isinstance(first, Text) else ("", pattern.tokens)


def _shape(token: Token, tokens: int) -> str:
    """The expression of a token without a group of its own."""
    expression = _expression(token, tokens)
    return expression if isinstance(token, Text) else f"(?:{expression[1:]}"


def _alternatives(shapes: Sequence[tuple[str, str, int]], order: list[int]) -> Iterator[str]:
    """A group for each shape (text, the rest, number), in order; neighbours share what their texts
    begin with.

    `order` gets the number of each group.
    """
    for character, run in groupby(shapes, key=lambda shape: shape[0][:1]):
        members = list(run)
        if len(members) == 1 or not character:
            for text, rest, number in members:
                order.append(number)
                yield f"({re.escape(text)}{rest})"
            continue
        shared = _shared_start([text for text, _, _ in members])
        inner = "|".join(
            _alternatives(
                [(text[len(shared) :], rest, number) for text, rest, number in members], order
            )
        )
        yield f"{re.escape(shared)}(?:{inner})"


def _shared_start(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    return first[
        : next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
            min(len(first), len(last)),
        )
    ]


class Renderer:
    """One pattern, ready to give keys for bindings."""

    __slots__ = ("_parts",)

    def __init__(self, pattern: Pattern) -> None:
        self._parts = tuple(_part(token) for token in pattern.tokens)

    def __call__(self, binding: Mapping[str, int | str]) -> str:
        """The key for a binding. Raises ValueError where a number would be negative."""
        parts = []
        for text, id, words, affine in self._parts:
            if id is None:
                parts.append(text)
            elif words is not None:
                parts.append(words[binding[id]])  # type: ignore[index]
            elif affine is not None:
                parts.append(_number(affine, binding))
            else:
                parts.append(str(binding[id]))
        return "".join(parts)


_Part = tuple[str, str | None, tuple[str, ...] | None, LinearNumber | None]
"""A token's text, or the id of what stands for it with its words or its sum."""


def _part(token: Token) -> _Part:
    match token:
        case Text(text):
            return text, None, None, None
        case Choice(id=id, words=words):
            return "", id, words, None
        case Number(affine):
            is_plain = affine == LinearNumber(((affine.names[0], 1),))
            return "", affine.names[0], None, None if is_plain else affine
        case Star(id) | Rest(id):
            return "", id, None, None


def _number(affine: LinearNumber, binding: Mapping[str, int | str]) -> str:
    number = affine.value(binding)  # type: ignore[arg-type]
    if number < 0:
        raise ValueError(f"`{{{affine}}}` would be {number}")
    return str(number)


def render(pattern: Pattern, binding: Mapping[str, int | str]) -> str:
    """The key that a pattern gives for a binding. Raises ValueError where a number would be
    negative.
    """
    return Renderer(pattern)(binding)
