"""Runs two networks on one input, and finds the first place where they diverge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from ckpt_tool.tracing.agreeing import inner_of, outputs_agree
from ckpt_tool.tracing.comparing import (
    Kind,
    Parting,
    Row,
    drift_of,
    limit_of,
    parting_of,
    rows_of,
)
from ckpt_tool.tracing.exact import Distance, Found, exact_distances, shapes_said
from ckpt_tool.tracing.explaining.hints import hints_of
from ckpt_tool.tracing.hidden import giver_of, hidden_in
from ckpt_tool.tracing.pairs import Pair, agreed, pairs_of
from ckpt_tool.tracing.places import have_one_name, name_of
from ckpt_tool.tracing.recording import Recorder, Setting
from ckpt_tool.tracing.reordered import Reordered, columns_against_inputs, reordered
from ckpt_tool.tracing.sketches import Sketch, differ_in_huge, distance, farthest, paired
from ckpt_tool.tracing.weights import Concerned, concerned_by, unread_weights, wrong_weights
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.mapping.plan import Plan


@dataclass(frozen=True, slots=True)
class Place:
    """Where two networks diverge.

    `kind` is `module` (its outputs diverge, its inputs agree), `code` (the code of `other` around
    the module `at`, which gets other inputs though all outputs before agree) or `drift` (they
    diverge nowhere, and the outputs are too far apart: this module adds most). `inputs` and
    `outputs` are the exact distances there, `entering` that of what `at` gets, `tensors` the
    tensors concerned with the rule that maps each, and `findings` what was tried and explains it.
    """

    kind: Kind
    one: str
    other: str
    call: int
    at: tuple[str, str] | None
    entering: Distance | None
    inputs: Distance | None
    outputs: Distance | None
    tensors: tuple[Concerned, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What became of two networks on one input.

    `is_same` where the outputs were compared and nothing diverges, or they agree although a module
    inside does, which a note names; `place` where something does; neither where outputs can't be
    compared. `rows` are the calls of paired modules in the order in
    which they ended, with the distances of inputs and outputs relative to their size; `floor` is
    what rounding alone may make of it at most. `kept` holds the outputs that were asked for, by
    side and module, one for each call.
    """

    names: tuple[str, str]
    is_same: bool
    place: Place | None
    output: float | None
    floor: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    kept: tuple[Mapping[str, list[object]], Mapping[str, list[object]]] = field(
        default=({}, {}), repr=False
    )


