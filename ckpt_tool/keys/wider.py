"""The pattern that somebody meant who wrote one for a single part of a name."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ckpt_tool.keys.match import Matcher
from ckpt_tool.keys.nearest import nearest
from ckpt_tool.keys.parsing import parse
from ckpt_tool.keys.pattern import PatternError
from ckpt_tool.wording import plural

ONE_PART = "`*` stands for one part of a name"
BELOW = "a name alone is not a key, and `.**` stands for all that is below it"


def wider_note(pattern: str, keys: Collection[str]) -> str | None:
    """The pattern with `**` that matches keys where this one matches none; None where none does.

    >>> wider_note("encoder.*", ["encoder.0.weight", "encoder.0.bias", "head.bias"])
    '`encoder.**` matches 2 keys: `*` stands for one part of a name'
    >>> wider_note("head", ["encoder.0.weight", "head.bias"])
    '`head.**` matches 1 key: a name alone is not a key, and `.**` stands for all that is below it'
    """
    found = _matching(pattern, keys)
    if found is None:
        return None
    wider, why, count = found
    return f"`{wider}` matches {plural(count, 'key')}: {why}"


def wider_pattern(pattern: str, keys: Collection[str]) -> str | None:
    """The pattern that `wider_note` names."""
    found = _matching(pattern, keys)
    return found and found[0]


def _matching(pattern: str, keys: Collection[str]) -> tuple[str, str, int] | None:
    for wider, why in _wider(pattern):
        try:
            matcher = Matcher(parse(wider))
        except PatternError:
            continue
        if count := sum(matcher.match(key) is not None for key in keys):
            return wider, why, count
    return None


def meant_note(pattern: str, keys: Collection[str]) -> str | None:
    """What somebody probably meant with a pattern that matches none of these keys: the same with
    `**`, or the key that is nearest; None where nothing is near.

    >>> meant_note("hed.bias", ["encoder.0.weight", "head.bias"])
    'nearest key: head.bias'
    """
    if wider := wider_note(pattern, keys):
        return wider
    near = nearest(pattern, keys)
    return f"nearest key: {near}" if near else None


def _wider(pattern: str) -> Iterator[tuple[str, str]]:
    names = pattern.split(".")
    for place in reversed([place for place, name in enumerate(names) if name == "*"]):
        yield ".".join([*names[:place], "**", *names[place + 1 :]]), ONE_PART
    if names[-1] not in ("*", "**"):
        yield f"{pattern}.**", BELOW
