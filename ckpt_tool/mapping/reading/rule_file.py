"""Rule files into rule sets. Everything that is wrong in a file is gathered, each with its place,
and raised at once.
"""

import os
from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import replace

from ckpt_tool.errors import InputError, Location, RuleError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.keys import nearest
from ckpt_tool.mapping.reading.patterns import Reading
from ckpt_tool.mapping.reading.sections import (
    SECTIONS,
    RuleSetDraft,
    read_dropped,
    read_kept,
    read_mapped,
    texts_of,
)
from ckpt_tool.mapping.reading.yaml_nodes import (
    RULE_FILE_BYTES,
    MappingNode,
    Node,
    Scalar,
    Source,
    read_yaml,
)
from ckpt_tool.mapping.rules import RuleSet

MAX_FILES = 100
"""Rule files that one may include, itself among them; a file counts each time."""


def read_rule_files(
    paths: SequenceOf[str], resolve: Callable[[str, str], str] | None = None
) -> RuleSet:
    """The rules of several files, in order, as one set. `resolve(file, path)` says how a path
    inside a file is opened.

    Raises InputError or RuleFileError for what can't be read, RuleError with every problem of what
    was.
    """
    draft = RuleSetDraft(Reading())
    for path in paths:
        _read_file(draft, path, (), resolve or (lambda _, inner: inner))
    return _finish(draft)


def read_rule_text(text: str, name: str) -> RuleSet:
    """The rules of a rule file's text; `name` stands for the file in problems. Raises as
    `read_rule_files` does.
    """
    draft = RuleSetDraft(Reading())
    _read_text(draft, text, name, (), lambda _, inner: inner)
    return _finish(draft)


def read_inline_rules(
    rules: Iterable[str], drop: Iterable[str] = (), keep: Iterable[str] = ()
) -> RuleSet:
    """Rules from the command line: one text each, `'SOURCE -> TARGET'` or
    `'SOURCE -> TARGET: OPS'`.
    """
    draft = RuleSetDraft(Reading(), files=["-e"])
    for option, texts, read in (
        ("-e", rules, read_mapped),
        ("--drop", drop, read_dropped),
        ("--keep", keep, read_kept),
    ):
        for number, text in enumerate(texts):
            source = Source(option, ("",) * number + (text,))
            read(draft, Scalar(text, number, 0, False, source))
    draft.where = draft.rules[0].where if draft.rules else None
    return _finish(draft)


def join_rule_sets(first: RuleSet, second: RuleSet) -> RuleSet:
    """The rules of both, those of `first` taking precedence."""
    return replace(
        first,
        files=first.files + second.files,
        rules=first.rules + second.rules,
        drop=first.drop + second.drop,
        keep=first.keep + second.keep,
        params=first.params + second.params,
    )


def _finish(draft: RuleSetDraft) -> RuleSet:
    if draft.reading.problems:
        raise RuleError(draft.reading.problems)
    rest, texts = draft.rest, draft.texts
    return RuleSet(
        tuple(draft.files),
        tuple(draft.rules),
        draft.where or Location(draft.files[0] if draft.files else "-e", 1, 1),
        about=texts.get("about", ""),
        source=texts.get("source"),
        target=texts.get("target"),
        output=texts.get("output"),
        drop=tuple(draft.drop),
        keep=tuple(draft.keep),
        rest_source="drop" if rest.get("source") == "drop" else "problem",
        rest_target="keep" if rest.get("target") == "keep" else "problem",
        expect=draft.expect,
        tests=tuple(draft.tests),
        params=tuple(draft.params),
        tables=dict(draft.reading.tables),
        table_places=draft.table_places,
        blocks=tuple(draft.blocks),
        fits=tuple(draft.fits),
        strip=tuple(draft.strip),
        unwrap=tuple(draft.unwrap),
        paths=tuple(path for path in draft.files if path != "-e"),
    )


def _read_file(
    draft: RuleSetDraft, path: str, including: tuple[str, ...], resolve: Callable[[str, str], str]
) -> None:
    _read_text(draft, _text_of(path), path, including, resolve)


