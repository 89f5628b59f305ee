"""What a page shows, as values, and these as the data that lies in it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, isnan, prod
from typing import Literal

from ckpt_tool.errors import Problem
from ckpt_tool.report.page.names import packed, said, shown
from ckpt_tool.report.parts.problems import problem_json
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, shape_text

Tone = Literal["good", "plain", "calm", "warn", "bad", "special", "teal", "muted"]
"""How a status is coloured: what moves or is equal, what stays, what needs a look, what is gone."""
NONE: tuple[int, ...] = ()
UNDEFINED = "undefined"
"""Stands for a number that there is none of, though everything was read."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is known of a tensor without its values."""

    dtype: str
    shape: str
    nbytes: int
    elements: int


@dataclass(frozen=True, slots=True)
class PageSide:
    """One side: its name, what it is to the other (`from`, `into`, `a`), and its keys in order."""

    role: str
    name: str
    keys: tuple[str, ...]
    forms: tuple[Form | None, ...]
    tensors: int
    nbytes: int | None
    noun: str = "tensor"
    tied: tuple[int, ...] = ()
    """Keys whose tensors are those of other keys, so that totals leave them out."""
    is_ordered: bool = True
    """Whether the keys stand in the order of the network's modules."""


@dataclass(frozen=True, slots=True)
class Status:
    """What may become of a key, in a word; `is_calm` ones are not shown at first where there are
    others.
    """

    name: str
    tone: Tone
    about: str = ""
    is_calm: bool = False


@dataclass(frozen=True, slots=True)
class Why:
    """Why keys go where they go: a rule with its line, ops, how sure it is and why."""

    by: str = ""
    rule: str = ""
    where: str = ""
    ops: str = ""
    confidence: float | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """Keys of both sides, by their numbers there, that belong together; mostly one of each."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    status: str
    why: Why | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """Numbers of some items, by the items' numbers: NaN and infinities too, None where nothing was
    measured, UNDEFINED where there is no number. `is_log` where they spread over decades.
    `chart` names what stands in one chart. `same` is the number of every item that is the same on
    both sides, and has none of its own.
    """

    name: str
    chart: str
    values: Mapping[int, float | str | None]
    is_log: bool = False
    is_least_worst: bool = False
    same: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A small table below the rest."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows; `answer` is the sentence that the command ends with."""

    command: str
    answer: str
    tone: Tone
    sides: tuple[PageSide, ...]
    statuses: tuple[Status, ...]
    items: tuple[Item, ...]
    measures: tuple[Measure, ...] = ()
    highlights: tuple[str, ...] = ()
    """What stands right below the answer: what explains it, or what is wrong."""
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    tables: tuple[Table, ...] = ()
    details: Mapping[int, tuple[Table, ...]] = field(default_factory=dict)
    """What stands beside an item, by its number, once it is chosen: tables of two columns."""
    text: str = ""
    """A file that the page is about: drafted rules."""
    next: str | None = None


@dataclass(slots=True)
class Keys:
    """The keys of a side while it is put together: each once, with its number."""

    numbers: dict[str, int] = field(default_factory=dict)
    forms: list[Form | None] = field(default_factory=list)

    def add(self, key: str, form: Form | None) -> int:
        """The number of a key, which is new."""
        number = self.numbers.setdefault(key, len(self.forms))
        if number == len(self.forms):
            self.forms.append(form)
        return number

    def side(self, role: str, name: str, catalog: Catalog) -> PageSide:
        """The side."""
        size, count = catalog.distinct_nbytes, len(catalog)
        tied = tuple(self.numbers[key] for key, info in catalog.items() if info.tied_to in catalog)
        keys, forms = tuple(self.numbers), tuple(self.forms)
        return PageSide(
            role, name, keys, forms, count, size, tied=tied, is_ordered=catalog.is_ordered
        )


def keys_of(catalog: Catalog | None) -> Keys:
    """All keys of a catalog, those that can't be read last."""
    found = Keys()
    for key, info in catalog.items() if catalog is not None else ():
        found.add(key, form_of(info))
    for key, tensor in catalog.unreadable.items() if catalog is not None else ():
        shape = "?" if tensor.shape is None else shape_text(tensor.shape)
        found.add(key, Form(tensor.kind, shape, 0, _elements(tensor.shape or (0,))))
    return found


