"""What the values of tensors say by themselves, and beside those of their siblings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from statistics import median

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.siblings import Group
from ckpt_tool.examining.statistics import Statistics
from ckpt_tool.examining.zeros import (
    MIN_SIBLINGS,
    is_fresh,
    is_matrix,
    zero_findings,
    zero_row_findings,
)
from ckpt_tool.tensors import Catalog, Shape, TensorInfo

FAR = log(50)
"""How far a matrix's size (root mean square) is from its siblings' median to be reported."""
APART = log(8)
"""And how far from the nearest of them, so that a wide range of sizes is none."""
VERY_FAR = log(900)

Measured = Mapping[str, Statistics]


def value_findings(
    catalog: Catalog, groups: Sequence[Group], measured: Measured
) -> Iterator[Finding]:
    """What is not finite, zero, or far from its siblings, in the catalog's order of groups."""
    is_new = is_fresh(catalog, measured)
    for group in groups:
        keys = [key for key in group if key in measured and measured[key].elements]
        for key in keys:
            yield from _not_finite(catalog[key], measured[key])
        huge = [found for key in keys for found in _huge(catalog[key], measured[key])]
        yield from huge
        yield from zero_findings(catalog, keys, measured, is_new)
        yield from zero_row_findings(catalog, keys, measured)
        if not huge:
            yield from _far(catalog, keys, measured)


def _not_finite(info: TensorInfo, found: Statistics) -> Iterator[Finding]:
    """NaN and infinity; but no masks, and no single numbers, which may be a bound."""
    if found.first_odd is None or found.is_mask or (found.elements == 1 and not found.nans):
        return
    number = found.first_odd // (2 if info.dtype.is_complex else 1)
    which = "the first" if not (found.nans and found.infs) else "the first that isn't finite"
    for kind, word, count in (("nan", "NaN", found.nans), ("inf", "infinite", found.infs)):
        if count:
            are = "is" if count == 1 else "are"
            place = list(place_in(number, info.shape))
            fact = f"{count:,} of {found.elements:,} values {are} {word}, {which} at {place}"
            yield Finding(kind, info.key, fact)


def place_in(number: int, shape: Shape) -> tuple[int, ...]:
    """The index of an element that is counted in row-major order."""
    index: list[int] = []
    for extent in reversed(shape):
        index.append(number % extent)
        number //= extent
    return tuple(reversed(index))


def _huge(info: TensorInfo, found: Statistics) -> Iterator[Finding]:
    """Numbers that no network computes with; but no masks, which have the most negative one."""
    if not info.dtype.is_floating or not found.squares:
        return
    most = max(abs(found.least), abs(found.most)) if found.most >= found.least else 0.0
    is_weight = info.key.rpartition(".")[2] == "weight" and found.elements > 1
    if found.most <= 0 and found.rms > 1:  # zeros and one negative number: a mask
        return
    if most > HUGE or found.rms > HUGE or (is_weight and found.rms > HUGE_WEIGHT):
        fact = (
            f"has values up to {most:.3g}" if most > HUGE else f"is {found.rms:.3g} in size (rms)"
        )
        yield Finding("far", info.key, f"{fact}, which no trained weight is")


HUGE = 1e12
HUGE_WEIGHT = 1e4
"""The size of a weight as a whole, root mean square."""


def _far(catalog: Catalog, keys: Sequence[str], measured: Measured) -> Iterator[Finding]:
    """Weights whose size is far from all of their siblings': matrices, and by much more vectors,
    and the first and the last, which are often another kind of layer.
    """
    sizes = {
        key: log(size)
        for key in keys
        if catalog[key].dtype.is_floating
        and "running_" not in key
        and catalog[key].shape
        and (size := measured[key].rms) > 0
    }
    if len(sizes) < MIN_SIBLINGS:
        return
    middle = median(sizes.values())
    usual = {key: size for key, size in sizes.items() if abs(size - middle) <= FAR}
    if 4 * len(usual) < 3 * len(sizes):
        return
    for key, size in sizes.items():
        is_inner = is_matrix(catalog[key]) and key not in (keys[0], keys[-1])
        nearest = min(abs(size - other) for other in usual.values())
        if abs(size - middle) > (FAR if is_inner else VERY_FAR) and nearest > APART:
            fact = (
                f"its values are about {measured[key].rms:.3g} in size (rms), "
                f"those of its {len(sizes) - 1} siblings about {exp(middle):.3g}"
            )
            yield Finding("far", key, fact)
