"""Inverse rules as people and machines read them: a verdict for each rule."""

from collections.abc import Iterator, Sequence

from ckpt_tool.mapping import InvertedRules
from ckpt_tool.report.parts.style import PLAIN, Style, plural, safe
from ckpt_tool.report.parts.table import Row, table


def inverse_text(inverted: InvertedRules, style: Style = PLAIN) -> str:
    """A line for each rule that is more than a rename, and the conclusion."""
    notable = [each for each in inverted.rules if each.verdict != "exact" or not each.text]
    verdicts = ["none" if each.text is None else each.verdict for each in notable]
    rows = [
        Row((safe(each.rule.text),), (verdict,), safe(each.why), f"line {each.where.line:<4}  ")
        for each, verdict in zip(notable, verdicts, strict=True)
    ]
    exact = len(inverted.rules) - len(notable)
    lines = [*table(rows, "l", style), *_not_put_back(inverted)]
    if inverted.yaml is None:
        stuck = sum(each.text is None for each in inverted.rules)
        return "\n".join(
            [*lines, f"{plural(stuck, 'rule')} can't be inverted; {exact} can, exactly"]
        )
    lines += _measured(inverted)
    others = f", {len(notable)} with the verdicts above" if notable else ""
    return "\n".join([*lines, f"{plural(exact, 'rule')} inverted exactly{others}"])


def _not_put_back(inverted: InvertedRules) -> Iterator[str]:
    """What the inverse doesn't bring back, a line each."""
    if inverted.stripped:
        prefixes = ", ".join(map(safe, inverted.stripped))
        yield f"prefixes that `strip:` removes are not restored: {prefixes}"
    if inverted.dropped:
        what = "keys that the rules drop are not restored, but kept from a target"
        yield f"{what}: {_some(inverted.dropped)}"
    if inverted.kept:
        what = "the target's own keys come along where a rule matches them"
        yield f"{what}: {_some(inverted.kept)}"


def _measured(inverted: InvertedRules) -> Iterator[str]:
    """What the inverse needs to be given."""
    if names := inverted.measured:
        sets = " ".join(f"--set {safe(name)}=…" for name in names)
        yield f"needs a target, in which it measures {_some(names)}; without one: {sets}"


def _some(patterns: Sequence[str]) -> str:
    return ", ".join(map(safe, patterns[:6])) + (" …" if len(patterns) > 6 else "")


def inverse_json(inverted: InvertedRules) -> dict[str, object]:
    """The verdict for each rule, and the inverse rule file, as JSON values."""
    rules = [
        {
            "line": each.where.line,
            "rule": each.rule.text,
            "inverse": each.text or None,
            "verdict": each.verdict,
            "why": each.why,
        }
        for each in inverted.rules
    ]
    return {
        "schema": 1,
        "rules": rules,
        "yaml": inverted.yaml,
        "stripped": list(inverted.stripped),
        "dropped": list(inverted.dropped),
        "kept": list(inverted.kept),
        "measured": list(inverted.measured),
    }
