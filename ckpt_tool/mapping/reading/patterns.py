"""Patterns of a rule file from their YAML: parsed, with a matcher, each problem at its place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ckpt_tool.errors import Location, Problem
from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Matcher, Pattern, PatternError, parse, with_numbers
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.reading.yaml_nodes import Node, Scalar, plain_data
from ckpt_tool.mapping.rules import FitRule, Selector, bound_names
from ckpt_tool.ops import OpError
from ckpt_tool.ops.fits import parse_fit

MAX_WORDS = 500_000
"""Words of all choices of a set of rules; a table counts each time that it is named."""
COST_OF_A_RANGE = 3_000
"""What a pattern counts that names ranges and could not be read."""


@dataclass(slots=True)
class Reading:
    """What the reader of one rule needs to know of its file, and the problems found so far."""

    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    spent: int = 0
    _words: dict[bool, tuple[int, dict[str, tuple[str, ...]]]] = field(default_factory=dict)

    def add(self, code: str, message: str, where: Location, *notes: str | None) -> None:
        """Adds a problem; notes that are None are left out."""
        given = tuple(note for note in notes if note is not None)
        self.problems.append(Problem(code, message, where, given))

    def words(self, is_source: bool) -> dict[str, tuple[str, ...]]:
        """Each table's words on one side; rows pair by their place."""
        count, words = self._words.get(is_source, (0, {}))
        if count != len(self.tables):
            words = {
                name: tuple(rows if is_source else rows.values())
                for name, rows in self.tables.items()
            }
            self._words[is_source] = len(self.tables), words
        return words

    @property
    def stand_ins(self) -> dict[str, int]:
        """1 for each parameter, whose number is known only for a given checkpoint."""
        return dict.fromkeys(self.params, 1)


@frozen
class PatternText:
    """A pattern as it is written: its text, and where that begins in the text of a scalar."""

    scalar: Scalar
    start: int
    text: str

    @property
    def where(self) -> Location:
        """The place of the whole pattern."""
        return self.scalar.at(self.start, len(self.text))

    def place_of(self, error: PatternError) -> Location:
        """The place of the part of the pattern that an error is about."""
        return self.scalar.at(self.start + error.start, error.length)


def read_selector(reading: Reading, scalar: Scalar, is_source: bool) -> Selector | None:
    """A pattern of `drop:` or `keep:`."""
    text = PatternText(scalar, 0, scalar.text)
    pattern = _read_pattern(reading, text, is_source)
    matcher = read_matcher(reading, text, pattern, {}) if pattern else None
    return Selector(pattern, matcher, scalar.where) if pattern and matcher else None


def read_fit(reading: Reading, scalar: Scalar, node: Node) -> FitRule | None:
    """A line of `fit:`, `TARGET PATTERN: FIT`."""
    selector = read_selector(reading, scalar, is_source=False)
    try:
        fit = parse_fit(plain_data(node))
    except OpError as error:
        reading.add("bad-op", str(error), node.where)
        return None
    return FitRule(selector, fit) if selector else None


def read_patterns(
    reading: Reading, texts: Iterable[PatternText], is_source: bool
) -> list[Pattern] | None:
    """The patterns of one side, or None after adding what is wrong with each that can't be read."""
    found = [_read_pattern(reading, text, is_source) for text in texts]
    patterns = [pattern for pattern in found if pattern is not None]
    return patterns if len(patterns) == len(found) else None


def read_matcher(
    reading: Reading, text: PatternText, pattern: Pattern, bounds: Mapping[str, range]
) -> Matcher | None:
    """A matcher of the pattern, each parameter counted as 1; None after adding a problem."""
    try:
        return Matcher(with_numbers(pattern, reading.stand_ins), bounds)
    except PatternError as error:
        reading.add("bad-pattern", error.message, text.place_of(error))
        return None


def _read_pattern(reading: Reading, text: PatternText, is_source: bool) -> Pattern | None:
    if reading.spent > MAX_WORDS:
        return None
    try:
        pattern = parse(text.text, reading.words(is_source))
    except PatternError as error:
        reading.spent += COST_OF_A_RANGE * (".." in text.text)
        reading.add("bad-pattern", error.message, text.place_of(error), error.hint or None)
        return None
    _spend_words(reading, text, pattern)
    return pattern if _are_bounds_declared(reading, text, pattern) else None


def _spend_words(reading: Reading, text: PatternText, pattern: Pattern) -> None:
    """Counts the words of a pattern's choices; a problem where those of all rules are too many."""
    reading.spent += sum(len(token.words) for token in pattern.tokens if isinstance(token, Choice))
    if reading.spent > MAX_WORDS:
        message = f"the choices of all rules have more than {MAX_WORDS:,} words"
        reading.add("too-many-words", message, text.scalar.where)


def _are_bounds_declared(reading: Reading, text: PatternText, pattern: Pattern) -> bool:
    """Whether each name that bounds a number is a parameter; a problem for the first that isn't."""
    strange = next((name for name in bound_names(pattern) if name not in reading.params), None)
    if strange is None:
        return True
    message = f"`{strange}` bounds a number and is declared under no `params:`"
    reading.add("bad-pattern", message, text.where)
    return False
