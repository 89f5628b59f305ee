"""How sure a pair of modules is, and what speaks for it."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from ckpt_tool.align.matching.matching import Match
from ckpt_tool.align.matching.similarity import Candidate, numberless
from ckpt_tool.align.naming.modules import ModuleTensors, Names
from ckpt_tool.align.naming.vocabulary import stem_and_number

SAME_KEYS, AS_ITS_SIBLINGS = 0.97, 0.93

Sides = tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]]


def confidences(modules: Sides, matches: Sequence[Match]) -> dict[Candidate, float]:
    """How sure each match is: by itself, by keys that are the same, and by what its siblings in
    other blocks are paired with.
    """
    found = {(match.source, match.target): confidence_of(match) for match in matches}
    groups: dict[tuple[Names, Names], list[Candidate]] = defaultdict(list)
    for i, j in found:
        source, target = modules[0][i], modules[1][j]
        if source.keys.values() and set(source.keys.values()) == set(target.keys.values()):
            found[i, j] = max(found[i, j], SAME_KEYS)
        groups[numberless(source.names), numberless(target.names)].append((i, j))
    for group in groups.values():
        if 2 * sum(found[candidate] >= AS_ITS_SIBLINGS for candidate in group) >= len(
            group
        ) and _in_one_order(modules, group):
            found |= {candidate: max(found[candidate], AS_ITS_SIBLINGS) for candidate in group}
    return found


def _in_one_order(modules: Sides, group: Sequence[Candidate]) -> bool:
    numbers = sorted(
        (_numbers(modules[0][i].names), _numbers(modules[1][j].names)) for i, j in group
    )
    return all(a[1] < b[1] for a, b in pairwise(numbers))


def _numbers(names: Names) -> list[int]:
    return [found[1] for name in names if (found := stem_and_number(name))]


def confidence_of(match: Match) -> float:
    """How often pairs with such evidence are right, by what real conversions showed; docs/align.md
    has the table.
    """
    if match.exchange < (0.3 if match.words >= 0.5 else 0.4):
        return 0.75
    support = 0.5 * match.words + 0.4 * match.votes + 0.1 * match.order
    if match.margin < 0.2:
        return 0.95 if support > 0.8 else 0.75
    if match.margin < 0.35:
        return 0.97 if support > 0.6 else 0.93
    return 0.99 if support > 0.4 else 0.95


def evidence_of(match: Match) -> str:
    said = []
    if match.words >= 0.5:
        said.append("names agree" if match.words > 0.8 else "names agree in part")
    if match.votes >= 0.5:
        said.append("what stands around is paired likewise")
    if match.order >= 0.9:
        said.append("the order agrees")
    return ", ".join(["shapes agree", *said])
