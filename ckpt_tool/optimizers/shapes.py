"""The shape of a parameter, as far as its optimizer's slots tell it."""

from __future__ import annotations

from ckpt_tool.optimizers.kinds import KINDS, Kind, Role, UnknownKind
from ckpt_tool.optimizers.saved import SavedParameter
from ckpt_tool.tensors import Shape

ELEMENTWISE = frozenset(
    name for kind in KINDS for name, slot in kind.slots.items() if slot.role is Role.ELEMENTWISE
)


def shape_of(parameter: SavedParameter, kind: Kind | UnknownKind) -> Shape | None:
    """The parameter's shape: that of slots with a number for each element, or what the means over
    its rows and columns make; None where no slot tells it.
    """
    if isinstance(kind, UnknownKind):
        return _common_shape(parameter)
    shapes = _by_role(parameter, kind)
    if Role.ELEMENTWISE in shapes:
        return shapes[Role.ELEMENTWISE]
    if Role.ROWS in shapes and Role.COLUMNS in shapes:
        return _of_means(shapes[Role.ROWS], shapes[Role.COLUMNS])
    return None


def _by_role(parameter: SavedParameter, kind: Kind) -> dict[Role, Shape]:
    return {
        kind.slots[name].role: slot.form.shape
        for name, slot in parameter.slots.items()
        if name in kind.slots and slot.form is not None
    }


def _of_means(rows: Shape, columns: Shape) -> Shape:
    if keeps_unit_dimensions(rows, columns):
        return (*rows[:-1], columns[-1])
    return (*rows, columns[-1])


def keeps_unit_dimensions(rows: Shape, columns: Shape) -> bool:
    """Whether means over rows and columns keep the dimension that they are taken over, as n×1 and
    1×m.
    """
    return len(rows) > 1 and rows[-1] == 1 and columns[-2] == 1 and rows[:-2] == columns[:-2]


def _common_shape(parameter: SavedParameter) -> Shape | None:
    """The one shape of the slots whose names known optimizers give to a number for each element."""
    shapes = {
        slot.form.shape
        for name, slot in parameter.slots.items()
        if slot.form is not None and name in ELEMENTWISE
    }
    return shapes.pop() if len(shapes) == 1 else None
