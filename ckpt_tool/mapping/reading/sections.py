"""The sections of a rule file: what stands under `rules:`, `drop:`, `tables:` and the others, into
a draft of a rule set.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ckpt_tool.errors import Location, Problem
from ckpt_tool.keys.quoting import arrows
from ckpt_tool.mapping.reading.condition import read_condition
from ckpt_tool.mapping.reading.param import integer, read_param
from ckpt_tool.mapping.reading.patterns import Reading, read_fit, read_selector
from ckpt_tool.mapping.reading.rule import read_rule
from ckpt_tool.mapping.reading.yaml_nodes import MappingNode, Node, Scalar, SequenceNode
from ckpt_tool.mapping.rules import (
    Block,
    Condition,
    Expect,
    FitRule,
    NameTest,
    Param,
    Rule,
    Selector,
)

T = TypeVar("T")
MAX_RULES, MAX_BLOCKS = 20_000, 500
"""Lines of one section."""


@dataclass(slots=True)
class RuleSetDraft:
    """What has been read so far; becomes a RuleSet when there are no problems."""

    reading: Reading
    files: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    drop: list[Selector] = field(default_factory=list)
    keep: list[Selector] = field(default_factory=list)
    tests: list[NameTest] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    fits: list[FitRule] = field(default_factory=list)
    strip: list[str] = field(default_factory=list)
    unwrap: list[str] = field(default_factory=list)
    table_places: dict[str, Location] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    rest: dict[str, str] = field(default_factory=dict)
    expect: Expect | None = None
    where: Location | None = None


def _append(items: list[T], item: T | None) -> None:
    if item is not None:
        items.append(item)


def read_mapped(draft: RuleSetDraft, node: Node) -> None:
    """A line of `rules:` into the draft, or its problem."""
    _append(draft.rules, read_rule(draft.reading, node))


def read_dropped(draft: RuleSetDraft, scalar: Scalar) -> None:
    """A pattern of source keys, of `drop:`, into the draft, or its problem."""
    _append(draft.drop, read_selector(draft.reading, scalar, is_source=True))


def read_kept(draft: RuleSetDraft, scalar: Scalar) -> None:
    """A pattern of target keys, of `keep:`, into the draft, or its problem."""
    _append(draft.keep, read_selector(draft.reading, scalar, is_source=False))


Resolve = Callable[[str], str]


def _read_rules(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for item in _rule_items(draft, node, "rules"):
        read_mapped(draft, item)


def _read_optional(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    """Rules that may match nothing, and `{drop: PATTERN}` and `{keep: PATTERN}`, which may too."""
    for item in _rule_items(draft, node, "optional"):
        name, value = (
            item.entries[0]
            if isinstance(item, MappingNode) and len(item.entries) == 1
            else (None, None)
        )
        if name and name.text in ("drop", "keep") and isinstance(value, Scalar):
            selector = read_selector(draft.reading, value, is_source=name.text == "drop")
            _append(
                draft.drop if name.text == "drop" else draft.keep,
                selector and replace(selector, is_optional=True),
            )
            continue
        rule = read_rule(draft.reading, item)
        _append(draft.rules, rule and replace(rule, is_optional=True))


def _read_also(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for item in _rule_items(draft, node, "also"):
        rule = read_rule(draft.reading, item)
        if rule and not rule.sources:
            draft.reading.add(
                "bad-rule", "a rule of `also:` has a source, which other rules may take", rule.where
            )
        _append(draft.rules, rule and replace(rule, is_extra=True))


def _read_drop(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for item in texts_of(draft, node, "drop"):
        read_dropped(draft, item)


def _read_keep(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for item in texts_of(draft, node, "keep"):
        read_kept(draft, item)


def _read_rest(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    allowed = {"source": ("drop", "problem"), "target": ("keep", "problem")}
    for key, value in _entries(draft, node, "`rest:`"):
        words = allowed.get(key.text)
        if words is None or not isinstance(value, Scalar) or value.text not in words:
            where = key.where if words is None else value.where
            draft.reading.add(
                "bad-rest", "`rest:` says `source: drop` or `target: keep`, nothing else", where
            )
        else:
            draft.rest[key.text] = value.text


def _read_expect(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    counts: dict[str, int] = {}
    for key, value in _entries(draft, node, "`expect:`"):
        number = integer(value)
        if key.text not in ("mapped", "kept", "dropped") or number is None or number < 0:
            draft.reading.add(
                "bad-expect",
                "`expect:` takes numbers from 0 on for `mapped`, `kept` and `dropped`",
                key.where,
            )
        else:
            counts[key.text] = number
    draft.expect = Expect(
        counts.get("mapped"), counts.get("kept"), counts.get("dropped"), node.where
    )


def _read_tests(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for key, value in _entries(draft, node, "`tests:`"):
        is_nothing = (
            isinstance(value, Scalar) and value.text in ("", "~", "null") and not value.is_quoted
        )
        texts = (
            []
            if is_nothing
            else [value]
            if isinstance(value, Scalar)
            else texts_of(draft, value, "tests")
        )
        targets = tuple(item.text for item in texts)
        draft.tests.append(
            NameTest(
                key.text,
                targets,
                value.where if isinstance(value, Scalar) and targets else key.where,
            )
        )


def _read_tables(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for key, value in _entries(draft, node, "`tables:`"):
        rows: dict[str, str] = {}
        firsts: dict[str, str] = {}
        before = len(draft.reading.problems)
        for left, right in _entries(draft, value, "a table of `tables:`"):
            if not isinstance(right, Scalar):
                draft.reading.add("bad-table", "a table gives one text for each text", right.where)
            elif right.text in firsts:
                both = f"`{firsts[right.text]}` and for `{left.text}`"
                message = f"`{right.text}` stands for {both}; a table is one-to-one"
                way = (
                    "write two rules where a file has one of them; both become one by an op "
                    "that joins, as in `{a,b} -> c: {concat: 0}`"
                )
                draft.reading.add("bad-table", message, right.where, way)
            else:
                rows[left.text], firsts[right.text] = right.text, left.text
        if len(draft.reading.problems) == before and (
            not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key.text) or not rows
        ):
            draft.reading.add(
                "bad-table",
                "a table has a name of letters and digits, and at least one row",
                key.where,
            )
        draft.reading.tables[key.text] = rows
        draft.table_places[key.text] = key.where


def _read_params(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    for key, value in _entries(draft, node, "`params:`"):
        _append(draft.params, read_param(draft.reading, key, value))
        draft.reading.params.add(key.text)


def _read_strip(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    draft.strip.extend(item.text for item in texts_of(draft, node, "strip"))


def _read_unwrap(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    draft.unwrap.extend(item.text for item in texts_of(draft, node, "unwrap"))


def _read_when(draft: RuleSetDraft, node: Node, resolve: Resolve) -> None:
    for item in _items(draft, node, "when"):
        inner = RuleSetDraft(draft.reading)
        conditions: list[Condition] = []
        before = len(draft.reading.problems)
        for key, value in _entries(draft, item, "a block of `when:`"):
            if key.text in BLOCK_SECTIONS:
                SECTIONS[key.text](inner, value, resolve)
            else:
                _append(conditions, read_condition(draft.reading, key, value))
        if not conditions and len(draft.reading.problems) == before:
            kinds = "`has:`, `lacks:`, `ndim:`, `shape:` or `dtype:`"
            message = f"a block of `when:` has a condition: {kinds}"
            draft.reading.add("bad-when", message, item.where)
        draft.blocks.append(
            Block(
                tuple(conditions),
                tuple(inner.rules),
                tuple(inner.drop),
                tuple(inner.keep),
                item.where,
            )
        )


def _read_fit(draft: RuleSetDraft, node: Node, _: Resolve) -> None:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    for item in items:
        for key, value in _entries(draft, item, "a line of `fit:`"):
            _append(draft.fits, read_fit(draft.reading, key, value))


BLOCK_SECTIONS = ("rules", "optional", "also", "drop", "keep")


def _text_reader(section: str) -> Callable[[RuleSetDraft, Node, Resolve], None]:
    def read(draft: RuleSetDraft, node: Node, resolve: Resolve) -> None:
        if isinstance(node, Scalar):
            draft.texts.setdefault(section, node.text if section == "about" else resolve(node.text))
        else:
            draft.reading.add("bad-section", f"`{section}:` is a text", node.where)

    return read


SECTIONS: dict[str, Callable[[RuleSetDraft, Node, Resolve], None]] = {
    "about": _text_reader("about"),
    "source": _text_reader("source"),
    "target": _text_reader("target"),
    "output": _text_reader("output"),
    "rules": _read_rules,
    "optional": _read_optional,
    "also": _read_also,
    "drop": _read_drop,
    "keep": _read_keep,
    "rest": _read_rest,
    "expect": _read_expect,
    "tests": _read_tests,
    "tables": _read_tables,
    "params": _read_params,
    "when": _read_when,
    "fit": _read_fit,
    "strip": _read_strip,
    "unwrap": _read_unwrap,
}


def _items(draft: RuleSetDraft, node: Node, section: str) -> tuple[Node, ...]:
    """The lines of a section; a text alone is a list of one."""
    if isinstance(node, Scalar) and (section != "when" or node.text in ("", "~", "null")):
        return () if node.text in ("", "~", "null") else (node,)
    if not isinstance(node, SequenceNode):
        draft.reading.add("bad-section", f"`{section}:` is a list", node.where)
        return ()
    most = MAX_BLOCKS if section == "when" else MAX_RULES
    if len(node.items) > most:
        draft.reading.add(
            "too-many-rules", f"more than {most:,} lines in `{section}:`", node.items[most].where
        )
        return ()
    return node.items


def _rule_items(draft: RuleSetDraft, node: Node, section: str) -> tuple[Node, ...]:
    """The rules of a section; of a mapping, each entry is one: `SOURCE -> TARGET: OPS` without its
    dash.
    """
    if not isinstance(node, MappingNode):
        return _items(draft, node, section)
    if node.get("from") or node.get("to"):
        return (node,)
    if not any(arrows(name.text) for name, _ in node.entries):
        way = next(
            (
                f"write `- {name.text} -> {value.text}`"
                for name, value in node.entries
                if isinstance(value, Scalar)
            ),
            None,
        )
        draft.reading.add(
            "bad-section", f"`{section}:` is a list", node.where, *((way,) if way else ())
        )
        return ()
    entries = (
        MappingNode((entry,), entry[0].line, entry[0].column, False, node.source)
        for entry in node.entries
    )
    return _items(
        draft, SequenceNode(tuple(entries), node.line, node.column, False, node.source), section
    )


def texts_of(draft: RuleSetDraft, node: Node, section: str) -> list[Scalar]:
    """The lines of a section of texts; a problem for each that is none."""
    texts = []
    for item in _items(draft, node, section):
        if isinstance(item, Scalar):
            texts.append(item)
        else:
            note = "a text that begins with `{`, or contains `{` inside `[…]`, needs quotes"
            draft.reading.problems.append(
                Problem("bad-section", f"`{section}:` is a list of texts", item.where, (note,))
            )
    return texts


def _entries(draft: RuleSetDraft, node: Node, section: str) -> tuple[tuple[Scalar, Node], ...]:
    if isinstance(node, MappingNode):
        return node.entries
    draft.reading.add("bad-section", f"{section} is a mapping", node.where)
    return ()