def _read_text(
    draft: RuleSetDraft,
    text: str,
    path: str,
    including: tuple[str, ...],
    resolve: Callable[[str, str], str],
) -> None:
    draft.files.append(path)
    root = read_yaml(text, path)
    source = Source(path, tuple(text.splitlines()))
    if not isinstance(root, MappingNode):
        where = root.where if root else source.at(0, 0)
        draft.reading.add(
            "no-rules", "a rule file is a YAML mapping of sections, as `rules:`", where
        )
        return
    if draft.where is None:
        draft.where = next(
            (key.where for key, _ in root.entries if key.text == "rules"), root.where
        )
    # What rules refer to is read before them, wherever it stands in the file.
    first = ("tables", "params")
    for key, node in sorted(root.entries, key=lambda entry: entry[0].text not in first):
        if key.text == "include":
            continue
        read = SECTIONS.get(key.text)
        if read is None:
            near = nearest(key.text, (*SECTIONS, "include"))
            names = f"the sections are {', '.join((*SECTIONS, 'include'))}"
            draft.reading.add(
                "unknown-section",
                f"`{key.text}` is not a section of a rule file",
                key.where,
                *_did_you_mean(near),
                names,
            )
        else:
            read(draft, node, lambda inner: resolve(path, inner))
    included = root.get("include")
    if included is not None:
        _include(draft, included, (*including, path), resolve)


def _text_of(path: str) -> str:
    with SourceFile(path) as file:
        if file.size > RULE_FILE_BYTES:
            sizes = f"it has {file.size:,} bytes; at most {RULE_FILE_BYTES:,} are read"
            raise _checkpoint(file) or InputError(path, f"is not a rule file: {sizes}")
        raw = file.read(0, file.size)
        try:
            return raw.decode().replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            fault = InputError(path, f"is not text: byte {error.start} is not UTF-8")
            raise _checkpoint(file) or fault from None


def _checkpoint(file: SourceFile) -> InputError | None:
    """What to say of a checkpoint where rules belong."""
    from ckpt_tool.formats.registry import FORMATS, HEAD

    head = file.read(0, min(file.size, HEAD))
    if not any(format.recognise(head, file.size) for format in FORMATS):
        return None
    order = "`ckpt check` takes the rules first, then checkpoints; other commands take --rules"
    return InputError(file.path, "is a checkpoint, not a rule file", order)


def _include(
    draft: RuleSetDraft, node: Node, including: tuple[str, ...], resolve: Callable[[str, str], str]
) -> None:
    for item in texts_of(draft, node, "include"):
        name = os.path.normpath(item.text)
        if os.path.isabs(name) or name.split(os.sep)[0] == ".." or "\0" in name:
            draft.reading.add(
                "bad-include", f"`{item.text}` leaves the folder of the rule file", item.where
            )
            continue
        path = os.path.join(os.path.dirname(including[-1]), name)
        if os.path.realpath(path) in map(os.path.realpath, including):
            draft.reading.add("include-cycle", f"`{item.text}` includes itself", item.where)
        elif not os.path.isfile(path):
            draft.reading.add("bad-include", f"`{item.text}`: no such file", item.where)
        elif not _is_beside(path, including[-1]):
            draft.reading.add(
                "bad-include",
                f"`{item.text}` is a link that leaves the folder of the rule file",
                item.where,
            )
        elif len(draft.files) >= MAX_FILES:
            draft.reading.add(
                "bad-include", f"more than {MAX_FILES} files are included", item.where
            )
            return
        else:
            _read_file(draft, path, including, resolve)


def _is_beside(path: str, including: str) -> bool:
    """Whether a file lies in or below the folder of another; by their real places too, for files
    that are all links elsewhere.
    """
    real, folders = (
        os.path.realpath(path),
        (
            os.path.realpath(os.path.dirname(including)),
            os.path.dirname(os.path.realpath(including)),
        ),
    )
    return any(os.path.commonpath([real, folder]) == folder for folder in folders)


def _did_you_mean(near: str | None) -> tuple[str, ...]:
    return (f"did you mean `{near}`?",) if near else ()
