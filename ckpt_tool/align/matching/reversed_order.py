"""Sequences of blocks that two libraries count from opposite ends, as decoders are, and those where
nothing tells.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.naming.modules import ModuleTensors, Names, plain, with_ordinals
from ckpt_tool.align.naming.vocabulary import stem_and_number, words_of

_EITHER_WAY = frozenset(
    {
        "up",
        "ups",
        "neck",
        "fusion",
        "refinenet",
        "refine",
        "fpn",
        "pyramid",
        "lateral",
        "scratch",
        "reassemble",
    }
)
"""Where levels are counted from the coarse or from the fine end, as the author likes."""

_COUNTED_BACK = (("refinenet", "fusion"),)
"""MiDaS's refinenet1 is the finest level; where fusion layers are a list, the coarsest comes first.
"""

Place = tuple[Names, str]


@dataclass(frozen=True, slots=True)
class _Run:
    place: Place
    numbers: tuple[int, ...]
    blocks: tuple[Counter[object], ...]

    @property
    def whole(self) -> Counter[object]:
        return sum(self.blocks, Counter())


def reversed_order(
    source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]
) -> tuple[list[ModuleTensors], set[tuple[int, int]]]:
    """The target's modules with numbers as the source counts them, and the pairs of modules whose
    direction nothing tells.
    """
    from_target: dict[object, list[_Run]] = defaultdict(list)
    for run in _runs(target):
        from_target[len(run.numbers)].append(run)
    modules, unknown = list(target), set()
    for run in _runs(source):
        other = _counterpart(run, from_target[len(run.numbers)])
        if other is None:
            continue
        same, back = (
            _agreement(run.blocks, other.blocks),
            _agreement(run.blocks, other.blocks[::-1]),
        )
        if back > same + 0.05 * len(run.numbers) or (
            back > same - 0.05 and _are_counted_back(run.place, other.place)
        ):
            modules = [_reversed(module, other) for module in modules]
        elif back > same - 0.05 and _may_be_either(run.place, other.place):
            unknown |= {
                (a.place, b.place)
                for a in source
                for b in target
                if _is_under(a, run.place) and _is_under(b, other.place)
            }
    return with_ordinals(modules), unknown


def _runs(modules: Sequence[ModuleTensors]) -> list[_Run]:
    blocks: dict[Place, dict[int, Counter[object]]] = defaultdict(lambda: defaultdict(Counter))
    for module in modules:
        for depth, name in enumerate(module.names):
            if found := stem_and_number(name):
                blocks[module.names[:depth], found[0]][found[1]].update(
                    (role, plain(shape)) for role, shape in module.shapes
                )
    runs = []
    for place, found_blocks in blocks.items():
        numbers = sorted(found_blocks)
        if len(numbers) > 1 and min(sum(block.values()) for block in found_blocks.values()) > 3:
            runs.append(
                _Run(place, tuple(numbers), tuple(found_blocks[number] for number in numbers))
            )
    return runs


def _counterpart(run: _Run, others: Sequence[_Run]) -> _Run | None:
    """The run of as many blocks with most of the same tensors; words decide between equal ones."""
    words = _words(run.place)
    rated = [
        (round(_alike(run.whole, other.whole), 2), len(words & _words(other.place)), -place)
        for place, other in enumerate(others)
    ]
    best = max(rated, default=(0.0, 0, 0))
    return others[-best[2]] if best[0] > 0.6 else None


def _alike(a: Counter[object], b: Counter[object]) -> float:
    return (a & b).total() / max(1, (a | b).total())


def _agreement(source: Sequence[Counter[object]], target: Sequence[Counter[object]]) -> float:
    return sum(_alike(a, b) for a, b in zip(source, target, strict=True))


def _words(place: Place) -> set[str]:
    return {word for name in (*place[0], place[1]) for word in words_of(name)}


def _may_be_either(source: Place, target: Place) -> bool:
    words = {
        word
        for place in (source, target)
        for name in (*place[0][-1:], place[1])
        for word in words_of(name)
    }
    return bool(words & _EITHER_WAY) and set(words_of(source[1])) != set(words_of(target[1]))


def _are_counted_back(source: Place, target: Place) -> bool:
    words = (_words(source), _words(target))
    return any(
        (a in words[0] and b in words[1]) or (b in words[0] and a in words[1])
        for a, b in _COUNTED_BACK
    )


def _is_under(module: ModuleTensors, place: Place) -> bool:
    depth = len(place[0])
    found = (
        stem_and_number(module.names[depth])
        if len(module.names) > depth and module.names[:depth] == place[0]
        else None
    )
    return found is not None and found[0] == place[1]


def _reversed(module: ModuleTensors, run: _Run) -> ModuleTensors:
    if not _is_under(module, run.place):
        return module
    depth, indices, numbers = len(run.place[0]), list(module.indices), list(module.numbers)
    at = sum(stem_and_number(name) is not None for name in module.names[:depth])
    numbers[at] = run.numbers[0] + run.numbers[-1] - numbers[at]
    at_index = sum(module.is_indexed[:depth])
    if len(indices) <= at_index:
        return replace(module, numbers=tuple(numbers))
    indices[at_index] = len(run.numbers) - 1 - indices[at_index]
    numbered = [
        ("", *each[1:]) if place == at_index else each for place, each in enumerate(module.numbered)
    ]
    return replace(module, indices=tuple(indices), numbered=tuple(numbered), numbers=tuple(numbers))
