"""What becomes of a slot when its parameter goes through ops: the ops of the slot, or why there are
none that would go on exactly where the optimizer stopped.

Elementwise optimizers keep one number for each element, so whatever arranges elements arranges
their numbers alike. An op that calculates changes the gradient, and with it what all numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckpt_tool.frozen import frozen
from ckpt_tool.ops import Cast, Each, Op, TensorForm, infer_chain
from ckpt_tool.ops.arithmetic import Affine, Unary
from ckpt_tool.ops.combining import Concat, Split
from ckpt_tool.ops.copies import Copy, Repeat, Same
from ckpt_tool.ops.fits.layers import Rows
from ckpt_tool.ops.permuting import Rearrange, Reshape, Transpose
from ckpt_tool.ops.slicing import Index, Pad, Slice
from ckpt_tool.ops.stacking import Stack, Unstack
from ckpt_tool.optimizers.kinds import Kind, Slot

Forms = Sequence[TensorForm]


class NoLaw(Exception):
    """There is no exact law for an op, for the reason `why`; `slot` is whose, where not all of the
    parameter's state is meant.
    """

    def __init__(self, op: Op, why: str, slot: str = "") -> None:
        super().__init__(f"`{op.name}`{f' of `{slot}`' if slot else ''}: {why}")
        self.op, self.why = op, why


@frozen
class Following:
    """One slot of the parameters of a step, in groups with these hyper-parameters."""

    kind: Kind
    slot: Slot
    group: Mapping[str, object]


def elementwise_ops(ops: Sequence[Op], forms: Forms, following: Following) -> tuple[Op, ...]:
    """The ops of a slot that has a number for each element. Raises NoLaw, and OpError for forms
    that don't fit.
    """
    result: list[Op] = []
    for op in ops:
        result += _followed(op, forms, following)
        forms = infer_chain((op,), forms)
    return tuple(result)


def _followed(op: Op, forms: Forms, following: Following) -> tuple[Op, ...]:
    match op:
        case Cast():
            return ()
        case Transpose() | Rearrange() | Reshape() | Concat() | Split() | Stack() | Unstack():
            return (op,)
        case Copy() | Same() | Slice():
            return (op,)
        case Index():
            return (_ordered(op, forms),)
        case Pad():
            return (_padded(op, following),)
        case Rows():
            return _fitted_rows(op, forms, following)
        case Each():
            return (_each(op, forms, following),)
        case Affine() | Unary():
            return _calculated(op, following)
        case Repeat():
            raise NoLaw(op, "an element that occurs several times has a gradient for each")
        case _:
            raise NoLaw(op, "it mixes elements, and their gradients can't be separated")


def _ordered(op: Index, forms: Forms) -> Index:
    """An order in which no element stands twice."""
    if isinstance(op.order, tuple) and len(set(op.order)) < len(op.order):
        raise NoLaw(op, "an element that occurs twice has two gradients, and one state")
    return op


def _padded(op: Pad, following: Following) -> Pad:
    """New elements, which begin as the optimizer would have it."""
    return replace(op, value=start_value(op, following))


def start_value(op: Op, following: Following) -> float:
    """What a slot of new elements holds. Raises NoLaw where they can't begin late."""
    kind, start = following.kind, following.slot.start
    if isinstance(start, str):
        start = _number(following.group.get(start))
    if start is None:
        raise NoLaw(op, f"what {kind.name} begins with in new elements isn't known")
    if kind.takes_new is None:
        raise NoLaw(
            op, f"new elements can't join the state: {kind.name} counts the steps of all together"
        )
    for name in kind.takes_new:
        if following.group.get(name, 0):
            raise NoLaw(op, f"new elements can't join the state while `{name}` is not 0")
    return start


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _fitted_rows(op: Rows, forms: Forms, following: Following) -> tuple[Op, ...]:
    """The rows that both have, and new ones."""
    old, new = forms[0].shape[0], infer_chain((op,), forms)[0].shape[0]
    if new == old:
        return ()
    if new < old:
        return (Slice(0, 0, new),)
    return (Pad(0, 0, new - old, start_value(op, following)),)


def _calculated(op: Affine | Unary, following: Following) -> tuple[Op, ...]:
    """What is left of a sign that changes, and of a shift: gradients stay what they were."""
    if isinstance(op, Unary):
        if op.function != "neg":
            raise NoLaw(op, "it changes the gradient")
        return _negated(op, following)
    if op.scale not in (1.0, -1.0):
        raise NoLaw(op, "a scale changes the gradient, and steps of another size would follow")
    if op.shift and _follows_values(following):
        raise NoLaw(op, "a shift changes what weight decay does")
    return _negated(op, following) if op.scale == -1.0 else ()


def _negated(op: Op, following: Following) -> tuple[Op, ...]:
    if following.slot.is_odd is None:
        raise NoLaw(op, "whether its state has a sign isn't known")
    return (Unary("neg"),) if following.slot.is_odd else ()


def _follows_values(following: Following) -> bool:
    decay = following.group.get("weight_decay", 0)
    has_values = any(slot.of_values for slot in following.kind.slots.values())
    return bool(decay) or has_values


def _each(op: Each, forms: Forms, following: Following) -> Each:
    """The ops of each word, which must do for every tensor that it stands for."""
    followed: dict[str, tuple[Op, ...]] = {word: () for word, _ in op.chains}
    for index, form in enumerate(forms):
        word = next((word for word, chain in op.chains if chain is op.chain(index)), None)
        if word is not None:
            followed[word] = elementwise_ops(op.chain(index), [form], following)
    return replace(op, chains=tuple(followed.items()))


@frozen
class Made:
    """What a tensor inside a chain is made of: the places of its inputs, and a value that is equal
    for copies alone.
    """

    sources: frozenset[int]
    identity: object


def made_of(ops: Sequence[Op], forms: Forms) -> list[Made]:
    """What each tensor that results is made of."""
    made = [Made(frozenset((place,)), place) for place in range(len(forms))]
    for op in ops:
        before = len(made)
        forms = infer_chain((op,), forms)
        if op.collects:
            size = op.taken(before)
            made = [_joined(made[i : i + size]) for i in range(0, before, size)]
        elif op.produces:
            parts = len(forms) // before if before else 0
            made = [_part(each, op, part) for each in made for part in range(parts)]
    return made


def _joined(made: Sequence[Made]) -> Made:
    sources = frozenset().union(*(each.sources for each in made))
    return Made(sources, tuple(each.identity for each in made))


def _part(made: Made, op: Op, part: int) -> Made:
    return made if isinstance(op, Copy) else Made(made.sources, (made.identity, part))
