"""Order as evidence: which modules stand on the best common path through two sequences, and which
only on one of several.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ckpt_tool.align.matching.similarity import Candidate
from ckpt_tool.align.naming.modules import ModuleTensors, Names, block_of

MAX_CELLS = 500_000
MAX_OF_A_BLOCK = 0.8
_EQUAL = 1e-6


def on_common_path(
    source: Sequence[ModuleTensors],
    target: Sequence[ModuleTensors],
    scores: Mapping[Candidate, float],
) -> dict[Candidate, float]:
    """1 for each pair that every best common subsequence has, a half for those that only some have.

    Equal matrices in a row (q, k, v, o) count as one: nothing says that two libraries list them in
    one order.
    """
    if not source or not target or len(source) * len(target) > MAX_CELLS:
        return {}
    forward = _lengths(len(source), len(target), scores)
    mirrored = {
        (len(source) - 1 - i, len(target) - 1 - j): score for (i, j), score in scores.items()
    }
    backward = _lengths(len(source), len(target), mirrored)
    best = forward[-1][-1]
    on = [
        (i, j)
        for (i, j), score in scores.items()
        if forward[i][j] + score + backward[len(source) - 1 - i][len(target) - 1 - j]
        > best - _EQUAL
    ]
    return _with_runs(source, target, on, scores)


def within_blocks(
    source: Sequence[ModuleTensors],
    target: Sequence[ModuleTensors],
    pairs: Iterable[Candidate],
    scores: Mapping[Candidate, float],
) -> dict[Candidate, float]:
    """The same for each two blocks of which nearly all modules are paired with each other: nothing
    that stands around them matters.
    """
    blocks = tuple(_blocks(side) for side in (source, target))
    met = Counter((block_of(source[i].parent), block_of(target[j].parent)) for i, j in pairs)
    found: dict[Candidate, float] = {}
    for (from_source, from_target), count in met.items():
        a, b = blocks[0][from_source], blocks[1][from_target]
        if (
            from_source
            and from_target
            and MAX_OF_A_BLOCK * max(len(a), len(b)) <= count
            and count > 2
        ):
            known = {
                (x, y): scores[i, j]
                for x, i in enumerate(a)
                for y, j in enumerate(b)
                if (i, j) in scores
            }
            order = on_common_path([source[i] for i in a], [target[j] for j in b], known)
            found |= {(a[x], b[y]): order.get((x, y), 0.0) for x, y in known}
    return found


def _blocks(modules: Sequence[ModuleTensors]) -> dict[Names, list[int]]:
    found: dict[Names, list[int]] = defaultdict(list)
    for module in modules:
        found[block_of(module.parent)].append(module.place)
    return found


def _lengths(rows: int, columns: int, scores: Mapping[Candidate, float]) -> list[list[float]]:
    """The best sums over the first i and the first j modules."""
    by_row: dict[int, dict[int, float]] = {}
    for (i, j), score in scores.items():
        by_row.setdefault(i, {})[j] = score
    table = [[0.0] * (columns + 1)]
    for i in range(rows):
        above, found, row, last = table[-1], by_row.get(i, {}), [0.0], 0.0
        for j in range(columns):
            last = max(last, above[j + 1], above[j] + found[j] if j in found else 0.0)
            row.append(last)
        table.append(row)
    return table


def _with_runs(
    source: Sequence[ModuleTensors],
    target: Sequence[ModuleTensors],
    on: Sequence[Candidate],
    scores: Mapping[Candidate, float],
) -> dict[Candidate, float]:
    from_source, from_target = _runs(source), _runs(target)
    met: dict[int, set[int]] = {}
    for i, j in on:
        met.setdefault(from_source[i], set()).add(from_target[j])
    met_by: dict[int, set[int]] = {}
    for run, others in met.items():
        for other in others:
            met_by.setdefault(other, set()).add(run)
    found = {}
    for i, j in scores:
        if from_target[j] in met.get(from_source[i], ()):
            found[i, j] = (
                1.0 if len(met[from_source[i]]) == len(met_by[from_target[j]]) == 1 else 0.5
            )
    return found


def _runs(modules: Sequence[ModuleTensors]) -> list[int]:
    """For each module the number of its run: equal matrices side by side are one."""
    runs: list[int] = []
    for place, module in enumerate(modules):
        before = modules[place - 1] if place else None
        is_same = before is not None and before.shapes == module.shapes and _is_matrix(module)
        runs.append(runs[-1] if is_same else place)
    return runs


def _is_matrix(module: ModuleTensors) -> bool:
    return all(len(shape) == 2 for role, shape in module.shapes if role == "weight")
