"""Numbers and names as people read them: sizes in decimal units, counts with their noun, texts in
which nothing is hidden.
"""

from functools import lru_cache

EMPTY = "''"
"""What stands for an empty key, so that it can be seen and pasted: a shell's empty argument."""
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_BLANK_RANGES = (("\u180b", "\u180f"), ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef"))
"""Characters that Python calls printable, and that nobody sees."""


@lru_cache(maxsize=1 << 12)
def size_text(nbytes: int) -> str:
    """Decimal units, as disks and downloads are sold: `102.4 MB`."""
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.95 or unit == "PB":
            break
        value /= 1000
    return f"{nbytes} B" if unit == "B" else f"{value:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 tensor`, `2,166 tensors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def share_text(share: float) -> str:
    """Per cent of a whole; never none where there is some, nor all where some is missing.

    >>> share_text(0.25), share_text(0.0001), share_text(0.9999), share_text(0)
    ('25.0%', '<0.1%', '>99.9%', '0.0%')
    """
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def type_text(value: object) -> str:
    """What a value is: `a list`, `an int`."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in ('a', 'e', 'i', 'o', 'u') else 'a'} {name}"


def named(key: str) -> str:
    """A key or a pattern between backticks, an empty one as `EMPTY`."""
    return f"`{key or EMPTY}`"


def visible(text: str) -> str:
    """The text with each character that can't be seen, or that rearranges what stands around it, as
    its code: what is no `printable` character of Python's, but for the space.

    >>> print(visible("a\\u200bb\\n"))
    a\\u200bb\\x0a
    """
    if text.isprintable() and (text.isascii() or not any(map(is_hidden, text))):
        return text
    return "".join([_code(one) if is_hidden(one) else one for one in text])


def is_hidden(character: str) -> bool:
    """Whether `visible` writes it as its code."""
    return (
        not character.isprintable()
        or character in _BLANK
        or any(first <= character <= last for first, last in _BLANK_RANGES)
    )


def _code(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
