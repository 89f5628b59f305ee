"""A pattern as a small automaton over characters."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, product

from ckpt_tool.keys.affine import LinearNumber
from ckpt_tool.keys.effort import Effort
from ckpt_tool.keys.match import Matcher
from ckpt_tool.keys.pattern import Choice, Number, Rest, Star, Text, Token

MAX_VALUES = 4096
"""Values of a sum, and words of the choices of two patterns, that are looked at."""
MAX_REMAINDERS = 64
"""Factor and constant of a sum, together, up to which all its values are known."""
EXAMPLES = 12
"""Numbers without bounds are tried from 0 up to this many."""
Characters = tuple[bool, frozenset[str]]
"""These characters, or all but these."""
AffineForm = tuple[int, int]
PLAIN: AffineForm = (1, 0)
DIGITS = frozenset("0123456789")
_NAME: Characters = (False, frozenset("."))
_ANY: Characters = (False, frozenset())


class Automaton:
    """States are numbers, 0 the first and `last` the only one that accepts; `edges` without
    characters cost nothing.

    With `symbols`, a number such as `{2*s+1}` is one character that stands for all its values.
    """

    def __init__(
        self, matcher: Matcher, effort: Effort, symbols: Mapping[AffineForm, str] | None = None
    ) -> None:
        self.edges: list[list[tuple[Characters | None, int]]] = [[]]
        self.last = 0
        self.symbols = symbols or {}
        self.known: dict[frozenset[int], Mapping[str, frozenset[int]]] = {}
        self.effort = effort
        self.names = Counter(
            name
            for token in matcher.pattern.tokens
            if isinstance(token, Number)
            for name in token.affine.names
        )
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
                form = form_of(affine, matcher)
                if form == PLAIN:
                    self._number()
                elif form is not None and form in self.symbols:
                    self._words([self.symbols[form]])
                elif form is not None and self._is_small(form, affine):
                    self._progression(*form)
                else:
                    self._words(map(str, _values(affine, matcher)))

    def _is_small(self, form: AffineForm, affine: LinearNumber) -> bool:
        """Whether the states for all values of a sum are few. Where a name is used twice, examples
        are the better way: their states don't mix what must be equal.
        """
        factor, constant = form
        return (
            factor > 0 and factor + constant <= MAX_REMAINDERS and self.names[affine.names[0]] == 1
        )

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
        self._edge(start, (True, DIGITS - {"0"}), more)
        self._edge(more, (True, DIGITS), more)
        self._edge(more, None, end)
        self._edge(start, (True, frozenset(self.symbols.values())), end)
        self.last = end

    def _progression(self, factor: int, constant: int) -> None:
        """The numbers constant, constant + factor, …, that are not negative: states are the numbers
        below the constant, and from there on remainders.
        """
        start, end, least = self.last, self._state(), max(constant, 0)
        states: dict[tuple[bool, int], int] = {}
        pending = [(start, 0, range(1, 10))]
        if constant <= 0 and constant % factor == 0:
            self._edge(start, (True, frozenset("0")), end)
        while pending:
            state, number, digits = pending.pop()
            for digit in digits:
                value = 10 * number + digit
                is_large = value >= constant
                if is_large:  # one number stands for all with its remainder
                    value = least + (value - least) % factor
                if (is_large, value) not in states:
                    states[is_large, value] = self._state()
                    pending.append((states[is_large, value], value, range(10)))
                    if is_large and (value - constant) % factor == 0:
                        self._edge(states[is_large, value], None, end)
                self._edge(state, (True, frozenset(str(digit))), states[is_large, value])
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
            edges = [edge for state in states for edge in self._costly(state)]
            tried = _tried(edges, alphabet)
            self.effort.spend(len(states) + len(edges) * len(tried))
            ends = {each: _ends(edges, each) for each in tried}
            found = self.known[states] = {
                each: self.closure(reached) for each, reached in ends.items() if reached
            }
        return found

    def _costly(self, state: int) -> Iterator[tuple[Characters, int]]:
        """The edges that need a character."""
        for characters, end in self.edges[state]:
            if characters is not None:
                yield characters, end

    def mentioned(self) -> frozenset[str]:
        """Every character that an edge names."""
        return frozenset(
            chain.from_iterable(
                characters[1] for edges in self.edges for characters, _ in edges if characters
            )
        )


def _tried(edges: Sequence[tuple[Characters, int]], alphabet: Sequence[str]) -> Sequence[str]:
    """The characters that may lead anywhere: all of them where an edge takes all but some."""
    if any(not is_these for (is_these, _), _ in edges):
        return alphabet
    named = frozenset(chain.from_iterable(characters[1] for characters, _ in edges))
    return [each for each in alphabet if each in named]


def _ends(edges: Sequence[tuple[Characters, int]], character: str) -> list[int]:
    return [end for characters, end in edges if _contains(characters, character)]


def _contains(characters: Characters, character: str) -> bool:
    return (character in characters[1]) is characters[0]


def form_of(affine: LinearNumber, matcher: Matcher) -> AffineForm | None:
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
