"""Optimizers that treat a parameter as a whole, Adafactor and Muon: what they keep moves with the
order of rows, columns and dimensions, and with nothing else.

Adafactor: arXiv 1804.04235. It keeps the means of squared gradients over the rows and over the
columns of the last two dimensions, torch with both dimensions (n×1 and 1×m), transformers with one.
Muon: its update commutes with transposing, its rate may not (torch.optim.Muon's `adjust_lr_fn`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckpt_tool.frozen import frozen
from ckpt_tool.ops import Cast, Each, Op, TensorForm, infer_chain
from ckpt_tool.ops.arithmetic import Affine, Unary
from ckpt_tool.ops.axes import composition_of, sides_of
from ckpt_tool.ops.permuting import Rearrange, Transpose
from ckpt_tool.ops.slicing import Index
from ckpt_tool.optimizers.kinds import Kind, Role
from ckpt_tool.optimizers.laws import NoLaw

ROWS_FROM = {Role.ROWS: Role.COLUMNS, Role.COLUMNS: Role.ROWS}
"""Which means a transposed parameter's are."""


@frozen
class WholeMove:
    """For each role, the role that its values come from, and through which ops."""

    sources: Mapping[Role, Role]
    ops: Mapping[Role, tuple[Op, ...]]


def chain_of(ops: Sequence[Op], place: int) -> list[Op]:
    """The ops for one of several tensors that stay apart: those of `each` that are its own."""
    return [one for op in ops for one in (op.chain(place) if isinstance(op, Each) else (op,))]


def whole_move(
    ops: Sequence[Op],
    form: TensorForm,
    kind: Kind,
    group: Mapping[str, object],
    has_unit_dimensions: bool,
) -> WholeMove:
    """How the slots of one parameter follow ops that only order it. Raises NoLaw.

    `has_unit_dimensions` says that means keep the dimension that they are taken over.
    """
    move = WholeMove(
        {role: role for role in Role},
        {Role.ELEMENTWISE: (), Role.ROWS: (), Role.COLUMNS: ()},
    )
    for op in ops:
        for simple in _simple(op, form, kind):
            move = _followed(move, simple, form, kind, group, has_unit_dimensions)
            form = infer_chain((simple,), (form,))[0]
    return move


def _simple(op: Op, form: TensorForm, kind: Kind) -> list[Op]:
    """An op as those that a law exists for: none, transpositions, orders, and a sign."""
    match op:
        case Cast():
            return []
        case Transpose():
            return [op]
        case Index() if _is_order(op, form):
            return [op]
        case Rearrange():
            return list(_transpositions(op, len(form.shape), kind))
        case Unary(function="neg") | Affine(scale=-1.0, shift=0.0):
            return [Unary("neg")]
        case _:
            raise NoLaw(op, kind.whole)


def _is_order(op: Index, form: TensorForm) -> bool:
    """Whether it has each place once."""
    length = form.shape[op.dim]
    return not isinstance(op.order, tuple) or sorted(op.order) == list(range(length))


def _transpositions(op: Rearrange, rank: int, kind: Kind) -> list[Transpose]:
    """The swaps of two dimensions that make a pattern, which must only order dimensions."""
    left, right = (composition_of(side) for side in sides_of(op.pattern))
    names = [axes[0] if axes and len(axes) == 1 else None for axes in left]
    wanted = [axes[0] if axes and len(axes) == 1 else None for axes in right]
    if None in names or None in wanted or len(names) != rank:
        raise NoLaw(op, kind.whole)
    swaps = []
    for place, name in enumerate(wanted):
        now = names.index(name)
        if now != place:
            swaps.append(Transpose((place, now)))
            names[place], names[now] = names[now], names[place]
    return swaps


def _followed(
    move: WholeMove,
    op: Op,
    form: TensorForm,
    kind: Kind,
    group: Mapping[str, object],
    has_unit_dimensions: bool,
) -> WholeMove:
    if isinstance(op, Transpose):
        if kind.name == "Muon":
            _check_rate(op, form, group)
            return _also(move, {Role.ELEMENTWISE: op})
        return _transposed(move, op, form, has_unit_dimensions)
    if isinstance(op, Index):
        return _also(move, _ordered(op, form, has_unit_dimensions))
    return _also(move, {Role.ELEMENTWISE: op})


def _also(move: WholeMove, ops: Mapping[Role, Op]) -> WholeMove:
    return replace(
        move,
        ops={
            role: (*chain, *([ops[role]] if role in ops else []))
            for role, chain in move.ops.items()
        },
    )


def _check_rate(op: Op, form: TensorForm, group: Mapping[str, object]) -> None:
    """Raises NoLaw where Muon's rate is another for the transposed matrix."""
    if group.get("adjust_lr_fn") != "match_rms_adamw" and len(set(form.shape)) > 1:
        rows, columns = form.shape
        raise NoLaw(op, f"Muon's rate goes by rows per column, here {rows}×{columns}")


def _transposed(
    move: WholeMove, op: Transpose, form: TensorForm, has_unit_dimensions: bool
) -> WholeMove:
    rank = len(form.shape)
    first, second = (dim % rank for dim in op.dims)
    if first == second:
        return move
    dims = Transpose((first, second))
    if max(first, second) < rank - 2:
        return _also(move, dict.fromkeys(move.ops, dims))
    if min(first, second) < rank - 2:
        raise NoLaw(op, "Adafactor's means are over the last two dimensions, which would be others")
    swapped = WholeMove(
        {role: move.sources[ROWS_FROM.get(role, role)] for role in move.sources},
        {role: move.ops[ROWS_FROM.get(role, role)] for role in move.ops},
    )
    factors = {Role.ROWS: dims, Role.COLUMNS: dims} if has_unit_dimensions else {}
    return _also(swapped, {Role.ELEMENTWISE: dims, **factors})


def _ordered(op: Index, form: TensorForm, has_unit_dimensions: bool) -> Mapping[Role, Op]:
    rank = len(form.shape)
    axis = op.dim % rank
    along = replace(op, dim=axis)
    if rank < 2 or axis < rank - 2:
        return {Role.ELEMENTWISE: along, Role.ROWS: along, Role.COLUMNS: along}
    if axis == rank - 2:
        return {Role.ELEMENTWISE: along, Role.ROWS: along}
    columns = along if has_unit_dimensions else replace(along, dim=rank - 2)
    return {Role.ELEMENTWISE: along, Role.COLUMNS: columns}
