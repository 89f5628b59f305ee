"""Which patterns are refused, since they could be read in two ways or take long to match."""

from collections import Counter
from math import prod

from ckpt_tool.keys.pattern import Choice, Number, Pattern, PatternError, Rest, Star, Text, Token

MAX_READINGS = 64
"""How many ways a pattern's choices may begin to match alike (`{a,aa}{a,aa}…`), so that matching
stays linear.
"""


def check_ambiguity(pattern: Pattern) -> None:
    """Raises PatternError for what could be read in two ways, or would take more than linear time
    to match.
    """
    _check_rests(pattern)
    _check_names(pattern)
    _check_neighbours(pattern)
    readings = (_overlapping(token.words) for token in pattern.tokens if isinstance(token, Choice))
    if prod(readings) > MAX_READINGS:
        raise PatternError("too many choices whose words begin alike", 0, len(pattern.text))


def _check_rests(pattern: Pattern) -> None:
    spans = zip(pattern.tokens, pattern.spans, strict=True)
    rests = [span for token, span in spans if isinstance(token, Rest)]
    if len(rests) > 1:
        start, end = rests[1]
        raise PatternError("`**` may appear only once in a pattern", start, end - start)


def _check_names(pattern: Pattern) -> None:
    names = Counter(token.id for token in pattern.tokens if isinstance(token, Rest | Choice))
    names.update(pattern.numbers)
    for token, (start, end) in zip(pattern.tokens, pattern.spans, strict=True):
        if isinstance(token, Rest | Choice) and names[token.id] > 1:
            raise PatternError(f"`{token.id}` names two placeholders", start, end - start)


def _check_neighbours(pattern: Pattern) -> None:
    tokens, stars_in_segment = pattern.tokens, 0
    neighbours = zip((None, *tokens), tokens, (*tokens[1:], None), strict=False)
    for (before, token, following), (start, end) in zip(neighbours, pattern.spans, strict=True):
        if isinstance(token, Text) and "." in token.text:
            stars_in_segment = 0
        stars_in_segment += isinstance(token, Star)
        fault = _fault_between(before, token, following, stars_in_segment)
        if fault is not None:
            raise PatternError(fault, start, end - start)


def _fault_between(
    before: Token | None, token: Token, following: Token | None, stars_in_segment: int
) -> str | None:
    """What is wrong with a hole where it stands; `stars_in_segment` counts it, if it is a star."""
    is_before_hole = isinstance(following, Number | Star)
    match token:
        case Rest() if not (_ends_with_dot(before) and _starts_with_dot(following)):
            return "`**` matches whole names: put dots around it"
        case Star() if stars_in_segment > 1 or is_before_hole:
            return "two placeholders between the same dots can be read in two ways"
        case Number() if is_before_hole or _starts_with_digit(following):
            return "a number followed by a digit or another placeholder can be read in two ways"
    return None


def _ends_with_dot(token: Token | None) -> bool:
    return token is None or (isinstance(token, Text) and token.text.endswith("."))


def _starts_with_dot(token: Token | None) -> bool:
    return token is None or (isinstance(token, Text) and token.text.startswith("."))


def _starts_with_digit(token: Token | None) -> bool:
    match token:
        case Text(text):
            return text[:1].isdigit()
        case Choice(words=words):
            return any(word[:1].isdigit() for word in words)
    return False


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
