"""Order as evidence: which modules stand on the best common path through two sequences, and which
on one of several.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, block_of
from ckpt_tool.align.naming.spellings import WEIGHT
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS

MAX_CELLS = 500_000
"""Pairs of places of two sequences, which time and memory grow with; of more, no order is known."""
_EQUAL = 1e-6


def on_common_path(modules: Modules, scores: Mapping[Candidate, float]) -> dict[Candidate, float]:
    """1 for each pair on a best common subsequence if neither of its modules has another pair on
    one, else a half.

    Equal matrices in a row (q, k, v, o) count as one: nothing shows that two libraries list them in
    one order.
    """
    rows, columns = map(len, modules)
    if not rows or not columns or rows * columns > MAX_CELLS:
        return {}
    forward = _lengths(rows, columns, scores)
    mirrored = {(rows - 1 - i, columns - 1 - j): score for (i, j), score in scores.items()}
    backward = _lengths(rows, columns, mirrored)
    least = forward[-1][-1] - _EQUAL
    on_a_best_path = [
        (i, j)
        for (i, j), score in scores.items()
        if forward[i][j] + score + backward[rows - 1 - i][columns - 1 - j] > least
    ]
    return _with_runs(modules, on_a_best_path, scores)


def within_blocks(
    modules: Modules, pairs: Iterable[Candidate], scores: Mapping[Candidate, float]
) -> dict[Candidate, float]:
    """The same for each two blocks of which nearly all modules are paired with each other: nothing
    that stands around them matters.
    """
    source, target = modules
    blocks = modules.map(_blocks)
    met = Counter((block_of(source[i].parent), block_of(target[j].parent)) for i, j in pairs)
    found: dict[Candidate, float] = {}
    for (a, b), count in met.items():
        rows, columns = blocks.source[a], blocks.target[b]
        most = max(len(rows), len(columns))
        if a and b and count > 2 and WEIGHTS.same_block * most <= count:
            inside = _inside(rows, columns, scores)
            block = Sides([source[i] for i in rows], [target[j] for j in columns])
            order = on_common_path(block, inside)
            found |= {(rows[x], columns[y]): order.get((x, y), 0.0) for x, y in inside}
    return found


def _inside(
    rows: Sequence[int], columns: Sequence[int], scores: Mapping[Candidate, float]
) -> dict[Candidate, float]:
    """The scores of the modules of two blocks, by their places in these."""
    return {
        (x, y): scores[i, j]
        for x, i in enumerate(rows)
        for y, j in enumerate(columns)
        if (i, j) in scores
    }


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
    modules: Modules, on: Sequence[Candidate], scores: Mapping[Candidate, float]
) -> dict[Candidate, float]:
    """1 for each pair of runs that meet each other alone, a half for those that meet several."""
    runs = modules.map(_runs)
    partners: Sides[dict[int, set[int]]] = Sides(defaultdict(set), defaultdict(set))
    for i, j in on:
        a, b = runs.source[i], runs.target[j]
        partners.source[a].add(b)
        partners.target[b].add(a)
    found = {}
    for i, j in scores:
        a, b = runs.source[i], runs.target[j]
        if b in partners.source.get(a, ()):
            is_alone = len(partners.source[a]) == len(partners.target[b]) == 1
            found[i, j] = 1.0 if is_alone else WEIGHTS.several_paths
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
    return all(len(shape) == 2 for role, shape in module.shapes if role == WEIGHT)
