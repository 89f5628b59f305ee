"""Which modules of two networks stand for each other: those whose tensors a plan maps onto each
other, and all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.mapping.plan import Plan

Steps = frozenset[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two modules by their paths; the whole networks are `""`.

    Of pairs with the same `rivals`, those are right whose outputs agree best. One that `is_weak` is
    paired by its class and place alone, and says something only where its inputs agree.
    """

    one: str
    other: str
    rivals: int | None = None
    is_weak: bool = False


def pairs_of(plan: Plan, one: nn.Module, other: nn.Module) -> list[Pair]:
    """The pairs of modules, outer ones first: those with the same mapped tensors; and inside of
    these, modules without tensors that are of the same class and as many.
    """
    first = _by_steps(one, [step.inputs for step in plan.steps])
    second = _by_steps(other, [step.outputs for step in plan.steps])
    pairs = [Pair("", "")]
    for number, (steps, paths) in enumerate(first.items()):
        named = [path for path in paths if path]
        pairs += _chained(named, [path for path in second.get(steps, []) if path], number)
    for pair in list(pairs):
        pairs += _without_tensors(pair, one, other)
    return pairs


def agreed(pairs: Sequence[Pair], apart: Callable[[Pair], float | None]) -> list[Pair]:
    """The pairs of which each module is in one: of rivals those with the smallest distance."""
    order = {id(pair): number for number, pair in enumerate(pairs)}

    def key(pair: Pair) -> tuple[bool, float, int]:
        if pair.rivals is None:
            return pair.is_weak, 0.0, order[id(pair)]
        distance = apart(pair)
        return pair.is_weak, inf if distance is None else distance, order[id(pair)]

    ones: set[str] = set()
    others: set[str] = set()
    found = []
    for pair in sorted(pairs, key=key):
        if pair.one not in ones and pair.other not in others:
            ones.add(pair.one)
            others.add(pair.other)
            found.append(pair)
    return sorted(found, key=lambda pair: order[id(pair)])


def _by_steps(module: nn.Module, keys_of: Sequence[Sequence[str]]) -> Mapping[Steps, list[str]]:
    """The paths of modules by the steps whose tensors they hold, all of them, outer ones first."""
    steps: dict[str, set[int]] = defaultdict(set)
    for number, keys in enumerate(keys_of):
        for key in keys:
            steps[key].add(number)
    own = [(key, steps[key]) for key in steps]
    found: dict[Steps, list[str]] = defaultdict(list)
    for path, _ in module.named_modules():
        prefix = f"{path}." if path else ""
        inside = {key: each for key, each in own if key.startswith(prefix)}
        held = frozenset(number for each in inside.values() for number in each)
        if held and all(key in inside for number in held for key in keys_of[number]):
            found[held].append(path)
    return found


def _chained(ones: Sequence[str], others: Sequence[str], number: int) -> Iterator[Pair]:
    """Modules inside each other that hold the same: in order where they are as many, else all that
    may belong together.
    """
    if len(ones) == len(others):
        yield from (Pair(*both) for both in zip(ones, others, strict=True))
    else:
        yield from (Pair(one, other, number) for one in ones for other in others)


def _without_tensors(pair: Pair, one: nn.Module, other: nn.Module) -> Iterator[Pair]:
    """Children without tensors, by class and order, where there are as many on both sides."""
    sides = [
        _empty_children(module, path) for module, path in ((one, pair.one), (other, pair.other))
    ]
    for kind in sides[0]:
        if len(sides[0][kind]) == len(sides[1].get(kind, [])):
            for one_path, other_path in zip(sides[0][kind], sides[1][kind], strict=True):
                yield Pair(one_path, other_path, None, True)


def _empty_children(module: nn.Module, path: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name, child in module.get_submodule(path).named_children():
        if not child.state_dict():
            found[type(child).__name__].append(f"{path}.{name}" if path else name)
    return found
