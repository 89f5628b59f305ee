"""JSON as checkpoints have it, with nothing that two readers could understand differently."""

import json
import re
from typing import NoReturn

from ckpt_tool.formats.limits import JSON_INTEGER_DIGITS

_LONG = re.compile(rb"[0-9]{%d}" % (JSON_INTEGER_DIGITS + 1))


class JsonFault(ValueError):
    """What is wrong with a JSON text."""


def parse_json(raw: bytes) -> object:
    """Raises JsonFault: no UTF-8, a name twice, numbers that are no integers of at most 20 digits, too deep, half a surrogate pair."""
    try:
        text = raw.decode()
        # Looking at each number costs a call each; a text without long runs of digits needs no look.
        integer = _integer if _LONG.search(raw) else int
        value: object = json.loads(text, object_pairs_hook=_object, parse_int=integer, parse_constant=_no_number)
        if "\\u" in text:
            _check_surrogates(value)
        return value
    except UnicodeDecodeError:
        raise JsonFault("is not UTF-8") from None
    except UnicodeEncodeError:
        raise JsonFault("has half of a surrogate pair in a text") from None
    except RecursionError:
        raise JsonFault("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise JsonFault(f"is no JSON: {error.msg.lower()} at character {error.pos}") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise JsonFault(f"has the name {twice[:100]!r} twice")
    return made


def _integer(digits: str) -> int:
    if len(digits) > JSON_INTEGER_DIGITS:
        raise JsonFault(f"has a number of {len(digits)} digits")
    return int(digits)


def _no_number(name: str) -> NoReturn:
    raise JsonFault(f"has {name}, which is no number in JSON")


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
