"""How sure a pair of modules is, and what speaks for it."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.naming.modules import Candidate, Modules
from ckpt_tool.align.naming.paths import Names, numberless_names, numbers_of
from ckpt_tool.align.weights import WEIGHTS


def confidences(modules: Modules, matches: Sequence[Match]) -> dict[Candidate, float]:
    """How sure each match is: by itself, by keys that are the same, and by what its siblings in
    other blocks are paired with.
    """
    found = {match.candidate: confidence_of(match) for match in matches}
    siblings: dict[tuple[Names, Names], list[Candidate]] = defaultdict(list)
    for i, j in found:
        source, target = modules.source[i], modules.target[j]
        if source.keys.values() and set(source.keys.values()) == set(target.keys.values()):
            found[i, j] = max(found[i, j], WEIGHTS.same_keys)
        kinds = numberless_names(source.names), numberless_names(target.names)
        siblings[kinds].append((i, j))
    for group in siblings.values():
        sure = sum(found[candidate] >= WEIGHTS.as_siblings for candidate in group)
        if 2 * sure >= len(group) and _are_in_one_order(modules, group):
            found |= {each: max(found[each], WEIGHTS.as_siblings) for each in group}
    return found


def _are_in_one_order(modules: Modules, group: Sequence[Candidate]) -> bool:
    """Whether the numbers of the one side rise with those of the other."""
    numbers = sorted(
        (numbers_of(modules.source[i].names), numbers_of(modules.target[j].names)) for i, j in group
    )
    return all(a[1] < b[1] for a, b in pairwise(numbers))


def confidence_of(match: Match) -> float:
    """How often pairs with such evidence are right, by what real conversions showed; docs/align.md
    has the figures.
    """
    is_named = match.words >= WEIGHTS.agreeing
    least = WEIGHTS.exchange_of_named if is_named else WEIGHTS.exchange_of_others
    if match.exchange < least:
        return WEIGHTS.open_exchange
    support = (
        WEIGHTS.support_words * match.words
        + WEIGHTS.support_neighbours * match.neighbours
        + WEIGHTS.support_order * match.order
    )
    *steps, last = WEIGHTS.confidence_steps
    step = next((step for step in steps if match.margin < step.margin), last)
    return step.sure if support > step.support else step.otherwise


def evidence_of(match: Match) -> str:
    """What speaks for a match, in words."""
    reasons = ["shapes agree"]
    if match.words >= WEIGHTS.agreeing:
        is_full = match.words > WEIGHTS.agreeing_words
        reasons.append("names agree" if is_full else "names agree in part")
    if match.neighbours >= WEIGHTS.agreeing:
        reasons.append("their neighbours are paired too")
    if match.order >= WEIGHTS.agreeing_order:
        reasons.append("the order agrees")
    return ", ".join(reasons)
