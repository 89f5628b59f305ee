"""What is wrong with a checkpoint's weights, as people and machines read it."""

from collections import Counter

from ckpt_tool.examining import Finding, Health
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, plural, safe, size_text
from ckpt_tool.report.parts.table import GAP, Row, table

MAX_OF_KIND = 20


def health_text(health: Health, style: Style = PLAIN) -> str:
    """A line for each finding, the many of a kind cut short unless `style` lists all; the answer in
    the last line.
    """
    shown, left = _shown(health.findings, style)
    kinds = max((len(one.kind) for one in shown), default=0)
    rows = [
        Row(
            (pattern_shown(one.subject),),
            remark=safe(one.text),
            margin=f"{GAP}{style.paint(one.kind, 'red')}{' ' * (kinds - len(one.kind))}{GAP}",
        )
        for one in shown
    ]
    more = [f"  and {count} more {kind} (-v lists them)" for kind, count in left.items()]
    blocks = ["\n".join([*table(rows, "", style), *more])] if rows else []
    notes = [f"note: {safe(note)}" for note in health.notes]
    return "\n".join([*blocks, *notes, health_line(health, style)])


def _shown(findings: tuple[Finding, ...], style: Style) -> tuple[list[Finding], dict[str, int]]:
    """The findings to print, and how many of each kind are left."""
    shown: list[Finding] = []
    counts: Counter[str] = Counter()
    for one in findings:
        counts[one.kind] += 1
        if not style.is_folded or counts[one.kind] <= MAX_OF_KIND:
            shown.append(one)
    left = {kind: n - MAX_OF_KIND for kind, n in counts.items() if n > MAX_OF_KIND}
    return shown, left if style.is_folded else {}


def health_line(health: Health, style: Style = PLAIN) -> str:
    """The answer in one line."""
    path, left = safe(health.path), _unexamined(health)
    if health.findings:
        found = plural(len(health.findings), "finding")
        return f"{path}: {style.paint('not healthy', 'red')}: {found}{left}"
    size = size_text(health.distinct_nbytes)
    if not health.is_healthy:
        verdict = style.paint("not known to be healthy", "yellow")
        of = plural(health.tensors + health.unreadable, "tensor")
        return f"{path}: {verdict}: nothing found in {health.tensors:,} of {of}, {size}{left}"
    verdict = style.paint("healthy", "green")
    return f"{path}: {verdict}: {plural(health.tensors, 'tensor')}, {size}, nothing found{left}"


def _unexamined(health: Health) -> str:
    """How many tensors were not examined, behind the answer."""
    counts = ((health.unreadable, "unreadable"), (health.outside, "outside of the state dict"))
    texts = [f"{count:,} {what}" for count, what in counts if count]
    return f"; {' and '.join(texts)} not examined" if texts else ""


def health_json(health: Health) -> dict[str, object]:
    """The findings; `healthy` is the answer."""
    return {
        "schema": 1,
        "path": health.path,
        "healthy": health.is_healthy,
        "tensors": health.tensors,
        "bytes": health.nbytes,
        "unexamined": health.unreadable + health.outside,
        "notes": list(health.notes),
        "findings": [
            {"kind": one.kind, "subject": one.subject, "text": one.text} for one in health.findings
        ],
    }
