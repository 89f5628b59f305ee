"""Whole numbers worked out of others, `heads * head_dim` or `(hidden - 2) / 3`: names, + - * / and
brackets, nothing else.
"""

import re
from collections.abc import Mapping

from ckpt_tool.frozen import frozen

_TOKEN = re.compile(r"\s*(?:([0-9]{1,12})|([A-Za-z_][A-Za-z0-9_]*)|([-+*/()]))")
_MAX_TOKENS = 100


class FormulaError(ValueError):
    """A formula that can't be read, or that has no whole number as its value."""


@frozen
class Formula:
    """A formula that was read; `names` are the numbers that it needs."""

    text: str
    tokens: tuple[str, ...]
    names: tuple[str, ...]

    def value(self, numbers: Mapping[str, int]) -> int:
        """Its value, every division without a rest. Raises FormulaError."""
        return _Reader(self, numbers).read()


def parse_formula(text: str) -> Formula:
    """A formula from its text. Raises FormulaError."""
    tokens: list[str] = []
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if not found or len(tokens) >= _MAX_TOKENS:
            raise FormulaError(
                f"`{text}` is not a formula: names, whole numbers, + - * / and brackets"
            )
        tokens.append(found[0].strip())
        position = found.end()
    names = tuple(dict.fromkeys(token for token in tokens if token[0].isalpha() or token[0] == "_"))
    formula = Formula(text, tuple(tokens), names)
    _Reader(formula, dict.fromkeys(names, 1), is_trial=True).read()
    return formula


class _Reader:
    """Works a formula out while reading it: sums of products of numbers, names and brackets."""

    def __init__(
        self, formula: Formula, numbers: Mapping[str, int], is_trial: bool = False
    ) -> None:
        self._formula, self._numbers, self._is_trial = formula, numbers, is_trial
        self._position = 0

    def read(self) -> int:
        value = self._sum()
        if self._next() is not None:
            raise self._unreadable()
        return value

    def _next(self) -> str | None:
        tokens = self._formula.tokens
        return tokens[self._position] if self._position < len(tokens) else None

    def _take(self) -> str | None:
        token = self._next()
        self._position += 1
        return token

    def _unreadable(self) -> FormulaError:
        return FormulaError(
            f"`{self._formula.text}` is not a formula: names, whole numbers, + - * / and brackets"
        )

    def _sum(self) -> int:
        value = self._product()
        while self._next() in ("+", "-"):
            sign = self._take()
            term = self._product()
            value = value + term if sign == "+" else value - term
        return value

    def _product(self) -> int:
        value = self._factor()
        while self._next() in ("*", "/"):
            sign = self._take()
            factor = self._factor()
            value = value * factor if sign == "*" else self._quotient(value, factor)
        return value

    def _quotient(self, value: int, factor: int) -> int:
        if self._is_trial:
            return value
        if not factor or value % factor:
            raise FormulaError(f"`{self._formula.text}`: {factor} does not divide {value}")
        return value // factor

    def _factor(self) -> int:
        token = self._take()
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise self._unreadable()
            return value
        if token is None or token in "+-*/)":
            raise self._unreadable()
        return int(token) if token.isdecimal() else self._numbers[token]
