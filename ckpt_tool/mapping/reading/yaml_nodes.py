"""YAML as a strict subset, with every scalar's text, line and column kept.

Texts stay texts: `no`, `1:30` and `0777` are never turned into something else. Anchors, aliases,
merge keys, tags, duplicate keys, several documents, and depth or size beyond the limits are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

import yaml

from ckpt_tool.errors import Location, RuleFileError
from ckpt_tool.frozen import frozen

RULE_FILE_BYTES = 4 << 20
RULE_FILE_DEPTH = 20
RULE_FILE_NODES = 200_000


@frozen
class Source:
    """A rule file's name and its lines, for locations; of a text that stands inside of one of its
    lines, the 0-based place where that begins.
    """

    file: str
    lines: tuple[str, ...]
    line: int = 0
    column: int = 0

    def at(self, line: int, column: int, length: int = 1) -> Location:
        """A location from 0-based line and column."""
        column += 0 if line else self.column
        line += self.line
        text = self.lines[line] if line < len(self.lines) else ""
        return Location(self.file, line + 1, column + 1, max(length, 1), text)

    def after(self, line: int, column: int) -> str:
        """What stands in a line from a place on."""
        return self.at(line, 0).text[column + (0 if line else self.column) :]


@frozen
class Scalar:
    """A text, quoted or not, from 0-based `line` and `column` on; never a number or a boolean."""

    text: str
    line: int
    column: int
    is_quoted: bool
    source: Source

    @property
    def where(self) -> Location:
        """The place of the whole text."""
        return self.at(0, len(self.text))

    def at(self, start: int, length: int) -> Location:
        """The place of a part of the text; of the whole scalar where its characters don't stand in
        the file as they are.
        """
        if self.is_as_written:
            return self.source.at(self.line, self.column + self.is_quoted + start, length)
        return self.source.at(self.line, self.column, 1)

    @property
    def is_as_written(self) -> bool:
        """Whether its characters stand in the file as they are, all in one line."""
        return self.source.after(self.line, self.column + self.is_quoted).startswith(self.text)

    def inside(self, start: int) -> Source:
        """The source of what stands in the text from a character on; of all of it, where its
        characters don't stand in the file as they are.
        """
        where = self.at(start, 1)
        return Source(self.source.file, self.source.lines, where.line - 1, where.column - 1)


@frozen
class SequenceNode:
    """A list; `is_flow` where it is written in brackets."""

    items: tuple[Node, ...]
    line: int
    column: int
    is_flow: bool
    source: Source

    @property
    def where(self) -> Location:
        """Where it begins."""
        return self.source.at(self.line, self.column)


@frozen
class MappingNode:
    """A mapping of texts, each once, in their order; `is_flow` where it is written in braces."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int
    is_flow: bool
    source: Source

    @property
    def where(self) -> Location:
        """Where it begins."""
        return self.source.at(self.line, self.column)

    def get(self, name: str) -> Node | None:
        """The value of a key, or None where there is no such key."""
        return next((value for key, value in self.entries if key.text == name), None)


Node = Scalar | SequenceNode | MappingNode

HALF_QUOTED = "quotation marks go around the whole rule: `'SOURCE -> TARGET'`"
QUOTES = "a text that begins with `*`, `{` or `&`, or that is inside `[…]`, needs quotes"


def read_yaml(text: str, file: str, inside: Source | None = None) -> Node | None:
    """The document as nodes, or None for an empty one; `inside` says where it stands in a larger
    one. Raises RuleFileError with its place.
    """
    if len(text) > RULE_FILE_BYTES:
        raise RuleFileError(
            file, f"a rule file of {len(text):,} characters; at most {RULE_FILE_BYTES:,} are read"
        )
    source = inside or Source(file, tuple(text.splitlines()))
    try:
        text.encode()
        return _document(_events(text), source)
    except UnicodeEncodeError:
        raise RuleFileError(
            file, "has half of a surrogate pair in a text, which YAML can't hold"
        ) from None
    except yaml.YAMLError as error:
        raise _as_rule_file_error(error, source) from None


def _events(text: str) -> Iterator[yaml.Event]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from yaml.parse(text, Loader=loader)


