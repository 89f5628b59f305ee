"""Whether an output is what its plan says, as people and machines read it."""

from collections.abc import Sequence

from ckpt_tool.api.remarks.left_behind import left_behind_list
from ckpt_tool.engine import Mismatch
from ckpt_tool.errors import Problem
from ckpt_tool.formats import LeftBehind
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.report.parts.problems import problem_json
from ckpt_tool.report.parts.style import plural, safe

MAX_LINES = 10


def verified_text(
    path: str, plan: Plan, mismatches: Sequence[Mismatch], verbose: bool = False
) -> str:
    """One line for each key that differs, the first ones unless `verbose`; then the conclusion."""
    shown = mismatches if verbose else mismatches[:MAX_LINES]
    lines = [f"{safe(mismatch.key)} {mismatch.fact}" for mismatch in shown]
    if len(mismatches) > len(shown):
        lines.append(f"and {len(mismatches) - len(shown):,} more (-v lists them)")
    if mismatches:
        return "\n".join(
            [
                *lines,
                f"{safe(path)} is not what the plan says: {_differ(len(mismatches))}",
            ]
        )
    return f"{safe(path)} is what the plan says, bit for bit: {plural(len(plan.outputs), 'tensor')}"


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
