"""What notebooks show of an open checkpoint, a diff, a plan, drafted rules and a load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.formats import Checkpoint
from ckpt_tool.keys import fold, outline
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.report.diff import closing_text
from ckpt_tool.report.notebook.folding import Group, Section, key_shown, notebook_html
from ckpt_tool.report.parts.amounts import amount_of
from ckpt_tool.report.parts.mapped import ops_text
from ckpt_tool.report.parts.value_differences import value_cells
from ckpt_tool.report.plan import closing_text as plan_answer
from ckpt_tool.report.renames import renamed_groups
from ckpt_tool.report.show import closing_text as show_answer
from ckpt_tool.report.show import groups_of
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text
from ckpt_tool.wording import plural, size_text

if TYPE_CHECKING:
    from ckpt_tool.align import Suggestion
    from ckpt_tool.training import LoadReport

KINDS = {
    "shape": "shapes differ",
    "dtype": "dtypes differ",
    "value": "values differ",
    "renamed": "renamed",
    "only_a": "only in {a}",
    "only_b": "only in {b}",
    "same": "same",
}


def show_html(checkpoint: Checkpoint) -> str:
    """The tensors of a checkpoint, and what else its file holds."""
    catalog, contents = checkpoint.catalog, checkpoint.contents
    groups = [
        Group(pattern, [info.key for info in infos], size_text(amount_of(infos).nbytes))
        for pattern, infos in groups_of(catalog)
    ]
    unreadable = outline({key: one.kind for key, one in catalog.unreadable.items()}, catalog)
    left = [
        Group(one.path, (), f"{one.kind}, {plural(one.tensors, 'tensor')}, {size_text(one.nbytes)}")
        for one in contents.left_behind
    ]
    metadata = [Group(name, (), value[:200]) for name, value in checkpoint.metadata.items()]
    sections = (
        Section(checkpoint.path, groups, describe=partial(_described, catalog)),
        Section("can't be read", [Group(one.pattern, one.keys) for one in unreadable]),
        Section("outside of the state dict", left, is_open=False),
        Section("metadata", metadata, is_open=False),
    )
    return notebook_html(show_answer(checkpoint), sections, _layout(contents.layout))


def _layout(layout: str) -> tuple[str, ...]:
    return (layout,) if layout else ()


def _described(catalog: Catalog | None, key: str) -> str:
    info = catalog.get(key) if catalog is not None else None
    return _form(info) if info is not None else ""


def _form(info: TensorInfo) -> str:
    return f"{info.dtype.value} {shape_text(info.shape)}"


def diff_html(diff: Diff, hints: Sequence[str] = ()) -> str:
    """What differs, a section for each kind; what is the same is folded."""
    notes = (*diff.layouts, *diff.notes, *(f"hint: {hint}" for hint in hints))
    sections = [*_diff_sections(diff)]
    if diff.beside is not None:
        beside = replace(diff.beside, labels=diff.labels)
        sections += _diff_sections(beside, "outside the state dict, ")
    return notebook_html(closing_text(diff), sections, notes)


def _diff_sections(diff: Diff, before: str = "") -> Iterator[Section]:
    by_kind: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
    for entry in diff.entries:
        by_kind[entry.kind][entry.key] = entry
    for kind, entries in by_kind.items():
        if entries:
            yield _kind_section(diff, kind, entries, before)
    if diff.uncompared:
        keys = [one.key for one in diff.uncompared]
        yield Section(f"{before}not compared", _patterns(keys, (*diff.a, *diff.b)))


def _kind_section(diff: Diff, kind: str, entries: Mapping[str, Entry], before: str) -> Section:
    title = KINDS[kind].format(a=diff.labels[0], b=diff.labels[1])
    return Section(
        before + title,
        _kind_groups(diff, kind, entries),
        kind != "same",
        lambda key: _forms(entries[key]),
    )


def _kind_groups(diff: Diff, kind: str, entries: Mapping[str, Entry]) -> list[Group]:
    """A group for each pattern; for what is renamed those of both sides."""
    if kind == "renamed":
        return [
            Group(
                a if len(group) == 1 else f"{a} → {b}",
                [each.key for each in group],
                _about(group),
            )
            for a, b, group in renamed_groups(list(entries.values()), diff)
        ]
    labels = {
        key: _forms(entry) if kind in ("shape", "dtype") else None for key, entry in entries.items()
    }
    return [
        Group(one.pattern, one.keys, _about([entries[key] for key in one.keys]))
        for one in outline(labels, (*diff.a, *diff.b))
    ]


def _forms(entry: Entry) -> str:
    """What both sides have of a key, as far as that differs."""
    a, b = (_form(info) if info else "" for info in (entry.a, entry.b))
    if entry.kind == "renamed" and entry.b:
        return f"→ {key_shown(entry.b.key)}"
    return a or b if a == b or not (a and b) else f"{a} → {b}"


def _about(entries: Sequence[Entry]) -> str:
    """How far the values of a group differ, where they were measured."""
    if not any(entry.values for entry in entries):
        return ""
    most, cosine, changed = value_cells(entries)
    return f"max |Δ| {most}, cosine {cosine}, {changed} changed" if changed else most


def _patterns(keys: Iterable[str], others: Iterable[str]) -> list[Group]:
    folds = fold(dict.fromkeys(keys), list(others))
    return [Group(each.pattern, each.keys) for each in folds]


def _folded(title: str, keys: Iterable[str], catalog: Catalog | None) -> Section:
    """Keys of a catalog in the fewest patterns, each with its form."""
    return Section(title, _patterns(keys, catalog or ()), describe=partial(_described, catalog))


def plan_html(plan: Plan, unnamed: Sequence[str] = ()) -> str:
    """A plan: a line for each rule with the keys that it makes, then what is kept and dropped;
    whether that had to be named.
    """
    by_rule: dict[str, list[Step]] = {}
    for step in plan.steps:
        by_rule.setdefault(_rule_text(step), []).append(step)
    origins = {key: step for step in plan.steps for key in step.outputs}
    mapped = [
        Group(text, [key for step in steps for key in step.outputs])
        for text, steps in by_rule.items()
    ]
    sections = (
        Section("mapped", mapped, describe=lambda key: _origin(origins[key])),
        _folded("kept", plan.kept, plan.target),
        _folded("dropped", plan.dropped, plan.source),
    )
    return notebook_html(plan_answer(plan, unnamed), sections, plan.notes)


def _rule_text(step: Step) -> str:
    rule = step.origin.rule or step.origin.drafted
    if rule is None:
        return f"by {step.origin.by}"
    text = rule.text.replace("->", "→")
    return f"{text}: {ops_text(rule.ops)}" if rule.ops else text


def _origin(step: Step) -> str:
    """What a step makes its keys of."""
    some = " + ".join(map(key_shown, step.inputs[:4])) + (" + …" if len(step.inputs) > 4 else "")
    ops = f" through {', '.join(op.name for op in step.ops)}" if step.ops else ""
    return f"← {some}{ops}" if step.inputs else f"← {ops.strip()}"


def suggest_html(found: Suggestion, answer: str) -> str:
    """Drafted rules with how sure each is, and what is left open."""
    rules = [Group(rule.text, (), rule.comment) for rule in found.rules]
    unsure = [Group(rule.text, (), rule.comment) for rule in found.unsure_rules]
    groups = [
        Group(one.hint, (*one.sources, *one.targets), one.reason)
        for one in found.alignment.ambiguous
    ]
    source, target = (found.plan.source, found.plan.target) if found.plan else (None, None)
    sections = (
        Section("rules", rules),
        Section("not sure", unsure),
        Section("ambiguous", groups),
        _folded("without a source", found.alignment.unpaired_target, target),
        _folded("unused", found.alignment.unpaired_source, source),
    )
    left = tuple(f"undecided: {doubt}" for doubt in found.doubts)
    return notebook_html(answer, sections, (*left, *found.shape_mismatches))


def load_html(report: LoadReport, answer: str) -> str:
    """What was loaded, each key with where it is from, what stayed fresh, and what was dropped."""
    plan = report.plan
    target = plan.target or ()
    origins = {key: step for step in plan.steps for key in step.outputs}
    loaded = outline(dict.fromkeys(report.loaded), target)
    groups = [Group(one.pattern, one.keys) for one in loaded]

    def described(key: str) -> str:
        step = origins.get(key)
        return " ".join(filter(None, (_described(plan.target, key), _origin(step) if step else "")))

    sections = (
        Section("loaded", groups, is_open=False, describe=described),
        _folded("fresh", report.fresh, plan.target),
        _folded("dropped", report.dropped, plan.source),
    )
    return notebook_html(answer, sections, (*plan.notes, *report.notes))
