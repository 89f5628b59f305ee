"""The slots of one step's parameters, followed through its ops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.plan import Step, input_forms, step_forms
from ckpt_tool.ops import Cast, Copy, Op, OpError, TensorForm, infer_chain
from ckpt_tool.ops.arithmetic import Unary
from ckpt_tool.ops.copies import Same
from ckpt_tool.optimizers.blocks import block_ops, block_size
from ckpt_tool.optimizers.kinds import Kind, Role, UnknownKind
from ckpt_tool.optimizers.laws import Following, Made, NoLaw, elementwise_ops, made_of
from ckpt_tool.optimizers.saved import Path, SavedParameter, SavedSlot
from ckpt_tool.optimizers.shapes import keeps_unit_dimensions
from ckpt_tool.optimizers.sides import Sides
from ckpt_tool.optimizers.whole import chain_of, whole_move
from ckpt_tool.tensors import shape_text

PASSING = (Cast, Copy, Same)
"""Ops that change no state of a parameter that stays one."""


class NotFollowed(Exception):
    """A slot can't follow a step, for a reason that is no op's."""


@frozen
class SlotMove:
    """One slot of a step: where its values are, the ops, and which of the step's outputs it is for;
    `suffix` is where it stands in a parameter's state.
    """

    suffix: Path
    inputs: tuple[Path, ...]
    ops: tuple[Op, ...]
    outputs: tuple[int, ...]


def follow_step(step: Step, sides: Sides) -> list[SlotMove]:
    """How the slots of a step's parameters become those of its outputs; empty where none has a
    state yet.

    Raises NoLaw and NotFollowed where there is no exact way.
    """
    parameters = _parameters(step, sides)
    if not any(parameter.slots for parameter in parameters):
        return []
    _check_alike(step, parameters)
    if _is_passed_on(step, parameters):
        return [_passed(slot, step) for slot in parameters[0].slots.values()]
    if isinstance(sides.kind, UnknownKind):
        raise NotFollowed(f"the optimizer is not known: {sides.kind.why}")
    return list(_Step(step, sides, parameters, sides.kind).moves())


def _parameters(step: Step, sides: Sides) -> list[SavedParameter]:
    found = []
    for key in step.inputs:
        parameter = sides.own.get(key)
        if parameter is None:
            raise NotFollowed(f"`{key}` is not a parameter of the optimizer")
        found.append(parameter)
    return found


def _check_alike(step: Step, parameters: Sequence[SavedParameter]) -> None:
    """Raises NotFollowed where parameters that become one have other slots."""
    first = parameters[0]
    for key, parameter in zip(step.inputs, parameters, strict=True):
        if parameter.slots.keys() != first.slots.keys():
            with_state, without = (step.inputs[0], key) if first.slots else (key, step.inputs[0])
            if parameter.slots and first.slots:
                raise NotFollowed(f"`{key}` and `{step.inputs[0]}` have other slots")
            raise NotFollowed(f"`{with_state}` has a state, and `{without}` has none")


def _is_passed_on(step: Step, parameters: Sequence[SavedParameter]) -> bool:
    """Whether one parameter stays one, with all its elements where they are."""
    return all(isinstance(op, PASSING) for op in step.ops) and len(set(map(id, parameters))) == 1


def _passed(slot: SavedSlot, step: Step) -> SlotMove:
    return SlotMove(suffix_of(slot), (slot.path,), (), tuple(range(len(step.outputs))))


def suffix_of(slot: SavedSlot) -> Path:
    """Where a slot stands in its parameter's state; in the flat form, its name alone."""
    if len(slot.path) == 1:
        return (str(slot.path[0]).rpartition(".")[2],)
    return slot.path[2:]


