"""The key, or the beginning of keys, that a pattern without a key may have meant."""

from collections.abc import Collection
from itertools import takewhile

from ckpt_tool.keys import nearest


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
    """
    from ckpt_tool.keys import quote, wider_pattern  # imports what reads patterns

    if wider := wider_pattern(pattern, keys):
        return wider
    near, is_key = _nearest(pattern, keys)
    if near is None:
        return None
    rest = [] if is_key else pattern.split(".")[near.count(".") + 1 :]
    return ".".join([quote(near), *rest])


def _nearest(pattern: str, keys: Collection[str]) -> tuple[str | None, bool]:
    """What is nearest to a pattern, and whether that is a key, or the beginning of keys."""
    names = pattern.split(".")
    plain = list(takewhile(lambda name: not set(name) & set("*{"), names))
    if not plain or len(plain) == len(names):
        return nearest(pattern, keys), True
    # What stands before the first wildcard is a path, of which there are fewer than keys.
    paths = dict.fromkeys(".".join(key.split(".")[: len(plain)]) for key in keys)
    path = ".".join(plain)
    return None if path in paths else nearest(path, paths), False


def meant_notes(pattern: str, keys: Collection[str]) -> tuple[str, ...]:
    """A note on a pattern that matches none of these keys: the same with `**`, where that does,
    else what is nearest.
    """
    from ckpt_tool.keys import wider_note  # imports what reads patterns

    wider = wider_note(pattern, keys)
    return (wider,) if wider else nearest_note(pattern, keys)
