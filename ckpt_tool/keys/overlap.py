"""What two patterns have in common, told from the patterns alone: a key that both match, or that
one matches all of the other's.

Each pattern is a small automaton over characters. Numbers that depend on each other are taken by
examples, so an answer of "no" may be wrong for them; a key that is given is always one that both
match. What all comparisons of one rule set may cost is limited: patterns can be made whose automata
have very many states.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, product
from math import prod

from ckpt_tool.keys.affine import LinearNumber
from ckpt_tool.keys.effort import Effort
from ckpt_tool.keys.match import Matcher
from ckpt_tool.keys.outline import may_share_keys
from ckpt_tool.keys.pattern import Choice, Number, Rest, Star, Text, Token

MAX_STATES = 20_000
"""Pairs of states that are looked at before giving up."""
MAX_VALUES = 4096
"""Values of a sum, and words of the choices of two patterns, that are looked at."""
EXAMPLES = 12
"""Numbers without bounds are tried from 0 up to this many."""
_FIRST_SYMBOL = 0xF0000
"""A plane for private use: no key has these characters."""
TRIES = 6
"""Ways to reach one pair of states: another way may give other numbers."""

Characters = tuple[bool, frozenset[str]]
"""These characters, or all but these."""

_Form = tuple[int, int]
_PLAIN: _Form = (1, 0)
_DIGITS = frozenset("0123456789")
_NAME: Characters = (False, frozenset("."))
_ANY: Characters = (False, frozenset())


class _Automaton:
    """States are numbers, 0 the first and `last` the only one that accepts; `edges` without
    characters cost nothing.

    With `symbols`, a number such as `{2*s+1}` is one character that stands for all its values.
    """

    def __init__(
        self, matcher: Matcher, effort: Effort, symbols: Mapping[_Form, str] | None = None
    ) -> None:
        self.edges: list[list[tuple[Characters | None, int]]] = [[]]
        self.last = 0
        self.symbols = symbols or {}
        self.known: dict[frozenset[int], Mapping[str, frozenset[int]]] = {}
        self.effort = effort
        for token in matcher.pattern.tokens:
            before = len(self.edges)
            self._add(token, matcher)
            effort.spend(len(self.edges) - before)

    def _state(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def _edge(self, start: int, characters: Characters | None, end: int) -> None:
        self.edges[start].append((characters, end))

    def _add(self, token: Token, matcher: Matcher) -> None:
        match token:
            case Text(text):
                self._words([text])
            case Star():
                self._loop(_NAME)
            case Rest():
                self._loop(_ANY, may_be_empty=len(matcher.pattern.tokens) == 1)
            case Choice(words=words):
                self._words(words)
            case Number(affine):
                form = _form(affine, matcher)
                if form == _PLAIN:
                    self._number()
                elif form is not None and form in self.symbols:
                    self._words([self.symbols[form]])
                else:
                    self._words(map(str, _values(affine, matcher)))

    def _words(self, words: Iterable[str]) -> None:
        start, end = self.last, self._state()
        for word in words:
            current = start
            for character in word:
                following = self._state()
                self._edge(current, (True, frozenset(character)), following)
                current = following
            self._edge(current, None, end)
        self.last = end

    def _loop(self, characters: Characters, may_be_empty: bool = False) -> None:
        start, end = self.last, self._state()
        self._edge(start, characters, end)
        self._edge(end, characters, end)
        if may_be_empty:
            self._edge(start, None, end)
        self.last = end

    def _number(self) -> None:
        start, more, end = self.last, self._state(), self._state()
        self._edge(start, (True, frozenset("0")), end)
        self._edge(start, (True, _DIGITS - {"0"}), more)
        self._edge(more, (True, _DIGITS), more)
        self._edge(more, None, end)
        self._edge(start, (True, frozenset(self.symbols.values())), end)
        self.last = end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """These states and those that cost nothing from them."""
        found, pending = set(states), list(states)
        while pending:
            for characters, end in self.edges[pending.pop()]:
                if characters is None and end not in found:
                    found.add(end)
                    pending.append(end)
        return frozenset(found)

    def steps(
        self, states: frozenset[int], alphabet: Sequence[str]
    ) -> Mapping[str, frozenset[int]]:
        """Where each character leads from these states, in the alphabet's order, without those that
        lead nowhere.
        """
        if (found := self.known.get(states)) is None:
            edges = [
                (characters, end)
                for state in states
                for characters, end in self.edges[state]
                if characters is not None
            ]
            named = frozenset(chain.from_iterable(characters[1] for characters, _ in edges))
            tried = (
                alphabet
                if any(not is_these for (is_these, _), _ in edges)
                else [each for each in alphabet if each in named]
            )
            self.effort.spend(len(states) + len(edges) * len(tried))
            ends = {
                each: [end for characters, end in edges if _contains(characters, each)]
                for each in tried
            }
            found = self.known[states] = {
                each: self.closure(reached) for each, reached in ends.items() if reached
            }
        return found

    def mentioned(self) -> frozenset[str]:
        return frozenset(
            chain.from_iterable(
                characters[1] for edges in self.edges for characters, _ in edges if characters
            )
        )


def _contains(characters: Characters, character: str) -> bool:
    return (character in characters[1]) is characters[0]


def _form(affine: LinearNumber, matcher: Matcher) -> _Form | None:
    """Factor and constant of a sum of one name without bounds; None for any other."""
    if len(affine.terms) != 1 or affine.names[0] in matcher.bounds:
        return None
    return affine.terms[0][1], affine.constant


def _values(affine: LinearNumber, matcher: Matcher) -> list[int]:
    """Numbers that a sum can be, none negative: all of them where its names are bounded, else the
    first ones.
    """
    domains = [matcher.bounds.get(name, range(EXAMPLES)) for name in affine.names]
    tried = (
        affine.value(dict(zip(affine.names, numbers, strict=True)))
        for numbers in islice(product(*domains), MAX_VALUES)
    )
    return sorted({value for value in tried if value >= 0})


def _alphabet(one: _Automaton, other: _Automaton) -> list[str]:
    """Every character that makes a difference, letters before digits, and one that stands for all
    others.
    """
    mentioned = one.mentioned() | other.mentioned() | {"."}
    spare = next(
        character
        for character in "xyzw_" + "".join(map(chr, range(0x100, 0x1000)))
        if character not in mentioned
    )
    return [spare, *sorted(mentioned, key=lambda character: (character in _DIGITS, character))]


def common_key(one: Matcher, other: Matcher, effort: Effort | None = None) -> str | None:
    """A short key that both match; None where there is none, or none was found. Raises
    TooMuchToCompare.
    """
    effort = effort or Effort()
    if not _is_worth_a_look(one, other, effort):
        return None
    for key in _common(_Automaton(one, effort), _Automaton(other, effort), effort):
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


def _common(one: _Automaton, other: _Automaton, effort: Effort) -> Iterator[str]:
    alphabet = _alphabet(one, other)
    pending = deque([("", one.closure([0]), other.closure([0]))])
    visits: dict[tuple[frozenset[int], frozenset[int]], int] = {}
    while pending and len(visits) < MAX_STATES:
        key, source, target = pending.popleft()
        if one.last in source and other.last in target:
            yield key
        others = other.steps(target, alphabet)
        effort.spend(1 + len(others))
        for character, ahead in one.steps(source, alphabet).items():
            after = ahead, others.get(character, frozenset())
            if after[1] and visits.get(after, 0) < TRIES:
                visits[after] = visits.get(after, 0) + 1
                pending.append((key + character, *after))


def covers(one: Matcher, other: Matcher, effort: Effort | None = None) -> bool:
    """Whether `one` matches every key that `other` matches; False also where that can't be told.
    Raises TooMuchToCompare.
    """
    effort = effort or Effort()
    source, target = _affines(one), _affines(other)
    if not _is_worth_a_look(one, other, effort):
        return False
    names = [name for affine in source for name in affine.names]
    if len(set(names)) < len(names) or not all(
        _is_whole(affine, matcher) for matcher in (one, other) for affine in _affines(matcher)
    ):
        return False
    forms = {form for affine in target if (form := _form(affine, other)) is not None} - {_PLAIN}
    symbols = {form: chr(_FIRST_SYMBOL + i) for i, form in enumerate(sorted(forms))}
    wide, narrow = _Automaton(one, effort, symbols), _Automaton(other, effort, symbols)
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
