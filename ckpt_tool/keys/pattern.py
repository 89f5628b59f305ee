"""Patterns of keys: `layer{s}.{b}.conv{n}.*`, `blocks.{i}.{q,k,v}.weight`, `module.**`.

key   = ( text | "*" | "**" | "{" hole "}" )+     whole keys, always anchored;
                                                  `\\` takes the next character as it is
*     one name between dots        **   one or more names, at most once
hole  = number  {i} {2*i+1} {j=0..2} {j=0..depth-1}
      | choice  {q,k,v} {1..4} {p=gate,up}
      | table   {block}
      | rest    {r=**}
"""

from collections.abc import Mapping
from dataclasses import field, replace

from ckpt_tool.frozen import frozen
from ckpt_tool.keys.affine import LinearNumber

Tables = Mapping[str, tuple[str, ...]]
"""The words of one side of each table, by the table's name."""

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
MAX_CHARACTERS = 10_000
MAX_HOLES = 100
MAX_WORDS = 10_000
"""Words of one choice, numbers between two bounds, and twice as many words in a pattern."""


class PatternError(ValueError):
    """What is wrong in a pattern: characters `start` to `start + length` of its text. `hint` says
    what to write instead.
    """

    def __init__(self, message: str, start: int, length: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.start, self.length, self.hint = message, start, max(length, 1), hint


@frozen
class Text:
    """What stands as it is, without its escapes."""

    text: str


@frozen
class Star:
    """One name, or a part of one: `id` is `*0`, `*1`, … from the left."""

    id: str


@frozen
class Rest:
    """One or more names; `id` is the name it was given, or `**`."""

    id: str


@frozen
class Number:
    """A whole number of at least 0, written without leading zeros."""

    affine: LinearNumber


@frozen
class Choice:
    """One of several words. `id` is its name or its table's, else `{0}`, `{1}`, … from the left."""

    id: str
    words: tuple[str, ...]
    is_table: bool = False


Hole = Star | Rest | Number | Choice
Token = Text | Hole


@frozen
class Pattern:
    """A parsed pattern. `spans` gives each token's place in `text`; `bounds` the ranges that its
    numbers were given.

    `open_bounds` are the ranges, as first and last number, whose ends name parameters;
    `with_numbers` closes them.
    """

    text: str
    tokens: tuple[Token, ...]
    spans: tuple[tuple[int, int], ...]
    bounds: Mapping[str, range]
    open_bounds: Mapping[str, tuple[LinearNumber, LinearNumber]] = field(default_factory=dict)

    @property
    def holes(self) -> tuple[Hole, ...]:
        """The tokens that are no texts, from the left."""
        return tuple(token for token in self.tokens if not isinstance(token, Text))

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of its numbers, each once, from the left."""
        return tuple(
            dict.fromkeys(
                name
                for token in self.tokens
                if isinstance(token, Number)
                for name in token.affine.names
            )
        )

    def span(self, token: Token) -> tuple[int, int]:
        """Where the first token like this one begins and ends in the text."""
        return self.spans[self.tokens.index(token)]

    def __str__(self) -> str:
        return self.text


def with_numbers(pattern: Pattern, numbers: Mapping[str, int]) -> Pattern:
    """The pattern with some of its names replaced by their numbers."""
    if not pattern.open_bounds and not set(pattern.numbers) & set(numbers):
        return pattern
    closed = {
        name: range(first.value(numbers), last.value(numbers) + 1)
        for name, (first, last) in pattern.open_bounds.items()
        if numbers.keys() >= {*first.names, *last.names}
    }
    still_open = {name: ends for name, ends in pattern.open_bounds.items() if name not in closed}
    return replace(
        pattern,
        tokens=tuple(_with_numbers(token, numbers) for token in pattern.tokens),
        bounds={**pattern.bounds, **closed},
        open_bounds=still_open,
    )


def _with_numbers(token: Token, numbers: Mapping[str, int]) -> Token:
    if not isinstance(token, Number):
        return token
    bound = token.affine.bind(numbers)
    return Number(bound) if bound.terms else Text(str(bound.constant))
