"""Sequences of blocks that two libraries count from opposite ends, as decoders are, and those where
nothing shows it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.naming.modules import Candidate, ModuleTensors, NumberedName, with_ordinals
from ckpt_tool.align.naming.paths import Series, is_below, numbered_names
from ckpt_tool.align.naming.shapes import plain
from ckpt_tool.align.naming.vocabulary import stem_and_number, words_of
from ckpt_tool.align.weights import WEIGHTS

_EITHER_WAY = frozenset(
    (
        *("up", "ups", "neck", "fusion", "refinenet", "refine"),
        *("fpn", "pyramid", "lateral", "scratch", "reassemble"),
    )
)
"""Where levels are counted from the coarse or from the fine end, as the author likes."""

_COUNTED_BACK = (("refinenet", "fusion"),)
"""MiDaS's refinenet1 is the finest level; where fusion layers are a list, the coarsest comes first.
"""


@dataclass(frozen=True, slots=True)
class _Run:
    """The blocks of a series in the order of their numbers, with the shapes that they hold."""

    series: Series
    numbers: tuple[int, ...]
    blocks: tuple[Counter[object], ...]

    @property
    def whole(self) -> Counter[object]:
        return sum(self.blocks, Counter())


def reversed_order(
    source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]
) -> tuple[list[ModuleTensors], set[Candidate]]:
    """The target's modules with numbers as the source counts them, and the pairs of modules whose
    direction nothing shows.
    """
    modules, unknown = list(target), set[Candidate]()
    for run, other in _counterparts(source, target):
        as_counted = _agreement(run.blocks, other.blocks)
        backward = _agreement(run.blocks, other.blocks[::-1])
        is_better = backward > as_counted + WEIGHTS.reversal * len(run.numbers)
        is_as_good = backward > as_counted - WEIGHTS.reversal
        if is_better or (is_as_good and _are_counted_back(run.series, other.series)):
            modules = [_reversed(module, other) for module in modules]
        elif is_as_good and _may_be_either(run.series, other.series):
            unknown |= _pairs_under(run.series, source, other.series, target)
    return with_ordinals(modules), unknown


def _counterparts(
    source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]
) -> Iterator[tuple[_Run, _Run]]:
    """The runs of the source, each with that of the target that holds the same."""
    by_length: dict[int, list[_Run]] = defaultdict(list)
    for run in _runs(target):
        by_length[len(run.numbers)].append(run)
    for run in _runs(source):
        other = _counterpart(run, by_length[len(run.numbers)])
        if other is not None:
            yield run, other


def _runs(modules: Sequence[ModuleTensors]) -> list[_Run]:
    blocks: dict[Series, dict[int, Counter[object]]] = defaultdict(lambda: defaultdict(Counter))
    for module in modules:
        shapes = [(role, plain(shape)) for role, shape in module.shapes]
        for series, number in numbered_names(module.names):
            blocks[series][number].update(shapes)
    return [
        _Run(series, tuple(sorted(found)), tuple(found[number] for number in sorted(found)))
        for series, found in blocks.items()
        if len(found) > 1 and min(block.total() for block in found.values()) > 3
    ]


def _counterpart(run: _Run, others: Sequence[_Run]) -> _Run | None:
    """The run of as many blocks with most of the same tensors; words decide between equal ones."""
    words = _words(run.series)
    rated = [
        (round(_overlap(run.whole, other.whole), 2), len(words & _words(other.series)), -place)
        for place, other in enumerate(others)
    ]
    best = max(rated, default=(0.0, 0, 0))
    return others[-best[2]] if best[0] > WEIGHTS.same_run else None


def _overlap(a: Counter[object], b: Counter[object]) -> float:
    return (a & b).total() / max(1, (a | b).total())


def _agreement(source: Sequence[Counter[object]], target: Sequence[Counter[object]]) -> float:
    return sum(_overlap(a, b) for a, b in zip(source, target, strict=True))


def _words(series: Series) -> set[str]:
    return {word for name in (*series[0], series[1]) for word in words_of(name)}


def _may_be_either(source: Series, target: Series) -> bool:
    """Whether two series of other names are of a kind that is counted from either end."""
    names = (name for path, stem in (source, target) for name in (*path[-1:], stem))
    words = {word for name in names for word in words_of(name)}
    return bool(words & _EITHER_WAY) and set(words_of(source[1])) != set(words_of(target[1]))


def _are_counted_back(source: Series, target: Series) -> bool:
    words, others = _words(source), _words(target)
    return any(
        (a in words and b in others) or (b in words and a in others) for a, b in _COUNTED_BACK
    )


def _pairs_under(
    series: Series,
    source: Sequence[ModuleTensors],
    other: Series,
    target: Sequence[ModuleTensors],
) -> set[Candidate]:
    """All pairs of a module in one series with one in the other."""
    from_target = [module.place for module in target if _is_under(module, other)]
    return {
        (module.place, place)
        for module in source
        if _is_under(module, series)
        for place in from_target
    }


def _is_under(module: ModuleTensors, series: Series) -> bool:
    path, stem = series
    if len(module.names) <= len(path) or not is_below(module.names, path):
        return False
    found = stem_and_number(module.names[len(path)])
    return found is not None and found[0] == stem


def _reversed(module: ModuleTensors, run: _Run) -> ModuleTensors:
    """The module with its number in a run counted from the other end."""
    if not _is_under(module, run.series):
        return module
    depth = len(run.series[0])
    numbers = list(module.numbers)
    at = sum(stem_and_number(name) is not None for name in module.names[:depth])
    numbers[at] = run.numbers[0] + run.numbers[-1] - numbers[at]
    module = replace(module, numbers=tuple(numbers))
    indexed = sum(module.is_indexed[:depth])
    return module if len(module.indices) <= indexed else _with_index_reversed(module, indexed, run)


def _with_index_reversed(module: ModuleTensors, at: int, run: _Run) -> ModuleTensors:
    """The module with one of its indices counted from the end; its number means no value there."""
    indices, numbered = list(module.indices), list(module.numbered)
    indices[at] = len(run.numbers) - 1 - indices[at]
    numbered[at] = NumberedName("", numbered[at].number, numbered[at].siblings)
    return replace(module, indices=tuple(indices), numbered=tuple(numbered))
