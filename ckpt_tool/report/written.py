"""What was written, as people and machines read it."""

from collections.abc import Sequence

from ckpt_tool.engine import Written
from ckpt_tool.formats import LeftBehind
from ckpt_tool.report.left_behind import left_behind_note
from ckpt_tool.report.style import plural, safe, size_text

MOST_NAMES = 6


def written_text(written: Written, left_behind: Sequence[LeftBehind], of_target: Sequence[LeftBehind] = ()) -> str:
    """What a file has not room for, what of the source and of the target stays behind, then the closing line."""
    lines = []
    if written.ties and written.format == "safetensors":
        names = ", ".join(f"{safe(key)} = {safe(other)}" for key, other in written.ties[:MOST_NAMES])
        lines.append(f"note: safetensors has no shared tensors; these are written twice: {names}" + _more(written.ties))
    lines += [note for note in (left_behind_note(left_behind), left_behind_note(of_target, " of the target")) if note]
    lines += [f"{digest}  {safe(name)}" for name, digest in written.sha256.items()]
    files = f" in {plural(len(written.shards), 'file')}" if written.shards else ""
    if written.in_place:
        return "\n".join([*lines, f"renamed {plural(written.tensors, 'tensor')} in {safe(written.path)}, in place"])
    return "\n".join([*lines, f"wrote {safe(written.path)}: {plural(written.tensors, 'tensor')}, {size_text(written.nbytes)}{files}"])


def _more(names: Sequence[object]) -> str:
    return f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""


def written_json(written: Written | None) -> dict[str, object] | None:
    if written is None:
        return None
    ties = [{"key": key, "shares": other} for key, other in written.ties]
    report = {"path": written.path, "format": written.format, "tensors": written.tensors, "bytes": written.nbytes, "ties": ties}
    more = {"shards": list(written.shards), "sha256": dict(written.sha256), "in_place": written.in_place}
    return report | {name: value for name, value in more.items() if value}