@frozen
class _Step:
    """One step with the parameters that it takes, of a known optimizer."""

    step: Step
    sides: Sides
    parameters: Sequence[SavedParameter]
    kind: Kind

    def moves(self) -> Iterator[SlotMove]:
        """One for each slot, or one for each slot and output."""
        self._check_same_parameters()
        for name in self.parameters[0].slots:
            if name not in self.kind.slots:
                raise NotFollowed(f"{self.kind.name} has no `{name}`")
        if self.kind.whole:
            yield from self._of_whole_parameters()
            return
        made = made_of(self.step.ops, self._forms)
        for name, slot in self.parameters[0].slots.items():
            role = self.kind.slots[name].role
            if role is Role.WHOLE:
                raise NoLaw(self.step.ops[0], "its update goes by the size of the whole parameter")
            if role is Role.SHARED:
                yield from self._shared(name, made)
            elif role is Role.BLOCKS:
                yield self._blocks(name)
            elif slot.form is None:
                yield self._plain(name)
            else:
                yield self._elementwise(name)

    @property
    def _forms(self) -> list[TensorForm]:
        return input_forms(self.step, self.sides.plan.source)

    def _slots(self, name: str) -> list[SavedSlot]:
        return [parameter.slots[name] for parameter in self.parameters]

    def _check_same_parameters(self) -> None:
        """Raises NoLaw where parameters that were equal become one."""
        if len(set(map(id, self.parameters))) > 1:
            for op in self.step.ops:
                if isinstance(op, Same):
                    raise NoLaw(op, "parameters that were equal have a state each")

    def _elementwise(self, name: str) -> SlotMove:
        slots, forms = self._slots(name), self._forms
        for slot, form, key in zip(slots, forms, self.step.inputs, strict=True):
            if slot.form is None or slot.form.shape != form.shape:
                has = shape_text(slot.form.shape) if slot.form else "no tensor"
                raise NotFollowed(f"`{name}` of `{key}` is {has}, not {shape_text(form.shape)}")
        group = self.sides.hyper_parameters(self.parameters[0])
        following = Following(self.kind, self.kind.slots[name], group)
        try:
            ops = elementwise_ops(self.step.ops, forms, following)
        except NoLaw as no_law:
            raise NoLaw(no_law.op, no_law.why, name) from None
        self._check_result(ops, [slot.form for slot in slots if slot.form])
        return SlotMove(
            suffix_of(slots[0]),
            tuple(slot.path for slot in slots),
            ops,
            tuple(range(len(self.step.outputs))),
        )

    def _blocks(self, name: str) -> SlotMove:
        slots, forms = self._slots(name), self._forms
        counts = [prod(slot.form.shape) if slot.form else 0 for slot in slots]
        sizes = {block_size(form, count) for form, count in zip(forms, counts, strict=True)}
        size = sizes.pop() if len(sizes) == 1 else None
        if size is None:
            raise NotFollowed(f"the size of the blocks of `{name}` can't be known")
        ops = block_ops(self.step.ops, forms, size)
        outputs = tuple(range(len(self.step.outputs)))
        return SlotMove(suffix_of(slots[0]), tuple(slot.path for slot in slots), ops, outputs)

    def _check_result(self, ops: Sequence[Op], forms: Sequence[TensorForm]) -> None:
        """Raises NotFollowed unless the slots that result have the shapes of the parameters."""
        try:
            shapes = [form.shape for form in infer_chain(ops, forms)]
        except OpError as error:
            raise NotFollowed(str(error)) from None
        wanted = [form.shape for form in step_forms(self.step, self.sides.plan.source)]
        if shapes != wanted:
            raise NotFollowed(f"its slots would be {shapes}, not {wanted}")

    def _shared(self, name: str, made: Sequence[Made]) -> Iterator[SlotMove]:
        """A value that all parts of an output must have in common."""
        slots = self._slots(name)
        for place, each in enumerate(made):
            sources = [slots[source] for source in sorted(each.sources)]
            yield self._one_for_all(name, sources, place)

    def _one_for_all(self, name: str, slots: Sequence[SavedSlot], place: int) -> SlotMove:
        paths = tuple(dict.fromkeys(slot.path for slot in slots))
        suffix = suffix_of(slots[0])
        if len(paths) == 1:
            return SlotMove(suffix, paths, (), (place,))
        if all(slot.form is not None for slot in slots):
            return SlotMove(suffix, paths, (Same(len(paths)),), (place,))
        values = [slot.value for slot in slots]
        if any(slot.form for slot in slots) or any(not _are_same(values[0], v) for v in values):
            raise NotFollowed(f"its parts have other values of `{name}`: {_listed(values)}")
        return SlotMove(suffix, paths[:1], (), (place,))

    def _plain(self, name: str) -> SlotMove:
        """No tensor where one could be, as None before the first step."""
        slots = self._slots(name)
        if any(slot.form is not None or slot.value is not None for slot in slots):
            raise NotFollowed(f"`{name}` is not a tensor of plain elements")
        outputs = tuple(range(len(self.step.outputs)))
        return SlotMove(suffix_of(slots[0]), (slots[0].path,), (), outputs)

    def _of_whole_parameters(self) -> Iterator[SlotMove]:
        for op in self.step.ops:
            if op.collects or op.produces:
                raise NoLaw(op, self.kind.whole)
        for place, parameter in enumerate(self.parameters):
            yield from self._of_whole(place, parameter)

    def _of_whole(self, place: int, parameter: SavedParameter) -> Iterator[SlotMove]:
        roles = {self.kind.slots[name].role: slot for name, slot in parameter.slots.items()}
        keeps = Role.ROWS in roles and _keeps(roles)
        move = whole_move(
            chain_of(self.step.ops, place),
            self._forms[place],
            self.kind,
            self.sides.hyper_parameters(parameter),
            keeps,
        )
        for name, slot in parameter.slots.items():
            role = self.kind.slots[name].role
            given = slot if role in (Role.SHARED, Role.ELEMENTWISE) else roles[move.sources[role]]
            ops = () if slot.form is None or role is Role.SHARED else move.ops[role]
            if not self.kind.slots[name].is_odd:
                ops = tuple(op for op in ops if not isinstance(op, Unary))
            yield SlotMove(suffix_of(slot), (given.path,), tuple(ops), (place,))


def _keeps(roles: Mapping[Role, SavedSlot]) -> bool:
    rows, columns = roles[Role.ROWS].form, roles[Role.COLUMNS].form
    if rows is None or columns is None:
        return False
    return keeps_unit_dimensions(rows.shape, columns.shape)


def _are_same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _listed(values: Sequence[object]) -> str:
    return ", ".join(dict.fromkeys(str(value)[:20] for value in values))
