"""A draft for a person to read: its rules, how sure each is, what is left, and the rule file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt_tool.align.findings import Aligned, Alignment, Question
from ckpt_tool.mapping import Plan
from ckpt_tool.mapping.reading.writing import escaped, scalar

_QUOTED = re.compile(r'"([^"\\]*)"((?:: .*)?)', re.DOTALL)


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
    def text(self) -> str:
        """The line as Python and `--rule` take it: without the quotes that YAML alone needs."""
        quoted = _QUOTED.fullmatch(self.line)
        return f"{quoted[1]}{quoted[2]}" if quoted else self.line

    @property
    def comment(self) -> str:
        """How sure the rule is, of how much, and why; on one line."""
        tensors = f"{self.tensors} tensor{'s' if self.tensors != 1 else ''}"
        return f"{self.confidence:.2f}, {tensors}: {escaped(self.evidence)}"


@dataclass(frozen=True, slots=True)
class Ready:
    """Lines that stand as comments in a draft: rules for tensors that belong together but for their
    shape, the `fit:` that adapts them, why they may be needed, and what would be dropped and kept
    beside them.
    """

    rules: tuple[str, ...]
    fits: tuple[str, ...]
    reasons: tuple[str, ...]
    drop: tuple[str, ...]
    keep: tuple[str, ...]


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

    doubtful: tuple[tuple[str, str], ...] = ()
    """The key or module that each doubt is about, and what it may belong to, if anything is known
    of that.
    """
    unsure_rules: tuple[Suggested, ...] = ()
    """What would map the pairs that are less sure; the rule file has them as comments, and their
    keys in no section.
    """
    ready: Ready | None = None
    """What a person may take over who knows that other shapes are meant to be adapted."""

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
        ready = self.ready if self.doubts and self.rules else None
        drop, keep = (ready.drop, ready.keep) if ready else (self.drop, self.keep)
        lines = [
            f"# Drafted from {self.basis}; a comment tells how sure each rule is. "
            "Read them before use.",
            "rules:",
            *(_ready_rules(ready) if ready else ()),
            *(line for rule in self.rules for line in (f"  # {rule.comment}", f"  - {rule.line}")),
            *self._unsure_lines(),
            *self._section("drop", drop, "the target has no place for these"),
            *self._section("keep", keep, "the source has nothing for these"),
            *(_ready_fits(ready) if ready else ()),
            *(f"# undecided: {escaped(doubt)}" for doubt in self.doubts),
            *(f"# {escaped(line)}" for line in self.shape_mismatches),
            *map(_ambiguity, self.alignment.questions),
        ]
        return "\n".join(lines) + "\n"

    def _unsure_lines(self) -> Iterator[str]:
        """The rules that are less sure, as comments."""
        if self.unsure_rules:
            yield "# not sure, and in no section: a rule that is right goes above, without its mark"
        for rule in self.unsure_rules:
            yield f"# {rule.comment}"
            yield from (f"#  {line}" for line in f" - {rule.line}".split("\n"))

    def _section(self, name: str, patterns: Sequence[str], why: str) -> Iterator[str]:
        """What is dropped or kept; as a comment where that is left to a person."""
        mark = "# " if self.doubts or not self.rules else ""
        if patterns:
            yield f"{mark}{name}:  # {why}"
            yield from (f"{mark}  - {scalar(pattern)}" for pattern in patterns)


def _ready_rules(ready: Ready) -> Iterator[str]:
    """The rules of what is adapted, first: those below take such keys too."""
    yield f"  # {escaped(', '.join(ready.reasons))}? then uncomment these lines, and `fit:` below"
    yield from (f"#   - {line}" for line in ready.rules)


def _ready_fits(ready: Ready) -> Iterator[str]:
    yield f"# fit:  # {escaped(', '.join(ready.reasons))}"
    yield from (f"#   - {line}" for line in ready.fits)


def _ambiguity(question: Question) -> str:
    """What is left to a person, as a comment."""
    return f"# ambiguous: {escaped(str(question))}; --hint '{escaped(question.group.hint)}'"
