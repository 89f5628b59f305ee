"""A rule file drafted from what aligns: the fewest rules that make exactly the pairs, each with how
sure it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ckpt_tool.align.alignment import align
from ckpt_tool.align.by_values.fingerprints import DigestedTensors
from ckpt_tool.align.drafting.checked import (
    CheckedDraft,
    Setting,
    checked_draft,
    keys_in,
    starts_of,
)
from ckpt_tool.align.findings import Aligned, Alignment, Hint
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.align.other_shapes import Adapted, adapted, shape_mismatch_lines
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Side
from ckpt_tool.align.suggestion import Ready, Suggested, Suggestion
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.keys import fold, quote
from ckpt_tool.mapping import DTypePolicy, Origin, Plan, RuleSet
from ckpt_tool.mapping.accounting.account import NOTHING_NAMED, Pairing, account, without_named
from ckpt_tool.mapping.accounting.coverage import tally_of
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.tensors import Catalog, counted

MIN_CONFIDENCE = WEIGHTS.sure
"""What a pair needs to become a rule, unless another bar is set."""
MAX_FORMS = 2000
"""Unpaired keys of one side that differ in more than numbers and are folded; the folding of more
takes long.
"""


def suggest(
    source: Catalog,
    target: Catalog,
    hints: Sequence[Hint] = (),
    min_confidence: float = MIN_CONFIDENCE,
    dtypes: DTypePolicy = "target",
) -> Suggestion:
    """Drafts rules for what aligns with this confidence. The planner has confirmed that they make
    exactly these pairs.
    """
    return suggest_for(
        align(source, target, _checked(hints, source, target)),
        source,
        target,
        min_confidence,
        dtypes,
    )


def suggest_by_values(
    source: DigestedTensors,
    target: DigestedTensors,
    hints: Sequence[Hint] = (),
    min_confidence: float = MIN_CONFIDENCE,
    dtypes: DTypePolicy = "target",
) -> Suggestion:
    """As `suggest`, for pairs whose tensors hold the same; costs reading both sides."""
    from ckpt_tool.align.by_values.values import align_values

    alignment = align_values(source, target, _checked(hints, source.catalog, target.catalog))
    return replace(
        suggest_for(alignment, source.catalog, target.catalog, min_confidence, dtypes),
        basis="values, names and shapes",
    )


def suggest_for(
    alignment: Alignment,
    source: Catalog,
    target: Catalog,
    min_confidence: float,
    dtypes: DTypePolicy,
) -> Suggestion:
    """Rules for what aligns with this confidence. Pairs that the planner refuses are no longer
    sure.
    """
    _check_texts(source, target)
    pairs = alignment.at_least(min_confidence)
    drop, keep = _left(alignment, "source", source), _left(alignment, "target", target)
    shape_mismatches = shape_mismatch_lines(alignment.shape_mismatches, source, target)
    found = (
        checked_draft(pairs, Setting(source, target, dtypes, drop, keep))
        if pairs
        else CheckedDraft((), None)
    )
    alignment = _without(alignment, found.refused, min_confidence)
    unsure = checked_draft(
        [each.pair for each in alignment.below(min_confidence)], Setting(source, target, dtypes)
    )
    open_targets = {key for group in alignment.ambiguous for key in group.targets}
    settled = _left(alignment, "target", target, open_targets) if open_targets else keep
    fitted = adapted(alignment.shape_mismatches, source, target)
    return Suggestion(
        alignment=alignment,
        rules=_explained(found, alignment),
        drop=drop,
        keep=settled,
        plan=found.plan,
        min_confidence=min_confidence,
        shape_mismatches=shape_mismatches,
        unsure_rules=_explained(unsure, alignment),
        ready=_ready(fitted, alignment, source, target, open_targets) if fitted else None,
    )


def _ready(
    fitted: Adapted,
    alignment: Alignment,
    source: Catalog,
    target: Catalog,
    open_targets: Iterable[str],
) -> Ready:
    """The lines of what a `fit:` adapts, with what is left of both sides then."""
    return Ready(
        fitted.rules,
        fitted.fits,
        fitted.reasons,
        _left(alignment, "source", source, fitted.sources),
        _left(alignment, "target", target, (*fitted.targets, *open_targets)),
    )


def _left(
    alignment: Alignment, side: Side, catalog: Catalog, others: Iterable[str] = ()
) -> tuple[str, ...]:
    """Patterns for the keys of one side that are in no pair, without some others: what is ambiguous
    must not stay fresh unnoticed.
    """
    pairs = (each.pair for each in alignment.pairs)
    paired = (key for pair in pairs for key in keys_in(pair.of(side)))
    return _unpaired(catalog, (*paired, *others))


def _without(
    alignment: Alignment, refused: Iterable[tuple[Pair, str]], min_confidence: float
) -> Alignment:
    """The alignment with pairs that the planner refused below what is sure."""
    reasons = dict(refused)
    if not reasons:
        return alignment
    pairs = (
        replace(
            each,
            confidence=min(WEIGHTS.doubted, min_confidence / 2),
            evidence=f"{each.evidence}; but its rule is refused: {reasons[each.pair]}",
        )
        if each.pair in reasons
        else each
        for each in alignment.pairs
    )
    return replace(alignment, pairs=tuple(pairs))


def plan_by_alignment(
    source: Catalog,
    target: Catalog,
    dtypes: DTypePolicy = "strict",
    min_confidence: float = MIN_CONFIDENCE,
    named: RuleSet = NOTHING_NAMED,
    hints: Sequence[Hint] = (),
) -> Plan:
    """A plan of the pairs that align with this confidence; keys that are `named`, to be dropped or
    kept, take no part.

    Raises RuleError when nothing aligns, and for keys that neither align nor are named: these list
    what is ambiguous.
    """
    from_source, from_target = without_named(named, source, target)
    found = suggest(from_source, from_target, hints, min_confidence, dtypes)
    if found.plan is None:
        problem = Problem(
            "nothing-pairs", f"nothing aligns with a confidence of {min_confidence:g}"
        )
        raise RuleError([problem], tally_of((), from_target, keys_of(from_source), target))
    lines = starts_of([each.line for each in found.rules])
    sure = dict(zip(lines, (each.confidence for each in found.rules), strict=True))
    steps = tuple(
        replace(
            step, origin=Origin("auto", None, step.origin.rule, sure.get(step.origin.line or 0))
        )
        for step in found.plan.steps
    )
    return account(Pairing(steps, (), _remarks(found)), named, source, target, dtypes)


def _remarks(found: Suggestion) -> list[str]:
    """Why keys are left."""
    questions = found.alignment.questions
    remarks = [
        f"ambiguous: {each}; `ckpt suggest` takes --hint '{each.group.hint}'"
        for each in questions[:MAX_NOTES]
    ]
    if (more := len(questions) - MAX_NOTES) > 0:
        remarks.append(counted(more, "more ambiguous group"))
    if unsure := len(found.unsure):
        them = "1 pair is" if unsure == 1 else f"{unsure} pairs are"
        remarks.append(f"{them} less sure than {found.min_confidence:g} and left out")
    return remarks


MAX_NOTES = 5


def _check_texts(source: Catalog, target: Catalog) -> None:
    """Raises InputError for a key that no rule file can hold."""
    for side, catalog in (("source", source), ("target", target)):
        for key in catalog:
            if not key.isascii() and any("\ud800" <= mark <= "\udfff" for mark in key):
                raise InputError(
                    f"the {side}",
                    f"`{key}` has half of a surrogate pair, which no rule file can hold",
                )


def _checked(hints: Sequence[Hint], source: Catalog, target: Catalog) -> Sequence[Hint]:
    for hint in hints:
        for key, side, catalog in zip(hint, ("source", "target"), (source, target), strict=True):
            if key not in catalog:
                raise InputError("--hint", f"`{key}` is no key of the {side}")
    return hints


def _unpaired(catalog: Catalog, paired: Iterable[str]) -> tuple[str, ...]:
    taken = set(paired)
    left = [key for key in catalog if key not in taken]
    if len(left) > MAX_FORMS and len(set(map(numberless, left))) > MAX_FORMS:
        return tuple(quote(key) for key in left)
    return tuple(one.pattern for one in fold(dict.fromkeys(left), catalog))


def _explained(found: CheckedDraft, alignment: Alignment) -> tuple[Suggested, ...]:
    """Each line with the least sure pair that it stands for."""
    known = {slot[0]: each for each in alignment.pairs for slot in each.pair.targets}
    by_line: dict[int, list[str]] = {}
    for step in found.plan.steps if found.plan else ():
        by_line.setdefault(step.origin.line or 0, []).extend(step.outputs)
    return tuple(
        _suggested(line, by_line.get(start, []), known)
        for line, start in zip(found.lines, starts_of(found.lines), strict=True)
    )


def _suggested(line: str, keys: Sequence[str], known: Mapping[str, Aligned]) -> Suggested:
    found = [known[key] for key in keys if key in known]
    least = min(found, key=lambda each: each.confidence, default=None)
    return Suggested(
        line, len(keys), least.confidence if least else 0.0, least.evidence if least else ""
    )
