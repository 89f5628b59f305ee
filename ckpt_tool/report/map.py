"""What was written, as people and machines read it."""

import re
from collections.abc import Mapping, Sequence

from ckpt_tool.api.remarks.left_behind import left_behind_list
from ckpt_tool.engine import Written
from ckpt_tool.formats import LeftBehind
from ckpt_tool.keys import fold
from ckpt_tool.report.parts.left_behind import left_behind_json, left_behind_note
from ckpt_tool.report.parts.style import pattern_shown, plural, safe, size_text

MAX_NAMES = 6
_OF_TARGET = " from the target"
_WITHOUT_TIES = {"safetensors": "safetensors", "dcp": "a distributed checkpoint"}
"""The formats that store each key by itself, as notes call them."""


def written_text(
    written: Written,
    left_behind: Sequence[LeftBehind],
    of_target: Sequence[LeftBehind] = (),
    layouts: Sequence[str] = (),
) -> str:
    """What kind of files were read, where that is said; what the output has no room for; what stays
    behind; then the closing line.
    """
    lines = [f"note: {safe(layout)}" for layout in layouts]
    if written.ties and written.format in _WITHOUT_TIES:
        lines.append(
            f"note: {_WITHOUT_TIES[written.format]} has no shared tensors; these are written "
            f"twice: {_tied(dict(written.ties))}"
        )
    lines += [f"note: {safe(note)}" for note in written.notes]
    left = written.left if written.is_whole else left_behind
    notes = (beside_note(written), left_behind_note(left), left_behind_note(of_target, _OF_TARGET))
    lines += [note for note in notes if note]
    lines += [f"{digest}  {safe(name)}" for name, digest in written.sha256.items()]
    # Of a whole folder every file is listed, elsewhere the shards alone, without their index.
    noun = "file" if written.is_whole else "shard"
    files = f" in {plural(len(written.shards), noun)}" if written.shards else ""
    if written.in_place:
        some = f"{written.renamed:,} of " if written.renamed < written.tensors else ""
        count = f"{some}{plural(written.tensors, 'tensor')}"
        return "\n".join([*lines, f"renamed {count} in {safe(written.path)}, in place"])
    return "\n".join(
        [
            *lines,
            f"wrote {safe(written.path)}: {plural(written.tensors, 'tensor')}, "
            f"{size_text(written.nbytes)}{files}",
        ]
    )


def beside_note(written: Written) -> str:
    """What is in a whole training checkpoint beside the weights; empty where nothing is."""
    listed = left_behind_list(written.beside)
    return f"note: copied unchanged: {safe(listed)}" if listed else ""


def _tied(ties: Mapping[str, str]) -> str:
    """Keys with the one that they share a tensor with, a pattern for those of one form."""
    folds = fold(
        {key: _form(key) + _form(other) for key, other in ties.items()},
        list({*ties, *ties.values()}),
    )
    texts = []
    for one in folds[:MAX_NAMES]:
        others = fold(dict.fromkeys(ties[key] for key in one.keys), list(ties))
        right = (
            pattern_shown(others[0].pattern)
            if len(others) == 1
            else f"{pattern_shown(ties[one.keys[0]])} and others"
        )
        texts.append(
            f"{pattern_shown(one.pattern)} = {right}"
            + (f" ({len(one.keys):,})" if len(one.keys) > 1 else "")
        )
    more = sum(len(one.keys) for one in folds[MAX_NAMES:])
    return ", ".join(texts) + (f" and {more} more" if more else "")


def _form(key: str) -> str:
    return re.sub("[0-9]+", "0", key)


def written_json(written: Written | None) -> dict[str, object] | None:
    """What was written as JSON values; None where nothing was."""
    if written is None:
        return None
    ties = [{"key": key, "shares": other} for key, other in written.ties]
    report = {
        "path": written.path,
        "format": written.format,
        "tensors": written.tensors,
        "bytes": written.nbytes,
        "ties": ties,
    }
    more = {
        "shards": list(written.shards),
        "sha256": dict(written.sha256),
        "in_place": written.in_place,
        "whole": written.is_whole,
        "beside": left_behind_json(written.beside),
        "notes": list(written.notes),
    }
    return report | {name: value for name, value in more.items() if value}
