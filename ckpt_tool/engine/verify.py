"""Whether a checkpoint is what a plan says, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt_tool.engine.sources import TensorSource, computed_tensors, moved_tensors
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, shape_text
from ckpt_tool.watching import OnProgress, ignore


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key that is not what the plan says, and the fact: missing, unexpected, another shape or
    dtype, or where it differs.
    """

    key: str
    fact: str


def verify_output(
    plan: Plan,
    source: TensorSource,
    target: TensorSource | None,
    output: TensorSource,
    on_progress: OnProgress = ignore,
) -> tuple[Mismatch, ...]:
    """Every key of `output` that is not what the plan says, in the plan's order; none when all are,
    bit for bit.

    Reads both sides once, in pieces; what ops compute is computed again.
    """
    found = {
        mismatch.key: mismatch for mismatch in _catalog_mismatches(plan.outputs, output.catalog)
    }
    same_form = [key for key in plan.outputs if key not in found]
    for key, pieces in _expected(plan, source, target, same_form):
        offset = _first_difference(pieces, _heard(output.chunks(key), on_progress))
        if offset is not None:
            found[key] = Mismatch(key, f"first differs at {_place(plan.outputs[key], offset)}")
    order = [*plan.outputs, *(key for key in output.catalog if key not in plan.outputs)]
    return tuple(found[key] for key in order if key in found)


def _heard(pieces: Iterator[bytes], on_progress: OnProgress) -> Iterator[bytes]:
    for piece in pieces:
        on_progress(len(piece))
        yield piece


def _expected(
    plan: Plan, source: TensorSource, target: TensorSource | None, keys: Sequence[str]
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The bytes that the plan gives these keys, those first that move as they are."""
    moved = moved_tensors(plan, source, target)
    for key in keys:
        if key in moved:
            yield key, moved[key].checkpoint.chunks(moved[key].key)
    computed = {key for key in keys if key not in moved}
    for key, content in computed_tensors(plan, source, target, computed):
        yield key, iter((bytes(content),))


def _catalog_mismatches(expected: Catalog, given: Catalog) -> Iterator[Mismatch]:
    for key, info in expected.items():
        if key not in given:
            yield Mismatch(key, "is missing")
        elif given[key].shape != info.shape:
            yield Mismatch(
                key, f"has {shape_text(given[key].shape)}, the plan says {shape_text(info.shape)}"
            )
        elif given[key].dtype is not info.dtype:
            yield Mismatch(key, f"is {given[key].dtype.value}, the plan says {info.dtype.value}")
    for key in given:
        if key not in expected:
            yield Mismatch(key, "is not in the plan")


def _place(info: TensorInfo, offset: int) -> str:
    """The element at a byte of a tensor."""
    if not info.shape:
        return "its one element"
    element = offset * 8 // info.dtype.bits
    return f"[{', '.join(map(str, _indices(element, info.shape)))}]"


def _indices(element: int, shape: Shape) -> list[int]:
    """The position of an element of a contiguous tensor."""
    indices: list[int] = []
    for size in reversed(shape):
        element, index = divmod(element, size)
        indices.insert(0, index)
    return indices


def _first_difference(source: Iterator[bytes], target: Iterator[bytes]) -> int | None:
    """The first byte at which two streams of equal length differ, whatever pieces they come in."""
    done, left, right = 0, b"", b""
    while True:
        left, right = left or next(source, b""), right or next(target, b"")
        size = min(len(left), len(right))
        if not size:
            return None if not left and not right else done
        if left[:size] != right[:size]:
            return done + next(
                i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b
            )
        done, left, right = done + size, left[size:], right[size:]
