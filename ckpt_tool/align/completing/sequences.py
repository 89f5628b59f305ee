"""Members of a sequence that are left, where the others tell which number becomes which."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, Numbers, numbers_of, pattern_of
from ckpt_tool.align.sides import Sides


def sequence_completions(
    modules: Modules,
    free: Sides[set[int]],
    candidates: Collection[Candidate],
    paired: Iterable[Candidate],
) -> list[Candidate]:
    """Those `candidates` of free modules that stand to each other as at least two paired ones of
    the same names without numbers do.
    """
    source, target = modules.map(_Kinds)
    found = []
    for (a, b), pairs in _only_partners(modules, paired).items():
        steps = _steps([(source.numbers[i], target.numbers[j]) for i, j in pairs])
        places = {target.numbers[j]: j for j in target.members[b] if j in free.target}
        members = free.source.intersection(source.members[a]) if steps and places else ()
        for i in sorted(members):
            other = places.get(_moved(source.numbers[i], steps))
            if other is not None and (i, other) in candidates:
                found.append((i, other))
    return found


def _only_partners(
    modules: Modules, paired: Iterable[Candidate]
) -> dict[tuple[Names, Names], list[Candidate]]:
    """The pairs of two kinds that have at least two of them, and none with others."""
    met: dict[tuple[Names, Names], list[Candidate]] = defaultdict(list)
    partners: Sides[dict[Names, set[Names]]] = Sides(defaultdict(set), defaultdict(set))
    for i, j in paired:
        a, b = pattern_of(modules.source[i].names), pattern_of(modules.target[j].names)
        met[a, b].append((i, j))
        partners.source[a].add(b)
        partners.target[b].add(a)
    return {
        (a, b): pairs
        for (a, b), pairs in met.items()
        if len(pairs) > 1 and len(partners.source[a]) == len(partners.target[b]) == 1
    }


class _Kinds:
    """The modules of one side by their names without numbers, with the numbers that vary."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self.members: dict[Names, list[int]] = defaultdict(list)
        for module in modules:
            self.members[pattern_of(module.names)].append(module.place)
        self.numbers: dict[int, Numbers] = {}
        for places in self.members.values():
            every = [numbers_of(modules[place].names) for place in places]
            columns = [
                at for at, column in enumerate(zip(*every, strict=True)) if len(set(column)) > 1
            ]
            for place, numbers in zip(places, every, strict=True):
                self.numbers[place] = tuple(numbers[at] for at in columns)


Step = tuple[int, int]
"""What a number is multiplied with, 1 or -1, and what is added."""


def _steps(pairs: Sequence[tuple[Numbers, Numbers]]) -> tuple[Step, ...]:
    """How all of these numbers become those, number by number; empty where no one step does it."""
    if len({len(side) for pair in pairs for side in pair}) != 1:
        return ()
    columns = zip(
        zip(*(a for a, _ in pairs), strict=True),
        zip(*(b for _, b in pairs), strict=True),
        strict=True,
    )
    steps = [next(_fitting_steps(*column), None) for column in columns]
    found = tuple(step for step in steps if step is not None)
    return found if len(found) == len(steps) else ()


def _fitting_steps(source: Sequence[int], target: Sequence[int]) -> Iterator[Step]:
    """The steps that make several numbers others."""
    for sign in (1, -1) if len(set(source)) > 1 else ():
        added = {b - sign * a for a, b in zip(source, target, strict=True)}
        if len(added) == 1:
            yield sign, added.pop()


def _moved(numbers: Numbers, steps: Sequence[Step]) -> Numbers:
    return tuple(
        sign * number + added for number, (sign, added) in zip(numbers, steps, strict=True)
    )