def trace_models(
    one: nn.Module,
    other: nn.Module,
    inputs: object,
    plan: Plan,
    inputs_other: object = None,
    keeps: Callable[[str], bool] = lambda path: False,
    setting: Setting | None = None,
    names: tuple[str, str] = ("a", "b"),
) -> Trace:
    """Traces `one`, whose keys are the plan's source, and `other`, whose keys are its target; both
    have their weights. `inputs_other` are what the second takes, where that is something else.

    Each network runs once, and once more where they diverge; outputs are compared by sketches, so
    that memory doesn't grow with the network. Raises InputError for a network that fails on its
    input.
    """
    setting = setting or Setting()
    given = inputs, inputs if inputs_other is None else inputs_other
    pairs = pairs_of(plan, one, other)
    moved = reordered(plan, other)
    first = Recorder(one, {pair.one for pair in pairs}, kept=keeps, orders=moved.orders)
    second = Recorder(other, {pair.other for pair in pairs}, kept=keeps)
    first.run(given[0], setting)
    second.run(given[1], setting)
    pairs = agreed(pairs, partial(_apart, first, second))
    rows = rows_of(pairs, first.calls, second.calls)
    floor = max((row.floors[1] for row in rows), default=0.0)
    output = next((row.outputs for row in rows if row.other == "" and row.call == 0), None)
    hidden = hidden_in(first.given, second.given)
    certain = [each for each in hidden if not each.is_rounding]
    parting = parting_of(rows, moved) or drift_of(rows)
    if parting is None and certain:
        row = giver_of((one, other), given, setting, rows, second, certain[0].path)
        parting = Parting("module", row)
    notes = [*_notes(pairs, rows, (one, other), first, second), *_order_notes(rows, moved)]
    is_compared, uncompared = _coverage(first, second)
    notes += uncompared
    outputs = first.calls["", 0].outputs, second.calls["", 0].outputs
    do_agree = is_compared and not certain and outputs_agree(*outputs)
    if not do_agree and (beyond := parting_of(rows, moved, True)) not in (None, parting):
        notes.append(
            f"inside, `{_name_of(parting)}` differs; what is around it agrees all the same"
        )
        parting = beyond
    place = None
    if parting is not None:
        found = exact_distances(one, other, given, setting, parting, moved.orders)
        notes += (unsteady := _unsteady(found, first, second, parting))
        if do_agree and not unsteady:
            inner = inner_of((one, other), given, setting, parting, found, outputs, moved.orders)
            notes.append(inner.said)
            parting = None if inner.is_same else parting
    if parting is not None:
        near = max(parting.row.floors)
        compared = {row.other for row in rows if row.outputs is not None}
        compared -= moved.rows | moved.columns
        concerned = concerned_by(plan, compared, parting.row)
        notes += unread_weights(plan, one, other, concerned)
        records = first, second
        findings = [
            *(each.said for each in certain if (parting.row.outputs or 0.0) <= floor),
            *shapes_said(parting, found),
            *wrong_weights(plan, one, other, concerned),
            *_against_inputs(other, parting, found, moved, concerned),
            *hints_of(
                plan,
                one,
                other,
                pairs,
                parting,
                found,
                near,
                concerned,
                records,
                setting,
                moved.orders,
            ),
        ]
        place = _place(parting, found, concerned, findings)
    elif hidden:
        notes += (f"{each.said}; rounding of the larger ones may explain it" for each in hidden)
    is_same = place is None and is_compared
    kept = first.kept, second.kept
    return Trace(names, is_same, place, output, floor, tuple(rows), tuple(notes), kept)


def _name_of(parting: Parting | None) -> str:
    return "" if parting is None else parting.row.other


def _apart(first: Recorder, second: Recorder, pair: Pair) -> float | None:
    """How far the outputs of a pair's first calls are apart."""
    one, other = first.calls.get((pair.one, 0)), second.calls.get((pair.other, 0))
    apart = None if one is None or other is None else farthest(one.outputs, other.outputs)
    return None if apart is None else apart.distance


def _against_inputs(
    other: nn.Module,
    parting: Parting,
    found: Found,
    moved: Reordered,
    concerned: Sequence[Concerned],
) -> Iterator[str]:
    path = parting.row.other
    is_made = any(each.ops for each in concerned if each.key == f"{path}.weight")
    if parting.kind == "module" and not (found.is_moved and is_made):
        yield from columns_against_inputs(moved, path, other.get_submodule(path), found.is_moved)


def _place(
    parting: Parting, found: Found, concerned: Sequence[Concerned], findings: Sequence[str]
) -> Place:
    row, at = parting.row, parting.at
    return Place(
        parting.kind,
        row.one,
        row.other,
        row.call,
        None if at is None or at is row else (at.one, at.other),
        None if at is None or at is row else found.entering,
        found.inputs,
        found.outputs,
        tuple(concerned),
        tuple(findings),
    )


def _notes(
    pairs: Sequence[Pair],
    rows: Sequence[Row],
    networks: tuple[nn.Module, nn.Module],
    first: Recorder,
    second: Recorder,
) -> list[str]:
    """What a reader should know of what was not compared."""
    unlike = [row for row in rows if row.outputs is None and row.other]
    notes = list(islice(_silent(pairs, networks, first, second), 3))
    if unlike:
        notes.append(
            f"not compared, for their outputs have other shapes on the two sides: "
            f"{plural(len(unlike), 'call')}, the first of `{unlike[0].other}`"
        )
    for side, record in (("first", first), ("second", second)):
        if record.transformed:
            others = " and others" if len(set(record.transformed)) > 1 else ""
            notes.append(
                f"not compared, for they run inside of `torch.func.vmap` or `functionalize`: "
                f"`{record.transformed[0]}`{others} of the {side} network"
            )
        if record.written:
            notes.append(
                f"the forward of the {side} network writes to its parameters, `{record.written[0]}`"
                f"{' and others' if len(record.written) > 1 else ''}: they are not as they were"
            )
    return notes


