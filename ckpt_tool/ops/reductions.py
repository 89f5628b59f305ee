"""Ops that add up: sum and mean over tensors or along a dimension, and weight_norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.arithmetic import compute_field, for_computing
from ckpt_tool.ops.op import (
    Inverse,
    Leaf,
    Node,
    Op,
    OpError,
    Part,
    TensorForm,
    axis_of,
    fields,
    number,
    runs,
)
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType, Shape, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Sum(Op):
    """Tensors added up element by element; with `dim`, each tensor added up along a dimension."""

    name: ClassVar[str] = "sum"
    dim: int | None = None
    keep: bool = False
    compute: DType | None = None
    parts: int | None = None

    @property
    def collects(self) -> bool:
        """Whether it adds up tensors; with `dim`, each is for itself."""
        return self.dim is None

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From nothing, a dimension, or `{dim: 0, keep: true, compute: F64}`."""
        given = fields(argument, cls.name, ("dim", "keep", "compute"), "dim")
        dim = number(given["dim"], cls.name, "dim") if "dim" in given else None
        keep = given.get("keep", False)
        if not isinstance(keep, bool):
            raise OpError(f"`{cls.name}`: `keep` is true or false")
        return cls(dim, keep, compute_field(given, cls.name))

    def argument(self) -> object:
        """The fields that were given; None without any."""
        given = {
            "dim": self.dim,
            "keep": self.keep or None,
            "compute": self.compute and self.compute.value,
        }
        return {name: value for name, value in given.items() if value is not None} or None

    def with_parts(self, parts: int) -> Self:
        """Runs of this many tensors; no change with `dim`."""
        return replace(self, parts=parts) if self.dim is None else self

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """`parts` times ... -> ... of one form; with `dim`, a ... -> ..., or 1 ... with `keep`."""
        if self.dim is not None:
            return tuple(TensorForm(form.dtype, self._reduced(form.shape)) for form in inputs)
        size = runs(len(inputs), self.parts, self.name)
        groups = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        for group in groups:
            if odd := next((form for form in group if form != group[0]), None):
                raise OpError(f"`{self.name}` of {group[0]} and {odd}")
        return tuple(group[0] for group in groups)

    def _reduced(self, shape: Shape) -> Shape:
        axis = axis_of(self.dim or 0, len(shape), self.name)
        return (*shape[:axis], *((1,) if self.keep else ()), *shape[axis + 1 :])

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The same box of both tensors that are added up. Of more, and along a dimension, the order
        in which torch adds depends on the shape, and with it the last bit.
        """
        size = 0 if self.dim is not None else runs(len(inputs), self.parts, self.name)
        if not 0 < size <= 2:
            return None
        leaves = tuple(Leaf(output * size + at, region) for at in range(size))
        return Node((self.with_parts(size),), leaves)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """New tensors; integers round towards zero."""
        import torch

        if self.dim is not None:
            return [
                self._reduce(for_computing(tensor, self.compute), self.dim, self.keep).to(
                    tensor.dtype
                )
                for tensor in inputs
            ]
        size = runs(len(inputs), self.parts, self.name)
        groups = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        stacked = [
            torch.stack([for_computing(tensor, self.compute) for tensor in group])
            for group in groups
        ]
        return [self._reduce(group, 0, False).to(inputs[0].dtype) for group in stacked]

    def _reduce(self, tensor: torch.Tensor, dim: int, keep: bool) -> torch.Tensor:
        return tensor.sum(dim, keepdim=keep)

    def invert(self) -> Inverse:
        """Nothing: terms are lost."""
        return Inverse((), "lossy", f"what was added up in a `{self.name}` can't be separated")


@dataclass(frozen=True, slots=True)
class Mean(Sum):
    """The mean of tensors element by element; with `dim`, of each tensor along a dimension."""

    name: ClassVar[str] = "mean"

    def _reduce(self, tensor: torch.Tensor, dim: int, keep: bool) -> torch.Tensor:
        return tensor.mean(dim, keepdim=keep)


@dataclass(frozen=True, slots=True)
class WeightNorm(Op):
    """Pairs of g and v, in this order, folded to the weight v * g / |v|, the norm over all
    dimensions but `dim`.

    Salimans and Kingma, "Weight Normalization", 2016; torch.nn.utils.weight_norm.
    """

    name: ClassVar[str] = "weight_norm"
    collects = True
    dim: int = 0

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a dimension, 0 without."""
        return cls(
            number(fields(argument, cls.name, ("dim",), "dim").get("dim", 0), cls.name, "dim")
        )

    def argument(self) -> object:
        """The dimension."""
        return self.dim

    def taken(self, count: int) -> int:
        """Always 2: g and v."""
        return 2

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """(o 1 ..., o i ...) -> o i ... for dimension 0. Raises OpError for another g."""
        runs(len(inputs), 2, self.name)
        for g, v in zip(inputs[::2], inputs[1::2], strict=True):
            axis = axis_of(self.dim, len(v.shape), self.name)
            wanted = tuple(size if i == axis else 1 for i, size in enumerate(v.shape))
            if g.shape != wanted or g.dtype is not v.dtype or not v.dtype.is_floating:
                raise OpError(
                    f"`weight_norm` of g {g} and v {v}: g would be {v.dtype.value} "
                    f"{shape_text(wanted)}"
                )
        return tuple(inputs[1::2])

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The weights that torch computes, in the dtype of v."""
        import torch

        return [
            torch._weight_norm(v.contiguous(), g.contiguous(), self.dim)
            for g, v in zip(inputs[::2], inputs[1::2], strict=True)
        ]

    def invert(self) -> Inverse:
        """Nothing: |v| is lost."""
        return Inverse((), "lossy", "the length of v is lost")
