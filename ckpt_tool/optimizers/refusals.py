"""Why states can't follow a plan, as problems: one for each reason, with a pattern of the keys that
it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckpt_tool.errors import Location, Problem, RuleError
from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Matcher, PatternError, fold, meant_note, parse
from ckpt_tool.mapping.plan import Step
from ckpt_tool.tensors import counted


@frozen
class Refusal:
    """A parameter of the target whose state has no exact way, and why; `step` is what makes it."""

    key: str
    why: str
    step: Step | None

    @property
    def where(self) -> Location | None:
        """The rule of the step."""
        rule = self.step.origin.rule if self.step else None
        return rule.where if rule else None


def problems_of(refusals: Sequence[Refusal], others: Iterable[str]) -> list[Problem]:
    """One problem for each reason and pattern of keys; `others` are keys that no pattern may match
    besides.
    """
    reasons = {each.key: (each.why, each.where) for each in refusals}
    return [_problem(one.pattern, one.keys, *reasons[one.keys[0]]) for one in fold(reasons, others)]


def _problem(pattern: str, keys: Sequence[str], why: str, where: Location | None) -> Problem:
    count = f" ({counted(len(keys), 'parameter')})" if len(keys) > 1 else ""
    return Problem(
        "optimizer-state",
        f"the optimizer's state can't follow to `{pattern}`{count}: {why}",
        where,
        (f"--fresh-optimizer '{pattern}' (fresh=[{pattern!r}]) begins without a state there",),
    )


def matching_any(patterns: Sequence[str], keys: Sequence[str]) -> frozenset[str]:
    """The keys that any pattern matches. Raises RuleError for a pattern that matches none."""
    found: set[str] = set()
    problems = []
    for pattern in patterns:
        try:
            matcher = Matcher(parse(pattern))
        except PatternError as error:
            notes = (error.hint,) if error.hint else ()
            problems.append(Problem("bad-pattern", f"`{pattern}`: {error.message}", None, notes))
            continue
        matched = [key for key in keys if matcher.match(key) is not None]
        if not matched:
            note = meant_note(pattern, keys)
            notes = (note,) if note else ()
            message = f"`{pattern}` matches no parameter of the target's optimizer"
            problems.append(Problem("dead-rule", message, None, notes))
        found.update(matched)
    if problems:
        raise RuleError(problems)
    return frozenset(found)
