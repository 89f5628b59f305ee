"""The op `init`: a tensor that has no source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.casts import dtype_named
from ckpt_tool.ops.op import (
    Inverse,
    Op,
    OpError,
    TensorForm,
    fields,
    number,
    real_number,
)
from ckpt_tool.tensors import shape_text
from ckpt_tool.torch_bridge import torch_dtype

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


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
        """From zeros, ones, arange or `{fill: 0.5}`, with `shape` and `dtype` (F32 without)."""
        given = fields(argument, cls.name, ("kind", "fill", "shape", "dtype"), "kind")
        kind = "fill" if "fill" in given else given.get("kind", "zeros")
        if kind not in ("zeros", "ones", "fill", "arange"):
            raise OpError(f"`init` is zeros, ones, arange or `{{fill: 0.5}}`, not {kind!r}")
        fill = real_number(given.get("fill", 0.0), cls.name, "fill")
        return cls(str(kind), fill, _form(given))

    def argument(self) -> object:
        """The kind or the value, with the form where it is known."""
        given: dict[str, object] = (
            {"fill": self.fill} if self.kind == "fill" else {"kind": self.kind}
        )
        if self.form:
            given |= {"shape": list(self.form.shape), "dtype": self.form.dtype.value}
        return self.kind if given == {"kind": self.kind} else given

    def with_form(self, form: TensorForm) -> Self:
        """With the target's form, where the rule gives none."""
        return self if self.form else replace(self, form=form)

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """-> the form; `arange` has one dimension longer than 1 at most."""
        if self.form is None:
            raise OpError("`init` does not know its shape: give `shape` and `dtype`, or a target")
        if self.kind == "arange" and len([size for size in self.form.shape if size != 1]) > 1:
            raise OpError(
                f"`init: arange` of {shape_text(self.form.shape)}: "
                "only one dimension may be longer than 1"
            )
        return (self.form,)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """A new tensor; values are rounded from F64, `arange` from I64."""
        import torch

        (form,) = self.infer(())
        dtype = torch_dtype(form.dtype)
        if self.kind == "arange":
            size = torch.Size(form.shape).numel()
            return [torch.arange(size).to(dtype).reshape(form.shape)]
        value = {"zeros": 0.0, "ones": 1.0}.get(self.kind, self.fill)
        return [torch.full(form.shape, value, dtype=torch.float64).to(dtype)]

    def invert(self) -> Inverse:
        """Nothing: no key of the source waits for it."""
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
