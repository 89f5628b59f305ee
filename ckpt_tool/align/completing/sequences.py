"""Members of a sequence that are left, where the others tell which number becomes which."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from ckpt_tool.align.matching.similarity import Candidate
from ckpt_tool.align.naming.modules import ModuleTensors, Names, pattern_of
from ckpt_tool.align.naming.vocabulary import stem_and_number

Sides = tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]]
Numbers = tuple[int, ...]


def sequence_completions(
    modules: Sides,
    free: tuple[Collection[int], Collection[int]],
    similarities: Mapping[Candidate, float],
    paired: Iterable[Candidate],
) -> list[Candidate]:
    """Pairs of free modules that stand to each other as at least two paired ones of the same names
    without numbers do.
    """
    kinds = [_Kinds(side) for side in modules]
    met: dict[tuple[Names, Names], list[Candidate]] = defaultdict(list)
    partners: tuple[dict[Names, set[Names]], dict[Names, set[Names]]] = (
        defaultdict(set),
        defaultdict(set),
    )
    for i, j in paired:
        a, b = pattern_of(modules[0][i].names), pattern_of(modules[1][j].names)
        met[a, b].append((i, j))
        partners[0][a].add(b)
        partners[1][b].add(a)
    found = []
    for (a, b), candidates in met.items():
        if len(candidates) < 2 or len(partners[0][a]) > 1 or len(partners[1][b]) > 1:
            continue
        step = _step([(kinds[0].numbers[i], kinds[1].numbers[j]) for i, j in candidates])
        places = {kinds[1].numbers[j]: j for j in kinds[1].members[b] if j in free[1]}
        for i in kinds[0].members[a] if step and places else ():
            other = places.get(_moved(kinds[0].numbers[i], step)) if i in free[0] else None
            if other is not None and (i, other) in similarities:
                found.append((i, other))
    return found


class _Kinds:
    """The modules of one side by their names without numbers, with the numbers that vary among these."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self.members: dict[Names, list[int]] = defaultdict(list)
        for module in modules:
            self.members[pattern_of(module.names)].append(module.place)
        self.numbers: dict[int, Numbers] = {}
        for places in self.members.values():
            every = [_numbers(modules[place].names) for place in places]
            varying = [
                spot for spot, column in enumerate(zip(*every, strict=True)) if len(set(column)) > 1
            ]
            self.numbers |= {
                place: tuple(numbers[spot] for spot in varying)
                for place, numbers in zip(places, every, strict=True)
            }


def _numbers(names: Names) -> list[int]:
    return [found[1] for name in names if (found := stem_and_number(name))]


Step = tuple[tuple[int, int], ...]
"""For each number what it is multiplied with, 1 or -1, and what is added."""


def _step(pairs: Sequence[tuple[Numbers, Numbers]]) -> Step:
    """How all of these numbers become those; empty where no one step does it."""
    if len({len(side) for pair in pairs for side in pair}) != 1:
        return ()
    steps = []
    for column in range(len(pairs[0][0])):
        ways = [(sign, {b[column] - sign * a[column] for a, b in pairs}) for sign in (1, -1)]
        fitting = [(sign, next(iter(rests))) for sign, rests in ways if len(rests) == 1]
        if len({a[column] for a, _ in pairs}) < 2 or not fitting:
            return ()
        steps.append(fitting[0])
    return tuple(steps)


def _moved(numbers: Numbers, step: Step) -> Numbers:
    return tuple(sign * number + rest for number, (sign, rest) in zip(numbers, step, strict=True))
