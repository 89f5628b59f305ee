"""Rule files into rule sets. Everything that is wrong in a file is gathered, each with its place, and raised at once."""

import os
import re
from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ckpt_tool.errors import InputError, Location, Problem, RuleError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.keys import nearest
from ckpt_tool.mapping.read_condition import read_condition
from ckpt_tool.mapping.read_param import integer, read_param
from ckpt_tool.mapping.read_rule import Reading, read_fit, read_rule, read_selector
from ckpt_tool.mapping.rules import Block, Condition, Expect, FitRule, NameTest, Param, Rule, RuleSet, Selector
from ckpt_tool.mapping.yaml_nodes import RULE_FILE_BYTES, Mapping, Node, Scalar, Sequence, Source, read_yaml

T = TypeVar("T")
MOST_RULES, MOST_BLOCKS = 20_000, 500
MOST_FILES = 100
"""Rule files that one may include, itself among them; a file counts each time."""


@dataclass(slots=True)
class _Draft:
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


def read_rule_files(paths: SequenceOf[str], resolve: Callable[[str, str], str] | None = None) -> RuleSet:
    """The rules of several files, in order, as one set. `resolve(file, path)` says how a path inside a file is opened.

    Raises InputError or RuleFileError for what can't be read, RuleError with every problem of what was.
    """
    draft = _Draft(Reading())
    for path in paths:
        _read_file(draft, path, (), resolve or (lambda _, inner: inner))
    return _finish(draft)


def read_rule_text(text: str, name: str) -> RuleSet:
    """The rules of a rule file's text; `name` stands for the file in problems. Raises as `read_rule_files` does."""
    draft = _Draft(Reading())
    _read_text(draft, text, name, (), lambda _, inner: inner)
    return _finish(draft)


def read_inline_rules(rules: Iterable[str], drop: Iterable[str] = (), keep: Iterable[str] = ()) -> RuleSet:
    """Rules from the command line: one text each, `'SOURCE -> TARGET'` or `'SOURCE -> TARGET: OPS'`."""
    draft = _Draft(Reading(), files=["-e"])
    for option, texts, read in (("-e", rules, _inline_rule), ("--drop", drop, _inline_drop), ("--keep", keep, _inline_keep)):
        for number, text in enumerate(texts):
            source = Source(option, ("",) * number + (text,))
            read(draft, Scalar(text, number, 0, False, source))
    draft.where = draft.where or Location("-e", 1, 1)
    return _finish(draft)


def _inline_rule(draft: _Draft, scalar: Scalar) -> None:
    draft.where = draft.where or scalar.where
    _append(draft.rules, read_rule(draft.reading, scalar))


def _inline_drop(draft: _Draft, scalar: Scalar) -> None:
    _append(draft.drop, read_selector(draft.reading, scalar, is_source=True))


def _inline_keep(draft: _Draft, scalar: Scalar) -> None:
    _append(draft.keep, read_selector(draft.reading, scalar, is_source=False))


def join(first: RuleSet, second: RuleSet) -> RuleSet:
    """The rules of both, those of `first` taking precedence."""
    return replace(
        first,
        files=first.files + second.files, rules=first.rules + second.rules,
        drop=first.drop + second.drop, keep=first.keep + second.keep, params=first.params + second.params,
    )  # fmt: skip


def _append(items: list[T], item: T | None) -> None:
    if item is not None:
        items.append(item)


def _finish(draft: _Draft) -> RuleSet:
    if draft.reading.problems:
        raise RuleError(draft.reading.problems)
    rest, texts = draft.rest, draft.texts
    return RuleSet(
        tuple(draft.files), tuple(draft.rules), draft.where or Location(draft.files[0] if draft.files else "-e", 1, 1),
        about=texts.get("about", ""), source=texts.get("source"), target=texts.get("target"), output=texts.get("output"),
        drop=tuple(draft.drop), keep=tuple(draft.keep),
        rest_source="drop" if rest.get("source") == "drop" else "problem",
        rest_target="keep" if rest.get("target") == "keep" else "problem",
        expect=draft.expect, tests=tuple(draft.tests), params=tuple(draft.params),
        tables=dict(draft.reading.tables), table_places=draft.table_places,
        blocks=tuple(draft.blocks), fits=tuple(draft.fits), strip=tuple(draft.strip), unwrap=tuple(draft.unwrap),
    )  # fmt: skip


def _read_file(draft: _Draft, path: str, including: tuple[str, ...], resolve: Callable[[str, str], str]) -> None:
    _read_text(draft, _text_of(path), path, including, resolve)


