"""What the values of tensors say by themselves, and beside those of their siblings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log, prod
from statistics import median

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.siblings import Group
from ckpt_tool.examining.statistics import Statistics
from ckpt_tool.tensors import Catalog, Shape, TensorInfo

FAR = log(50)
"""How far a matrix's size (root mean square) is from its siblings' median to be reported."""
APART = log(8)
"""And how far from the nearest of them, so that a wide range of sizes is none."""
MIN_SIBLINGS = 3
FRESH_SHARE = 0.25
"""A network of whose vectors so many are constant was not trained yet: norms begin as ones and
zeros, and some matrices as zeros too."""

Measured = Mapping[str, Statistics]


def value_findings(
    catalog: Catalog, groups: Sequence[Group], measured: Measured
) -> Iterator[Finding]:
    """What is not finite, zero, or far from its siblings, in the catalog's order of groups."""
    is_fresh = _is_fresh(catalog, measured)
    for group in groups:
        keys = [key for key in group if key in measured and measured[key].elements]
        for key in keys:
            yield from _not_finite(catalog[key], measured[key])
        yield from _zeros(catalog, keys, measured, is_fresh)
        yield from _zero_rows(catalog, keys, measured)
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


def _is_fresh(catalog: Catalog, measured: Measured) -> bool:
    vectors = [
        measured[key]
        for key, info in catalog.items()
        if len(info.shape) == 1 and info.shape[0] > 1 and info.dtype.is_floating and key in measured
    ]
    constant = sum(one.is_constant for one in vectors)
    return bool(vectors) and constant >= FRESH_SHARE * len(vectors)


def _zeros(
    catalog: Catalog, keys: Sequence[str], measured: Measured, is_fresh: bool
) -> Iterator[Finding]:
    """Tensors of zeros: matrices of a trained network, and whatever has siblings that are not."""
    zeros = [key for key in keys if measured[key].is_zero]
    others = len(keys) - len(zeros)
    for key in zeros:
        info = catalog[key]
        is_matrix = sum(extent > 1 for extent in info.shape) > 1
        if others >= MIN_SIBLINGS - 1 and 4 * len(zeros) <= len(keys) and _is_weight(info):
            fact = f"all {measured[key].elements:,} values are zero; its siblings' are not"
        elif is_matrix and info.dtype.is_floating and not is_fresh and len(zeros) == len(keys) == 1:
            fact = f"all {measured[key].elements:,} values are zero"
        else:
            continue
        yield Finding("zero", key, fact)


def _is_weight(info: TensorInfo) -> bool:
    """Not a counter, nor a single number."""
    return prod(info.shape) > 1


def _zero_rows(catalog: Catalog, keys: Sequence[str], measured: Measured) -> Iterator[Finding]:
    """Rows of zeros in tensors that have others, where most siblings have none: those of a pruned
    network have some too.
    """
    some = [key for key in keys if 0 < measured[key].zero_row_count < measured[key].rows]
    if 2 * len(some) > len(keys) > 1:
        return
    for key in some:
        info, found = catalog[key], measured[key]
        if info.dtype.is_floating and not (found.infs or _is_padding(info, found)):
            yield Finding("zero rows", key, _rows_text(info, found))


def _rows_text(info: TensorInfo, found: Statistics) -> str:
    count, rows = found.zero_row_count, found.zero_rows
    if len(info.shape) < 2 or found.rows * found.row_length != found.elements:
        first = rows[0] * found.row_length
        last = min((rows[-1] + 1) * found.row_length, found.elements)
        return f"values {first:,} to {last - 1:,} of {found.elements:,} are zero, in long runs"
    are = "is" if count == 1 else "are"
    return f"{count:,} of {found.rows:,} rows {are} zero, the first is row {rows[0]:,}"


def _is_padding(info: TensorInfo, found: Statistics) -> bool:
    """Rows of a table (of words, of positions) that stand for nothing: one alone, as the padding's,
    or those at its end, to which it was widened.
    """
    if len(info.shape) != 2 or not (info.shape[0] >= MIN_TABLE or "emb" in info.key.lower()):
        return False
    count, rows = found.zero_row_count, found.zero_rows
    is_tail = rows[0] == found.rows - count
    return count == 1 or (is_tail and count <= MAX_TAIL * found.rows)


MIN_TABLE = 256
"""Rows of a vocabulary, where the name doesn't say that it is a table."""
MAX_TAIL = 0.05


def _far(catalog: Catalog, keys: Sequence[str], measured: Measured) -> Iterator[Finding]:
    """Matrices whose size is far from all of their siblings'."""
    sizes = {
        key: log(size)
        for key in keys
        if catalog[key].dtype.is_floating
        and sum(extent > 1 for extent in catalog[key].shape) > 1
        and (size := measured[key].rms) > 0
    }
    if len(sizes) < MIN_SIBLINGS:
        return
    middle = median(sizes.values())
    usual = {key: size for key, size in sizes.items() if abs(size - middle) <= FAR}
    if 4 * len(usual) < 3 * len(sizes):
        return
    for key, size in sizes.items():
        if key not in usual and min(abs(size - other) for other in usual.values()) > APART:
            fact = (
                f"its values are about {measured[key].rms:.3g} in size (rms), "
                f"those of its {len(sizes) - 1} siblings about {exp(middle):.3g}"
            )
            yield Finding("far", key, fact)
