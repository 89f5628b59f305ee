"""The key, or the beginning of keys, that a pattern without a key may have meant."""

import re
from collections.abc import Collection, Sequence
from itertools import chain, takewhile, zip_longest

from ckpt_tool.keys import nearest

_NUMBER = re.compile(r"\{\w+\}|[0-9]+")
"""A placeholder of a pattern, or a number of a key."""


def nearest_note(pattern: str, keys: Collection[str]) -> tuple[str, ...]:
    """A note that names what is nearest to a pattern; none where nothing is near.

    >>> nearest_note("layr1.weight", ["layer1.weight", "fc.bias"])
    ('nearest key: layer1.weight',)
    >>> nearest_note("layr1.*", ["layer1.weight", "fc.bias"])
    ('nearest path: layer1',)
    """
    near, is_key = _nearest(pattern, keys)
    return (f"nearest {'key' if is_key else 'path'}: {near}",) if near else ()


def meant_pattern(pattern: str, keys: Collection[str]) -> str | None:
    """The pattern that was probably meant by one that matches none of these keys.

    >>> meant_pattern("layr1.*", ["layer1.weight", "fc.bias"])
    'layer1.*'
    >>> meant_pattern("layr{i}.*", ["layer1.weight", "layer2.weight"])
    'layer{i}.*'
    """
    from ckpt_tool.keys import quote, wider_pattern  # imports what reads patterns

    if wider := wider_pattern(pattern, keys):
        return wider
    near, is_key = _nearest(pattern, keys)
    if near is None:
        return None
    rest = [] if is_key else pattern.split(".")[near.count(".") + 1 :]
    is_numbered = near == _nearest_numbered(pattern.split("."), keys)
    return ".".join([near if is_numbered else quote(near), *rest])


def _nearest(pattern: str, keys: Collection[str]) -> tuple[str | None, bool]:
    """What is nearest to a pattern, and whether that is a key, or the beginning of keys."""
    names = pattern.split(".")
    plain = list(takewhile(lambda name: not set(name) & set("*{"), names))
    if len(plain) == len(names):
        return nearest(pattern, keys), True
    if not plain:
        near = _nearest_numbered(names, keys)
        return (near, False) if near else (nearest(pattern, keys), True)
    # What stands before the first wildcard is a path, of which there are fewer than keys.
    paths = dict.fromkeys(".".join(key.split(".")[: len(plain)]) for key in keys)
    path = ".".join(plain)
    near = None if path in paths else nearest(path, paths)
    return near or _nearest_numbered(names, keys), False


def _nearest_numbered(names: Sequence[str], keys: Collection[str]) -> str | None:
    """The path with placeholders that is nearest to the names before the first wildcard, whatever
    numbers stand for these; None where there is none of so many numbers.
    """
    numbered = list(takewhile(lambda name: not set(_NUMBER.sub("", name)) & set("*{}"), names))
    numbers = _NUMBER.findall(".".join(numbered))
    form = _NUMBER.sub("#", ".".join(numbered))
    forms = dict.fromkeys(
        _NUMBER.sub("#", ".".join(key.split(".")[: len(numbered)])) for key in keys
    )
    near = nearest(form, forms) if "#" in form and form not in forms else None
    if near is None or near.count("#") != len(numbers) or set(near) & set("*{}"):
        return None
    return "".join(chain.from_iterable(zip_longest(near.split("#"), numbers, fillvalue="")))


def meant_notes(pattern: str, keys: Collection[str]) -> tuple[str, ...]:
    """A note on a pattern that matches none of these keys: the same with `**`, where that does,
    else what is nearest.
    """
    from ckpt_tool.keys import wider_note  # imports what reads patterns

    wider = wider_note(pattern, keys)
    return (wider,) if wider else nearest_note(pattern, keys)