def _read_text(draft: _Draft, text: str, path: str, including: tuple[str, ...], resolve: Callable[[str, str], str]) -> None:
    draft.files.append(path)
    root = read_yaml(text, path)
    source = Source(path, tuple(text.splitlines()))
    if not isinstance(root, Mapping):
        where = root.where if root else source.at(0, 0)
        draft.reading.add("no-rules", "a rule file is a mapping with `rules:`", where)
        return
    if draft.where is None:
        draft.where = next((key.where for key, _ in root.entries if key.text == "rules"), root.where)
    # What rules refer to is read before them, wherever it stands in the file.
    first = ("tables", "params")
    for key, node in sorted(root.entries, key=lambda entry: entry[0].text not in first):
        if key.text == "include":
            continue
        read = SECTIONS.get(key.text)
        if read is None:
            near = nearest(key.text, (*SECTIONS, "include"))
            draft.reading.add("unknown-section", f"`{key.text}` is no section of a rule file", key.where, *_did_you_mean(near))
        else:
            read(draft, node, lambda inner: resolve(path, inner))
    included = root.get("include")
    if included is not None:
        _include(draft, included, (*including, path), resolve)


def _text_of(path: str) -> str:
    with SourceFile(path) as file:
        if file.size > RULE_FILE_BYTES:
            raise InputError(path, f"is no rule file: it has {file.size:,} bytes; at most {RULE_FILE_BYTES:,} are read")
        raw = file.read(0, file.size)
    try:
        return raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(path, f"is no text: byte {error.start} is not UTF-8") from None


def _include(draft: _Draft, node: Node, including: tuple[str, ...], resolve: Callable[[str, str], str]) -> None:
    for item in _texts(draft, node, "include"):
        name = os.path.normpath(item.text)
        if os.path.isabs(name) or name.split(os.sep)[0] == ".." or "\0" in name:
            draft.reading.add("bad-include", f"`{item.text}` leaves the folder of the rule file", item.where)
            continue
        path = os.path.join(os.path.dirname(including[-1]), name)
        if os.path.realpath(path) in map(os.path.realpath, including):
            draft.reading.add("include-cycle", f"`{item.text}` includes itself", item.where)
        elif not os.path.isfile(path):
            draft.reading.add("bad-include", f"`{item.text}`: no such file", item.where)
        elif not _is_beside(path, including[-1]):
            draft.reading.add("bad-include", f"`{item.text}` is a link that leaves the folder of the rule file", item.where)
        elif len(draft.files) >= MOST_FILES:
            draft.reading.add("bad-include", f"more than {MOST_FILES} files are included", item.where)
            return
        else:
            _read_file(draft, path, including, resolve)


def _is_beside(path: str, including: str) -> bool:
    """Whether a file lies in or below the folder of another; by their real places too, for files that are all links elsewhere."""
    real, folders = os.path.realpath(path), (os.path.realpath(os.path.dirname(including)), os.path.dirname(os.path.realpath(including)))
    return any(os.path.commonpath([real, folder]) == folder for folder in folders)


def _did_you_mean(near: str | None) -> tuple[str, ...]:
    return (f"did you mean `{near}`?",) if near else ()


Resolve = Callable[[str], str]


def _read_rules(draft: _Draft, node: Node, _: Resolve) -> None:
    for item in _items(draft, node, "rules"):
        _append(draft.rules, read_rule(draft.reading, item))


def _read_optional(draft: _Draft, node: Node, _: Resolve) -> None:
    """Rules that may match nothing, and `{drop: PATTERN}` and `{keep: PATTERN}`, which may too."""
    for item in _items(draft, node, "optional"):
        name, value = item.entries[0] if isinstance(item, Mapping) and len(item.entries) == 1 else (None, None)
        if name and name.text in ("drop", "keep") and isinstance(value, Scalar):
            selector = read_selector(draft.reading, value, is_source=name.text == "drop")
            _append(draft.drop if name.text == "drop" else draft.keep, selector and replace(selector, is_optional=True))
            continue
        rule = read_rule(draft.reading, item)
        _append(draft.rules, rule and replace(rule, is_optional=True))


def _read_also(draft: _Draft, node: Node, _: Resolve) -> None:
    for item in _items(draft, node, "also"):
        rule = read_rule(draft.reading, item)
        if rule and not rule.sources:
            draft.reading.add("bad-rule", "a rule of `also:` has a source, which other rules may take", rule.where)
        _append(draft.rules, rule and replace(rule, is_extra=True))


def _read_drop(draft: _Draft, node: Node, _: Resolve) -> None:
    for item in _texts(draft, node, "drop"):
        _inline_drop(draft, item)


def _read_keep(draft: _Draft, node: Node, _: Resolve) -> None:
    for item in _texts(draft, node, "keep"):
        _inline_keep(draft, item)


def _read_rest(draft: _Draft, node: Node, _: Resolve) -> None:
    allowed = {"source": ("drop", "problem"), "target": ("keep", "problem")}
    for key, value in _entries(draft, node, "`rest:`"):
        words = allowed.get(key.text)
        if words is None or not isinstance(value, Scalar) or value.text not in words:
            where = key.where if words is None else value.where
            draft.reading.add("bad-rest", "`rest:` says `source: drop` or `target: keep`, nothing else", where)
        else:
            draft.rest[key.text] = value.text


def _read_expect(draft: _Draft, node: Node, _: Resolve) -> None:
    counts: dict[str, int] = {}
    for key, value in _entries(draft, node, "`expect:`"):
        number = integer(value)
        if key.text not in ("mapped", "kept", "dropped") or number is None:
            draft.reading.add("bad-expect", "`expect:` takes numbers for `mapped`, `kept` and `dropped`", key.where)
        else:
            counts[key.text] = number
    draft.expect = Expect(counts.get("mapped"), counts.get("kept"), counts.get("dropped"), node.where)


