"""Patterns of keys: `layer{s}.{b}.conv{n}.*`, `blocks.{i}.{q,k,v}.weight`, `module.**`.

key   = ( text | "*" | "**" | "{" hole "}" )+     whole keys, always anchored;
                                                  `\\` takes the next character as it is
*     one name between dots        **   one or more names, at most once
hole  = number  {i} {2*i+1} {j=0..2} {j=0..depth-1}
      | choice  {q,k,v} {1..4} {p=gate,up}
      | table   {block}
      | rest    {r=**}
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ckpt_tool.keys.affine import LinearNumber, parse_affine
from ckpt_tool.keys.quoting import RANGE, split_at, stray_quotation, trim, unescape

Tables = Mapping[str, tuple[str, ...]]
"""The words of one side of each table, by the table's name."""

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_INTEGER = r"[0-9]{1,6}"
MAX_CHARACTERS = 10_000
MAX_HOLES = 100
MAX_WORDS = 10_000
"""Words of one choice, numbers between two bounds, and twice as many words in a pattern."""
MAX_READINGS = 64
"""How many ways a pattern's choices may begin to match alike (`{a,aa}{a,aa}…`), so that matching
stays linear.
"""


class PatternError(ValueError):
    """What is wrong in a pattern: characters `start` to `start + length` of its text. `hint` says
    what to write instead.
    """

    def __init__(self, message: str, start: int, length: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.start, self.length, self.hint = message, start, max(length, 1), hint


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Star:
    """One name, or a part of one: `id` is `*0`, `*1`, … from the left."""

    id: str


@dataclass(frozen=True, slots=True)
class Rest:
    """One or more names; `id` is the name it was given, or `**`."""

    id: str


@dataclass(frozen=True, slots=True)
class Number:
    affine: LinearNumber


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several words. `id` is its name or its table's, else `{0}`, `{1}`, … from the left."""

    id: str
    words: tuple[str, ...]
    is_table: bool = False


Hole = Star | Rest | Number | Choice
Token = Text | Hole


@dataclass(frozen=True, slots=True)
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
        return self.spans[self.tokens.index(token)]

    def __str__(self) -> str:
        return self.text


def parse(text: str, tables: Tables | None = None) -> Pattern:
    """A pattern from its text; `tables` holds the words of this side of each table. Raises
    PatternError.
    """
    if len(text) > MAX_CHARACTERS:
        raise PatternError(
            f"a pattern of {len(text):,} characters; at most {MAX_CHARACTERS:,} are read", 0
        )
    _check_quotation(text)
    tokens: list[Token] = []
    spans: list[tuple[int, int]] = []
    bounds: dict[str, Bound] = {}
    words = 0
    for start, end, raw in _lex(text):
        token = _token(raw, start, tokens, tables or {}, bounds)
        tokens.append(token)
        words += len(token.words) if isinstance(token, Choice) else 0
        if words > 2 * MAX_WORDS or len(tokens) > 2 * MAX_HOLES:
            raise PatternError(
                f"a pattern of more than {2 * MAX_WORDS:,} words, or {2 * MAX_HOLES} parts",
                start,
                end - start,
            )
        spans.append((start, end))
    closed = {name: bound for name, bound in bounds.items() if isinstance(bound, range)}
    still_open = {name: bound for name, bound in bounds.items() if not isinstance(bound, range)}
    pattern = Pattern(text, tuple(tokens), tuple(spans), closed, still_open)
    _check(pattern)
    return pattern


def _check_quotation(text: str, hole: tuple[int, int] | None = None) -> None:
    """Raises PatternError for a quotation mark at either end of a pattern, or of a word of the hole
    that begins there and is so long.
    """
    place = stray_quotation(text)
    if place is not None:
        message = f"the quotation mark `{text[place]}` would become a part of the name"
        hint = (
            "leave it out, or put quotation marks around the whole rule; "
            f"`\\{text[place]}` is the character itself"
        )
        raise PatternError(message, *(hole or (place, 1)), hint)


def with_numbers(pattern: Pattern, numbers: Mapping[str, int]) -> Pattern:
    """The pattern with some of its names replaced by their numbers."""
    if not pattern.open_bounds and not set(pattern.numbers) & set(numbers):
        return pattern
    closing = {
        name: ends
        for name, ends in pattern.open_bounds.items()
        if all(n in numbers for end in ends for n in end.names)
    }
    closed = {
        name: range(first.value(numbers), last.value(numbers) + 1)
        for name, (first, last) in closing.items()
    }
    return replace(
        pattern,
        tokens=tuple(_with_numbers(token, numbers) for token in pattern.tokens),
        bounds={**pattern.bounds, **closed},
        open_bounds={
            name: ends for name, ends in pattern.open_bounds.items() if name not in closed
        },
    )


def _with_numbers(token: Token, numbers: Mapping[str, int]) -> Token:
    if not isinstance(token, Number):
        return token
    bound = token.affine.bind(numbers)
    return Number(bound) if bound.terms else Text(str(bound.constant))


def _lex(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and raw text of each token; escapes are still in place."""
    position = 0
    while position < len(text):
        start = position
        if text.startswith("**", position):
            position += 2
        elif text[position] == "*":
            position += 1
        elif text[position] == "{":
            position = _closing(text, position) + 1
        elif text[position] == "}":
            raise PatternError("`}` without `{`; write `\\}` for the character", position)
        else:
            position = _text_end(text, position)
        yield start, position, text[start:position]


def _text_end(text: str, position: int) -> int:
    while position < len(text) and text[position] not in "*{}":
        position += 2 if text[position] == "\\" else 1
    if position > len(text):
        raise PatternError("a `\\` at the end has nothing to escape", len(text) - 1)
    return position


def _closing(text: str, start: int) -> int:
    position = start + 1
    while position < len(text) and text[position] != "}":
        if text[position] == "{":
            raise PatternError("a hole inside a hole", position)
        position += 2 if text[position] == "\\" else 1
    if position >= len(text):
        raise PatternError("`{` is not closed", start, len(text) - start)
    return position


Bound = range | tuple[LinearNumber, LinearNumber]


def _token(
    raw: str, start: int, before: list[Token], tables: Tables, bounds: dict[str, Bound]
) -> Token:
    if raw == "**":
        return Rest("**")
    if raw == "*":
        return Star(f"*{sum(isinstance(token, Star) for token in before)}")
    if raw[0] != "{":
        return Text(unescape(raw))
    return _hole(trim(raw[1:-1]), start, len(raw), before, tables, bounds)


def _hole(
    body: str,
    start: int,
    length: int,
    before: list[Token],
    tables: Tables,
    bounds: dict[str, Bound],
) -> Token:
    name, *values = split_at(body, "=", most=2)
    if not values:
        return _unnamed_hole(body, start, length, before, tables)
    value = values[0]
    if not re.fullmatch(NAME, name):
        raise PatternError(f"`{name}` is not a name", start, length)
    if value == "**":
        return Rest(name)
    if (bound := _bound(value)) is not None:
        if isinstance(bound, range) and len(bound) > MAX_WORDS:
            raise PatternError(f"`{value}` has more than {MAX_WORDS:,} numbers", start, length)
        if not bound or bounds.setdefault(name, bound) != bound:
            raise PatternError(
                f"`{value}` bounds nothing" if not bound else f"`{name}` is bounded twice",
                start,
                length,
            )
        return Number(LinearNumber(((name, 1),)))
    return Choice(name, _words(value, start, length))


def _bound(text: str) -> Bound | None:
    """`0..2` or `0..depth-1` as a range or its ends; None for a text that is neither."""
    if found := re.fullmatch(RANGE, text):
        return range(int(found[1]), int(found[2]) + 1)
    first, dots, last = text.partition("..")
    ends = [
        LinearNumber((), int(end)) if re.fullmatch(_INTEGER, end) else parse_affine(end)
        for end in (first.strip(), last.strip())
    ]
    return (ends[0], ends[1]) if dots and ends[0] and ends[1] else None


def _unnamed_hole(body: str, start: int, length: int, before: list[Token], tables: Tables) -> Token:
    if body in tables:
        return Choice(body, tables[body], is_table=True)
    if affine := parse_affine(body):
        return Number(affine)
    anonymous = sum(isinstance(token, Choice) and token.id[0] == "{" for token in before)
    return Choice(f"{{{anonymous}}}", _words(body, start, length))


def _instead_of(body: str) -> str | None:
    """What to write instead of a number that is divided."""
    found = re.fullmatch(rf"({NAME})\s*//?\s*([0-9]+)", body)
    if found is None:
        return None
    name, factor = found.groups()
    return (
        f"numbers are only multiplied and added: `{{{factor}*{name}}}` on the other side, "
        f"and `{{{name}}}` here"
    )


def _words(body: str, start: int, length: int) -> tuple[str, ...]:
    parts = split_at(body, ",")
    if len(parts) == 1 and not re.fullmatch(RANGE, body):
        message = (
            f"`{{{body}}}` is neither a number, nor a choice (`{{q,k,v}}`), "
            "nor a table that is declared"
        )
        raise PatternError(message, start, length, _instead_of(body))
    words: list[str] = []
    for word in parts:
        if found := re.fullmatch(RANGE, word):
            if int(found[2]) - int(found[1]) >= MAX_WORDS:
                raise PatternError(f"`{word}` has more than {MAX_WORDS:,} words", start, length)
            if int(found[2]) < int(found[1]):
                raise PatternError(
                    f"`{word}` has no number: the smaller one comes first", start, length
                )
            words.extend(str(number) for number in range(int(found[1]), int(found[2]) + 1))
        elif not word or len(split_at(word, "*")) > 1:
            if not word:
                raise PatternError(
                    "an empty word in a choice",
                    start,
                    length,
                    "write two rules, one with the word and one without",
                )
            raise PatternError("`*` inside a choice", start, length)
        else:
            _check_quotation(word, (start, length))
            words.append(unescape(word))
        if len(words) > MAX_WORDS:
            raise PatternError(f"a choice of more than {MAX_WORDS:,} words", start, length)
    if len(set(words)) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        hint = (
            "several keys become one by an op that joins, as in `{q,k}.w -> qk.w: {concat: 0}`, "
            "and are taken once each"
        )
        raise PatternError(f"`{twice}` stands twice in one choice", start, length, hint)
    return tuple(words)


def _check(pattern: Pattern) -> None:
    """Refuses what could be read in two ways, or would take more than linear time to match."""
    rests = [
        span
        for token, span in zip(pattern.tokens, pattern.spans, strict=True)
        if isinstance(token, Rest)
    ]
    if len(rests) > 1:
        raise PatternError(
            "`**` stands at most once in a pattern", rests[1][0], rests[1][1] - rests[1][0]
        )
    ids = [token.id for token in pattern.tokens if isinstance(token, Rest | Choice)]
    for token, (start, end) in zip(pattern.tokens, pattern.spans, strict=True):
        if isinstance(token, Rest | Choice) and (
            ids.count(token.id) > 1 or token.id in pattern.numbers
        ):
            raise PatternError(f"`{token.id}` names two holes", start, end - start)
    _check_neighbours(pattern)
    if (
        prod(_overlapping(token.words) for token in pattern.tokens if isinstance(token, Choice))
        > MAX_READINGS
    ):
        raise PatternError("too many choices whose words begin alike", 0, len(pattern.text))


def _check_neighbours(pattern: Pattern) -> None:
    stars_in_segment = 0
    for i, (token, (start, end)) in enumerate(zip(pattern.tokens, pattern.spans, strict=True)):
        following = pattern.tokens[i + 1] if i + 1 < len(pattern.tokens) else None
        before = pattern.tokens[i - 1] if i else None
        if isinstance(token, Text):
            stars_in_segment = 0 if "." in token.text else stars_in_segment
        elif isinstance(token, Rest):
            if not (_ends_with_dot(before) and _starts_with_dot(following)):
                raise PatternError(
                    "`**` stands for whole names: put dots around it", start, end - start
                )
        elif isinstance(token, Star):
            stars_in_segment += 1
            if stars_in_segment > 1 or isinstance(following, Number | Star):
                raise PatternError(
                    "two holes between the same dots can be read in two ways", start, end - start
                )
        elif isinstance(token, Number) and (
            isinstance(following, Number | Star) or _starts_with_digit(following)
        ):
            raise PatternError(
                "a number followed by a digit or another hole can be read in two ways",
                start,
                end - start,
            )


def _ends_with_dot(token: Token | None) -> bool:
    return token is None or (isinstance(token, Text) and token.text.endswith("."))


def _starts_with_dot(token: Token | None) -> bool:
    return token is None or (isinstance(token, Text) and token.text.startswith("."))


def _starts_with_digit(token: Token | None) -> bool:
    first = (
        {token.text[:1]}
        if isinstance(token, Text)
        else {w[:1] for w in token.words}
        if isinstance(token, Choice)
        else set()
    )
    return any(character.isdigit() for character in first)


def _overlapping(words: tuple[str, ...]) -> int:
    """How many words of a choice can begin to match at one place: the longest run in which each
    begins the next.
    """
    longest = 1
    run: list[str] = []
    for word in sorted(words):
        while run and not word.startswith(run[-1]):
            run.pop()
        run.append(word)
        longest = max(longest, len(run))
    return longest
