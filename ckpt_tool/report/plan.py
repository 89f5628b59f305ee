"""A plan as people and machines read it, and what one key has to do with it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ckpt_tool.errors import InputError, Problem, Tally
from ckpt_tool.frozen import frozen
from ckpt_tool.keys import nearest
from ckpt_tool.mapping.plan import Draft, Plan, Step, step_forms
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.ops import ops_argument
from ckpt_tool.ops.fits import Fit
from ckpt_tool.report.parts.amounts import amount_of
from ckpt_tool.report.parts.mapped import MappedRow, mapped_rows, ops_text, rest_folds
from ckpt_tool.report.parts.problems import problem_json
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, plural, safe, size_text
from ckpt_tool.report.parts.table import Row, table
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text
from ckpt_tool.wording import named

MAX_FOLDS = 8
TALLIED = "mapped", "fresh", "left", "fresh_elements", "elements"
REST = "not all that is kept or dropped was named"


@frozen
class PlanNames:
    """What the two sides and the rules are called; `rules` is empty for other ways of mapping.
    `unnamed` says of which counts nobody had to name each key: "kept", "dropped".
    """

    source: str
    target: str | None
    rules: tuple[str, ...] = ()
    by: str = "rules"
    unnamed: tuple[str, ...] = ()


def plan_text(plan: Plan, names: PlanNames, style: Style = PLAIN) -> str:
    """The two sides, a line for each rule or fold with its tensors, what is dropped and kept, the
    closing count.
    """
    blocks = [
        _sides(plan, names, style),
        "\n".join(_mapped(plan, style)),
        "\n".join(_rest(plan, style)),
    ]
    blocks.append("\n".join(f"note: {safe(note)}" for note in plan.notes))
    return "\n\n".join([block for block in blocks if block] + [closing_text(plan, names.unnamed)])


def closing_text(plan: Plan, unnamed: Sequence[str] = ()) -> str:
    """How many keys are mapped, kept and dropped; and that nobody had to name these, where so."""
    counts = plan.counts
    is_named = not any(counts[which] for which in unnamed)
    return (
        f"{counts['mapped']:,} mapped, {counts['kept']:,} kept, {counts['dropped']:,} dropped; "
        f"{'every key of both sides is accounted for' if is_named else REST}"
    )


def _sides(plan: Plan, names: PlanNames, style: Style) -> str:
    rows = [_side_row("from", names.source, plan.source)]
    if plan.target is not None and names.target:
        rows.append(_side_row("into", names.target, plan.target))
    how = ", ".join(names.rules) or f"by {names.by}"
    rules = len({step.origin.rule.where for step in plan.steps if step.origin.rule})
    counted = (plural(rules, "rule") if names.rules else "", "")
    rows.append(Row((safe(how),), counted, margin=_margin("rules" if names.rules else "how")))
    return "\n".join(table(rows, "rr", style))


def _margin(word: str) -> str:
    return f"{word:<5}  "


def _side_row(word: str, name: str, catalog: Catalog) -> Row:
    amount = amount_of(catalog.values())
    counts = (plural(amount.tensors, "tensor"), size_text(amount.nbytes))
    remark = f"({amount.remark})" if amount.remark else ""
    return Row((safe(name),), counts, remark, margin=_margin(word))


def _mapped(plan: Plan, style: Style) -> list[str]:
    rows = [_row(row, style) for row in mapped_rows(plan, style)]
    if not rows or not style.is_folded:
        return table(rows, "", style)
    has_rules = any(step.origin.rule for step in plan.steps)
    title = Row(("",), ("tensors",), margin="line  " if has_rules else _line(None))
    first, *others = table([title, *rows], "r", style)
    return [style.paint(first, "dim"), *others]


def _row(row: MappedRow, style: Style) -> Row:
    sides = ["" if row.source is None else pattern_shown(row.source)]
    if row.target is not None and (row.target != row.source or not style.is_folded):
        sides.append(f"→ {pattern_shown(row.target)}")
    if row.ops:
        sides.append(f": {safe(row.ops)}")
    sure = f"{row.confidence:.2f}" if row.confidence is not None else ""
    cells = (f"{row.tensors:,}",) if style.is_folded else ()
    return Row(tuple(sides), cells, sure, _line(row.line))


def _line(number: int | None) -> str:
    """The margin of a line of a rule file; of what no rule of a file says, two spaces."""
    return "  " if number is None else f"{number:>4}  "


def _rest(plan: Plan, style: Style) -> list[str]:
    rows = []
    for word, keys, catalog in (
        ("drop", plan.dropped, plan.source),
        ("keep", plan.kept, plan.target),
    ):
        if keys:
            shown = _patterns(keys, catalog, style)
            rows.append(Row((word,), (f"{len(keys):,}",), shown, margin=""))
    return table(rows, "r", style)


def _patterns(keys: Sequence[str], catalog: Catalog | None, style: Style) -> str:
    folds = rest_folds(keys, catalog, style)
    shown = folds[:MAX_FOLDS] if style.is_folded else folds
    hidden = len(folds) - len(shown)
    more = f"  and {plural(hidden, 'more pattern')}" if hidden else ""
    return "  ".join(pattern_shown(one.pattern) for one in shown) + more


def why_text(plan: Plan, key: str, draft: Draft | None = None) -> list[str]:
    """What becomes of a key, of either side; no lines for a key that neither side has. For a plan
    that was refused, `draft` has the keys of which nobody has decided.
    """
    lines = []
    if draft and key in draft.fresh and plan.target is not None:
        lines.append(f"target {_described(plan.target[key])} is neither mapped nor kept")
    elif plan.target is not None and key in plan.target:
        lines += _why_target(plan, key)
    for step in plan.steps:
        if key in step.inputs:
            lines.append(
                f"source {_described(plan.source[key])} goes to "
                f"{', '.join(map(pattern_shown, step.outputs))}{_because(step)}"
            )
    if key in plan.dropped:
        is_open = draft is not None and key in draft.left
        source = _described(plan.source[key]) if key in plan.source else pattern_shown(key)
        lines.append(f"source {source} is {'neither mapped nor ' if is_open else ''}dropped")
    return lines


def _why_target(plan: Plan, key: str) -> Iterator[str]:
    """A line for each step that makes a key; only a plan that was refused may have several."""
    assert plan.target is not None
    described = f"target {_described(plan.target[key])}"
    steps = [step for step in plan.steps if key in step.outputs]
    if not steps:
        yield f"{described} keeps its own value"
    for step in steps:
        ops = f": {ops_text(step.ops)}" if step.ops else ""
        ops += _taken_for(step, plan.source)
        made_of = " + ".join(map(pattern_shown, step.inputs))
        yield f"{described} comes from {made_of}{ops}{_because(step)}"


def _taken_for(step: Step, source: Catalog) -> str:
    """What a fit among a step's ops took the shapes for."""
    for at, op in enumerate(step.ops):
        if isinstance(op, Fit):
            (form,) = step_forms(replace(step, ops=step.ops[:at]), source)
            details = op.details(form.shape)
            return f" ({details})" if details else ""
    return ""


