"""What every op states without data, and what it does to tensors; and how fields are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ckpt_tool.frozen import frozen
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, Shape, counted, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

Verdict = Literal["exact", "exact with a check", "numeric", "lossy"]
Labels = tuple[frozenset[str], ...]
"""For each tensor inside a chain, the words of choices and the patterns that it stands for."""


class OpError(ValueError):
    """An op that can't be understood, or that doesn't fit the tensors it is given; the caller knows
    the place, `hint` the way out.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@frozen
class TensorForm:
    """Dtype and shape of a tensor inside a chain of ops, without data."""

    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.value} {shape_text(self.shape)}"


@frozen
class Leaf:
    """A box of an input."""

    input: int
    region: Region


@frozen
class Node:
    """Ops that make one tensor of others."""

    ops: tuple[Op, ...]
    parts: tuple[Part, ...]


Part = Leaf | Node
"""How a box of one result comes from boxes of the inputs, and of no more of them."""


@frozen
class Inverse:
    """The ops that undo another, or none where something is lost; `why` says what the verdict rests
    on.
    """

    ops: tuple[Op, ...]
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Op(ABC):
    """One op: a list of tensors in, a list of tensors out.

    An op that `collects` makes each run of `parts` tensors one (all of them where `parts` is None);
    one that `produces` makes each tensor into `parts` consecutive ones. Any other op works on each
    tensor by itself.
    """

    name: ClassVar[str]
    checks_values: ClassVar[bool] = False
    """Whether only values can show that the op doesn't fit."""

    @classmethod
    @abstractmethod
    def parse(cls, argument: object) -> Self:
        """From plain data, as it stands in a rule. Raises OpError."""

    def argument(self) -> object:
        """Plain data from which `parse` makes this op again; None for an op without argument."""
        return None

    def parameters(self) -> frozenset[str]:
        """Names of rule parameters that stand where a number is expected."""
        return frozenset()

    def bind(self, values: Mapping[str, int]) -> Self:
        """The op with those names replaced by their numbers."""
        return self

    @property
    def collects(self) -> bool:
        """Whether it makes several tensors one."""
        return False

    @property
    def produces(self) -> bool:
        """Whether it makes one tensor several."""
        return False

    def taken(self, count: int) -> int:
        """How many of `count` tensors an op that collects makes one."""
        return getattr(self, "parts", None) or count

    def with_parts(self, parts: int) -> Self:
        """The op for groups of this many tensors; an op that neither collects nor produces stays as
        it is.
        """
        return self

    def with_labels(self, labels: Labels, mixed: frozenset[str]) -> Self:
        """The op for tensors that stand for these words, `mixed` for parts of one; an op that
        treats all alike stays as it is.
        """
        return self

    @abstractmethod
    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """The forms that result. Raises OpError for tensors that don't fit."""

    @abstractmethod
    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors that result, on the CPU; their forms are those that `infer` gives."""

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """What a box of one result needs of these inputs; None where it may need all of them. The
        box has elements.
        """
        return None

    def invert(self) -> Inverse:
        """What undoes the op, as far as is known without the tensors' forms."""
        return Inverse((), "lossy", f"`{self.name}` can't be undone")

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """What undoes the op for tensors of these forms."""
        return self.invert()


def infer_chain(ops: Sequence[Op], forms: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
    """The forms that the ops make, one after the other. Raises OpError."""
    result = tuple(forms)
    for op in ops:
        result = op.infer(result)
    return result


def whole_number(value: object, op: str, field: str) -> int | str:
    """A number, or the name of a parameter."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isidentifier():
        return value
    raise OpError(f"`{op}`: `{field}` is a whole number or the name of a parameter, not {value!r}")


def number(value: object, op: str, field: str) -> int:
    """A plain whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise OpError(f"`{op}`: `{field}` is a whole number, not {value!r}")


def real_number(value: object, op: str, field: str) -> float:
    """A plain number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise OpError(f"`{op}`: `{field}` is a number, not {value!r}")


def fields(
    argument: object, op: str, allowed: Iterable[str], main: str | None = None
) -> dict[str, object]:
    """The argument as a mapping of known fields; a bare value is that of the field `main`."""
    names = tuple(allowed)
    if not isinstance(argument, Mapping):
        if main is None:
            raise OpError(f"`{op}` has {', '.join(f'`{name}`' for name in names)}, as a mapping")
        return {} if argument is None else {main: argument}
    unknown = [str(name) for name in argument if name not in names]
    if unknown:
        raise OpError(
            f"`{op}` has no `{unknown[0]}`; it has {', '.join(f'`{name}`' for name in names)}"
        )
    return {str(name): value for name, value in argument.items()}


def axis_of(dim: int, rank: int, op: str) -> int:
    """The dimension counted from the front. Raises OpError for one that isn't there."""
    if not -rank <= dim < rank:
        raise OpError(f"`{op}` along dimension {dim} of a tensor that has {rank}")
    return dim % rank


def with_axis_size(form: TensorForm, axis: int, size: int) -> TensorForm:
    """The form with another size of one dimension."""
    return TensorForm(form.dtype, (*form.shape[:axis], size, *form.shape[axis + 1 :]))


def axis_word(axis: int) -> str:
    """What the elements along a dimension are called in messages."""
    return ("rows", "columns")[axis] if axis < 2 else f"along dimension {axis}"


def runs(count: int, parts: int | None, op: str) -> int:
    """How many tensors make one; they must come out even."""
    size = count if parts is None else parts
    if not size or count % size:
        verb = "is" if count == 1 else "are"
        raise OpError(f"`{op}` takes {counted(size, 'tensor')} at a time, and there {verb} {count}")
    return size


def resolved(value: int | str, op: str) -> int:
    """A number that was bound. Raises OpError for a parameter that was not."""
    if isinstance(value, str):
        raise OpError(f"`{op}`: the parameter `{value}` has no number")
    return value


def bound(value: int | str, values: Mapping[str, int]) -> int | str:
    """The parameter's number where it is known; what else it is stays."""
    return values.get(value, value) if isinstance(value, str) else value


def names_in(*values: object) -> frozenset[str]:
    """The names of parameters among numbers."""
    return frozenset(value for value in values if isinstance(value, str))
