"""What unfolds: sections of patterns, each with some of its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ckpt_tool.formats.remote.addresses import without_secrets
from ckpt_tool.keys import quote
from ckpt_tool.report.page.names import said
from ckpt_tool.report.parts.style import pattern_shown
from ckpt_tool.wording import plural

MAX_PATTERNS = 40
"""Patterns of a section; the others are counted."""
MAX_KEYS = 20
"""Keys of a pattern; the others are counted."""
MAX_ALL_KEYS = 300
"""Keys of all patterns together, about a hundred bytes each."""
MAX_NOTES = 20


@dataclass(frozen=True, slots=True)
class Group:
    """A pattern, or a rule, with its keys; `about` says something beside the pattern."""

    pattern: str
    keys: Sequence[str]
    about: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Groups of one kind. `describe` says something beside each key."""

    title: str
    groups: Sequence[Group]
    is_open: bool = True
    describe: Callable[[str], str] = lambda key: ""


def notebook_html(answer: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """A block for a notebook, with the sentence that the command ends with on top."""
    left = [MAX_ALL_KEYS]
    parts = "".join(_section(section, left) for section in sections if section.groups)
    items = [f"<li>{text_of(note)}</li>" for note in notes[:MAX_NOTES]]
    if len(notes) > MAX_NOTES:
        items.append(f"<li>and {plural(len(notes) - MAX_NOTES, 'more note')}</li>")
    listed = f"<ul>{''.join(items)}</ul>" if items else ""
    # Blanks of a name count; between the elements there are none.
    return (
        f'<div style="white-space: pre-wrap"><p><b>{text_of(answer)}</b></p>{parts}{listed}</div>'
    )


def _section(section: Section, left: list[int]) -> str:
    groups = section.groups
    inside = "".join(_group(group, section, left) for group in groups[:MAX_PATTERNS])
    if more := groups[MAX_PATTERNS:]:
        keys = plural(sum(len(group.keys) for group in more), "key")
        inside += f"<p>and {plural(len(more), 'more line')} with {keys}</p>"
    count = sum(len(group.keys) for group in groups)
    counted = f": {plural(count, 'tensor')}" if count else ""
    state = " open" if section.is_open else ""
    summary = f"<summary>{text_of(section.title)}{counted}</summary>"
    return f"<details{state}>{summary}{inside}</details>"


def _group(group: Group, section: Section, left: list[int]) -> str:
    margin, shown = 'style="margin-left: 1.5em"', pattern_shown(group.pattern)
    if not group.keys or (len(group.keys) == 1 and key_shown(group.keys[0]) == shown):
        key = section.describe(group.keys[0]) if group.keys else ""
        margin = 'style="margin-left: 2.5em"'  # as names of those that unfold, behind their marks
        return f"<div {margin}>{_name(shown, key, group.about)}</div>"
    title = _name(shown, plural(len(group.keys), "key"), group.about)
    items = "".join(_items(group, section, left))
    return f"<details {margin}><summary>{title}</summary><ul>{items}</ul></details>"


def _items(group: Group, section: Section, left: list[int]) -> Iterator[str]:
    some = group.keys[: min(MAX_KEYS, left[0])]
    left[0] -= len(some)
    for key in some:
        yield f"<li>{_name(key_shown(key), section.describe(key))}</li>"
    if more := len(group.keys) - len(some):
        yield f"<li>and {more:,} more</li>"


def _name(name: str, *abouts: str) -> str:
    """A name, and in a fainter tone what is said of it."""
    said = text_of(", ".join(filter(None, abouts)))
    faint = f' <span style="opacity: .7">{said}</span>' if said else ""
    return f"<code>{text_of(name)}</code>{faint}"


def key_shown(key: str) -> str:
    """A key as a terminal's line has it: the pattern that matches it alone."""
    return pattern_shown(quote(key))


def text_html(text: str) -> str:
    """What a command prints, as it stands."""
    return f"<pre>{escape(without_secrets(text))}</pre>"


def text_of(text: str) -> str:
    """A text that is one in HTML, whatever it holds."""
    return escape(said(text))
