"""Ops that calculate: affine, unary, sum, mean, weight_norm; and init, which makes a tensor from
nothing.

Calculations are done in F32, or in F64 for F64, C64 and C128 and integers of 32 bits and more,
unless `compute` says otherwise; the result has the dtype of what came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.casts import FLOATS, NO_NANS, dtype_named
from ckpt_tool.ops.op import Inverse, Op, OpError, TensorForm, axis_of, fields, number, runs
from ckpt_tool.tensors import DType, Shape, shape_text
from ckpt_tool.torch_bridge import DTYPES, torch_dtype

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


def compute_dtype(dtype: DType, chosen: DType | None) -> DType:
    if chosen is not None:
        return chosen
    if dtype.is_complex:
        return DType.C128
    return (
        DType.F64
        if dtype is DType.F64 or (not dtype.is_floating and dtype.bits >= 32)
        else DType.F32
    )


def _compute(given: dict[str, object], op: str) -> DType | None:
    if "compute" not in given:
        return None
    dtype = dtype_named(given["compute"], op)
    if dtype not in (DType.F64, DType.F32, DType.F16, DType.BF16, DType.C64, DType.C128):
        raise OpError(f"`{op}`: nothing is calculated in {dtype.value}")
    return dtype


def _calculate(tensor: torch.Tensor, chosen: DType | None) -> torch.Tensor:
    return tensor.to(
        torch_dtype(compute_dtype(DTYPES[str(tensor.dtype).removeprefix("torch.")], chosen))
    )


def _real(value: object, op: str, field: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise OpError(f"`{op}`: `{field}` is a number, not {value!r}")


@dataclass(frozen=True, slots=True)
class Affine(Op):
    """Every element times `scale` plus `shift`."""

    name: ClassVar[str] = "affine"
    scale: float = 1.0
    shift: float = 0.0
    compute: DType | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        given = fields(argument, cls.name, ("scale", "shift", "compute"))
        scale, shift = (
            _real(given.get("scale", 1.0), cls.name, "scale"),
            _real(given.get("shift", 0.0), cls.name, "shift"),
        )
        return cls(scale, shift, _compute(given, cls.name))

    def argument(self) -> object:
        return {
            "scale": self.scale,
            "shift": self.shift,
            **({"compute": self.compute.value} if self.compute else {}),
        }

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        return tuple(inputs)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [
            (_calculate(tensor, self.compute) * self.scale + self.shift).to(tensor.dtype)
            for tensor in inputs
        ]

    def invert(self) -> Inverse:
        if not self.scale:
            return Inverse((), "lossy", "everything times 0")
        return Inverse(
            (replace(self, scale=1 / self.scale, shift=-self.shift / self.scale),), "numeric"
        )


FUNCTIONS = {
    "neg": "neg", "exp": "log", "log": "exp", "sqrt": "square", "square": None, "reciprocal": "reciprocal", "abs": None,
    "sigmoid": None, "tanh": "atanh", "atanh": "tanh",
}  # fmt: skip
"""Functions of one element, and the function that undoes each."""


@dataclass(frozen=True, slots=True)
class Unary(Op):
    """A function of each element."""

    name: ClassVar[str] = "unary"
    function: str = "neg"
    compute: DType | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        given = fields(argument, cls.name, ("function", "compute"), "function")
        function = given.get("function")
        if not isinstance(function, str) or function not in FUNCTIONS:
            raise OpError(f"`unary` is one of {', '.join(FUNCTIONS)}, not {function!r}")
        return cls(function, _compute(given, cls.name))

    def argument(self) -> object:
        return (
            {"function": self.function, "compute": self.compute.value}
            if self.compute
            else self.function
        )

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        return tuple(inputs)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        function = getattr(torch, self.function)
        return [function(_calculate(tensor, self.compute)).to(tensor.dtype) for tensor in inputs]

    def invert(self) -> Inverse:
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
        if self.function != "neg":
            return self.invert()
        formats = {form.dtype: FLOATS.get(form.dtype) for form in inputs}
        if self.compute is not None or not all(each and each.sign for each in formats.values()):
            return Inverse(
                (self,),
                "numeric",
                "not every number of its type, or that it is calculated in, has a negative one",
            )
        is_exact = all(
            dtype in (DType.F32, DType.F64) or (each and each.nans == 1)
            for dtype, each in formats.items()
        )
        return (
            Inverse((self,), "exact")
            if is_exact
            else Inverse((self,), "exact with a check", NO_NANS)
        )


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
        return self.dim is None

    @classmethod
    def parse(cls, argument: object) -> Self:
        given = fields(argument, cls.name, ("dim", "keep", "compute"), "dim")
        dim = number(given["dim"], cls.name, "dim") if "dim" in given else None
        keep = given.get("keep", False)
        if not isinstance(keep, bool):
            raise OpError(f"`{cls.name}`: `keep` is true or false")
        return cls(dim, keep, _compute(given, cls.name))

    def argument(self) -> object:
        given = {
            "dim": self.dim,
            "keep": self.keep or None,
            "compute": self.compute and self.compute.value,
        }
        return {name: value for name, value in given.items() if value is not None} or None

    def with_parts(self, parts: int) -> Self:
        return replace(self, parts=parts) if self.dim is None else self

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
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

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        if self.dim is not None:
            return [
                self._reduce(_calculate(tensor, self.compute), self.dim, self.keep).to(tensor.dtype)
                for tensor in inputs
            ]
        size = runs(len(inputs), self.parts, self.name)
        groups = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        stacked = [
            torch.stack([_calculate(tensor, self.compute) for tensor in group]) for group in groups
        ]
        return [self._reduce(group, 0, False).to(inputs[0].dtype) for group in stacked]

    def _reduce(self, tensor: torch.Tensor, dim: int, keep: bool) -> torch.Tensor:
        return tensor.sum(dim, keepdim=keep)

    def invert(self) -> Inverse:
        return Inverse((), "lossy", f"what was added up in a `{self.name}` can't be told apart")


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
        return cls(
            number(fields(argument, cls.name, ("dim",), "dim").get("dim", 0), cls.name, "dim")
        )

    def argument(self) -> object:
        return self.dim

    def taken(self, count: int) -> int:
        return 2

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        runs(len(inputs), 2, self.name)
        for g, v in zip(inputs[::2], inputs[1::2], strict=True):
            axis = axis_of(self.dim, len(v.shape), self.name)
            wanted = tuple(size if i == axis else 1 for i, size in enumerate(v.shape))
            if g.shape != wanted or g.dtype is not v.dtype or not v.dtype.is_floating:
                raise OpError(
                    f"`weight_norm` of g {g} and v {v}: g would be {v.dtype.value} {shape_text(wanted)}"
                )
        return tuple(inputs[1::2])

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        return [
            torch._weight_norm(v.contiguous(), g.contiguous(), self.dim)
            for g, v in zip(inputs[::2], inputs[1::2], strict=True)
        ]

    def invert(self) -> Inverse:
        return Inverse((), "lossy", "the length of v is lost")


@dataclass(frozen=True, slots=True)
class Init(Op):
    """A tensor that has no source: zeros, ones, a number, or 0, 1, 2, …; its shape and dtype are
    given, or the target's.
    """

    name: ClassVar[str] = "init"
    kind: str = "zeros"
    fill: float = 0.0
    form: TensorForm | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        given = fields(argument, cls.name, ("kind", "fill", "shape", "dtype"), "kind")
        kind = "fill" if "fill" in given else given.get("kind", "zeros")
        if kind not in ("zeros", "ones", "fill", "arange"):
            raise OpError(f"`init` is zeros, ones, arange or `{{fill: 0.5}}`, not {kind!r}")
        fill = _real(given.get("fill", 0.0), cls.name, "fill")
        return cls(str(kind), fill, _form(given))

    def argument(self) -> object:
        given: dict[str, object] = (
            {"fill": self.fill} if self.kind == "fill" else {"kind": self.kind}
        )
        if self.form:
            given |= {"shape": list(self.form.shape), "dtype": self.form.dtype.value}
        return self.kind if given == {"kind": self.kind} else given

    def with_form(self, form: TensorForm) -> Self:
        return self if self.form else replace(self, form=form)

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        if self.form is None:
            raise OpError("`init` does not know its shape: give `shape` and `dtype`, or a target")
        if self.kind == "arange" and len([size for size in self.form.shape if size != 1]) > 1:
            raise OpError(
                f"`init: arange` of {shape_text(self.form.shape)}: only one dimension may be longer than 1"
            )
        return (self.form,)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        (form,) = self.infer(())
        dtype = torch_dtype(form.dtype)
        if self.kind == "arange":
            size = torch.Size(form.shape).numel()
            return [torch.arange(size).to(dtype).reshape(form.shape)]
        value = {"zeros": 0.0, "ones": 1.0}.get(self.kind, self.fill)
        return [torch.full(form.shape, value, dtype=torch.float64).to(dtype)]

    def invert(self) -> Inverse:
        return Inverse((), "lossy", "a tensor without a source has nowhere to go")


def _form(given: dict[str, object]) -> TensorForm | None:
    shape = given.get("shape")
    if shape is None:
        return None
    if not isinstance(shape, list | tuple):
        raise OpError("`init`: `shape` is a list of sizes")
    return TensorForm(
        dtype_named(given.get("dtype", "F32"), "init"),
        tuple(number(size, "init", "shape") for size in shape),
    )
