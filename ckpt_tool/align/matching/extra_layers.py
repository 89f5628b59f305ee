"""Repeated blocks of which one side has more: which of them are the extra ones, nothing tells."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from ckpt_tool.align.matching.matching import Matches
from ckpt_tool.align.naming.modules import ModuleTensors, Names
from ckpt_tool.align.naming.vocabulary import stem_and_number

Place = tuple[Names, str]
Blocks = dict[int, Counter[object]]


def uncertain_layers(
    modules: tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]],
    matches: Matches,
    hints: Sequence[tuple[int, int]],
) -> set[tuple[int, int]]:
    """The pairs of modules inside equal blocks that are more on one side, unless every name is the
    same or a hint is given.
    """
    met: Counter[tuple[Place, Place]] = Counter()
    for match in matches.found:
        met.update(_places(modules[0][match.source], modules[1][match.target]))
    runs = (_runs(modules[0]), _runs(modules[1]))
    hinted = {pair for i, j in hints for pair in _places(modules[0][i], modules[1][j])}
    doubtful: set[tuple[int, int]] = set()
    for source, target in _partners(met):
        if (source, target) not in hinted and _has_most(source, target, met, runs):
            unequal = _unequal(runs[0][source], runs[1][target])
            doubtful |= {
                (match.source, match.target)
                for match in matches.found
                if _number(modules[0][match.source].names, source) in unequal[0]
                and _number(modules[1][match.target].names, target) in unequal[1]
                and not _same_keys(modules[0][match.source], modules[1][match.target])
            }
    return doubtful


def _places(a: ModuleTensors, b: ModuleTensors) -> Iterator[tuple[Place, Place]]:
    for source, _ in _numbered(a.names):
        for target, _ in _numbered(b.names):
            yield source, target


def _numbered(names: Names) -> list[tuple[Place, int]]:
    return [
        ((names[:depth], found[0]), found[1])
        for depth, name in enumerate(names)
        if (found := stem_and_number(name))
    ]


def _runs(modules: Sequence[ModuleTensors]) -> dict[Place, Blocks]:
    runs: dict[Place, Blocks] = defaultdict(lambda: defaultdict(Counter))
    for module in modules:
        for place, number in _numbered(module.names):
            runs[place][number].update(module.shapes)
    return runs


def _partners(met: Counter[tuple[Place, Place]]) -> list[tuple[Place, Place]]:
    """For each place of the source the innermost one of the target that it shares most pairs with."""
    most: Counter[Place] = Counter()
    for (source, _), count in met.items():
        most[source] = max(most[source], count)
    best: dict[Place, Place] = {}
    for (source, target), count in met.items():
        is_nested = source not in best or len(target[0]) > len(best[source][0])
        if count >= 0.7 * most[source] and is_nested:
            best[source] = target
    return list(best.items())


def _has_most(
    source: Place,
    target: Place,
    met: Counter[tuple[Place, Place]],
    runs: tuple[dict[Place, Blocks], dict[Place, Blocks]],
) -> bool:
    """Whether blocks there are whole modules, several on both sides, and unlike in number."""
    a, b = runs[0][source], runs[1][target]
    sizes = [sum(block.values()) for block in (*a.values(), *b.values())]
    return len(a) != len(b) and min(len(a), len(b)) > 1 and sum(sizes) / len(sizes) > 4


def _unequal(source: Blocks, target: Blocks) -> tuple[set[int], set[int]]:
    """The numbers of those blocks of each side that are of a kind which the other has another
    number of.
    """
    kinds: dict[object, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for side, blocks in enumerate((source, target)):
        for number, block in blocks.items():
            kinds[frozenset(block.items())][side].add(number)
    unlike = [
        each for each in kinds.values() if each[0] and each[1] and len(each[0]) != len(each[1])
    ]
    return {number for each in unlike for number in each[0]}, {
        number for each in unlike for number in each[1]
    }


def _number(names: Names, place: Place) -> int:
    """The number that a path has at a place; -1 where it doesn't pass there."""
    return next((number for other, number in _numbered(names) if other == place), -1)


def _same_keys(a: ModuleTensors, b: ModuleTensors) -> bool:
    return set(a.keys.values()) == set(b.keys.values())
