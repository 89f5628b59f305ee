"""Repeated blocks of which one side has more: which of them are the extra ones, nothing shows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod

from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, Series, numbered_names
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Shape

Block = Counter[tuple[str, Shape]]
"""The roles and shapes of a block's tensors."""
Blocks = dict[int, Block]
"""The blocks of a series by number."""
SeriesPair = tuple[Series, Series]


def uncertain_layers(
    modules: Modules, matches: Sequence[Match], hints: Sequence[Candidate]
) -> set[Candidate]:
    """The pairs of modules inside equal blocks that are more on one side, unless every name is the
    same or a hint is given.
    """
    runs = modules.map(_runs)
    hinted = {pair for hint in hints for pair in _series_pairs(modules, hint)}
    doubtful: set[Candidate] = set()
    for source, target in _partners(_met(modules, matches)):
        run, other = runs.source[source], runs.target[target]
        if (source, target) not in hinted and _are_of_other_lengths(run, other):
            numbers = _unequal(run, other)
            for match in matches:
                a, b = modules.source[match.source], modules.target[match.target]
                places = (_number(a.names, source), _number(b.names, target))
                if _are_in(places, numbers) and not _have_same_keys(a, b):
                    doubtful.add(match.candidate)
    return doubtful


def _met(modules: Modules, matches: Sequence[Match]) -> Counter[SeriesPair]:
    """How many pairs each two series share."""
    return Counter(pair for each in matches for pair in _series_pairs(modules, each.candidate))


def _series_pairs(modules: Modules, candidate: Candidate) -> Iterator[SeriesPair]:
    """Each series around the one module with each around the other."""
    i, j = candidate
    found = numbered_names(modules.source[i].names), numbered_names(modules.target[j].names)
    return ((source, target) for (source, _), (target, _) in product(*found))


def _runs(modules: Sequence[ModuleTensors]) -> dict[Series, Blocks]:
    runs: dict[Series, Blocks] = defaultdict(lambda: defaultdict(Counter))
    for module in modules:
        for series, number in numbered_names(module.names):
            runs[series][number].update(module.shapes)
    return runs


def _partners(met: Mapping[SeriesPair, int]) -> list[SeriesPair]:
    """For each series of the source the innermost one of the target that shares most pairs."""
    most: Counter[Series] = Counter()
    for (source, _), count in met.items():
        most[source] = max(most[source], count)
    best: dict[Series, Series] = {}
    for (source, target), count in met.items():
        is_nested = source not in best or len(target[0]) > len(best[source][0])
        if count >= WEIGHTS.same_series * most[source] and is_nested:
            best[source] = target
    return list(best.items())


def _are_of_other_lengths(source: Blocks, target: Blocks) -> bool:
    """Whether blocks are whole modules, several on both sides, and unlike in number."""
    sizes = [block.total() for block in (*source.values(), *target.values())]
    is_repeated = min(len(source), len(target)) > 1 and len(source) != len(target)
    return is_repeated and sum(sizes) / len(sizes) > WEIGHTS.whole_block


def _unequal(source: Blocks, target: Blocks) -> Sides[set[int]]:
    """The numbers of those blocks of each side that are of a kind which the other has another
    number of.
    """
    numbers: Sides[set[int]] = Sides(set(), set())
    for kind in (_shapes, _matrix_elements):
        from_source, from_target = _by_kind(source, kind), _by_kind(target, kind)
        for each in from_source.keys() & from_target.keys():
            if len(from_source[each]) != len(from_target[each]):
                numbers.source.update(from_source[each])
                numbers.target.update(from_target[each])
    return numbers


def _are_in(places: tuple[int, int], numbers: Sides[set[int]]) -> bool:
    return places[0] in numbers.source and places[1] in numbers.target


def _by_kind(blocks: Blocks, kind: Callable[[Block], object]) -> dict[object, list[int]]:
    """The numbers of the blocks that hold the same."""
    kinds: dict[object, list[int]] = defaultdict(list)
    for number, block in blocks.items():
        kinds[kind(block)].append(number)
    return kinds


def _shapes(block: Block) -> object:
    """The shapes of all tensors of a block."""
    return frozenset(block.items())


def _matrix_elements(block: Block) -> object:
    """How many elements a block's matrices have: what is the same where projections are fused, and
    without biases.
    """
    return sum(
        count * prod(shape) for (_, shape), count in block.items() if len(shape) > 1
    ) or _shapes(block)


def _number(names: Names, series: Series) -> int:
    """The number that a path has in a series; -1 where it doesn't pass there."""
    return next((number for other, number in numbered_names(names) if other == series), -1)


def _have_same_keys(a: ModuleTensors, b: ModuleTensors) -> bool:
    return set(a.keys.values()) == set(b.keys.values())
