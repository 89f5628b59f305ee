"""A rule's ops for one group of tensors: how many each takes at a time, of which sizes, and which
tensor is which word.
"""

from collections.abc import Sequence
from contextlib import suppress

from ckpt_tool.keys import Binding
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.rules import RuleSide
from ckpt_tool.ops import Each, Op, OpError, Split, TensorForm, infer_chain, invert_chain
from ckpt_tool.tensors import Catalog, Shape


def with_parts(
    ops: Sequence[Op], sizes: Sequence[int], counts: Sequence[int | None]
) -> tuple[Op, ...]:
    """Collecting ops take the source's dimensions from the right, producing ops the target's from
    the left.
    """
    inward, outward = list(sizes), list(counts)
    filled = []
    for op in ops:
        if op.collects and inward:
            op = op.with_parts(inward.pop())
        elif op.produces and outward and (count := outward.pop(0)) is not None:
            op = op.with_parts(count)
        filled.append(op)
    return tuple(filled)


def with_target_sizes(
    ops: tuple[Op, ...], forms: Sequence[TensorForm], outputs: Sequence[str], target: Catalog | None
) -> tuple[Op, ...]:
    """A `split` that gives the outputs takes sizes that it hasn't from the target's shapes; equal
    parts where these don't tell.
    """
    last = next((i for i in reversed(range(len(ops))) if ops[i].produces or ops[i].collects), None)
    split = ops[last] if last is not None else None
    if last is None or target is None or not isinstance(split, Split) or split.sizes is not None:
        return ops
    shapes = _shapes_before(ops[last + 1 :], outputs, target)[: split.parts]
    whole = infer_chain(ops[:last], forms)[0].shape
    sizes = _sizes(split, whole, shapes)
    return (*ops[:last], split.with_sizes(sizes), *ops[last + 1 :]) if sizes else ops


def _sizes(split: Split, whole: Shape, shapes: Sequence[Shape]) -> tuple[int, ...] | None:
    """The sizes of the parts along the dimension that is split; None where they don't add up."""
    has_dimension = all(-len(shape) <= split.dim < len(shape) for shape in (*shapes, whole))
    if len(shapes) != split.parts or not has_dimension:
        return None
    sizes = tuple(shape[split.dim] for shape in shapes)
    return sizes if sum(sizes) == whole[split.dim] else None


def _shapes_before(ops: Sequence[Op], outputs: Sequence[str], target: Catalog) -> list[Shape]:
    """The shapes that the target's tensors have before the last ops of a chain, or as they are
    where that is not known.
    """
    forms = [TensorForm(target[key].dtype, target[key].shape) for key in outputs if key in target]
    back = invert_chain(ops)
    with suppress(OpError):
        forms = (
            list(infer_chain(back.ops, forms)) if back.ops and len(forms) == len(outputs) else forms
        )
    return [form.shape for form in forms]


Words = tuple[frozenset[str], frozenset[str]]
"""What one tensor stands for: words for the whole of it, and words for the whole or a part."""


def key_words(side: RuleSide, binding: Binding) -> frozenset[str]:
    """The words that a key of this side stands for, and the side's own pattern."""
    choices = [token for token in side.pattern.tokens if isinstance(token, Choice)]
    return frozenset(
        {side.pattern.text, *(token.words[int(binding[token.id])] for token in choices)}
    )


def with_labels(
    ops: Sequence[Op], inputs: Sequence[frozenset[str]], outputs: Sequence[frozenset[str]]
) -> tuple[Op, ...]:
    """The ops, each with the words of the tensors that reach it: those of their inputs, and those
    of what becomes of them.

    Where it is not known how many tensors there are, only the inputs' words are known.
    """
    if not any(isinstance(op, Each) for op in ops):
        return tuple(ops)
    before = _stages(ops, inputs, forwards=True)
    after = list(reversed(_stages(list(reversed(ops)), outputs, forwards=False)))
    return tuple(op.with_labels(*_labels(before[i], after[i])) for i, op in enumerate(ops))


def _stages(
    ops: Sequence[Op], words: Sequence[frozenset[str]], forwards: bool
) -> list[list[Words]]:
    """The words of each tensor before the first op and after each, walking away from one end of the
    chain.
    """
    stages = [[(each, each) for each in words]]
    for op in ops:
        joins, parts = (op.collects, op.produces) if forwards else (op.produces, op.collects)
        current = stages[-1]
        if joins:
            current = _in_runs(current, op.taken(len(current)))
        elif parts:
            current = [each for each in current for _ in range(getattr(op, "parts", None) or 0)]
        stages.append(current)
    return stages


def _in_runs(words: Sequence[Words], size: int) -> list[Words]:
    """One for each run of this many; none where they don't come out even."""
    if not size or len(words) % size:
        return []
    return [_joined(words[i : i + size]) for i in range(0, len(words), size)]


def _joined(group: Sequence[Words]) -> Words:
    return frozenset.intersection(*(whole for whole, _ in group)), frozenset.union(
        *(some for _, some in group)
    )


def _labels(
    before: Sequence[Words], after: Sequence[Words]
) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    sides = [side for side in (before, after) if side]
    if len(sides) == 2 and len(before) != len(after):
        sides = [before]
    whole = tuple(
        frozenset().union(*(each[0] for each in tensor)) for tensor in zip(*sides, strict=True)
    )
    some = frozenset().union(*(each[1] for side in (before, after) for each in side))
    return whole, some - frozenset().union(*whole)
