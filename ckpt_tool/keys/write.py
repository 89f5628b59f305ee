"""Patterns back into text, so that a pattern that was paired, bound or inverted can stand in a
rule again.
"""

from collections.abc import Sequence

from ckpt_tool.keys.pattern import Choice, Number, Pattern, Rest, Star, Text, Token
from ckpt_tool.keys.quoting import quote, quote_word


def pattern_text(pattern: Pattern) -> str:
    """A text that parses to the same pattern; each bound is written once, where its number stands
    alone.
    """
    pending = {
        name: f"{numbers.start}..{numbers.stop - 1}" for name, numbers in pattern.bounds.items()
    }
    pending |= {name: f"{first}..{last}" for name, (first, last) in pattern.open_bounds.items()}
    return "".join(_token(token, pending) for token in pattern.tokens)


def _token(token: Token, pending: dict[str, str]) -> str:
    match token:
        case Text(text):
            return quote(text)
        case Star():
            return "*"
        case Rest(id):
            return "**" if id == "**" else f"{{{id}=**}}"
        case Number(affine):
            bounds = pending.pop(str(affine), None)
            return f"{{{affine}}}" if bounds is None else f"{{{affine}={bounds}}}"
        case Choice(id, words, is_table):
            if is_table:
                return f"{{{id}}}"
            return f"{{{_listed(words)}}}" if id.startswith("{") else f"{{{id}={_listed(words)}}}"


def _listed(words: Sequence[str]) -> str:
    """Words as a choice has them; one alone is a number, which only a range says so."""
    return f"{words[0]}..{words[0]}" if len(words) == 1 else ",".join(map(quote_word, words))
