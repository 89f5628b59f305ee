"""Escapes in patterns: a text into what stands for it in a pattern or in a choice, and back."""

import re

from ckpt_tool.wording import is_hidden, visible

RANGE = r"([0-9]{1,6})\.\.([0-9]{1,6})"
"""What is read as a range of numbers where a word of a choice may stand."""
QUOTATION = "\"'`“”„‘’‚"
"""Marks that people put around texts; at either end of a pattern or a word they are escaped, for
nobody means them there.
"""
_ENDS = rf"\A[\s{QUOTATION}]|[\s{QUOTATION}]\Z"
_MARKS = re.compile(rf"([\\*{{}}→]|{_ENDS})")
_WORD_MARKS = re.compile(rf"([\\*{{}},=→]|{_ENDS})")
_NO_WORD = re.compile(rf"[\\*{{}},=>→\s{QUOTATION}]|\.\.")
_ESCAPED = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
"""A backslash, and the code of a character as `visible` writes it, or the character itself."""
_ARROW = re.compile(r"->|(?<!\\)→")


def quote(key: str) -> str:
    """The pattern that matches exactly this key, in characters that can be seen."""
    return visible(_MARKS.sub(_marked, key).replace("->", "-\\>"))


def quote_word(word: str) -> str:
    """The text that stands for a word in a choice."""
    escaped = visible(_WORD_MARKS.sub(_marked, word).replace("->", "-\\>"))
    return f"\\{escaped}" if re.fullmatch(RANGE, word) else escaped


def quote_marks(text: str) -> str:
    """The text with a backslash before all but letters, digits and spaces, as it stands in a
    pattern; before a space that comes first.
    """
    return visible(re.sub(r"[^\w\s]|\A\s", _marked, text))


def _marked(found: re.Match[str]) -> str:
    """A character behind a backslash; a space as its code, for nobody sees it at an end; what
    can't be seen anywhere as it is, for `visible` writes its code.
    """
    if found[0] == " ":
        return "\\x20"
    return found[0] if is_hidden(found[0]) else f"\\{found[0]}"


def can_be_word(text: str) -> bool:
    """Whether a part of a pattern can stand in a choice as it is, `{q,k,v}`, and mean the same."""
    return bool(text) and not _NO_WORD.search(text)


def unescape(raw: str) -> str:
    """A text without the marks that took the next character as it is, and with the characters
    whose codes stand in it.

    >>> unescape(r"a\\*b\\x0a")
    'a*b\\n'
    """
    return _ESCAPED.sub(_meant, raw) if "\\" in raw else raw


def _meant(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    return chr(int(code, 16)) if code else found[4]


def trim(text: str) -> str:
    """Without white space around it, but for one at the end that is escaped."""
    stripped = text.rstrip()
    is_escaped = (len(stripped) - len(stripped.rstrip("\\"))) % 2
    return text[: len(stripped) + is_escaped].lstrip()


def stray_quotation(text: str) -> int | None:
    """The place of a quotation mark at either end that is not escaped, and would become part of a
    name.
    """
    if text[:1] and text[0] in QUOTATION:
        return 0
    before = text[:-1]
    is_escaped = (len(before) - len(before.rstrip("\\"))) % 2
    return len(text) - 1 if text[-1:] and text[-1] in QUOTATION and not is_escaped else None


def arrows(text: str) -> list[tuple[int, int]]:
    """Where the arrows of a rule begin and end: `->`, or `→` as reports print it."""
    return [found.span() for found in _ARROW.finditer(text)]


def split_at(text: str, mark: str, most: int | None = None) -> list[str]:
    """What stands between the marks that are not escaped, at most so many parts, without white
    space around each.
    """
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