def _because(step: Step) -> str:
    if step.origin.rule:
        where = step.origin.rule.where
        return f", by {safe(where.file)}:{where.line} `{safe(step.origin.rule.text)}`"
    return f", by {step.origin.by}"


def _described(info: TensorInfo) -> str:
    return f"{pattern_shown(info.key)} ({info.dtype.value} {shape_text(info.shape)})"


def plan_json(
    plan: Plan | None,
    names: PlanNames,
    source: Catalog,
    target: Catalog | None,
    problems: Sequence[Problem] = (),
    tally: Tally | None = None,
) -> dict[str, object]:
    """The contract's JSON; without a plan, the problems that stand in its way, and how far it would
    have come.
    """
    return {
        "schema": 1,
        "source": _side_json(names.source, source),
        "target": _side_json(names.target or "", target) if target is not None else None,
        "steps": [step_json(step) for step in plan.steps] if plan else [],
        "dropped": list(plan.dropped) if plan else [],
        "kept": list(plan.kept) if plan else [],
        "counts": plan.counts if plan else {"mapped": 0, "kept": 0, "dropped": 0},
        "problems": [problem_json(problem) for problem in problems],
        "notes": list(plan.notes) if plan else [],
        "tally": {name: getattr(tally, name) for name in TALLIED} if tally else None,
    }


def _side_json(path: str, catalog: Catalog) -> dict[str, object]:
    return {"path": path, "tensors": len(catalog), "bytes": catalog.nbytes}


def step_json(step: Step) -> dict[str, object]:
    """A step as JSON values: from what, into what, through what, by which rule."""
    origin: dict[str, object] = {
        "by": step.origin.by,
        "file": step.origin.file,
        "line": step.origin.line,
    }
    if step.origin.drafted:
        origin |= {"drafted": step.origin.drafted.text, "confidence": step.origin.confidence}
    ops = ops_argument(step.ops) if step.ops else []
    return {
        "inputs": list(step.inputs),
        "outputs": list(step.outputs),
        "ops": ops if isinstance(ops, list) else [ops],
        "origin": origin,
    }


def plan_names(
    source: str,
    target: str | None,
    rules: RuleSet | None,
    by: str | None = None,
    rest_stays: bool = False,
) -> PlanNames:
    """What the sides and the rules of a plan are called. `rest_stays` where what nobody names is
    kept and dropped, whatever the rules' own `rest:` says.
    """
    is_kept = rest_stays or (rules is not None and rules.rest_target == "keep")
    is_dropped = rest_stays or (rules is not None and rules.rest_source == "drop")
    unnamed = (*(["kept"] if is_kept else []), *(["dropped"] if is_dropped else []))
    return PlanNames(source, target, rules.files if rules else (), by or "name", unnamed)


def unknown_key(
    source: Catalog, target: Catalog | None, key: str, asked: str = "--why"
) -> InputError:
    """The error of a question about a key that neither side has; `asked` is what it was
    asked by.
    """
    near = nearest(key, [*source, *(target or ())])
    return InputError(
        asked, f"{named(key)} is a key of neither side", f"nearest key: {near}" if near else None
    )
