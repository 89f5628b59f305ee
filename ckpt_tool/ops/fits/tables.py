"""Tables of positions for another image size: resize_grid and resize_bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.fits.fit import Fit
from ckpt_tool.ops.op import OpError, fields, number
from ckpt_tool.tensors import Shape, counted, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


MAX_PREFIX_TOKENS = 16


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
        """From `{prefix: 1, grid: [14, 14], new_grid: [16, 16], new_prefix: 2}`, each optional."""
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
        """The fields that were given; None without any."""
        given = {
            "prefix": self.prefix,
            "grid": self.grid and list(self.grid),
            "new_grid": self.new_grid and list(self.new_grid),
        }
        given["new_prefix"] = self.new_prefix
        return {name: value for name, value in given.items() if value is not None} or None

    def back(self) -> Self:
        """With both sides swapped."""
        tokens = (self.prefix, None) if self.new_prefix is None else (self.new_prefix, self.prefix)
        swapped = replace(self, prefix=tokens[0], new_prefix=tokens[1])
        return replace(swapped, grid=self.new_grid, new_grid=self.grid)

    @property
    def needs_target(self) -> bool:
        """Whether the target has prefix tokens that the source may lack."""
        return self.new_prefix is not None and (
            self.prefix is None or self.new_prefix > self.prefix
        )

    def settled(self, source: Shape) -> Self:
        """With the numbers of prefix tokens that make grids on both sides. Raises OpError."""
        prefix, new_prefix = self._prefixes(source, self._target())
        return replace(self, prefix=prefix, new_prefix=None if new_prefix == prefix else new_prefix)

    def check(self, source: Shape, target: Shape) -> None:
        """1 (p + h·w) c -> 1 (p' + h'·w') c, or the same without the 1."""
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
                f"`resize_grid` of {shape_text(source)} to {shape_text(target)}: "
                "only the number of positions may differ"
            )
        fitting = [
            pair
            for pair in self.choices(source, target)
            if self.new_prefix is not None or pair[0] == pair[1]
        ]
        if len(fitting) != 1:
            raise OpError(
                f"`resize_grid` of {source[-2]} positions to {target[-2]}: "
                f"{self._why_not(source, target, fitting)}"
            )
        return fitting[0]

    def choices(self, source: Shape, target: Shape) -> list[tuple[int, int]]:
        """All numbers of tokens before the source's and before the target's grid that leave grids,
        as far as they are not given.
        """
        from_source = _tokens(source[-2], self.prefix, self.grid)
        from_target = _tokens(target[-2], self.new_prefix, self.new_grid)
        return [(prefix, new) for prefix in from_source for new in from_target]

    def details(self, source: Shape) -> str:
        """Both grids, and which of them nobody gave."""
        prefixes = self._prefixes(source, self._target())
        grids = self._grids(source[-2] - prefixes[0], self._target()[-2] - prefixes[1])
        text = f"grid {shape_text(grids[0])} → {shape_text(grids[1])}"
        if self.grid and self.new_grid:
            return text
        given = self.grid or self.new_grid
        return f"{text}, {'one taken as a square' if given else 'taken as squares'}"

    def _why_not(self, source: Shape, target: Shape, fitting: Sequence[tuple[int, int]]) -> str:
        if fitting:
            return (
                f"{fitting[0][0]} and {fitting[1][0]} prefix tokens both leave a grid on both "
                "sides; give `prefix`, `grid`, `new_grid`"
            )
        choices = self.choices(source, target)
        misfit = self._misfit(source[-2], target[-2])
        why = misfit or "no number of prefix tokens leaves a grid on both sides"
        if len(choices) == 1:
            return f"{why}; `{{prefix: {choices[0][0]}, new_prefix: {choices[0][1]}}}` does"
        return why if misfit else f"{why}; give `prefix`, `new_prefix`, `grid`, `new_grid`"

    def _misfit(self, source: int, target: int) -> str:
        """The first given grid that is not what a side has beside its prefix tokens, whose number
        is given, or what the other side has.
        """
        before, after = self.prefix, self.new_prefix
        for name, side, grid, count, tokens in (
            ("grid", "source", self.grid, source, _tokens(target, after, self.new_grid)),
            ("new_grid", "target", self.new_grid, target, _tokens(source, before, self.grid)),
        ):
            own = before if side == "source" else after
            if own is not None:
                tokens = [own]
            elif after is not None:
                tokens = _tokens(count, None, grid)
            if grid is None or any(_is_grid(count - prefix, grid) for prefix in tokens):
                continue
            has = f"{count} with its prefix tokens"
            if len(tokens) == 1:
                has = f"{count - tokens[0]} beside {counted(tokens[0], 'prefix token')}"
            product = f"{grid[0]}·{grid[1]} = {grid[0] * grid[1]}"
            return f"`{name}: {list(grid)}` is {product} positions, and the {side} has {has}"
        return ""

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The prefix, then the grid resized row by row; an equal grid keeps its bits."""
        import torch

        table = inputs[0]
        prefix, new_prefix = self._prefixes(tuple(table.shape), self._target())
        flat = table.reshape(-1, table.shape[-1])
        tokens = [flat[: min(prefix, new_prefix)]]
        if new_prefix > prefix:
            tokens.append(inputs[1].reshape(-1, table.shape[-1])[prefix:new_prefix])
        parts = [*tokens, self._resized(flat[prefix:], new_prefix)]
        return [torch.cat([self._cast(each) for each in parts]).reshape(self._target())]

    def _resized(self, positions: torch.Tensor, new_prefix: int) -> torch.Tensor:
        import torch

        grid, new_grid = self._grids(len(positions), self._target()[-2] - new_prefix)
        if grid == new_grid:
            return positions
        image = positions.float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
        resized = torch.nn.functional.interpolate(
            image, size=new_grid, mode="bicubic", antialias=True
        )
        return resized.permute(0, 2, 3, 1).reshape(-1, positions.shape[-1])

    def _grids(self, count: int, new_count: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return self.grid or _square(count), self.new_grid or _square(new_count)


def _tokens(count: int, prefix: int | None, grid: tuple[int, int] | None) -> list[int]:
    """How many tokens may stand before a side's grid."""
    every = range(MAX_PREFIX_TOKENS + 1) if prefix is None else (prefix,)
    return [each for each in every if _is_grid(count - each, grid)]


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
        """From `{extra: 3}`; 0 without."""
        given = fields({} if argument is None else argument, cls.name, ("extra",))
        return cls(None, number(given.get("extra", 0), cls.name, "extra"))

    def argument(self) -> object:
        """`extra` where it is not 0."""
        return {"extra": self.extra} if self.extra else None

    def check(self, source: Shape, target: Shape) -> None:
        """((2h-1)² + extra) heads -> ((2h'-1)² + extra) heads."""
        rows = [shape[0] - self.extra for shape in (source, target) if len(shape) == 2]
        if (
            len(rows) != 2
            or source[1] != target[1]
            or not all(_is_grid(count, None) and isqrt(count) % 2 for count in rows)
        ):
            raise OpError(
                f"`resize_bias` of {shape_text(source)} to {shape_text(target)}: "
                "rows are (2h-1)² and `extra`, heads the same"
            )

    def details(self, source: Shape) -> str:
        """Both windows, which are squares."""
        rows = (shape[0] - self.extra for shape in (source, self._target()))
        old, new = ((isqrt(count) + 1) // 2 for count in rows)
        return f"window {old}×{old} → {new}×{new}, taken as squares"

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The table interpolated, then its own extra rows."""
        import torch

        (table,) = inputs
        old, new = (isqrt(rows - self.extra) for rows in (table.shape[0], self._target()[0]))
        weights = torch.tensor(_linear_weights(_geometric_places(old, new), new))
        grid = table[: old * old].float().reshape(old, old, -1)
        resized = torch.einsum("yh,xw,hwc->yxc", weights, weights, grid).reshape(new * new, -1)
        return [torch.cat([self._cast(resized), self._cast(table[old * old :])])]


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
