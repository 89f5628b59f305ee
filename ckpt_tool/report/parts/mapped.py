"""What a plan maps, a row for each rule or for each group of keys that move alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os.path import basename

from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Fold, fold, outline, quote
from ckpt_tool.keys.folding.pairs import pair_groups
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.rules import Rule
from ckpt_tool.ops import ops_argument
from ckpt_tool.report.parts.style import Style
from ckpt_tool.tensors import Catalog
from ckpt_tool.wording import EMPTY


@frozen
class MappedRow:
    """Patterns of both sides, the same where names stay, None for a side that there is none of; how
    many tensors of the target they are, through which ops, by which rule's line, or how sure a pair
    by alignment is.
    """

    source: str | None
    target: str | None
    tensors: int
    ops: str | None = None
    rule: str | None = None
    line: int | None = None
    confidence: float | None = None


def mapped_rows(plan: Plan, style: Style, are_keys: bool = False) -> list[MappedRow]:
    """A row for each rule, or drafted rule; without rules for what moves alike. Where `style`
    doesn't fold, a row for each step, with patterns that match one key each, or where `are_keys`
    with the keys themselves.
    """
    if not style.is_folded:
        return [_row_of(step, str if are_keys else quote) for step in plan.steps]
    by_rule: dict[int, list[Step]] = {}
    for step in plan.steps:
        by_rule.setdefault(id(step.origin.rule or step.origin.drafted), []).append(step)
    return [row for steps in by_rule.values() for row in _rows_of(steps, plan)]


def _row_of(step: Step, name: Callable[[str], str] = quote) -> MappedRow:
    origin = step.origin
    return MappedRow(
        _joined([*map(name, step.inputs)]),
        _joined([*map(name, step.outputs)]),
        len(step.outputs),
        ops_text(step.ops) or None,
        _by(step),
        origin.line,
        origin.confidence,
    )


def _joined(keys: Sequence[str]) -> str | None:
    if len(keys) < 2:
        return keys[0] if keys else None
    return " + ".join(key or EMPTY for key in keys)


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


def _sides(rule: Rule) -> tuple[str | None, str | None]:
    if rule.text.count("->") != 1:
        return rule.text.replace("->", "→"), None
    source, target = (side.strip() for side in rule.text.split("->"))
    return source or None, target or None


def _paired(steps: Sequence[Step], plan: Plan) -> Iterator[MappedRow]:
    """Pairs that no rule drafted: equal names as they are, others with both; first those that move
    as they are, then what the same ops change.
    """
    alike: dict[str, list[Step]] = {"": []}
    for step in steps:
        if _is_single(step):
            alike.setdefault(ops_text(step.ops), []).append(step)
    for ops, group in alike.items():
        yield from _paired_alike(group, plan, ops or None)
    yield from (_row_of(step) for step in steps if not _is_single(step))


def _paired_alike(steps: Sequence[Step], plan: Plan, ops: str | None) -> Iterator[MappedRow]:
    """Pairs of single keys that the same ops change."""
    by = steps[0].origin.by if steps else "name"
    same = [step.outputs[0] for step in steps if step.inputs == step.outputs]
    renamed = {step.inputs[0]: step.outputs[0] for step in steps if step.inputs != step.outputs}
    for one in outline(dict.fromkeys(same), plan.target or ()):
        yield MappedRow(one.pattern, one.pattern, len(one.keys), ops, by)
    for group in pair_groups(renamed, {}, plan.source, plan.target or ()):
        yield MappedRow(group.a, group.b, len(group.keys), ops, by)


def _is_single(step: Step) -> bool:
    return len(step.inputs) == len(step.outputs) == 1


def rest_folds(
    keys: Sequence[str], catalog: Catalog | None, style: Style, are_keys: bool = False
) -> list[Fold]:
    """Patterns for keys that are dropped or kept; where `style` doesn't fold one for each key, or
    where `are_keys` the keys themselves.
    """
    if not style.is_folded:
        return [Fold(key if are_keys else quote(key), (key,)) for key in keys]
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
