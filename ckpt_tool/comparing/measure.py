"""How much two runs of numbers differ, in float64: by numpy, whose import takes a tenth
of torch's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, isnan, nan, sqrt
from typing import TYPE_CHECKING

from ckpt_tool.comparing.integers import Distances, distances, exact_numbers
from ckpt_tool.comparing.numbers import as_numbers, rounded_to
from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from ckpt_tool.comparing.numbers import Bytes, Marks, Numbers


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as equal enough: |a - b| up to `atol + rtol * |b|`, as `torch.isclose` has it."""

    rtol: float = 0.0
    atol: float = 0.0


@dataclass(frozen=True, slots=True)
class Values:
    """How two tensors of one shape differ.

    `changed` of `elements` differ, NaN being equal to NaN and 0 to -0; where none do, the bytes
    differ all the same. `tolerated` of them differ by no more than was asked for. `max_abs` is the
    largest difference, NaN where just one side is NaN; `max_finite`, the largest of those between
    finite numbers, is only there where others are not. Sums are in float64, over the elements that
    are finite on both sides; `all_squares`, of each side over all of its elements, is only there
    where these are not. `nans` and `infs` count what is not finite, on either side. `casts`
    tells of the first side and of the second whether it is the other one cast to its type.
    """

    elements: int
    changed: int
    max_abs: float
    dot: float
    squares_a: float
    squares_b: float
    tolerated: int = 0
    max_finite: float | None = None
    all_squares: tuple[float, float] | None = None
    nans: tuple[int, int] = (0, 0)
    infs: tuple[int, int] = (0, 0)
    casts: tuple[bool, bool] = (False, False)

    @property
    def is_cast(self) -> bool:
        """Whether one of the two is the other cast to its type."""
        return any(self.casts)

    @property
    def beyond(self) -> int:
        """How many elements differ by more than is tolerated."""
        return self.changed - self.tolerated

    @property
    def largest(self) -> float:
        """The largest difference between finite numbers."""
        return self.max_abs if self.max_finite is None else self.max_finite

    @property
    def is_finite(self) -> bool:
        """Whether all differences are between finite numbers."""
        return isfinite(self.max_abs)

    @property
    def cosine(self) -> float:
        """Of the angle between the two, -1 to 1; NaN where one of them is all zeros, or too large
        to be squared.
        """
        length = sqrt(self.squares_a) * sqrt(self.squares_b)
        # Sums are rounded: those of parallel tensors may be a little more than the product.
        return max(-1.0, min(1.0, self.dot / length)) if isfinite(length) and length else nan

    @property
    def norms(self) -> tuple[float, float]:
        """The norm of each side, which is not finite where that side is not."""
        a, b = self.all_squares or (self.squares_a, self.squares_b)
        return sqrt(a), sqrt(b)

    def __add__(self, other: Values) -> Values:
        return Values(
            self.elements + other.elements,
            self.changed + other.changed,
            _larger(self.max_abs, other.max_abs),
            self.dot + other.dot,
            self.squares_a + other.squares_a,
            self.squares_b + other.squares_b,
            self.tolerated + other.tolerated,
            _largest(self, other),
            _all_squares(self, other),
            (self.nans[0] + other.nans[0], self.nans[1] + other.nans[1]),
            (self.infs[0] + other.infs[0], self.infs[1] + other.infs[1]),
            (self.casts[0] and other.casts[0], self.casts[1] and other.casts[1]),
        )


NOTHING = Values(0, 0, 0.0, 0.0, 0.0, 0.0, casts=(True, True))
UNMEASURED = Values(0, 0, nan, 0.0, 0.0, 0.0, tolerated=-1)
"""They differ; how, is not known."""


def _larger(one: float, other: float) -> float:
    return nan if isnan(one) or isnan(other) else max(one, other)


def _largest(one: Values, other: Values) -> float | None:
    return None if one.max_finite is other.max_finite is None else max(one.largest, other.largest)


