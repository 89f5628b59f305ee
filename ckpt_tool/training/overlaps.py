"""Keys of a model that share memory: each that is loaded must end up with what it was given.

Tied keys are one tensor. Others lie over each other: a flat buffer and its slices, a matrix and its
transpose, a conjugate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.keys import Fold, fold
from ckpt_tool.mapping.accounting.ties import ties
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import identity_of, is_distributed, is_wrapper, to_bytes
from ckpt_tool.training.memory.filling import LiveTensors
from ckpt_tool.training.memory.values import key_value

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState


def check_overlaps(
    plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors
) -> dict[str, str]:
    """Keys that the plan keeps, but that lie wholly in what is loaded into another key, with that
    key.

    Raises RuleError where two keys would get values that their common memory can't hold, or a key
    that is kept would change in part.
    """
    target = plan.target or Catalog([])
    unequal = dict(_unequal_ties(plan, source, tensors))
    order = {key: place for place, key in enumerate(plan.producers)}
    covered: dict[str, str] = {}
    lost: dict[str, list[str]] = {}
    in_part: dict[str, str] = {}
    for group in _overlapping(target, tensors, order):
        loaded = sorted((key for key in group if key in order), key=order.__getitem__)
        for key in _lost(plan, source, tensors, loaded):
            lost[key] = [other for other in loaded if other != key]
        if loaded:
            wholly, partly = _lying_in(loaded, [key for key in group if key not in order], tensors)
            covered.update(dict.fromkeys(wholly, loaded[0]))
            in_part.update(dict.fromkeys(partly, loaded[0]))
    problems = [
        *_two_values(unequal, target),
        *_overwritten(lost, target),
        *_changed_in_part(in_part, target),
    ]
    if problems:
        raise RuleError(problems)
    return covered


def _lying_in(
    loaded: Sequence[str], kept: Sequence[str], tensors: LiveTensors
) -> tuple[list[str], list[str]]:
    """Of keys that are kept those that lie wholly in the memory of loaded ones, and those
    in part.
    """
    wholly: list[str] = []
    partly: list[str] = []
    for key in kept:
        seen = _marked(loaded, tensors, key)
        if seen.all():
            wholly.append(key)
        elif seen.any():
            partly.append(key)
    return wholly, partly


def _two_values(first: Mapping[str, str], target: Catalog) -> Iterator[Problem]:
    for one, key in _folded(first, target):
        message = (
            f"`{first[key]}` and `{key}` are one tensor of the model, "
            "and would get different values"
            if len(one.keys) == 1
            else f"`{one.pattern}` ({len(one.keys):,}) are one tensor of the model each with "
            "another key, and would get different values"
        )
        yield Problem(
            "collision", message, None, ("drop the source of one of them, and keep its key",)
        )


def _overwritten(others: Mapping[str, Sequence[str]], target: Catalog) -> Iterator[Problem]:
    for one, key in _folded(others, target):
        more = " …" if len(others[key]) > 3 else ""
        named = ", ".join(f"`{other}`" for other in others[key][:3]) + more
        message = (
            f"`{key}` lies in the same memory of the model as {named}, "
            "and would not keep the values that it gets"
            if len(one.keys) == 1
            else f"`{one.pattern}` ({len(one.keys):,}) lie in the same memory of the model as "
            "others, and would not keep their values"
        )
        yield Problem("collision", message, None, ("load the one, and keep the other",))


def _changed_in_part(loaded: Mapping[str, str], target: Catalog) -> Iterator[Problem]:
    for one, key in _folded(loaded, target):
        message = (
            f"`{key}` would be kept, but a part of it lies in the memory of `{loaded[key]}`, "
            "which is loaded"
            if len(one.keys) == 1
            else f"`{one.pattern}` ({len(one.keys):,}) would be kept, but a part of each lies in "
            "the memory of others, which are loaded"
        )
        yield Problem("collision", message, None, ("load both, or keep both",))


def _folded(keys: Iterable[str], target: Catalog) -> list[tuple[Fold, str]]:
    """The patterns of some keys, each with its first key."""
    return [(one, one.keys[0]) for one in fold(dict.fromkeys(keys), target)]


def _unequal_ties(
    plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors
) -> Iterator[tuple[str, str]]:
    """Keys that would get another value than one that is the same tensor of the model,
    with that.
    """
    for group in ties(plan.target or Catalog([])).values():
        first, *others = [key for key in group if key in plan.producers] or [""]
        for key in others:
            if plan.identities[key] != plan.identities[first]:
                one, other = (key_value(plan, each, source, tensors) for each in (first, key))
                if to_bytes(one) != to_bytes(other):
                    yield key, first


def _overlapping(
    target: Catalog, tensors: LiveTensors, loaded: Container[str]
) -> Iterator[list[str]]:
    """Groups of keys whose tensors lie over each other, one key for those that are one tensor: one
    that is loaded, if any is.
    """
    by_storage: dict[str, list[str]] = defaultdict(list)
    for key, info in target.items():
        by_storage[info.shared_storage_with or key].append(key)
    for keys in by_storage.values():
        if len(keys) > 1:
            placed = [key for key in keys if _has_a_place(tensors[key])]
            distinct = {
                identity_of(tensors[key]): key
                for key in sorted(placed, key=lambda key: key in loaded)
            }
            yield from (group for group in _runs(distinct.values(), tensors) if len(group) > 1)


def _has_a_place(tensor: torch.Tensor) -> bool:
    return (
        not tensor.is_meta
        and tensor.numel() > 0
        and not is_distributed(tensor)
        and not is_wrapper(tensor)
    )


def _runs(keys: Iterable[str], tensors: LiveTensors) -> Iterator[list[str]]:
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
    """The addresses of the tensor's first byte and of what is behind its last one."""
    last = sum(
        (int(size) - 1) * int(step)
        for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.itemsize


def _lost(
    plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors, loaded: Sequence[str]
) -> list[str]:
    """The keys whose values another one overwrites: tried on memory of the same shape."""
    if len(loaded) < 2:
        return []
    memory = _Memory([tensors[key] for key in loaded])
    for key in loaded:
        memory.place(tensors[key]).copy_(
            _stored(key_value(plan, key, source, tensors), tensors[key])
        )
    return [
        key
        for key in loaded
        if not memory.place(tensors[key]).equal(
            _stored(key_value(plan, key, source, tensors), tensors[key])
        )
    ]


def _marked(loaded: Sequence[str], tensors: LiveTensors, key: str) -> torch.Tensor:
    """For each byte of a key's tensor whether one that is loaded has it too."""
    memory = _Memory([tensors[each] for each in (*loaded, key)])
    for each in loaded:
        memory.place(tensors[each]).fill_(1)
    return memory.place(tensors[key])


class _Memory:
    """Memory as that in which some tensors lie, by bytes, to try what becomes of it."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        import torch

        reaches = [_reach(tensor) for tensor in tensors]
        self._start = min(start for start, _ in reaches)
        self._bytes = torch.zeros(
            max(end for _, end in reaches) - self._start, dtype=torch.uint8, device="cpu"
        )

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """The bytes where a tensor lies; the last dimension is the bytes of an element."""
        size = tensor.itemsize
        steps = *(step * size for step in tensor.stride()), 1
        return self._bytes.as_strided((*tensor.shape, size), steps, tensor.data_ptr() - self._start)


def _stored(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A value's bytes as a tensor with these lazy bits has them in memory."""
    import torch

    stored = value.conj() if like.is_conj() else value
    stored = stored.neg() if like.is_neg() else stored
    return torch.frombuffer(bytearray(to_bytes(stored)), dtype=torch.uint8).reshape(
        *like.shape, like.itemsize
    )
