"""Drafted rules as people and machines read them."""

from collections.abc import Sequence

from ckpt_tool.align import Aligned, Suggestion
from ckpt_tool.ops import ops_argument
from ckpt_tool.report.parts.style import PLAIN, Style, plural, safe

MAX_SHOWN = 12


def suggestion_notes(found: Suggestion, is_beside_rules: bool = False) -> str:
    """What is left to a person, and the counts; the counts alone where the rule file is printed on
    the same terminal, whose comments say the rest.
    """
    if is_beside_rules:
        return _counts(found)
    questions = found.alignment.questions
    lines = _some(
        [
            f"ambiguous: {safe(str(each))}\nhint: --hint '{safe(each.group.hint)}'"
            for each in questions
        ],
        "more ambiguous group",
    )
    lines += _some(
        [safe(line) for line in found.shape_mismatches],
        "more line",
        "about tensors with another shape",
    )
    lines += _some(
        [f"undecided: {safe(doubt)}" for doubt in found.doubts],
        "more reason",
        "why not all that is left may be dropped or kept",
    )
    return "\n".join([*lines, _counts(found)])


def _some(lines: Sequence[str], noun: str, about: str = "") -> list[str]:
    """The lines that are shown, and how many more there are: two or more, for one has the room."""
    if len(lines) <= MAX_SHOWN + 1:
        return list(lines)
    more = f"{plural(len(lines) - MAX_SHOWN, noun)} {about}".rstrip()
    return [*lines[:MAX_SHOWN], more]


def mismatches_of(found: Suggestion) -> tuple[tuple[str, str], ...]:
    """Keys of both sides that have the same place, or at least the same name, and other shapes."""
    known = found.alignment.shape_mismatches
    plan = found.plan
    if plan is None or plan.target is None:
        return known
    a, b = plan.source, plan.target
    done = {key for pair in known for key in pair}
    left = set(found.alignment.unpaired_source) - done
    for group in found.alignment.ambiguous:
        left.difference_update(group.sources, group.targets)
    names = [key for key in found.alignment.unpaired_target if key in left and key not in done]
    more = [(key, key) for key in names if key in a and key in b and a[key].shape != b[key].shape]
    return (*known, *more)


def drafted_text(text: str, style: Style = PLAIN) -> str:
    """The rule file for a terminal, its comments dim."""
    return "\n".join(
        style.paint(line, "dim") if line.lstrip().startswith("#") else line
        for line in text.rstrip("\n").split("\n")
    )


def _counts(found: Suggestion) -> str:
    """How much is mapped by how many rules, and how much is left."""
    unsure = sum(each.confidence < found.min_confidence for each in found.alignment.pairs)
    left_out = (
        f"{plural(unsure, 'pair')} below {found.min_confidence:g} left out; "
        "--min-confidence says what a pair needs\n"
        if unsure
        else ""
    )
    mapped = found.plan.counts["mapped"] if found.plan else 0
    counts = [f"{mapped:,} mapped by {plural(len(found.rules), 'rule')}"]
    undecided = [f"{count:,} {word}" for word, count in _open_counts(found).items() if count]
    counts += undecided
    unmade, unused = _left(found)
    if unmade or not undecided:
        counts.append(f"{plural(unmade, 'target tensor')} without a source")
    if unused or not undecided:
        counts.append(f"{plural(unused, 'source tensor')} unused")
    return left_out + ", ".join(counts)


def _open_counts(found: Suggestion) -> dict[str, int]:
    """How many tensors of the target have a counterpart, but no rule, by why."""
    alignment = found.alignment
    return {
        "not sure": sum(
            len({key for slot in each.pair.targets for key in slot})
            for each in alignment.below(found.min_confidence)
        ),
        "ambiguous": len({key for group in alignment.ambiguous for key in group.targets}),
        "of another shape": len({key for _, key in mismatches_of(found)}),
    }


def _left(found: Suggestion) -> tuple[int, int]:
    """How many keys of the target and of the source have no counterpart at all."""
    alignment = found.alignment
    mismatches = mismatches_of(found)
    sources = {key for key, _ in mismatches}
    targets = {key for _, key in mismatches}
    for group in alignment.ambiguous:
        sources.update(group.sources)
        targets.update(group.targets)
    unmade = sum(key not in targets for key in alignment.unpaired_target)
    return unmade, sum(key not in sources for key in alignment.unpaired_source)


def suggestion_json(found: Suggestion, names: tuple[str, str]) -> dict[str, object]:
    """A draft as JSON values: pairs, rules, what is ambiguous and what is left."""
    drafted = [
        {
            "rule": each.line,
            "tensors": each.tensors,
            "confidence": each.confidence,
            "evidence": each.evidence,
        }
        for each in found.rules
    ]
    ambiguous = [
        {
            "sources": list(each.sources),
            "targets": list(each.targets),
            "reason": each.reason,
            "hint": each.hint,
        }
        for each in found.alignment.ambiguous
    ]
    return {
        "schema": 1,
        "source": names[0],
        "target": names[1],
        "min_confidence": found.min_confidence,
        "pairs": [_pair(each) for each in found.alignment.pairs],
        "ambiguous": ambiguous,
        "misfits": [{"source": a, "target": b} for a, b in mismatches_of(found)],
        "fresh": list(found.alignment.unpaired_target),
        "unused": list(found.alignment.unpaired_source),
        "drafted": drafted,
        "drop": list(found.drop),
        "keep": list(found.keep),
        "doubts": list(found.doubts),
        "rules": found.text,
    }


def _pair(each: Aligned) -> dict[str, object]:
    return {
        "sources": [key for slot in each.pair.sources for key in slot],
        "targets": [key for slot in each.pair.targets for key in slot],
        "ops": ops_argument(each.pair.ops),
        "confidence": each.confidence,
        "evidence": each.evidence,
    }
