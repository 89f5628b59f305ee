"""What two patterns have in common, found from the patterns alone: a key that both match, or that
one matches all of the other's.

Each pattern is a small automaton over characters. Numbers that depend on each other are taken by
examples, so an answer of "no" may be wrong for them; a key that is given is always one that both
match. What all comparisons of one rule set may cost is limited: patterns can be made whose automata
have very many states.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from math import prod

from ckpt_tool.keys.affine import LinearNumber
from ckpt_tool.keys.effort import Effort
from ckpt_tool.keys.match import Matcher
from ckpt_tool.keys.overlap.automaton import (
    DIGITS,
    MAX_VALUES,
    PLAIN,
    AffineForm,
    Automaton,
    form_of,
)
from ckpt_tool.keys.overlap.outline import may_share_keys
from ckpt_tool.keys.pattern import Choice, Number

MAX_STATES = 20_000
"""Pairs of states that are looked at before giving up."""
_FIRST_SYMBOL = 0xF0000
"""A plane for private use: no key has these characters."""
TRIES = 6
"""Ways to reach one pair of states: another way may give other numbers."""


def _alphabet(one: Automaton, other: Automaton) -> list[str]:
    """Every character that makes a difference, letters before digits, and one that stands for all
    others.
    """
    mentioned = one.mentioned() | other.mentioned() | {"."}
    spare = next(
        character
        for character in "xyzw_" + "".join(map(chr, range(0x100, 0x1000)))
        if character not in mentioned
    )
    return [spare, *sorted(mentioned, key=lambda character: (character in DIGITS, character))]


def common_key(one: Matcher, other: Matcher, effort: Effort | None = None) -> str | None:
    """A short key that both match; None where there is none, or none was found. Raises
    TooMuchToCompare.
    """
    effort = effort or Effort()
    if not _is_worth_a_look(one, other, effort):
        return None
    for key in _common(Automaton(one, effort), Automaton(other, effort), effort):
        if one.match(key) is not None and other.match(key) is not None:
            return key
    return None


def _is_worth_a_look(one: Matcher, other: Matcher, effort: Effort) -> bool:
    """Whether two patterns may have a key in common, and it doesn't cost too much to look
    for one.
    """
    effort.spend(4)
    return _words_of(one) + _words_of(other) <= MAX_VALUES and may_share_keys(one, other)


def _words_of(matcher: Matcher) -> int:
    return sum(len(token.words) for token in matcher.pattern.tokens if isinstance(token, Choice))


def _common(one: Automaton, other: Automaton, effort: Effort) -> Iterator[str]:
    """Keys that both automata accept, short ones first. Where several characters lead to the same
    states, or back to those that they come from, one way is followed to its end before the next:
    so the few tries that a pair of states has go to different beginnings, not to the last
    character of one.
    """
    alphabet = _alphabet(one, other)
    pending = deque([("", one.closure([0]), other.closure([0]))])
    later: deque[tuple[str, frozenset[int], frozenset[int]]] = deque()
    visits: Counter[tuple[frozenset[int], frozenset[int]]] = Counter()
    while (pending or later) and len(visits) < MAX_STATES:
        key, source, target = (pending or later).popleft()
        if visits[source, target] >= TRIES:
            continue
        visits[source, target] += 1
        if one.last in source and other.last in target:
            yield key
        others = other.steps(target, alphabet)
        effort.spend(1 + len(others))
        ahead = {(source, target)}
        for character, inside in one.steps(source, alphabet).items():
            after = inside, others.get(character, frozenset())
            if after[1] and visits[after] < TRIES:
                (later if after in ahead else pending).append((key + character, *after))
                ahead.add(after)


def covers(one: Matcher, other: Matcher, effort: Effort | None = None) -> bool:
    """Whether `one` matches every key that `other` matches; False also where that can't be decided.
    Raises TooMuchToCompare.
    """
    effort = effort or Effort()
    if not _is_worth_a_look(one, other, effort) or not _is_decidable(one, other):
        return False
    symbols = _symbols(other)
    return _accepts_all_of(
        Automaton(one, effort, symbols), Automaton(other, effort, symbols), effort
    )


def _is_decidable(one: Matcher, other: Matcher) -> bool:
    """Whether automata know all numbers of both, and those of `one` don't depend on each other."""
    names = [name for affine in _affines(one) for name in affine.names]
    if len(set(names)) < len(names):
        return False
    return all(_is_whole(affine, each) for each in (one, other) for affine in _affines(each))


def _symbols(matcher: Matcher) -> Mapping[AffineForm, str]:
    """A character for each form of number of a pattern, but for plain ones."""
    forms = {form_of(affine, matcher) for affine in _affines(matcher)} - {PLAIN, None}
    return {form: chr(_FIRST_SYMBOL + i) for i, form in enumerate(sorted(filter(None, forms)))}


def _accepts_all_of(wide: Automaton, narrow: Automaton, effort: Effort) -> bool:
    """Whether one automaton accepts whatever the other does; False also for too many states."""
    alphabet = _alphabet(wide, narrow)
    pending = deque([(narrow.closure([0]), wide.closure([0]))])
    seen = set(pending)
    while pending:
        inside, around = pending.popleft()
        if (narrow.last in inside and wide.last not in around) or len(seen) > MAX_STATES:
            return False
        outer = wide.steps(around, alphabet)
        effort.spend(1 + len(outer))
        for character, ahead in narrow.steps(inside, alphabet).items():
            after = ahead, outer.get(character, frozenset())
            if after not in seen:
                seen.add(after)
                pending.append(after)
    return True


def _affines(matcher: Matcher) -> list[LinearNumber]:
    return [token.affine for token in matcher.pattern.tokens if isinstance(token, Number)]


def _is_whole(affine: LinearNumber, matcher: Matcher) -> bool:
    """Whether an automaton knows all values of a sum: it has one name, or all its names are
    bounded.
    """
    if any(name not in matcher.bounds for name in affine.names):
        return len(affine.terms) == 1
    return prod(len(matcher.bounds[name]) for name in affine.names) <= MAX_VALUES


def can_match(matcher: Matcher) -> bool:
    """Whether any key matches: some numbers are never negative."""
    return all(_can_be_positive(affine, matcher) for affine in _affines(matcher))


def _can_be_positive(affine: LinearNumber, matcher: Matcher) -> bool:
    """Whether the largest value of a sum is not negative."""
    largest = affine.constant
    for name, factor in affine.terms:
        numbers = matcher.bounds.get(name)
        if numbers is None and factor > 0:
            return True
        if numbers is not None and not numbers:
            return False
        largest += factor * (0 if numbers is None else numbers[-1] if factor > 0 else numbers[0])
    return largest >= 0
