"""Lossy adaptations to the target's shape: another image size, patch size, number of input
channels, classes or tokens.

They are kept apart from the ops, which lose nothing without saying so. A fit stands at the end of a
step's ops and knows the form that it must give. Calculations are in float32, the result has the
dtype of what came in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.op import Inverse, Op, OpError, TensorForm, fields, number
from ckpt_tool.tensors import Shape, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

MAX_PREFIX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Fit(Op):
    """What all fits share: `form` is what the target has, filled in when the plan is made.

    One that `needs_target` gets the target's own tensor beside the source's.
    """

    form: TensorForm | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        if argument is not None:
            raise OpError(f"`{cls.name}` has no argument")
        return cls()

    @property
    def needs_target(self) -> bool:
        return False

    def with_form(self, form: TensorForm) -> Self:
        return replace(self, form=form)

    def settled(self, source: Shape) -> Self:
        """The fit with all numbers that the shape of the source's tensor tells. Raises OpError."""
        return self

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        if self.form is None or len(inputs) != 1:
            raise OpError(f"`{self.name}` is for one tensor and a target")
        self.check(inputs[0].shape, self.form.shape)
        return (TensorForm(inputs[0].dtype, self.form.shape),)

    def check(self, source: Shape, target: Shape) -> None:
        """Raises OpError where the source can't become the target's shape."""

    def invert(self) -> Inverse:
        return Inverse((), "lossy", f"`{self.name}` loses what does not fit")

    def _target(self) -> Shape:
        if self.form is None:
            raise OpError(f"`{self.name}` needs a target")
        return self.form.shape


