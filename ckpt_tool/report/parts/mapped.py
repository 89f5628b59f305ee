"""What a plan maps, a row for each rule or for each group of keys that move alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os.path import basename

from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Fold, fold, outline
from ckpt_tool.keys.folding.pairs import pair_groups
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.rules import Rule
from ckpt_tool.ops import ops_argument
from ckpt_tool.report.parts.style import Style
from ckpt_tool.tensors import Catalog


@frozen
class MappedRow:
    """Patterns of both sides, the same where names stay; how many tensors of the target they are,
    through which ops, by which rule's line, or how sure a pair by alignment is.
    """

    source: str
    target: str
    tensors: int
    ops: str | None = None
    rule: str | None = None
    line: int | None = None
    confidence: float | None = None


def mapped_rows(plan: Plan, style: Style) -> list[MappedRow]:
    """A row for each rule, or drafted rule; without rules for what moves alike. Where `style`
    doesn't fold, a row for each step.
    """
    if not style.is_folded:
        return [_row_of(step) for step in plan.steps]
    by_rule: dict[int, list[Step]] = {}
    for step in plan.steps:
        by_rule.setdefault(id(step.origin.rule or step.origin.drafted), []).append(step)
    return [row for steps in by_rule.values() for row in _rows_of(steps, plan)]


def _row_of(step: Step) -> MappedRow:
    origin = step.origin
    source, target = (" + ".join(keys) for keys in (step.inputs, step.outputs))
    return MappedRow(
        source,
        target,
        len(step.outputs),
        ops_text(step.ops) or None,
        _by(step),
        origin.line,
        origin.confidence,
    )


def _by(step: Step) -> str:
    """The rule file and line, or the way of pairing."""
    origin = step.origin
    return f"{basename(origin.file)}:{origin.line}" if origin.file else origin.by


def _rows_of(steps: Sequence[Step], plan: Plan) -> Iterator[MappedRow]:
    origin = steps[0].origin
    if rule := origin.rule or origin.drafted:
        made = sum(len(step.outputs) for step in steps)
        ops = ops_text(rule.ops) or None
        source, target = _sides(rule)
        yield MappedRow(source, target, made, ops, _by(steps[0]), origin.line, origin.confidence)
    else:
        yield from _paired(steps, plan)


def _sides(rule: Rule) -> tuple[str, str]:
    if rule.text.count("->") != 1:
        return rule.text.replace("->", "→"), ""
    source, target = (side.strip() for side in rule.text.split("->"))
    return source, target


def _paired(steps: Sequence[Step], plan: Plan) -> Iterator[MappedRow]:
    """Pairs that no rule drafted: equal names as they are, others with both."""
    by = steps[0].origin.by
    plain = [step for step in steps if _is_plain(step)]
    same = [step.outputs[0] for step in plain if step.inputs == step.outputs]
    renamed = {step.inputs[0]: step.outputs[0] for step in plain if step.inputs != step.outputs}
    for one in outline(dict.fromkeys(same), plan.target or ()):
        yield MappedRow(one.pattern, one.pattern, len(one.keys), rule=by)
    for group in pair_groups(renamed, {}, plan.source, plan.target or ()):
        yield MappedRow(group.a, group.b, len(group.keys), rule=by)
    yield from (_row_of(step) for step in steps if not _is_plain(step))


def _is_plain(step: Step) -> bool:
    return not step.ops and len(step.inputs) == len(step.outputs) == 1


def rest_folds(keys: Sequence[str], catalog: Catalog | None, style: Style) -> list[Fold]:
    """Patterns for keys that are dropped or kept; each key where `style` doesn't fold."""
    if not style.is_folded:
        return [Fold(key, (key,)) for key in keys]
    return fold(dict.fromkeys(keys), catalog or ())


def ops_text(ops: Sequence[object]) -> str:
    """Ops as a rule has them, on one line."""
    return _compact(ops_argument(tuple(ops))) if ops else ""  # type: ignore[arg-type]


def _compact(argument: object) -> str:
    if isinstance(argument, Mapping):
        return ", ".join(f"{name}: {_compact(value)}" for name, value in argument.items())
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_compact, argument))}]"
    return str(argument)
