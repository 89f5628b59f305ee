"""JSON as checkpoints have it, with nothing that two readers could understand differently."""

import json
import re
from typing import NoReturn

from ckpt_tool.formats.limits import JSON_INTEGER_DIGITS, JSON_MARKS

_LONG = re.compile(rb"[0-9]{%d}" % (JSON_INTEGER_DIGITS + 1))
_ZERO_BELOW = re.compile(rb"[\[,:]\s*-0")


class JsonFault(ValueError):
    """What is wrong with a JSON text."""


def parse_json(raw: bytes) -> object:
    """Raises JsonFault: no UTF-8, a name twice, numbers that are no integers of at most 20 digits,
    too deep, half a surrogate pair.
    """
    _check_marks(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise JsonFault("is not UTF-8") from None
    try:
        plain = None if _has_zero_below(raw) else _plain(text)
        return _parse_strictly(text, raw) if plain is None else plain
    except UnicodeEncodeError:
        raise JsonFault("has half of a surrogate pair in a text") from None
    except RecursionError:
        raise JsonFault("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise _syntax_fault(text, error) from None


def _check_marks(raw: bytes) -> None:
    """What each mark makes takes a hundred times its room. Raises JsonFault for too many."""
    if len(raw) <= JSON_MARKS:
        return
    marks = sum(raw.count(mark) for mark in (b",", b":", b"[", b"{"))
    if marks > JSON_MARKS:
        raise JsonFault(f"has {marks} commas, colons and brackets; at most {JSON_MARKS} are read")


def _parse_strictly(text: str, raw: bytes) -> object:
    # Looking at each number costs a call each; a text without long runs of digits or `-0` needs
    # no look.
    integer = _integer if _LONG.search(raw) or _has_zero_below(raw) else int
    value = json.loads(
        text, object_pairs_hook=object_of, parse_int=integer, parse_constant=_no_number
    )
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _syntax_fault(text: str, error: json.JSONDecodeError) -> JsonFault:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return JsonFault(
            f"is not complete JSON: it ends in the middle, after {len(text)} characters"
        )
    return JsonFault(f"is no JSON: {error.msg.lower()} at character {error.pos}")


def _has_zero_below(raw: bytes) -> bool:
    return b"-0" in raw and _ZERO_BELOW.search(raw) is not None


def _plain(text: str) -> dict[str, object] | None:
    """An object of objects of texts and lists, without escapes and without a name twice; None for
    any other text.

    So are safetensors' headers. json's own objects keep the last of equal names without a word:
    counting all texts in quotes shows whether one was lost. What stands in the lists is for the
    caller to look at.
    """
    if "\\" in text:
        return None
    try:
        value = json.loads(text, parse_constant=_no_number)
    except ValueError:
        return None
    if type(value) is not dict:
        return None
    texts = 0
    for inner in value.values():
        if type(inner) is not dict:
            return None
        texts += 1 + len(inner)
        for each in inner.values():
            if type(each) is str:
                texts += 1
            elif type(each) is not list:
                return None
    return value if 2 * texts == text.count('"') else None


def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Raises JsonFault for a name that stands twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise JsonFault(f"has the name {twice[:100]!r} twice")
    return made


def _integer(digits: str) -> int:
    if len(digits) > JSON_INTEGER_DIGITS:
        raise JsonFault(f"has a number of {len(digits)} digits")
    if digits == "-0":
        raise JsonFault("has -0, which is not an integer to some readers")
    return int(digits)


def _no_number(name: str) -> NoReturn:
    raise JsonFault(f"has {name}, which is not a number in JSON")


def _check_surrogates(value: object) -> None:
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            one.encode()
        elif isinstance(one, dict):
            pending += [*one, *one.values()]
        elif isinstance(one, list):
            pending += one