def _sizes(value: object, op: str, field: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise OpError(f"`{op}`: `{field}` is [height, width]")
    height, width = (number(size, op, field) for size in value)
    return height, width


@dataclass(frozen=True, slots=True)
class ResizeGrid(Fit):
    """A table of positions over a grid, with any number of tokens before them: 1×(prefix+h·w)×C, or
    the same without the 1.

    The grid is interpolated (bicubic, antialiased), the prefix stays: ViT (arXiv 2010.11929,
    section 3.2), as timm's `resample_abs_pos_embed`. Grids are square, and the prefix what makes
    them so on both sides, unless they are given. A target with `new_prefix` tokens gets as many of
    the source's, from the first; what is missing stays its own.
    """

    name: ClassVar[str] = "resize_grid"
    prefix: int | None = None
    grid: tuple[int, int] | None = None
    new_grid: tuple[int, int] | None = None
    new_prefix: int | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        given = fields(
            {} if argument is None else argument,
            cls.name,
            ("prefix", "grid", "new_grid", "new_prefix"),
        )
        counts = {
            field: number(given[field], cls.name, field)
            for field in ("prefix", "new_prefix")
            if field in given
        }
        if negative := [field for field, count in counts.items() if count < 0]:
            raise OpError(f"`resize_grid`: `{negative[0]}` is at least 0")
        grid, new_grid = (
            _sizes(given.get(field), cls.name, field) for field in ("grid", "new_grid")
        )
        return cls(None, counts.get("prefix"), grid, new_grid, counts.get("new_prefix"))

    def argument(self) -> object:
        given = {
            "prefix": self.prefix,
            "grid": self.grid and list(self.grid),
            "new_grid": self.new_grid and list(self.new_grid),
        }
        given["new_prefix"] = self.new_prefix
        return {name: value for name, value in given.items() if value is not None} or None

    @property
    def needs_target(self) -> bool:
        return self.new_prefix is not None and (
            self.prefix is None or self.new_prefix > self.prefix
        )

    def settled(self, source: Shape) -> Self:
        prefix, new_prefix = self._prefixes(source, self._target())
        return replace(self, prefix=prefix, new_prefix=None if new_prefix == prefix else new_prefix)

    def check(self, source: Shape, target: Shape) -> None:
        self._prefixes(source, target)

    def _prefixes(self, source: Shape, target: Shape) -> tuple[int, int]:
        """How many tokens stand before the source's grid, and before the target's."""
        if (
            len(source) != len(target)
            or len(source) not in (2, 3)
            or source[-1] != target[-1]
            or (len(source) == 3 and source[0] != 1)
        ):
            raise OpError(
                f"`resize_grid` of {shape_text(source)} to {shape_text(target)}: only the number of positions may differ"
            )
        fitting = [
            pair
            for pair in self.choices(source, target)
            if self.new_prefix is not None or pair[0] == pair[1]
        ]
        if len(fitting) != 1:
            raise OpError(
                f"`resize_grid` of {source[-2]} positions to {target[-2]}: {self._why_not(source, target, fitting)}"
            )
        return fitting[0]

    def choices(self, source: Shape, target: Shape) -> list[tuple[int, int]]:
        """All numbers of tokens before the source's and before the target's grid that leave grids,
        as far as they are not given.
        """
        every = range(MAX_PREFIX_TOKENS + 1)
        from_source = [
            p
            for p in (every if self.prefix is None else (self.prefix,))
            if _is_grid(source[-2] - p, self.grid)
        ]
        from_target = [
            p
            for p in (every if self.new_prefix is None else (self.new_prefix,))
            if _is_grid(target[-2] - p, self.new_grid)
        ]
        return [(prefix, new) for prefix in from_source for new in from_target]

    def _why_not(self, source: Shape, target: Shape, fitting: Sequence[tuple[int, int]]) -> str:
        if fitting:
            return f"{fitting[0][0]} and {fitting[1][0]} prefix tokens both leave a grid on both sides; give `prefix`, `grid`, `new_grid`"
        choices = self.choices(source, target)
        if len(choices) == 1:
            way = f"`{{prefix: {choices[0][0]}, new_prefix: {choices[0][1]}}}` does"
        else:
            way = "give `prefix`, `new_prefix`, `grid`, `new_grid`"
        return f"no number of prefix tokens leaves a grid on both sides; {way}"

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        table = inputs[0]
        prefix, new_prefix = self._prefixes(tuple(table.shape), self._target())
        flat = table.reshape(-1, table.shape[-1])
        tokens = [flat[: min(prefix, new_prefix)]]
        if new_prefix > prefix:
            tokens.append(inputs[1].reshape(-1, table.shape[-1])[prefix:new_prefix].to(table.dtype))
        return [
            torch.cat([*tokens, self._resized(flat[prefix:], new_prefix)]).reshape(self._target())
        ]

    def _resized(self, positions: torch.Tensor, new_prefix: int) -> torch.Tensor:
        import torch

        grid, new_grid = (
            self.grid or _square(len(positions)),
            self.new_grid or _square(self._target()[-2] - new_prefix),
        )
        if grid == new_grid:
            return positions
        image = positions.float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
        resized = torch.nn.functional.interpolate(
            image, size=new_grid, mode="bicubic", antialias=True
        )
        return resized.permute(0, 2, 3, 1).reshape(-1, positions.shape[-1]).to(positions.dtype)


def _square(count: int) -> tuple[int, int]:
    return isqrt(count), isqrt(count)


def _is_grid(count: int, grid: tuple[int, int] | None) -> bool:
    return count > 0 and (
        isqrt(count) ** 2 == count if grid is None else grid[0] * grid[1] == count
    )


@dataclass(frozen=True, slots=True)
class ResizeBias(Fit):
    """A table of relative positions, (2h-1)·(2w-1) rows (and some extra ones) by heads, for another
    window.

    Old positions are taken at distances that grow geometrically, so that the new ones, at whole
    distances, lie among them, and the table is interpolated linearly between: BEiT (arXiv
    2106.08254, its fine-tuning code), as timm's `resize_rel_pos_bias_table`. Windows are square;
    `extra` is the number of rows for special tokens, at the end.
    """

    name: ClassVar[str] = "resize_bias"
    extra: int = 0

    @classmethod
    def parse(cls, argument: object) -> Self:
        given = fields({} if argument is None else argument, cls.name, ("extra",))
        return cls(None, number(given.get("extra", 0), cls.name, "extra"))

    def argument(self) -> object:
        return {"extra": self.extra} if self.extra else None

    def check(self, source: Shape, target: Shape) -> None:
        rows = [shape[0] - self.extra for shape in (source, target) if len(shape) == 2]
        if (
            len(rows) != 2
            or source[1] != target[1]
            or not all(_is_grid(count, None) and isqrt(count) % 2 for count in rows)
        ):
            raise OpError(
                f"`resize_bias` of {shape_text(source)} to {shape_text(target)}: rows are (2h-1)² and `extra`, heads the same"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        (table,) = inputs
        old, new = (isqrt(rows - self.extra) for rows in (table.shape[0], self._target()[0]))
        weights = torch.tensor(_linear_weights(_geometric_places(old, new), new))
        grid = table[: old * old].float().reshape(old, old, -1)
        resized = (
            torch.einsum("yh,xw,hwc->yxc", weights, weights, grid)
            .reshape(new * new, -1)
            .to(table.dtype)
        )
        return [torch.cat([resized, table[old * old :]])]


def _geometric_places(old: int, new: int) -> list[float]:
    """Places of the old rows, 0 in the middle, whose distances grow by the ratio at which the last
    one reaches the new border.
    """
    low, high, ratio = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        ratio = (low + high) / 2
        reach = (1 - ratio ** (old // 2)) / (1 - ratio)
        low, high = (low, ratio) if reach > new // 2 else (ratio, high)
    places, place = [], 1.0
    for step in range(old // 2):
        places.append(place)
        place += ratio ** (step + 1)
    return [-each for each in reversed(places)] + [0.0] + places


def _linear_weights(places: Sequence[float], new: int) -> list[list[float]]:
    """For each new place, at a whole distance from the middle, the weights of the old ones;
    outside, the last one counts.
    """
    rows = []
    for place in range(-(new // 2), new // 2 + 1):
        row = [0.0] * len(places)
        right = next((i for i, old in enumerate(places) if old >= place), len(places) - 1)
        left = max(right - 1, 0)
        span = places[right] - places[left]
        share = min(max((place - places[left]) / span, 0.0), 1.0) if span else 1.0
        row[right] += share
        row[left] += 1 - share
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class ResizePatch(Fit):
    """A patch embedding's kernel for another patch size, by the pseudo-inverse of resizing the
    image.

    FlexiViT (arXiv 2212.08013, section 3.4), as timm's `resample_patch_embed`.
    """

    name: ClassVar[str] = "resize_patch"

    def check(self, source: Shape, target: Shape) -> None:
        if len(source) != 4 or len(target) != 4 or source[:2] != target[:2]:
            raise OpError(
                f"`resize_patch` of {shape_text(source)} to {shape_text(target)}: only height and width may differ"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        (kernel,) = inputs
        old, new = tuple(kernel.shape[2:]), self._target()[2:]
        basis = torch.eye(old[0] * old[1]).reshape(-1, 1, *old)
        resize = torch.nn.functional.interpolate(
            basis, size=new, mode="bicubic", antialias=True
        ).reshape(old[0] * old[1], -1)
        inverse = torch.linalg.pinv(resize.T)
        resampled = kernel.float().reshape(*kernel.shape[:2], -1) @ inverse
        return [resampled.reshape(self._target()).to(kernel.dtype)]


@dataclass(frozen=True, slots=True)
class InputChannels(Fit):
    """A first convolution for another number of input channels: summed for one, else repeated and
    scaled to the same sum.

    As timm's `adapt_input_conv`.
    """

    name: ClassVar[str] = "input_channels"

    def check(self, source: Shape, target: Shape) -> None:
        if (
            len(source) < 3
            or len(source) != len(target)
            or (source[0], *source[2:]) != (target[0], *target[2:])
        ):
            raise OpError(
                f"`input_channels` of {shape_text(source)} to {shape_text(target)}: only dimension 1 may differ"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        (kernel,) = inputs
        old, new = kernel.shape[1], self._target()[1]
        values = kernel.float()
        if new == 1:
            return [values.sum(1, keepdim=True).to(kernel.dtype)]
        repeats = [1, -(-new // old), *([1] * (kernel.dim() - 2))]
        return [(values.repeat(repeats)[:, :new] * (old / new)).to(kernel.dtype)]


@dataclass(frozen=True, slots=True)
class Rows(Fit):
    """Classes or words: the rows that both have are the source's, the others the target's fresh
    ones.
    """

    name: ClassVar[str] = "rows"

    @property
    def needs_target(self) -> bool:
        return True

    def check(self, source: Shape, target: Shape) -> None:
        if not source or len(source) != len(target) or source[1:] != target[1:]:
            raise OpError(
                f"`rows` of {shape_text(source)} to {shape_text(target)}: only dimension 0 may differ"
            )

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        source, target = inputs
        rows = min(len(source), len(target))
        result = target.to(source.dtype, copy=True)
        result[:rows] = source[:rows]
        return [result]


@dataclass(frozen=True, slots=True)
class Fresh(Fit):
    """The target keeps its own value; what would have come is left behind."""

    name: ClassVar[str] = "fresh"

    @property
    def needs_target(self) -> bool:
        return True

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [inputs[-1]]


FITS: dict[str, type[Fit]] = {
    "resize_grid": ResizeGrid, "resize_bias": ResizeBias, "resize_patch": ResizePatch, "input_channels": InputChannels, "rows": Rows,
    "fresh": Fresh,
}  # fmt: skip
"""All fits, by the names that rules use."""


def parse_fit(argument: object) -> Fit:
    """A fit from a rule: its name, or its name with an argument. Raises OpError."""
    if not isinstance(argument, str | Mapping):
        raise OpError("a fit is a name, or a name with an argument")
    given = argument if isinstance(argument, Mapping) else {argument: None}
    name = str(next(iter(given), None))
    if len(given) != 1 or name not in FITS:
        raise OpError(f"`{name}` is no fit; there are {', '.join(FITS)}")
    return FITS[name].parse(given[name])
