"""An optimizer's state in a pickle as it follows a plan: what is passed on keeps its opcodes, what
ops make is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from ckpt_tool.engine.sources import TensorSource
from ckpt_tool.engine.whole.outline import Made, Outline, OutlineFault, resolved
from ckpt_tool.engine.whole.places import Places, find
from ckpt_tool.engine.whole.splicing import Edit, Splicer
from ckpt_tool.engine.whole.weights import NewTensor
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.optimizers import MovedState, SlotStep

Path = tuple[str | int, ...]
Nested = dict[str | int, "Nested | Made | NewTensor"]
"""A part of the new state: values by their names, and dicts of them."""
_ORIGIN = Origin("name")


@frozen
class OptimizerPart:
    """The optimizer to which `names` lead, and what becomes of it.

    `source` has its tensors under the keys that `keys` gives for their paths. `storages` are the
    keys of new storages, by the names of outputs.
    """

    names: tuple[str, ...]
    state: MovedState
    source: TensorSource
    keys: Mapping[Path, str]
    storages: Mapping[str, str] = field(default_factory=dict)

    shares_tensors = False
    """Two parameters never have one tensor for their states: steps are counted in place."""
    target = None

    @property
    def moved(self) -> dict[str, str]:
        """None of the outputs of the plan: what is passed on once is not among them."""
        return {}

    @property
    def plan(self) -> Plan:
        """How new tensors are made: by ops, or as another copy of one that is passed on."""
        steps = [
            Step(tuple(self.keys[path] for path in step.inputs), outputs, step.ops, _ORIGIN)
            for step, outputs in self._made()
        ]
        return Plan(tuple(steps), (), (), self.source.catalog, None)

    def _made(self) -> Iterator[tuple[SlotStep, tuple[str, ...]]]:
        """The steps that make new tensors, with names for their outputs."""
        passed: set[Path] = set()
        for number, step in enumerate(self.state.steps):
            names = tuple(f"{number}.{place}" for place in range(len(step.outputs)))
            if step.ops:
                yield step, names
            elif step.inputs[0] in self.keys:
                for name, path in zip(names, step.outputs, strict=True):
                    if path is not None and step.inputs[0] in passed:
                        yield step, (name,)
                    elif path is not None:
                        passed.add(step.inputs[0])

    def edits(self, outline: Outline) -> list[Edit]:
        """What changes in the stream. Raises OutlineFault."""
        item, places = find(outline, self.names), Places(outline)
        state = resolved(places.member(item, "state"))
        return [
            Edit(state.start, state.end, _NewState(state, self._new_state(places, item))),
            *self._of_groups(places, item),
        ]

    def _new_state(self, places: Places, item: Made) -> Nested:
        """The new state by parameter and slot."""
        infos = self.plan.outputs
        new: Nested = {}
        for number, step in enumerate(self.state.steps):
            for place, path in enumerate(step.outputs):
                name = f"{number}.{place}"
                if path is None:
                    continue
                value: Made | NewTensor
                if name in infos:
                    value = (infos[name], self.storages[name])
                else:
                    value = _value_at(places, item, step.inputs[0])
                _set(new, path[1:], value)
        return new

    def _of_groups(self, places: Places, item: Made) -> Iterator[Edit]:
        groups = resolved(places.member(item, "param_groups"))
        for number, group in enumerate(self.state.groups):
            if group.source != number:
                raise OutlineFault("has an optimizer whose groups would be others")
            entry = resolved(places.member(groups, str(number)))
            old = resolved(places.member(entry, "params"))
            yield Edit(old.start, old.end, _NewList(tuple(group.params)))
            if places.has(entry, "param_names"):
                old = resolved(places.member(entry, "param_names"))
                yield Edit(old.start, old.end, _NewList(tuple(group.names)))


def _value_at(places: Places, item: Made, path: Path) -> Made:
    for name in path:
        item = resolved(places.member(item, str(name)))
    return item


def _set(new: Nested, path: Path, value: Made | NewTensor) -> None:
    for name in path[:-1]:
        inner = new.setdefault(name, {})
        assert isinstance(inner, dict)
        new = inner
    new[path[-1]] = value


@frozen
class _NewState:
    """Writes the state in the place of the old one."""

    item: Made
    state: Nested

    def __call__(self, splicer: Splicer) -> None:
        splicer.keep(self.item.start, self.item.made_end, is_moved=True)
        _add_nested(splicer, self.state)


def _add_nested(splicer: Splicer, values: Nested) -> None:
    if not values:
        return
    splicer.add(b"(")
    for name, value in values.items():
        splicer.writer.put(name)
        if isinstance(value, dict):
            splicer.add(b"}")
            _add_nested(splicer, value)
        elif isinstance(value, Made):
            splicer.keep_item(value)
        else:
            splicer.add_tensor(*value)
    splicer.add(b"u")


@frozen
class _NewList:
    """Writes a list of numbers or names."""

    values: tuple[str | int, ...]

    def __call__(self, splicer: Splicer) -> None:
        splicer.add(b"]")
        if self.values:
            splicer.add(b"(")
            splicer.writer.put_all(*self.values)
            splicer.add(b"e")
