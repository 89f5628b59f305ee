"""Ops that calculate with each element, affine and unary, and the dtype that ops calculate in.

Calculations are done in F32, or in F64 for F64, C64 and C128 and integers of 32 bits and more,
unless `compute` says otherwise; the result has the dtype of what came in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.casts import FLOATS, NO_NANS, dtype_named
from ckpt_tool.ops.op import Inverse, Leaf, Node, Op, OpError, Part, TensorForm, fields, real_number
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType
from ckpt_tool.torch_bridge import DTYPES, torch_dtype

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


def compute_dtype(dtype: DType, chosen: DType | None) -> DType:
    """The chosen dtype, or the one that the module's rule gives for tensors of `dtype`."""
    if chosen is not None:
        return chosen
    if dtype.is_complex:
        return DType.C128
    return (
        DType.F64
        if dtype is DType.F64 or (not dtype.is_floating and dtype.bits >= 32)
        else DType.F32
    )


def compute_field(given: Mapping[str, object], op: str) -> DType | None:
    """The dtype that `compute` names, None without. Raises OpError for one without arithmetic."""
    if "compute" not in given:
        return None
    dtype = dtype_named(given["compute"], op)
    if dtype not in (DType.F64, DType.F32, DType.F16, DType.BF16, DType.C64, DType.C128):
        raise OpError(f"`{op}`: nothing is calculated in {dtype.value}")
    return dtype


def for_computing(tensor: torch.Tensor, chosen: DType | None) -> torch.Tensor:
    """The tensor in the dtype that is calculated in."""
    return tensor.to(
        torch_dtype(compute_dtype(DTYPES[str(tensor.dtype).removeprefix("torch.")], chosen))
    )


@dataclass(frozen=True, slots=True)
class Affine(Op):
    """Every element times `scale` plus `shift`."""

    name: ClassVar[str] = "affine"
    scale: float = 1.0
    shift: float = 0.0
    compute: DType | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From `{scale: 2.0, shift: 1.0, compute: F64}`, each of which may be missing."""
        given = fields(argument, cls.name, ("scale", "shift", "compute"))
        scale, shift = (
            real_number(given.get("scale", 1.0), cls.name, "scale"),
            real_number(given.get("shift", 0.0), cls.name, "shift"),
        )
        return cls(scale, shift, compute_field(given, cls.name))

    def argument(self) -> object:
        """`scale` and `shift`, and `compute` where it was given."""
        return {
            "scale": self.scale,
            "shift": self.shift,
            **({"compute": self.compute.value} if self.compute else {}),
        }

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """... -> ..., of any dtype."""
        return tuple(inputs)

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The same box."""
        return Node((self,), (Leaf(output, region),))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """New tensors; integers lose what is behind the point."""
        return [
            (for_computing(tensor, self.compute) * self.scale + self.shift).to(tensor.dtype)
            for tensor in inputs
        ]

    def invert(self) -> Inverse:
        """The affine op of 1/scale and -shift/scale, numeric; nothing for a scale of 0."""
        if not self.scale:
            return Inverse((), "lossy", "everything times 0")
        return Inverse(
            (replace(self, scale=1 / self.scale, shift=-self.shift / self.scale),), "numeric"
        )


FUNCTIONS = {
    "neg": "neg",
    "exp": "log",
    "log": "exp",
    "sqrt": "square",
    "square": None,
    "reciprocal": "reciprocal",
    "abs": None,
    "sigmoid": None,
    "tanh": "atanh",
    "atanh": "tanh",
}
"""Functions of one element, and the function that undoes each."""
EXACT = ("neg", "sqrt", "square", "reciprocal", "abs")
"""Those that IEEE 754 rounds to the nearest number, so that all ways to compute them agree."""


@dataclass(frozen=True, slots=True)
class Unary(Op):
    """A function of each element."""

    name: ClassVar[str] = "unary"
    function: str = "neg"
    compute: DType | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a name of FUNCTIONS, or `{function: exp, compute: F64}`."""
        given = fields(argument, cls.name, ("function", "compute"), "function")
        function = given.get("function")
        if not isinstance(function, str) or function not in FUNCTIONS:
            raise OpError(f"`unary` is one of {', '.join(FUNCTIONS)}, not {function!r}")
        return cls(function, compute_field(given, cls.name))

    def argument(self) -> object:
        """The function's name, with `compute` where it was given."""
        return (
            {"function": self.function, "compute": self.compute.value}
            if self.compute
            else self.function
        )

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """... -> ..., of any dtype."""
        return tuple(inputs)

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The same box. Of what is no IEEE operation, the last bit may depend on the shape."""
        return Node((self,), (Leaf(output, region),)) if self.function in EXACT else None

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """New tensors; outside a function's domain, NaN as torch has it."""
        import torch

        function = getattr(torch, self.function)
        return [function(for_computing(tensor, self.compute)).to(tensor.dtype) for tensor in inputs]

    def invert(self) -> Inverse:
        """The function that FUNCTIONS pairs with it, numeric; `neg` undoes itself but for NaNs."""
        back = FUNCTIONS[self.function]
        if back is None:
            return Inverse((), "lossy", f"`{self.function}` gives one value for several")
        if self.function == "neg":
            return Inverse(
                (self,),
                "exact with a check",
                f"of floating-point numbers {NO_NANS}; integers may not",
            )
        return Inverse((replace(self, function=back),), "numeric")

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """As `invert`, and `neg` exactly where the dtypes have a sign and keep each NaN."""
        if self.function != "neg":
            return self.invert()
        dtypes = {form.dtype for form in inputs}
        if self.compute is not None or not all(_is_signed_float(dtype) for dtype in dtypes):
            return Inverse(
                (self,),
                "numeric",
                "not every number of its type, or that it is calculated in, has a negative one",
            )
        if all(_keeps_nans(dtype) for dtype in dtypes):
            return Inverse((self,), "exact")
        return Inverse((self,), "exact with a check", NO_NANS)


def _is_signed_float(dtype: DType) -> bool:
    return dtype in FLOATS and FLOATS[dtype].sign


def _keeps_nans(dtype: DType) -> bool:
    """Whether each NaN comes back from the dtype that is calculated in."""
    return dtype in (DType.F32, DType.F64) or FLOATS[dtype].nans == 1
