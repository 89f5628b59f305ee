"""Slots of 8 bits, as bitsandbytes keeps them: a code for each element, and for each block of
elements that follow each other in memory the largest value that the codes stand for.

An op moves them exactly where it takes blocks as they are: whatever cuts or joins memory between
them, and nothing else. bitsandbytes/optim/optimizer.py: blocks of 256 since 0.45.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ckpt_tool.ops import Cast, Copy, Op, Split, TensorForm, infer_chain
from ckpt_tool.ops.combining import Concat
from ckpt_tool.ops.copies import Same
from ckpt_tool.ops.permuting import Reshape
from ckpt_tool.ops.slicing import Slice
from ckpt_tool.ops.stacking import Stack, Unstack
from ckpt_tool.optimizers.laws import NoLaw

SIZES = (256, 2048)
"""Elements of a block, in this version and in earlier ones."""
Forms = Sequence[TensorForm]


def block_size(form: TensorForm, blocks: int) -> int | None:
    """The elements of a block, where a parameter of this form has so many blocks; None where that
    fits none of the sizes that there are, or several.
    """
    count = prod(form.shape)
    fitting = [size for size in SIZES if -(-count // size) == blocks]
    return fitting[0] if len(fitting) == 1 else None


def block_ops(ops: Sequence[Op], forms: Forms, size: int) -> tuple[Op, ...]:
    """The ops of a slot with one value for each block. Raises NoLaw where blocks are cut."""
    result: list[Op] = []
    for op in ops:
        result += _followed(op, forms, size)
        forms = infer_chain((op,), forms)
    return tuple(result)


def _followed(op: Op, forms: Forms, size: int) -> tuple[Op, ...]:
    match op:
        case Cast() | Reshape():
            return ()
        case Copy() | Same():
            return (op,)
        case Concat() | Stack():
            return (_joined(op, forms, size),)
        case Split() | Unstack():
            return (_parted(op, forms, size),)
        case Slice(step=1):
            return (_sliced(op, forms, size),)
        case _:
            raise NoLaw(op, _why(size))


def _why(size: int) -> str:
    return f"its state of 8 bits goes by blocks of {size} elements, which would be others"


def _check_in_memory(op: Op, dim: int, form: TensorForm, size: int) -> None:
    """Raises NoLaw unless parts along the dimension are parts of the memory."""
    if prod(form.shape[: dim % max(len(form.shape), 1)]) != 1:
        raise NoLaw(op, _why(size))


def _joined(op: Concat | Stack, forms: Forms, size: int) -> Concat:
    parts = op.taken(len(forms))
    rank = len(forms[0].shape) + isinstance(op, Stack)
    for place, form in enumerate(forms):
        if prod(form.shape[: op.dim % rank]) != 1:
            raise NoLaw(op, _why(size))
        if (place + 1) % parts and prod(form.shape) % size:
            raise NoLaw(op, _why(size))
    return Concat(0, parts)


def _parted(op: Split | Unstack, forms: Forms, size: int) -> Split:
    cuts = set()
    for form in forms:
        _check_in_memory(op, op.dim, form, size)
        counts = [prod(part.shape) for part in op.infer((form,))]
        if any(count % size for count in counts[:-1]):
            raise NoLaw(op, _why(size))
        cuts.add(tuple(-(-count // size) for count in counts))
    if len(cuts) > 1:
        raise NoLaw(op, _why(size))
    blocks = cuts.pop()
    return Split(0, blocks, len(blocks))


def _sliced(op: Slice, forms: Forms, size: int) -> Slice:
    found = set()
    for form in forms:
        _check_in_memory(op, op.dim, form, size)
        axis = op.dim % len(form.shape)
        inner = prod(form.shape[axis + 1 :])
        length, (part,) = form.shape[axis], op.infer((form,))
        start = int(op.start) % length if length else 0
        first, last = start * inner, (start + part.shape[axis]) * inner
        if first % size or (last % size and last != prod(form.shape)):
            raise NoLaw(op, _why(size))
        found.add((first // size, -(-last // size)))
    if len(found) > 1:
        raise NoLaw(op, _why(size))
    first, last = found.pop()
    return Slice(0, first, last)
