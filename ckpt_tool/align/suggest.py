"""A rule file drafted from what aligns: the fewest rules that say exactly the pairs, each with how
sure it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.alignment import align
from ckpt_tool.align.by_values.fingerprints import DigestedTensors
from ckpt_tool.align.drafting.checked import Checked, Setting, checked, keys_in, starts_of
from ckpt_tool.align.findings import Aligned, Alignment, Hint
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.align.pairs import Pair
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.keys import fold, quote
from ckpt_tool.mapping import DTypePolicy, Origin, Plan, RuleSet
from ckpt_tool.mapping.accounting.account import NOTHING_NAMED, Pairing, account, without_named
from ckpt_tool.mapping.accounting.coverage import tally_of
from ckpt_tool.mapping.accounting.heads import has_shape_of_a_table
from ckpt_tool.mapping.accounting.shape_mismatches import fit_note
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.reading.writing import escaped, scalar
from ckpt_tool.tensors import Catalog, shape_text

MIN_CONFIDENCE = 0.9
MAX_SHAPE_MISMATCHES = 20
FEW_MISFITS = 4
"""Kinds of tensors with another shape that a `fit:` may adapt; where more have, the networks differ
in width.
"""
MAX_KEYS = 2000
"""Unpaired keys of one side that are folded; the folding of more takes long."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """One drafted rule: its line of YAML, how many target tensors it makes, the least confidence
    among them, and why.
    """

    line: str
    tensors: int
    confidence: float
    evidence: str

    @property
    def said(self) -> str:
        return f"{self.confidence:.2f}, {self.tensors} tensor{'s' if self.tensors != 1 else ''}: {escaped(self.evidence)}"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Rules for two catalogs, and the plan that they make; `plan` is None where nothing aligns."""

    alignment: Alignment
    rules: tuple[Suggested, ...]
    drop: tuple[str, ...]
    keep: tuple[str, ...]
    plan: Plan | None
    min_confidence: float
    basis: str = "names and shapes"
    shape_mismatches: tuple[str, ...] = ()
    """What belongs together but for its shape, in words: rules that would map it, with the shapes
    of one of their pairs.
    """
    doubts: tuple[str, ...] = ()
    """Why what nothing pairs with can't be dropped and kept just so; then the rule file leaves that
    to a person too.
    """

    unsure_rules: tuple[Suggested, ...] = ()
    """What would map the pairs that are less sure; the rule file has them as comments, and their
    keys in no section.
    """

    @property
    def unsure(self) -> tuple[Aligned, ...]:
        """The pairs that are less sure than was asked for."""
        return self.alignment.below(self.min_confidence)

    @property
    def is_complete(self) -> bool:
        """Whether something aligns, and nothing is left to a person."""
        return (
            self.plan is not None
            and not self.alignment.ambiguous
            and not self.unsure
            and not self.doubts
        )

    @property
    def text(self) -> str:
        """The rule file."""
        lines = [
            f"# Drafted from {self.basis}; a comment tells how sure each rule is. Read them before use.",
            "rules:",
        ]
        for rule in self.rules:
            lines += [f"  # {rule.said}", f"  - {rule.line}"]
        lines += (
            ["# not sure, and in no section: a rule that is right goes above, without its mark"]
            if self.unsure_rules
            else []
        )
        for rule in self.unsure_rules:
            lines += [f"# {rule.said}", *(f"#  {line}" for line in f" - {rule.line}".split("\n"))]
        for name, patterns, why in (
            ("drop", self.drop, "no tensor of the target"),
            ("keep", self.keep, "nothing of the source goes here"),
        ):
            if patterns:
                section = [f"{name}:  # {why}", *(f"  - {scalar(pattern)}" for pattern in patterns)]
                lines += [f"# {line}" for line in section] if self.doubts else section
        lines += [f"# left to you: {escaped(doubt)}" for doubt in self.doubts]
        return (
            "\n".join(
                [*lines, *(f"# {escaped(line)}" for line in self.shape_mismatches), *self._open()]
            )
            + "\n"
        )

    def _open(self) -> list[str]:
        """What is left to a person, as comments."""
        return [
            f"# ambiguous: {len(group.sources)} and {len(group.targets)} keys, {escaped(group.reason)}; --hint '{escaped(group.hint)}'"
            for group in self.alignment.ambiguous
        ]