def _order_notes(rows: Sequence[Row], moved: Reordered) -> Iterator[str]:
    """What is compared in an order that the rules give, and what is not for that."""
    own = [row for row in rows if row.other in moved.rows and row.outputs is not None]
    far = {row.other for row in own if (row.outputs or 0) > limit_of(row.floors[1])} - moved.known
    near = {row.other for row in own} - far
    for names, said in (
        (far, "not compared, for the rules give it another order"),
        (near, "compared in the order that the rules give it"),
    ):
        if some := sorted(names):
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            yield f"{said}: what `{some[0]}`{more} gives"


def _silent(
    pairs: Sequence[Pair], networks: tuple[nn.Module, nn.Module], first: Recorder, second: Recorder
) -> Iterator[str]:
    """What is to be said of modules whose counterparts are not called, though they might be."""
    from torch import nn

    called = {path for path, _ in first.calls}, {path for path, _ in second.calls}
    for pair in pairs:
        is_first = pair.one in called[0]
        if pair.one in first.transformed or pair.other in second.transformed:
            continue
        if is_first is (pair.other in called[1]):
            continue
        sides = (0, pair.one, "first"), (1, pair.other, "second")
        (_, path, which), (at, whom, who) = sides if is_first else reversed(sides)
        if not isinstance(networks[at].get_submodule(whom), nn.ModuleList | nn.ModuleDict):
            yield (
                f"`{path}` of the {which} network is called, and its counterpart `{whom}` of the "
                f"{who} is not"
            )


def _coverage(first: Recorder, second: Recorder) -> tuple[bool, list[str]]:
    """Whether the networks' own outputs were compared, all that the one which gives less gives; and
    what is to be said of the others.
    """
    one, other = (record.calls["", 0].outputs for record in (first, second))
    both = [each for each in paired(one, other) if distance(*each) is not None]
    notes = []
    for side, sketches, index in (("first", one, 0), ("second", other, 1)):
        known = {id(each[index]) for each in both}
        left = [name_of(each.path) or "it" for each in sketches if id(each) not in known]
        if left:
            names = _some([f"`{name}`" for name in left])
            notes.append(f"not compared, of what the {side} network gives: {names}")
    notes += _by_place(both)
    unknown = [*dict.fromkeys((*first.unknown, *second.unknown))]
    if unknown:
        notes.append(f"not compared, of what the networks give: {_some(unknown)}")
    if any(sketch.odd for pair in both for sketch in pair):
        notes.append("the outputs hold NaN, infinite or huge numbers")
    huge = any(differ_in_huge(*pair) for pair in both)
    if huge:
        notes.append("their numbers above 1e8 are not compared closely, and differ")
    is_whole = len(both) >= min(len(one), len(other))
    has_numbers = any(sketch.count for pair in both for sketch in pair)
    if both and not has_numbers:
        notes.append("the outputs hold no number that could be compared")
    return is_whole and has_numbers and not unknown and not huge, notes


def _by_place(both: Sequence[tuple[Sketch, Sketch]]) -> Iterator[str]:
    """What is compared though its names don't say that it belongs together."""
    unlike = [
        f"`{name_of(one.path) or 'it'}` with `{name_of(other.path) or 'it'}`"
        for one, other in both
        if not have_one_name(one.path, other.path)
    ]
    if unlike:
        yield f"compared by place and shape, for the names don't match: {_some(unlike)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _unsteady(found: Found, first: Recorder, second: Recorder, parting: Parting) -> list[str]:
    """Whether a network gives something else when it is run again."""
    row = parting.row
    notes = []
    for name, record, again, path in (
        ("first", first, found.again[0], row.one),
        ("second", second, found.again[1], row.other),
    ):
        apart = farthest(record.calls[path, row.call].outputs, again)
        if apart is not None and apart.distance > apart.floor:
            notes.append(
                f"the {name} network is not deterministic: `{path or 'it'}` gives something else "
                "when it is run again on the same input"
            )
    return notes
