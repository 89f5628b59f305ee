"""Gradual unfreezing: what trains at each epoch or step, which follows from its number alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ckpt_tool.errors import InputError
from ckpt_tool.keys import outline
from ckpt_tool.training.freezing.freeze import Frozen, Thawed, change, whole_number
from ckpt_tool.training.freezing.holding import is_held
from ckpt_tool.training.freezing.noting import lost_text
from ckpt_tool.training.freezing.optimizer import Group, Mended
from ckpt_tool.training.freezing.selection import (
    Selected,
    matching,
    reachable_keys,
    selected,
)
from ckpt_tool.training.live import unwrapped
from ckpt_tool.wording import plural, visible

if TYPE_CHECKING:
    import torch
    from torch import nn

Patterns = str | Sequence[str]
_MARKS = re.compile(r"[*{\\]")
"""What a pattern has and a plain key lacks."""
Unit = Literal["epoch", "step"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What trains, or stops to train, from an epoch or step on."""

    at: int
    patterns: tuple[str, ...]
    trains: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What a schedule changed: `frozen` and `thawed` have what was not so before. `trainable` and
    `held` count the parameters that train now, and those that don't.
    """

    number: int
    unit: Unit
    frozen: Frozen
    thawed: Thawed
    trainable: int
    held: int

    @property
    def optimizer(self) -> Mended | None:
        """What was done to the optimizer, where one was given."""
        return self.thawed.optimizer

    @property
    def is_change(self) -> bool:
        """Whether anything was frozen or thawed."""
        parts = (self.frozen, self.thawed)
        return any(part.parameters or part.modules for part in parts)

    def __str__(self) -> str:
        trains = "trains" if self.trainable == 1 else "train"
        held = f"{self.held:,} {'is' if self.held == 1 else 'are'} frozen"
        text = (
            f"{self.unit} {self.number}: {plural(self.trainable, 'parameter')} {trains}, {held} "
            f"({len(self.thawed.parameters)} thawed, {len(self.frozen.parameters)} frozen now)"
        )
        text = f"{text}\n{lost_text(self.frozen.lost)}" if self.frozen.lost else text
        mended = self.optimizer
        return f"{text}\n{mended}" if mended and (self.is_change or mended.added) else text


@dataclass(frozen=True, slots=True, init=False, repr=False)
class FreezeSchedule:
    """What trains at each epoch, or step: `thaw` has for some of them the patterns of keys that
    train from then on, `freeze` those that stop; what nothing has named yet is frozen, running
    statistics too. Of the entries up to now the last one that names a key counts.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(3)])
    >>> schedule = ckpt_tool.FreezeSchedule({0: "2.**", 3: "1.**", 5: "**"})
    >>> print(schedule)
    epoch 0  trains 2.**
    epoch 3  trains 1.**
    epoch 5  trains **
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)   # of all; frozen ones are skipped
    >>> for epoch in range(4):
    ...     applied = schedule.apply(model, epoch, optimizer)
    >>> applied.thawed.parameters
    ('1.weight', '1.bias')
    """

    entries: tuple[Entry, ...]
    unit: Unit

    def __init__(
        self,
        thaw: Mapping[int, Patterns],
        freeze: Mapping[int, Patterns] | None = None,
        unit: Unit = "epoch",
    ) -> None:
        if unit not in ("epoch", "step"):
            raise ValueError(f"unit={unit!r}; it is 'epoch' or 'step'")
        found = [*_entries(thaw, True), *_entries(freeze or {}, False)]
        if not any(entry.at == 0 and entry.trains and entry.patterns for entry in found):
            raise ValueError(f"FreezeSchedule({{0: 'head.**'}}): say what trains from {unit} 0 on")
        ordered = tuple(sorted(found, key=lambda entry: (entry.at, not entry.trains)))
        object.__setattr__(self, "entries", ordered)
        object.__setattr__(self, "unit", unit)

    def __repr__(self) -> str:
        thawing, freezing = self._given(True), self._given(False)
        more = f", freeze={freezing!r}" if freezing else ""
        unit = f", unit={self.unit!r}" if self.unit != "epoch" else ""
        return f"FreezeSchedule({thawing!r}{more}{unit})"

    def __str__(self) -> str:
        """A line for each epoch or step at which something changes."""
        lines: dict[int, list[str]] = {}
        for entry in self.entries:
            what = "trains" if entry.trains else "freezes"
            patterns = visible("  ".join(self._shown(entry))) or "nothing more"
            lines.setdefault(entry.at, []).append(f"{what} {patterns}")
        width = len(str(max(lines)))
        return "\n".join(f"{self.unit} {at:>{width}}  {'; '.join(lines[at])}" for at in lines)

    def _shown(self, entry: Entry) -> list[str]:
        """Its patterns, its single keys folded into few; `**` is never one of these, for nobody
        knows here what else the model has.
        """
        keys = [each for each in entry.patterns if not _MARKS.search(each)]
        others = {each for one in self.entries if one is not entry for each in one.patterns}
        folds = outline(dict.fromkeys(keys), ["\0", *others.difference(keys)])
        if len(folds) == len(keys):
            return list(entry.patterns)
        folded = f"{'  '.join(one.pattern for one in folds)} ({plural(len(keys), 'key')})"
        return [*(each for each in entry.patterns if _MARKS.search(each)), folded]

    def _given(self, trains: bool) -> dict[int, str | tuple[str, ...]]:
        """The entries of one kind as they may be given again."""
        return {
            entry.at: entry.patterns[0] if len(entry.patterns) == 1 else entry.patterns
            for entry in self.entries
            if entry.trains == trains
        }

    def stage(self, number: int) -> int:
        """How many entries are in force: what trains changes where this does."""
        return sum(entry.at <= number for entry in self.entries)

    def trainable(self, keys: Sequence[str], number: int) -> tuple[str, ...]:
        """The keys that train at an epoch or step. Raises RuleError for a pattern that matches
        none of the keys, InputError where an epoch both thaws and freezes one.
        """
        said = self._said(keys, number)
        return tuple(key for key in keys if key in said and said[key][-1].trains)

    def apply(
        self,
        model: nn.Module,
        number: int,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        group: Group | None = None,
    ) -> Applied:
        """Makes a model what it is at an epoch or step, whatever it was before: later, earlier, or
        fresh from a checkpoint.

        `optimizer` is best made of all parameters: those that are frozen have no gradient, are
        passed over, and keep their state, and its groups are the same at every epoch, so that a
        resumed run reads its state. One that was made of less gets what is thawed, entry by entry,
        as `thaw` says of `group`.

        Raises RuleError for a pattern of any epoch that matches no key, InputError where an
        optimizer or DistributedDataParallel would go wrong.
        """
        known = whole_number(number)
        if known is None or known < 0:
            raise ValueError(f"{self.unit} {number!r}: they are whole numbers from 0 on")
        number = known
        module = unwrapped(model)
        keys = reachable_keys(module)
        thawed = selected(module, self.trainable(keys, number))
        frozen = _without(selected(module, keys), thawed)
        batches = self._batches(thawed, keys, number)
        was = _state_of(frozen, thawed)
        stopped, started = change(model, frozen, thawed, optimizer, group, batches)
        return Applied(
            number,
            self.unit,
            Frozen(
                _those(stopped.parameters, was.frozen),
                _those(stopped.modules, was.held),
                lost=stopped.lost,
            ),
            Thawed(
                tuple(key for key in started.parameters if key in was.frozen),
                tuple(path for path in started.modules if path in was.held),
                started.left,
                started.optimizer,
                lost=started.lost,
            ),
            len(started.parameters),
            len(stopped.parameters) + len(started.left),
        )

    def _said(self, keys: Sequence[str], number: int) -> dict[str, list[Entry]]:
        """The entries in force that name each key, in order. Raises RuleError for a pattern of any
        entry that matches none, InputError where two of one number say different things.
        """
        said: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for key in dict.fromkeys(k for each in entry.patterns for k in matching(each, keys)):
                earlier = said.setdefault(key, [])
                if earlier and earlier[-1].at == entry.at:
                    fact = f"both thaws and freezes `{key}` at {self.unit} {entry.at}"
                    raise InputError("FreezeSchedule", fact)
                earlier.append(entry)
        in_force = {key: [e for e in found if e.at <= number] for key, found in said.items()}
        return {key: found for key, found in in_force.items() if found}

    def _batches(self, thawed: Selected, keys: Sequence[str], number: int) -> list[list[str]]:
        """The keys that train, those of the entry that thawed them first together, in the order in
        which a run that began at 0 thaws them.
        """
        said = self._said(keys, number)
        batches: dict[int, list[str]] = {}
        for key in thawed.parameters:
            first = next(entry.at for entry in said[key] if entry.trains)
            batches.setdefault(first, []).append(key)
        return [batches[at] for at in sorted(batches)]


@dataclass(frozen=True, slots=True)
class _Before:
    """The keys of parameters that took no gradient, and the paths of modules that were held."""

    frozen: frozenset[str]
    held: frozenset[str]


def _state_of(*parts: Selected) -> _Before:
    parameters = {key: one for part in parts for key, one in part.parameters.items()}
    owners = {path: one for part in parts for path, one in part.owners.items()}
    return _Before(
        frozenset(key for key, one in parameters.items() if not one.requires_grad),
        frozenset(path for path, one in owners.items() if is_held(one)),
    )


def _those(names: Sequence[str], was: frozenset[str]) -> tuple[str, ...]:
    """The names that were not so before."""
    return tuple(name for name in names if name not in was)


def _without(every: Selected, thawed: Selected) -> Selected:
    """The rest: a tensor with several names trains if one of them does, a module if one of its
    statistics does.
    """
    training = {id(one) for one in thawed.parameters.values()}
    return Selected(
        {key: one for key, one in every.parameters.items() if id(one) not in training},
        {path: one for path, one in every.owners.items() if path not in thawed.owners},
    )


def _entries(given: Mapping[int, Patterns], trains: bool) -> Iterator[Entry]:
    if not isinstance(given, Mapping):
        name = "thaw" if trains else "freeze"
        raise ValueError(
            f"{name}={given!r}; give a dict of patterns by epoch or step, as {{0: 'head.**'}}"
        )
    for number, patterns in given.items():
        at = whole_number(number)
        if at is None or at < 0:
            raise ValueError(
                f"{number!r} is not an epoch or step: they are whole numbers from 0 on"
            )
        listed = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        if not all(isinstance(each, str) for each in listed):
            raise ValueError(f"{{{at}: {listed!r}}}: patterns are texts")
        yield Entry(at, listed, trains)
