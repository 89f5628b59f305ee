"""Which modules of two networks stand for each other: those whose tensors a plan maps onto each
other, and all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.mapping.plan import Plan

Steps = frozenset[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two modules by their paths; the whole networks are `""`."""

    one: str
    other: str


def pairs_of(plan: Plan, one: nn.Module, other: nn.Module) -> list[Pair]:
    """The pairs of modules, outer ones first: those with the same mapped tensors; and inside of
    these, modules without tensors that are of the same class and as many.
    """
    first = _by_steps(one, [step.inputs for step in plan.steps])
    second = _by_steps(other, [step.outputs for step in plan.steps])
    pairs = {Pair("", ""): None}
    for steps, paths in first.items():
        pairs |= dict.fromkeys(_chained(paths, second.get(steps, [])))
    for pair in list(pairs):
        pairs |= dict.fromkeys(_without_tensors(pair, one, other))
    ones: set[str] = set()
    others: set[str] = set()
    found = []
    for pair in pairs:
        if pair.one not in ones and pair.other not in others:
            ones.add(pair.one)
            others.add(pair.other)
            found.append(pair)
    return found


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


def _chained(ones: Sequence[str], others: Sequence[str]) -> Iterator[Pair]:
    """Modules inside each other that hold the same: the outermost belong together, and the
    innermost; all of them where they are as many.
    """
    if len(ones) == len(others):
        yield from (Pair(*both) for both in zip(ones, others, strict=True))
    elif ones and others:
        yield Pair(ones[-1], others[-1])
        if len(ones) > 1 and len(others) > 1:
            yield Pair(ones[0], others[0])


def _without_tensors(pair: Pair, one: nn.Module, other: nn.Module) -> Iterator[Pair]:
    """Children without tensors, by class and order, where there are as many on both sides."""
    sides = [
        _empty_children(module, path) for module, path in ((one, pair.one), (other, pair.other))
    ]
    for kind in sides[0]:
        if len(sides[0][kind]) == len(sides[1].get(kind, [])):
            yield from (Pair(*both) for both in zip(sides[0][kind], sides[1][kind], strict=True))


def _empty_children(module: nn.Module, path: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name, child in module.get_submodule(path).named_children():
        if not child.state_dict():
            found[type(child).__name__].append(f"{path}.{name}" if path else name)
    return found
