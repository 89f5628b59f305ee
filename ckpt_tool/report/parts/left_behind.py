"""What of a file stays outside of what is taken from it, for people and machines."""

from collections.abc import Sequence

from ckpt_tool.api.remarks.left_behind import left_behind_text
from ckpt_tool.formats import LeftBehind
from ckpt_tool.report.parts.style import safe


def left_behind_note(left: Sequence[LeftBehind], of: str = "") -> str:
    """The line of a report; empty where all is copied."""
    text = left_behind_text(left, of)
    return f"note: {safe(text)}" if text else ""


def left_behind_json(left: Sequence[LeftBehind]) -> list[dict[str, object]]:
    """What is not copied, as JSON values."""
    return [
        {"path": one.path, "kind": one.kind, "tensors": one.tensors, "bytes": one.nbytes}
        for one in left
    ]