def suggest(
    source: Catalog,
    target: Catalog,
    hints: Sequence[Hint] = (),
    min_confidence: float = MIN_CONFIDENCE,
    dtypes: DTypePolicy = "target",
) -> Suggestion:
    """Drafts rules for what aligns with this confidence. The planner has confirmed that they say
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
    drop, keep = _left(alignment, 0, source), _left(alignment, 1, target)
    shape_mismatches = _misfits(alignment.shape_mismatches, source, target)
    found = (
        checked(pairs, Setting(source, target, dtypes, drop, keep)) if pairs else Checked((), None)
    )
    alignment = _without(alignment, found.refused, min_confidence)
    unsure = checked(
        [each.pair for each in alignment.below(min_confidence)], Setting(source, target, dtypes)
    )
    open_targets = {key for group in alignment.ambiguous for key in group.targets}
    settled = _left(alignment, 1, target, open_targets) if open_targets else keep
    return Suggestion(
        alignment, _explained(found, alignment), drop, settled, found.plan, min_confidence, shape_mismatches=shape_mismatches,
        unsure_rules=_explained(unsure, alignment),
    )  # fmt: skip


def _left(
    alignment: Alignment, side: int, catalog: Catalog, others: Iterable[str] = ()
) -> tuple[str, ...]:
    """Patterns for the keys of one side that are in no pair, without some others: what is ambiguous
    must not stay fresh unnoticed.
    """
    paired = (
        key
        for each in alignment.pairs
        for key in keys_in((each.pair.sources, each.pair.targets)[side])
    )
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
            confidence=min(0.5, min_confidence / 2),
            evidence=f"{each.evidence}; but its rule is refused: {reasons[each.pair]}",
        )
        if each.pair in reasons
        else each
        for each in alignment.pairs
    )
    return replace(alignment, pairs=tuple(pairs))


def _misfits(found: Sequence[tuple[str, str]], source: Catalog, target: Catalog) -> tuple[str, ...]:
    """A line for each kind of key that has its place on both sides, but another shape."""
    unlike = [(a, b) for a, b in found if source[a].shape != target[b].shape]
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for a, b in unlike:
        kinds.setdefault((numberless(a), numberless(b)), []).append((a, b))
    lines = [_misfit(pairs, source, target, len(kinds) <= FEW_MISFITS) for pairs in kinds.values()]
    more = (
        [f"{len(lines) - MAX_SHAPE_MISMATCHES} more kinds of tensors have another shape"]
        if len(lines) > MAX_SHAPE_MISMATCHES
        else []
    )
    return (*lines[:MAX_SHAPE_MISMATCHES], *more)


def _misfit(
    pairs: Sequence[tuple[str, str]], source: Catalog, target: Catalog, is_rare: bool
) -> str:
    a, b = pairs[0]
    shapes = (source[a].shape, target[b].shape)
    many = f", and {len(pairs) - 1} like it" if len(pairs) > 1 else ""
    notes = fit_note(b, *shapes, has_shape_of_a_table(a, source)) if is_rare else []
    return "; ".join(
        [
            f"same place, another shape: {a} -> {b}, {shape_text(shapes[0])} and {shape_text(shapes[1])}{many}",
            *notes,
        ]
    )


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

    Raises RuleError when nothing aligns, and for keys that neither align nor are named: these tell
    what is ambiguous.
    """
    from_source, from_target = without_named(named, source, target)
    found = suggest(from_source, from_target, hints, min_confidence, dtypes)
    if found.plan is None:
        problem = Problem(
            "nothing-pairs", f"nothing aligns with a confidence of {min_confidence:g}"
        )
        raise RuleError([problem], tally_of((), from_target, keys_of(from_source), target))
    origin = Origin("auto")
    steps = tuple(replace(step, origin=origin) for step in found.plan.steps)
    return account(Pairing(steps, (), _remarks(found)), named, source, target, dtypes)


def _remarks(found: Suggestion) -> list[str]:
    """Why keys are left."""
    groups = found.alignment.ambiguous
    remarks = [
        f"ambiguous: {group.reason}; ckpt suggest --hint '{group.hint}'"
        for group in groups[:MAX_NOTES]
    ]
    remarks += (
        [f"{len(groups) - MAX_NOTES} more ambiguous groups"] if len(groups) > MAX_NOTES else []
    )
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
    if len(left) > MAX_KEYS:
        return tuple(quote(key) for key in left)
    return tuple(one.pattern for one in fold(dict.fromkeys(left), catalog))


def _explained(found: Checked, alignment: Alignment) -> tuple[Suggested, ...]:
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
