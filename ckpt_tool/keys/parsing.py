"""A pattern from its text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ckpt_tool.keys.affine import LinearNumber, parse_affine
from ckpt_tool.keys.ambiguity import check_ambiguity
from ckpt_tool.keys.pattern import (
    MAX_CHARACTERS,
    MAX_HOLES,
    MAX_WORDS,
    NAME,
    Choice,
    Number,
    Pattern,
    PatternError,
    Rest,
    Star,
    Tables,
    Text,
    Token,
)
from ckpt_tool.keys.quoting import RANGE, split_at, stray_quotation, trim, unescape

_INTEGER = r"[0-9]{1,6}"


def parse(text: str, tables: Tables | None = None) -> Pattern:
    """A pattern from its text; `tables` holds the words of this side of each table. Raises
    PatternError.
    """
    if len(text) > MAX_CHARACTERS:
        raise PatternError(
            f"a pattern of {len(text):,} characters; at most {MAX_CHARACTERS:,} are read", 0
        )
    _check_quotation(text)
    parts = _Parts(tables or {})
    spans: list[tuple[int, int]] = []
    for start, end, raw in _lex(text):
        parts.add(raw, start)
        if parts.words > 2 * MAX_WORDS or len(parts.tokens) > 2 * MAX_HOLES:
            raise PatternError(
                f"a pattern of more than {2 * MAX_WORDS:,} words, or {2 * MAX_HOLES} parts",
                start,
                end - start,
            )
        spans.append((start, end))
    pattern = Pattern(text, tuple(parts.tokens), tuple(spans), *parts.closed_and_open_bounds())
    check_ambiguity(pattern)
    return pattern


Ends = tuple[LinearNumber, LinearNumber]
"""First and last number of a range."""
Bound = range | Ends


@dataclass(slots=True)
class _Parts:
    """The tokens of a pattern that were read by now, from the left, and the bounds in them."""

    tables: Tables
    tokens: list[Token] = field(default_factory=list)
    bounds: dict[str, Bound] = field(default_factory=dict)
    words: int = 0

    def add(self, raw: str, start: int) -> None:
        """Reads one token. Raises PatternError."""
        token = self._token(raw, start)
        self.tokens.append(token)
        self.words += len(token.words) if isinstance(token, Choice) else 0

    def closed_and_open_bounds(self) -> tuple[dict[str, range], dict[str, Ends]]:
        """The ranges, and those whose ends name parameters."""
        closed = {name: bound for name, bound in self.bounds.items() if isinstance(bound, range)}
        still_open = {
            name: bound for name, bound in self.bounds.items() if not isinstance(bound, range)
        }
        return closed, still_open

    def _token(self, raw: str, start: int) -> Token:
        if raw == "**":
            return Rest("**")
        if raw == "*":
            return Star(f"*{sum(isinstance(token, Star) for token in self.tokens)}")
        if raw[0] != "{":
            return Text(unescape(raw))
        return self._hole(trim(raw[1:-1]), start, len(raw))

    def _hole(self, body: str, start: int, length: int) -> Token:
        name, *values = split_at(body, "=", most=2)
        if not values:
            return self._unnamed_hole(body, start, length)
        value = values[0]
        if not re.fullmatch(NAME, name):
            raise PatternError(f"`{name}` is not a name", start, length)
        if value == "**":
            return Rest(name)
        bound = _bound(value)
        if bound is None:
            return Choice(name, _words(value, start, length))
        if isinstance(bound, range) and len(bound) > MAX_WORDS:
            raise PatternError(f"`{value}` has more than {MAX_WORDS:,} numbers", start, length)
        if not bound:
            raise PatternError(f"`{value}` bounds nothing", start, length)
        if self.bounds.setdefault(name, bound) != bound:
            raise PatternError(f"`{name}` is bounded twice", start, length)
        return Number(LinearNumber(((name, 1),)))

    def _unnamed_hole(self, body: str, start: int, length: int) -> Token:
        if body in self.tables:
            return Choice(body, self.tables[body], is_table=True)
        if affine := parse_affine(body):
            return Number(affine)
        anonymous = sum(isinstance(token, Choice) and token.id[0] == "{" for token in self.tokens)
        return Choice(f"{{{anonymous}}}", _words(body, start, length))


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
            raise PatternError("a placeholder inside a placeholder", position)
        position += 2 if text[position] == "\\" else 1
    if position >= len(text):
        raise PatternError("`{` is not closed", start, len(text) - start)
    return position


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
    """The words of a choice. Raises PatternError at the place of its hole."""
    parts = split_at(body, ",")
    if len(parts) == 1 and not re.fullmatch(RANGE, body):
        message = (
            f"`{{{body}}}` is neither a number, nor a choice (`{{q,k,v}}`), "
            "nor a table that is declared"
        )
        raise PatternError(message, start, length, _instead_of(body))
    words: list[str] = []
    for part in parts:
        found = re.fullmatch(RANGE, part)
        words += _numbers(found, start, length) if found else [_word(part, start, length)]
        if len(words) > MAX_WORDS:
            raise PatternError(f"a choice of more than {MAX_WORDS:,} words", start, length)
    if len(set(words)) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        hint = (
            "several keys become one by an op that joins, as in `{q,k}.w -> qk.w: {concat: 0}`, "
            "and are taken once each"
        )
        raise PatternError(f"`{twice}` is twice in one choice", start, length, hint)
    return tuple(words)


def _numbers(found: re.Match[str], start: int, length: int) -> list[str]:
    """The words of a range, `1..4`."""
    first, last = int(found[1]), int(found[2])
    if last - first >= MAX_WORDS:
        raise PatternError(f"`{found[0]}` has more than {MAX_WORDS:,} words", start, length)
    if last < first:
        raise PatternError(
            f"`{found[0]}` has no number: the smaller one comes first", start, length
        )
    return [str(number) for number in range(first, last + 1)]


def _word(raw: str, start: int, length: int) -> str:
    if not raw:
        raise PatternError(
            "an empty word in a choice",
            start,
            length,
            "write two rules, one with the word and one without",
        )
    if len(split_at(raw, "*")) > 1:
        raise PatternError("`*` inside a choice", start, length)
    _check_quotation(raw, (start, length))
    return unescape(raw)