def form_of(info: TensorInfo) -> Form:
    """The form of a tensor."""
    return Form(info.dtype.value, shape_text(info.shape), info.nbytes, _elements(info.shape))


def _elements(shape: Shape) -> int:
    return prod(shape)


def page_data(page: Page) -> dict[str, object]:
    """What the page's program reads: columns of numbers, with names, forms and reasons once."""
    forms: dict[Hashable, int] = {None: -1}
    whys: dict[Hashable, int] = {None: -1}
    notes: dict[Hashable, int] = {"": -1}
    statuses = {status.name: number for number, status in enumerate(page.statuses)}
    sides = [
        {
            "role": side.role,
            "name": said(side.name),
            "noun": side.noun,
            "keys": packed(map(shown, side.keys)),
            "form": [_number(forms, form) for form in side.forms],
            "tied": list(side.tied),
        }
        for side in page.sides
    ]
    items = {
        "a": [_one_or_all(item.a) for item in page.items],
        "b": [_one_or_all(item.b) for item in page.items],
        "status": [statuses[item.status] for item in page.items],
        "why": [_number(whys, item.why) for item in page.items],
        "note": [_number(notes, item.note) for item in page.items],
    }
    return {
        "command": page.command,
        "sides": sides,
        "forms": [
            [form.dtype, form.shape, form.nbytes, form.elements]
            for form in forms
            if isinstance(form, Form)
        ],
        "statuses": [asdict(status) for status in page.statuses],
        "items": items,
        "whys": [_why(why) for why in whys if isinstance(why, Why)],
        "notes": [shown(note) for note in list(notes)[1:] if isinstance(note, str)],
        "measures": [_measure(measure) for measure in page.measures if measure.values],
        "details": {
            number: [
                {"title": said(table.title), "rows": [[*map(said, row)] for row in table.rows]}
                for table in tables
            ]
            for number, tables in page.details.items()
        },
    }


def _number(known: dict[Hashable, int], value: Hashable) -> int:
    """The number of a value; of a new one, the next."""
    return known.setdefault(value, len(known) - 1)


def _one_or_all(numbers: Sequence[int]) -> object:
    return numbers[0] if len(numbers) == 1 else list(numbers)


def _why(why: Why) -> dict[str, object]:
    return {
        name: shown(value) if isinstance(value, str) else value
        for name, value in asdict(why).items()
        if value not in ("", None)
    }


def _measure(measure: Measure) -> dict[str, object]:
    return {
        "name": measure.name,
        "chart": measure.chart,
        "log": measure.is_log,
        "least": measure.is_least_worst,
        "same": measure.same,
        "at": list(measure.values),
        "values": [_rounded(value) for value in measure.values.values()],
    }


def _rounded(value: float | str | None) -> float | str | None:
    """Six digits, which a chart doesn't show; as a word what JSON has no number for."""
    if isinstance(value, str):
        return value
    if value is None or isfinite(value):
        return None if value is None else float(f"{value:.6g}")
    return "NaN" if isnan(value) else "Inf" if value > 0 else "-Inf"


def counts_of(page: Page) -> list[tuple[int, Status, int]]:
    """The number of each status that occurs, and how many keys have it: of the second side where an
    item has any there, else of the first.
    """
    found = dict.fromkeys((status.name for status in page.statuses), 0)
    for item in page.items:
        found[item.status] += len(item.b) or len(item.a)
    return [
        (number, status, found[status.name])
        for number, status in enumerate(page.statuses)
        if found[status.name]
    ]


def problems_of(page: Page) -> Iterable[Mapping[str, object]]:
    """The problems for the page, their texts made safe."""
    for problem in page.problems:
        found = problem_json(problem)
        where = f"{problem.where.file}:{problem.where.line}" if problem.where else ""
        yield {
            "code": problem.code,
            "message": said(str(found["message"])),
            "where": said(where),
            "line": said(problem.where.text) if problem.where else "",
            "notes": [said(note) for note in problem.notes],
        }
