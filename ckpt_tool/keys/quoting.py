"""Escapes in patterns: a text into what stands for it in a pattern or in a choice, and back."""

import re

RANGE = r"([0-9]{1,6})\.\.([0-9]{1,6})"
"""What is read as a range of numbers where a word of a choice may stand."""
_MARKS = re.compile(r"([\\*{}]|\A\s|\s\Z)")
_WORD_MARKS = re.compile(r"([\\*{},=]|\A\s|\s\Z)")
_NO_WORD = re.compile(r"[\\*{},=>\s]|\.\.")


def quote(key: str) -> str:
    """The pattern that matches exactly this key."""
    return _MARKS.sub(r"\\\1", key).replace("->", "-\\>")


def quote_word(word: str) -> str:
    """The text that stands for a word in a choice."""
    escaped = _WORD_MARKS.sub(r"\\\1", word).replace("->", "-\\>")
    return f"\\{escaped}" if re.fullmatch(RANGE, word) else escaped


def can_be_word(text: str) -> bool:
    """Whether a part of a pattern can stand in a choice as it is, `{q,k,v}`, and mean the same."""
    return bool(text) and not _NO_WORD.search(text)


def unescape(raw: str) -> str:
    """A text without the marks that took the next character as it is."""
    return re.sub(r"\\(.)", r"\1", raw, flags=re.DOTALL)


def trim(text: str) -> str:
    """Without white space around it, but for one at the end that is escaped."""
    stripped = text.rstrip()
    is_escaped = (len(stripped) - len(stripped.rstrip("\\"))) % 2
    return text[: len(stripped) + is_escaped].lstrip()


def split_at(text: str, mark: str, most: int | None = None) -> list[str]:
    """What stands between the marks that are not escaped, at most so many parts, without white space around each."""
    if mark not in text:
        return [trim(text)]
    parts: list[str] = []
    begin = position = 0
    while position < len(text) and len(parts) + 1 != most:
        if text[position] == mark:
            parts.append(text[begin:position])
            begin = position + 1
        position += 2 if text[position] == "\\" else 1
    return [trim(part) for part in (*parts, text[begin:])]