def _read_tests(draft: _Draft, node: Node, _: Resolve) -> None:
    for key, value in _entries(draft, node, "`tests:`"):
        is_nothing = isinstance(value, Scalar) and value.text in ("", "~", "null") and not value.is_quoted
        texts = [] if is_nothing else [value] if isinstance(value, Scalar) else _texts(draft, value, "tests")
        targets = tuple(item.text for item in texts)
        draft.tests.append(NameTest(key.text, targets, value.where if isinstance(value, Scalar) and targets else key.where))


def _read_tables(draft: _Draft, node: Node, _: Resolve) -> None:
    for key, value in _entries(draft, node, "`tables:`"):
        rows: dict[str, str] = {}
        firsts: dict[str, str] = {}
        before = len(draft.reading.problems)
        for left, right in _entries(draft, value, "a table of `tables:`"):
            if not isinstance(right, Scalar):
                draft.reading.add("bad-table", "a table gives one text for each text", right.where)
            elif right.text in firsts:
                message = f"`{right.text}` stands for `{firsts[right.text]}` and for `{left.text}`; a table is one-to-one"
                draft.reading.add("bad-table", message, right.where)
            else:
                rows[left.text], firsts[right.text] = right.text, left.text
        if len(draft.reading.problems) == before and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key.text) or not rows):
            draft.reading.add("bad-table", "a table has a name of letters and digits, and at least one row", key.where)
        draft.reading.tables[key.text] = rows
        draft.table_places[key.text] = key.where


def _read_params(draft: _Draft, node: Node, _: Resolve) -> None:
    for key, value in _entries(draft, node, "`params:`"):
        _append(draft.params, read_param(draft.reading, key, value))
        draft.reading.params.add(key.text)


def _read_strip(draft: _Draft, node: Node, _: Resolve) -> None:
    draft.strip.extend(item.text for item in _texts(draft, node, "strip"))


def _read_unwrap(draft: _Draft, node: Node, _: Resolve) -> None:
    draft.unwrap.extend(item.text for item in _texts(draft, node, "unwrap"))


def _read_when(draft: _Draft, node: Node, resolve: Resolve) -> None:
    for item in _items(draft, node, "when"):
        inner = _Draft(draft.reading)
        conditions: list[Condition] = []
        before = len(draft.reading.problems)
        for key, value in _entries(draft, item, "a block of `when:`"):
            if key.text in BLOCK_SECTIONS:
                SECTIONS[key.text](inner, value, resolve)
            else:
                _append(conditions, read_condition(draft.reading, key, value))
        if not conditions and len(draft.reading.problems) == before:
            draft.reading.add("bad-when", "a block of `when:` has a condition: `has:`, `lacks:`, `ndim:`, `shape:` or `dtype:`", item.where)
        draft.blocks.append(Block(tuple(conditions), tuple(inner.rules), tuple(inner.drop), tuple(inner.keep), item.where))


def _read_fit(draft: _Draft, node: Node, _: Resolve) -> None:
    items = node.items if isinstance(node, Sequence) else (node,)
    for item in items:
        for key, value in _entries(draft, item, "a line of `fit:`"):
            _append(draft.fits, read_fit(draft.reading, key, value))


BLOCK_SECTIONS = ("rules", "optional", "also", "drop", "keep")


def _text_reader(section: str) -> Callable[[_Draft, Node, Resolve], None]:
    def read(draft: _Draft, node: Node, resolve: Resolve) -> None:
        if isinstance(node, Scalar):
            draft.texts.setdefault(section, node.text if section == "about" else resolve(node.text))
        else:
            draft.reading.add("bad-section", f"`{section}:` is a text", node.where)

    return read


SECTIONS: dict[str, Callable[[_Draft, Node, Resolve], None]] = {
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


def _items(draft: _Draft, node: Node, section: str) -> tuple[Node, ...]:
    if isinstance(node, Sequence):
        most = MOST_BLOCKS if section == "when" else MOST_RULES
        if len(node.items) > most:
            draft.reading.add("too-many-rules", f"more than {most:,} lines in `{section}:`", node.items[most].where)
            return ()
        return node.items
    if not (isinstance(node, Scalar) and node.text in ("", "~", "null")):
        draft.reading.add("bad-section", f"`{section}:` is a list", node.where)
    return ()


def _texts(draft: _Draft, node: Node, section: str) -> list[Scalar]:
    texts = []
    for item in _items(draft, node, section):
        if isinstance(item, Scalar):
            texts.append(item)
        else:
            note = "a text that begins with `{`, or contains `{` inside `[…]`, needs quotes"
            draft.reading.problems.append(Problem("bad-section", f"`{section}:` is a list of texts", item.where, (note,)))
    return texts


def _entries(draft: _Draft, node: Node, section: str) -> tuple[tuple[Scalar, Node], ...]:
    if isinstance(node, Mapping):
        return node.entries
    draft.reading.add("bad-section", f"{section} is a mapping", node.where)
    return ()
