"""What unpickling files would call or import, as people and machines read it."""

from collections.abc import Sequence

from ckpt_tool.examining.calls import Scan
from ckpt_tool.report.parts.style import PLAIN, Style, plural, safe

MAX_CALLS = 20


def scan_text(found: Sequence[Scan], style: Style = PLAIN) -> str:
    """A line for each file that would call something, or that can't be read; the counts last."""
    lines = []
    for each in found:
        if each.fault:
            lines.append(f"{safe(each.path)}: can't be read: {safe(each.fault)}")
        elif each.calls:
            would = style.paint("would call or import", "red")
            lines.append(f"{safe(each.path)}: unpickling it {would} {calls_text(each.calls)}")
    return "\n".join([*lines, *([""] if lines else []), _conclusion(found)])


def calls_text(calls: Sequence[str]) -> str:
    """The names, the first ones of many."""
    more = f" and {len(calls) - MAX_CALLS} more" if len(calls) > MAX_CALLS else ""
    return ", ".join(map(safe, calls[:MAX_CALLS])) + more


def _conclusion(found: Sequence[Scan]) -> str:
    calling = sum(bool(each.calls) for each in found)
    unread = sum(each.fault is not None for each in found)
    read = len(found) - unread
    parts = [f"{plural(read, 'file')} scanned"]
    if read:
        parts += [f"{calling} would call or import something" if calling else "no calls or imports"]
    parts += [f"{unread} can't be read"] if unread else []
    return ", ".join(parts)


def scan_json(found: Sequence[Scan]) -> dict[str, object]:
    """The same as JSON values."""
    files = [{"path": each.path, "calls": list(each.calls), "fault": each.fault} for each in found]
    return {"schema": 1, "files": files, "is_clean": not any(each.calls for each in found)}
