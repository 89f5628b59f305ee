"""First and last layers for other sizes: resize_patch, input_channels, rows, fresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.fits.fit import Fit
from ckpt_tool.ops.op import OpError
from ckpt_tool.tensors import Shape, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class ResizePatch(Fit):
    """A patch embedding's kernel for another patch size, by the pseudo-inverse of resizing the
    image.

    FlexiViT (arXiv 2212.08013, section 3.4), as timm's `resample_patch_embed`.
    """

    name: ClassVar[str] = "resize_patch"

    def check(self, source: Shape, target: Shape) -> None:
        """o i h w -> o i h' w'."""
        if len(source) != 4 or len(target) != 4 or source[:2] != target[:2]:
            raise OpError(
                f"`resize_patch` of {shape_text(source)} to {shape_text(target)}: "
                "only height and width may differ"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The kernel whose outputs on resized patches are the old outputs, by least squares."""
        import torch

        (kernel,) = inputs
        old, new = tuple(kernel.shape[2:]), self._target()[2:]
        basis = torch.eye(old[0] * old[1]).reshape(-1, 1, *old)
        resize = torch.nn.functional.interpolate(
            basis, size=new, mode="bicubic", antialias=True
        ).reshape(old[0] * old[1], -1)
        inverse = torch.linalg.pinv(resize.T)
        resampled = kernel.float().reshape(*kernel.shape[:2], -1) @ inverse
        return [self._cast(resampled.reshape(self._target()))]


@dataclass(frozen=True, slots=True)
class InputChannels(Fit):
    """A first convolution for another number of input channels: summed for one, else repeated and
    scaled to the same sum.

    As timm's `adapt_input_conv`.
    """

    name: ClassVar[str] = "input_channels"

    def check(self, source: Shape, target: Shape) -> None:
        """o i ... -> o i' ... ."""
        if (
            len(source) < 3
            or len(source) != len(target)
            or (source[0], *source[2:]) != (target[0], *target[2:])
        ):
            raise OpError(
                f"`input_channels` of {shape_text(source)} to {shape_text(target)}: "
                "only dimension 1 may differ"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The channels over and over, times i / i'; their sum where i' is 1."""
        (kernel,) = inputs
        old, new = kernel.shape[1], self._target()[1]
        values = kernel.float()
        if new == 1:
            return [self._cast(values.sum(1, keepdim=True))]
        repeats = [1, -(-new // old), *([1] * (kernel.dim() - 2))]
        return [self._cast(values.repeat(repeats)[:, :new] * (old / new))]


@dataclass(frozen=True, slots=True)
class Rows(Fit):
    """Classes or words: the rows that both have are the source's, the others the target's fresh
    ones.
    """

    name: ClassVar[str] = "rows"
    has_own: bool = True
    """Whether the target has rows that the source lacks, as far as is known."""

    @property
    def needs_target(self) -> bool:
        """Whether rows of the target stay its own."""
        return self.has_own

    def settled(self, source: Shape) -> Self:
        """Knowing whether rows of the target stay its own."""
        return replace(self, has_own=not source or self._target()[:1] > source[:1])

    def check(self, source: Shape, target: Shape) -> None:
        """n ... -> n' ... ."""
        if not source or len(source) != len(target) or source[1:] != target[1:]:
            raise OpError(
                f"`rows` of {shape_text(source)} to {shape_text(target)}: "
                "only dimension 0 may differ"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """A copy of the target with the source's first min(n, n') rows."""
        source, *own = inputs
        rows = self._target()[0]
        if not own:
            return [self._cast(source[:rows]).clone()]
        result = self._cast(own[0]).clone()
        result[: len(source)] = self._cast(source[:rows])
        return [result]


@dataclass(frozen=True, slots=True)
class Fresh(Fit):
    """The target keeps its own value; what would have come is left behind."""

    name: ClassVar[str] = "fresh"

    @property
    def needs_target(self) -> bool:
        """Always: nothing else is used."""
        return True

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The target's own tensor, not copied."""
        return [inputs[-1]]
