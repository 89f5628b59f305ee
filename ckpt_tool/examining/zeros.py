"""Tensors and rows of zeros that nobody meant: beside siblings that have none, or in the middle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.statistics import Statistics
from ckpt_tool.tensors import Catalog, TensorInfo

MIN_SIBLINGS = 3
FRESH_SHARE = 0.25
"""A network of whose vectors so many are constant was not trained yet: norms begin as ones and
zeros, and some matrices as zeros too."""
MIN_RUN = 4
"""Rows of zeros in one run, neither at the start nor at the end, where there are no siblings to
compare with: single ones stand for words that nobody uses, or for a frequency of zero."""
MAX_TAIL = 0.05
"""A table is widened by so many of its rows at most."""
_ADAPTERS = ("lora", "adapter", "zero")
_COUNTS = ("cluster_size", "ema_cluster_size", "_ema_cluster_size")
"""What lies beside a codebook that is kept by moving averages: how often each code was used."""

Measured = Mapping[str, Statistics]


def is_fresh(catalog: Catalog, measured: Measured) -> bool:
    """Whether a network was not trained yet."""
    vectors = [
        measured[key]
        for key, info in catalog.items()
        if len(info.shape) == 1 and info.shape[0] > 1 and info.dtype.is_floating and key in measured
    ]
    constant = sum(one.is_constant for one in vectors)
    return bool(vectors) and constant >= FRESH_SHARE * len(vectors)


def zero_findings(
    catalog: Catalog, keys: Sequence[str], measured: Measured, is_new: bool
) -> Iterator[Finding]:
    """Tensors of one group of siblings that are zero, or constant, as a whole; `is_new` is that of
    a network that was not trained yet.
    """
    odd = [key for key in keys if measured[key].is_zero or _is_constant(catalog[key], measured)]
    few = 4 * len(odd) <= len(keys) and len(keys) - len(odd) >= MIN_SIBLINGS - 1
    for key in odd:
        info, found = catalog[key], measured[key]
        is_weight = found.is_zero and is_matrix(info) and _is_trained(info, measured)
        if prod(info.shape) > 1 and (few or (is_weight and 2 * len(odd) <= len(keys))):
            yield Finding("zero", key, f"{_all_text(found)}; its siblings' are not")
        elif len(odd) == len(keys) == 1 and not is_new and _is_trained(catalog[key], measured):
            yield Finding("zero", key, _all_text(found))


def empty_findings(catalog: Catalog, measured: Measured, path: str) -> Iterator[Finding]:
    """Whether most weights of a network are zero: a file that was never filled, or half of one."""
    weights = [
        key
        for key, info in catalog.items()
        if key in measured and is_matrix(info) and info.dtype.is_floating
        if not any(word in key.lower() for word in _ADAPTERS) and not _is_codebook(info, catalog)
    ]
    zero = [key for key in weights if measured[key].is_zero]
    if len(zero) >= MIN_SIBLINGS and 2 * len(zero) > len(weights):
        fact = (
            f"{len(zero):,} of {len(weights):,} weight matrices are zero, the first is `{zero[0]}`"
        )
        yield Finding("zero", path, fact)


def _all_text(found: Statistics) -> str:
    value = "zero" if found.is_zero else f"{found.least:.6g}"
    return f"all {found.elements:,} values are {value}"


def _is_constant(info: TensorInfo, measured: Measured) -> bool:
    return measured[info.key].is_constant and info.dtype.is_floating and is_matrix(info)


def is_matrix(info: TensorInfo) -> bool:
    """Whether more than one dimension is longer than 1."""
    return sum(extent > 1 for extent in info.shape) > 1


def _is_trained(info: TensorInfo, measured: Measured) -> bool:
    """Whether this is a weight that training changes: not one that begins as zeros with its bias,
    or in an adapter.
    """
    module, _, leaf = info.key.rpartition(".")
    bias = measured.get(f"{module}.bias")
    is_new = any(word in info.key.lower() for word in _ADAPTERS) or (bias and bias.is_constant)
    is_weight = leaf == "weight" and info.dtype.is_floating
    return is_weight and not is_new and (is_matrix(info) or "norm" in module.lower())


def zero_row_findings(
    catalog: Catalog, keys: Sequence[str], measured: Measured
) -> Iterator[Finding]:
    """Rows of zeros in tensors that have others, where most siblings have none (those of a pruned
    network have some too); without siblings, runs of such rows in the middle of a tensor.
    """
    some = [key for key in keys if 0 < measured[key].zero_row_count < measured[key].rows]
    if 2 * len(some) > len(keys) > 1:
        return
    for key in some:
        info, found = catalog[key], measured[key]
        is_floating = info.dtype.is_floating or (info.dtype.bits == 8 and len(keys) > 1)
        if _is_codebook(info, catalog):
            continue
        is_odd = len(keys) >= MIN_SIBLINGS or _has_run(info, found)
        if is_floating and is_odd and not (found.infs or _is_padding(info, found)):
            yield Finding("zero rows", key, _rows_text(info, found))


def _is_codebook(info: TensorInfo, catalog: Catalog) -> bool:
    """Whether it lies in a vector quantiser, whose codes begin as zeros, and stay so where nothing
    uses them.
    """
    module = info.key.rpartition(".")[0]
    return any((f"{module}.{name}" if module else name) in catalog for name in _COUNTS)


def _has_run(info: TensorInfo, found: Statistics) -> bool:
    """Whether rows of zeros stand in a run: in the middle, or at the end of a weight."""
    rows = found.zero_rows
    starts = [rows[0], *(after for before, after in pairwise(rows) if after != before + 1)]
    ends = [*(before for before, after in pairwise(rows) if after != before + 1), rows[-1]]
    runs = list(zip(starts, ends, strict=True))
    needed = 1 if _are_pieces(info, found) else MIN_RUN
    inside = [end - start + 1 for start, end in runs if start > 0 and end < found.rows - 1]
    tail = ends[-1] - starts[-1] + 1 if ends[-1] == found.rows - 1 else 0
    is_weight = info.key.rpartition(".")[2] == "weight"
    return max(inside, default=0) >= needed or (is_weight and tail > MAX_TAIL * found.rows)


def _are_pieces(info: TensorInfo, found: Statistics) -> bool:
    """Whether rows are pieces of a vector, or of a huge row."""
    return len(info.shape) < 2 or found.rows * found.row_length != found.elements


def _rows_text(info: TensorInfo, found: Statistics) -> str:
    count, rows = found.zero_row_count, found.zero_rows
    if _are_pieces(info, found):
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