def _document(events: Iterator[yaml.Event], source: Source) -> Node | None:
    """Builds the nodes without recursion: a stack of open collections, each with the children that
    it has so far.
    """
    stack: list[tuple[yaml.Event, list[Node]]] = []
    root: list[Node] = []
    for event in _allowed(events, source):
        siblings = stack[-1][1] if stack else root
        if isinstance(event, yaml.ScalarEvent):
            siblings.append(Scalar(event.value, *_place(event), event.style in ("'", '"'), source))
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((event, []))
        elif isinstance(event, yaml.CollectionEndEvent):
            start, children = stack.pop()
            (stack[-1][1] if stack else root).append(_collection(start, children, source))
    return root[0] if root else None


def _allowed(events: Iterator[yaml.Event], source: Source) -> Iterator[yaml.Event]:
    """The events, of one document without aliases. Raises RuleFileError at the first that is
    refused.
    """
    documents = depth = 0
    for count, event in enumerate(events):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused(event, source, "a second document")
        elif isinstance(event, yaml.AliasEvent):
            raise _refused(event, source, "an alias", QUOTES)
        elif isinstance(event, yaml.NodeEvent):
            _check_node(event, source, depth, count)
        yield event
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)


def _check_node(event: yaml.NodeEvent, source: Source, depth: int, count: int) -> None:
    if event.anchor is not None:
        raise _refused(event, source, "an anchor", QUOTES)
    if (tag := getattr(event, "tag", None)) is not None:
        raise _refused(event, source, f"the tag `{tag}`")
    if depth > RULE_FILE_DEPTH:
        raise _refused(event, source, f"more than {RULE_FILE_DEPTH} levels")
    if count > RULE_FILE_NODES:
        raise _refused(event, source, f"more than {RULE_FILE_NODES:,} nodes")


def _collection(start: yaml.Event, children: list[Node], source: Source) -> Node:
    is_flow = bool(getattr(start, "flow_style", False))
    if isinstance(start, yaml.SequenceStartEvent):
        return SequenceNode(tuple(children), *_place(start), is_flow, source)
    entries: list[tuple[Scalar, Node]] = []
    seen: set[str] = set()
    for key, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise _error(key.where, "a key that is not a string", QUOTES)
        if key.text in seen:
            raise _error(key.where, f"`{key.text}` is twice in one mapping")
        if key.text == "<<" and not key.is_quoted:
            raise _error(key.where, "a merge key is not allowed in a rule file")
        seen.add(key.text)
        entries.append((key, value))
    return MappingNode(tuple(entries), *_place(start), is_flow, source)


def _place(event: yaml.Event) -> tuple[int, int]:
    """The 0-based line and column of an event."""
    mark = event.start_mark
    return (mark.line, mark.column) if mark else (0, 0)


def _refused(
    event: yaml.Event, source: Source, what: str, hint: str | None = None
) -> RuleFileError:
    return _error(source.at(*_place(event)), f"{what} is not allowed in a rule file", hint)


def _error(where: Location, fact: str, hint: str | None = None) -> RuleFileError:
    return RuleFileError(str(where), fact, hint)


def _as_rule_file_error(error: yaml.YAMLError, source: Source) -> RuleFileError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    fact = getattr(error, "problem", None) or str(getattr(error, "reason", "")) or "no YAML"
    if mark is None:
        return RuleFileError(source.file, f"is no YAML: {fact}")
    where = source.at(mark.line, mark.column)
    return _error(where, f"is no YAML: {fact}", _remedy(where.text, where.column - 1))


def _remedy(line: str, column: int) -> str | None:
    """What to write instead of a line that is no YAML from this column on, if we know."""
    if re.search(r"""['"]\s*(->|→)""", line):
        return HALF_QUOTED
    if line[column : column + 1] == "\t":
        return "indent with spaces: YAML has no tabs"
    return QUOTES if any(mark in line for mark in "*{[") else None


def plain_data(node: Node) -> object:
    """The node as plain data: `true`, whole numbers and decimal fractions become what they say,
    everything else stays a text.
    """
    if isinstance(node, SequenceNode):
        return [plain_data(item) for item in node.items]
    if isinstance(node, MappingNode):
        return {key.text: plain_data(value) for key, value in node.entries}
    if node.is_quoted:
        return node.text
    if node.text in ("true", "false"):
        return node.text == "true"
    return _number(node.text)


def _number(text: str) -> int | float | str:
    """The number that Python reads, but for its underscores and foreign digits; else the text."""
    if not text.isascii() or "_" in text:
        return text
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text
