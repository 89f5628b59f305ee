"""Keys of a model that share memory: each that is loaded must end up with what it was given.

Tied keys are one tensor. Others lie over each other: a flat buffer and its slices, a matrix and its transpose, a conjugate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.mapping.ties import ties, value_of
from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import identity_of, is_distributed, is_wrapper, to_bytes
from ckpt_tool.training.filling import Tensors
from ckpt_tool.training.values import key_value

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState


def check_overlaps(plan: Plan, source: Checkpoint | LiveState, tensors: Tensors) -> dict[str, str]:
    """Keys that the plan keeps, but that lie wholly in what is loaded into another key, with that key.

    Raises RuleError where two keys would get values that their common memory can't hold, or a key that is kept would change in part.
    """
    problems = [_two_values(first, key) for first, key in _unequal_ties(plan, source, tensors)]
    order = {key: place for place, key in enumerate(plan.producers)}
    covered: dict[str, str] = {}
    for group in _overlapping(plan.target or Catalog([]), tensors, order):
        loaded = sorted((key for key in group if key in order), key=order.__getitem__)
        problems += _lost(plan, source, tensors, loaded)
        for key in (key for key in group if loaded and key not in order):
            seen = _marked(loaded, tensors, key)
            if seen.all():
                covered[key] = loaded[0]
            elif seen.any():
                problems.append(_changed_in_part(key, loaded[0]))
    if problems:
        raise RuleError(problems)
    return covered


def _two_values(first: str, key: str) -> Problem:
    message = f"`{first}` and `{key}` are one tensor of the model, and would get different values"
    return Problem("collision", message, None, ("drop the source of one of them, and keep its key",))


def _changed_in_part(key: str, loaded: str) -> Problem:
    message = f"`{key}` would be kept, but a part of it lies in the memory of `{loaded}`, which is loaded"
    return Problem("collision", message, None, ("load both, or keep both",))


def _unequal_ties(plan: Plan, source: Checkpoint | LiveState, tensors: Tensors) -> Iterator[tuple[str, str]]:
    """Pairs of keys that are one tensor of the model, and would get different values."""
    for group in ties(plan.target or Catalog([])).values():
        first, *others = [key for key in group if key in plan.producers] or [""]
        for key in others:
            if value_of(plan, key) != value_of(plan, first):
                one, other = (key_value(plan, each, source, tensors) for each in (first, key))
                if to_bytes(one) != to_bytes(other):
                    yield first, key


def _overlapping(target: Catalog, tensors: Tensors, loaded: Container[str]) -> Iterator[list[str]]:
    """Groups of keys whose tensors lie over each other, one key for those that are one tensor: one that is loaded, if any is."""
    by_storage: dict[str, list[str]] = defaultdict(list)
    for key, info in target.items():
        by_storage[info.shares or key].append(key)
    for keys in by_storage.values():
        if len(keys) > 1:
            placed = [key for key in keys if _has_a_place(tensors[key])]
            distinct = {identity_of(tensors[key]): key for key in sorted(placed, key=lambda key: key in loaded)}
            yield from (group for group in _runs(distinct.values(), tensors) if len(group) > 1)


def _has_a_place(tensor: torch.Tensor) -> bool:
    return not tensor.is_meta and tensor.numel() > 0 and not is_distributed(tensor) and not is_wrapper(tensor)


def _runs(keys: Iterable[str], tensors: Tensors) -> Iterator[list[str]]:
    """The keys of one storage, parted where no tensor reaches over."""
    run: list[str] = []
    reached = 0
    for (start, end), key in sorted((_reach(tensors[key]), key) for key in keys):
        if run and start >= reached:
            yield run
            run = []
        run.append(key)
        reached = max(reached, end)
    yield run


def _reach(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage from the tensor's first one to behind its last one."""
    last = sum((int(size) - 1) * int(step) for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset()) * tensor.itemsize
    return start, start + (last + 1) * tensor.itemsize


def _lost(plan: Plan, source: Checkpoint | LiveState, tensors: Tensors, loaded: Sequence[str]) -> list[Problem]:
    """A problem for each key whose value another one overwrites: tried on memory of the same shape."""
    if len(loaded) < 2:
        return []
    memory = _memory_for(loaded, tensors)
    for key in loaded:
        _place(memory, tensors[key]).copy_(_stored(key_value(plan, key, source, tensors), tensors[key]))
    lost = [key for key in loaded if not _place(memory, tensors[key]).equal(_stored(key_value(plan, key, source, tensors), tensors[key]))]
    return [_overwritten(key, loaded) for key in lost]


def _overwritten(key: str, loaded: Sequence[str]) -> Problem:
    others = [other for other in loaded if other != key]
    named = ", ".join(f"`{other}`" for other in others[:3]) + (" …" if len(others) > 3 else "")
    message = f"`{key}` lies in the same memory of the model as {named}, and would not keep the values that it gets"
    return Problem("collision", message, None, ("load the one, and keep the other",))


def _marked(loaded: Sequence[str], tensors: Tensors, key: str) -> torch.Tensor:
    """For each byte of a key's tensor whether one that is loaded has it too."""
    memory = _memory_for([*loaded, key], tensors)
    for each in loaded:
        _place(memory, tensors[each]).fill_(1)
    return _place(memory, tensors[key])


def _memory_for(keys: Sequence[str], tensors: Tensors) -> torch.Tensor:
    import torch

    return torch.zeros(max(_reach(tensors[key])[1] for key in keys), dtype=torch.uint8)


def _place(memory: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The bytes where a tensor lies, in memory like its own; the last dimension is the bytes of an element."""
    size = tensor.itemsize
    return memory.as_strided((*tensor.shape, size), (*(step * size for step in tensor.stride()), 1), tensor.storage_offset() * size)


def _stored(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A value's bytes as a tensor with these lazy bits has them in memory."""
    import torch

    stored = value.conj() if like.is_conj() else value
    stored = stored.neg() if like.is_neg() else stored
    return torch.frombuffer(bytearray(to_bytes(stored)), dtype=torch.uint8).reshape(*like.shape, like.itemsize)
