"""Names as the parts that patterns see: dots, whole numbers, and the texts between them."""

import re
from functools import lru_cache

NO_DIGITS = str.maketrans("", "", "0123456789")
"""Translates a name to what names of one form have in common."""

_NAMES = re.compile(r"\.|[^.]+", re.DOTALL)
_PARTS = re.compile(r"[0-9]+|[^0-9]+", re.DOTALL)


def tokens_of(key: str) -> tuple[str, ...]:
    """Dots, whole numbers without leading zeros, and the texts between them: joined again they are
    the key.
    """
    return tuple([token for name in _NAMES.findall(key) for token in _tokens(name)])


@lru_cache(maxsize=1 << 12)
def _tokens(name: str) -> tuple[str, ...]:
    return (name,) if name == "." else tuple(_split_numbers(name))


def _split_numbers(name: str) -> list[str]:
    """`conv12a` as `conv`, `12`, `a`: digits at the end of a word count as a number, those with a
    leading zero as text.
    """
    merged: list[str] = []
    for part in _PARTS.findall(name):
        if merged and not is_number(part) and not is_number(merged[-1]):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


@lru_cache(maxsize=1 << 14)
def is_number(token: str) -> bool:
    """Whether patterns read it as one."""
    return (
        len(token) <= 6
        and token.isascii()
        and token.isdecimal()
        and (token == "0" or token[0] != "0")
    )