def _all_squares(one: Values, other: Values) -> tuple[float, float] | None:
    if one.all_squares is other.all_squares is None:
        return None
    a, b = ((each.squares_a, each.squares_b) for each in (one, other))
    a, b = one.all_squares or a, other.all_squares or b
    return a[0] + b[0], a[1] + b[1]


def measure_difference(
    source: Bytes, target: Bytes, dtype: DType, tolerance: Tolerance | None = None
) -> Values:
    """The contiguous little-endian bytes of as many elements of one type on both sides,
    compared.
    """
    a, b = as_numbers(source, dtype), as_numbers(target, dtype)
    return _measured(a, b, tolerance, distances(source, target, (dtype, dtype)))


def measure_across(
    source: Bytes, target: Bytes, dtypes: tuple[DType, DType], tolerance: Tolerance | None = None
) -> Values:
    """The same where the two have different types: what each element means, and which of the two is
    the other's cast.
    """
    a, b = as_numbers(source, dtypes[0]), as_numbers(target, dtypes[1])
    casts = _is_cast(a, target, dtypes), _is_cast(b, source, (dtypes[1], dtypes[0]))
    return replace(_measured(a, b, tolerance, distances(source, target, dtypes)), casts=casts)


def _is_cast(numbers: Numbers, other: Bytes, dtypes: tuple[DType, DType]) -> bool:
    """Whether numbers of the first type are those of the second, cast."""
    rounded = rounded_to(exact_numbers(other, dtypes[1]), dtypes[0])
    return rounded is not None and not _differs(rounded, numbers).any()


def _measured(
    a: Numbers, b: Numbers, tolerance: Tolerance | None, exact: Distances | None = None
) -> Values:
    """`exact` are the distances where float64 would round them."""
    import numpy as np

    with np.errstate(all="ignore"):
        squares = float(a @ a), float(b @ b)
        if all(map(isfinite, squares)) and exact is None:
            apart = np.abs(a - b)
            changed, most = int(np.count_nonzero(apart)), float(apart.max(initial=0.0))
            return Values(
                a.size,
                changed,
                most,
                float(a @ b),
                *squares,
                _tolerated(apart, b, changed, tolerance),
            )
        differs = (
            _differs(a, b)
            if exact is None
            else np.where(exact.are_whole, exact.steps != 0, _differs(a, b))
        )
        plain = (
            np.abs(a - b)
            if exact is None
            else np.where(exact.are_whole, exact.steps.astype(np.float64), np.abs(a - b))
        )
        finite = np.isfinite(a) & np.isfinite(b)
        x, y = np.where(finite, a, 0), np.where(finite, b, 0)
        apart = np.where(differs, plain, 0)
        most = float(np.where(finite, apart, 0).max(initial=0.0))
        return Values(
            a.size,
            int(differs.sum()),
            float(apart.max(initial=0.0)),
            float(x @ y),
            float(x @ x),
            float(y @ y),
            _tolerated(apart, b, int(differs.sum()), tolerance, exact),
            most,
            squares,
            (int(np.isnan(a).sum()), int(np.isnan(b).sum())),
            (int(np.isinf(a).sum()), int(np.isinf(b).sum())),
        )


def _tolerated(
    apart: Numbers,
    b: Numbers,
    changed: int,
    tolerance: Tolerance | None,
    exact: Distances | None = None,
) -> int:
    """How many of those that differ are no further apart than is tolerated; what is NaN or infinite
    on one side never is.
    """
    import numpy as np

    if tolerance is None or not changed:
        return 0
    bounds = tolerance.atol + tolerance.rtol * np.where(np.isfinite(b), np.abs(b), 0)
    close = (
        apart <= bounds
        if exact is None
        else np.where(exact.are_whole, exact.within(bounds), apart <= bounds)
    )
    return changed - int(np.count_nonzero(~close))


def _differs(a: Numbers, b: Numbers) -> Marks:
    import numpy as np

    found: Marks = np.not_equal(a, b) & ~(np.isnan(a) & np.isnan(b))
    return found
