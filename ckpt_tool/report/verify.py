"""Whether an output is what its plan says, as people and machines read it."""

from collections.abc import Sequence

from ckpt_tool.api.remarks.left_behind import left_behind_list
from ckpt_tool.engine import Mismatch
from ckpt_tool.errors import Problem
from ckpt_tool.formats import LeftBehind
from ckpt_tool.keys import Fold, outline, quote
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.report.parts.problems import problem_json
from ckpt_tool.report.parts.style import pattern_shown, plural, safe

MAX_LINES = 10
_DIFFERS = "first differs"


def verified_text(
    path: str, plan: Plan, mismatches: Sequence[Mismatch], verbose: bool = False
) -> str:
    """A line for each pattern of keys that differ alike, the first ones, or for each key where
    `verbose`; then the conclusion.
    """
    if mismatches:
        lines = [] if verbose else _folded(plan, mismatches)
        if verbose:
            lines = [f"{pattern_shown(quote(each.key))} {each.fact}" for each in mismatches]
        fact = f"{safe(path)} is not what the plan says: {_differ(len(mismatches))}"
        return "\n".join([*lines, fact])
    return f"{safe(path)} is what the plan says, bit for bit: {plural(len(plan.outputs), 'tensor')}"


def _folded(plan: Plan, mismatches: Sequence[Mismatch]) -> list[str]:
    facts = {each.key: each.fact for each in mismatches}
    # Where tensors first differ is no two times the same; that they differ is.
    labels = {key: _DIFFERS if fact.startswith(_DIFFERS) else fact for key, fact in facts.items()}
    folds = outline(labels, plan.outputs)
    lines = [_line(one, facts[one.keys[0]]) for one in folds[:MAX_LINES]]
    more = sum(len(one.keys) for one in folds[MAX_LINES:])
    return [*lines, f"and {plural(more, 'tensor')} more (-v lists them)"] if more else lines


def _line(one: Fold, fact: str) -> str:
    name = pattern_shown(one.pattern)
    if len(one.keys) == 1:
        return f"{name} {fact}"
    if fact.startswith(_DIFFERS):
        fact = f"differs: {pattern_shown(one.keys[0])}{fact.removeprefix(_DIFFERS)}"
    return f"{name} ({plural(len(one.keys), 'tensor')}): each {fact}"


def not_compared_text(path: str) -> str:
    """That there was nothing to compare an output with."""
    return f"nothing of {safe(path)} was compared: there is no plan to compare it with"


def beside_text(path: str, beside: Sequence[LeftBehind]) -> str:
    """That a file holds more than the weights, which were not compared."""
    return f"note: not compared, beside the weights of {safe(path)}: {left_behind_list(beside)}"


def _differ(count: int) -> str:
    return f"{plural(count, 'tensor')} {'differs' if count == 1 else 'differ'} from it"


def asked_text(path: str, asked: Sequence[str]) -> str:
    """That a file holds more than its tensors."""
    more = f" and {len(asked) - MAX_LINES} more" if len(asked) > MAX_LINES else ""
    names = ", ".join(safe(name) for name in asked[:MAX_LINES])
    return (
        f"note: unpickling {safe(path)} would call or import {names}{more}; the tensors "
        "alone were compared"
    )


def verified_json(
    path: str,
    plan: Plan | None,
    mismatches: Sequence[Mismatch],
    problems: Sequence[Problem],
    asked: Sequence[str] = (),
) -> dict[str, object]:
    """Whether an output is what its plan says, as JSON values."""
    return {
        "schema": 1,
        "output": path,
        "verified": plan is not None and not mismatches,
        "mismatches": [{"key": mismatch.key, "fact": mismatch.fact} for mismatch in mismatches],
        "problems": [problem_json(problem) for problem in problems],
        "asked": list(asked),
    }
