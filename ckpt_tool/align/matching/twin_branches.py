"""Equal subtrees side by side, such as two towers: which is which, only their names can tell."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ckpt_tool.align.matching.matching import Matches
from ckpt_tool.align.naming.modules import ModuleTensors, Names
from ckpt_tool.align.naming.vocabulary import stem_and_number, words_of

MIN_MODULES = 3


def uncertain_branches(
    modules: tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]],
    matches: Matches,
    hints: Sequence[tuple[int, int]],
) -> set[tuple[int, int]]:
    """The pairs of modules inside equal subtrees whose names have nothing in common that the others'
    haven't.
    """
    partners = _partners(modules, matches)
    hinted = {path for i, _ in hints for path in _above(modules[0][i].names)}
    doubtful: list[Names] = []
    for group in _equal_siblings(modules[0]):
        told = [
            path
            for path in group
            if path in partners and _is_told(path, partners[path], group, partners)
        ]
        if len(told) < len(group) - 1 and not hinted.intersection(group):
            doubtful += [path for path in group if path not in told]
    found = set()
    for match in matches.found:
        names = modules[0][match.source].names
        if any(names[: len(path)] == path for path in doubtful):
            found.add((match.source, match.target))
    return found


def _above(names: Names) -> list[Names]:
    return [names[:depth] for depth in range(1, len(names))]


def _partners(
    modules: tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]], matches: Matches
) -> dict[Names, Names]:
    """For each path of the source the outermost path of the target that has all of its pairs."""
    met: dict[Names, Counter[Names]] = defaultdict(Counter)
    for match in matches.found:
        target = _above(modules[1][match.target].names)
        for path in _above(modules[0][match.source].names):
            met[path].update(target)
    sizes = Counter(
        path for match in matches.found for path in _above(modules[1][match.target].names)
    )
    partners = {}
    for path, counts in met.items():
        if not counts:
            continue
        most = max(counts.values())
        partners[path] = min(
            (other for other, count in counts.items() if count == most),
            key=lambda other: (sizes[other], len(other)),
        )
    return partners


def _equal_siblings(modules: Sequence[ModuleTensors]) -> list[list[Names]]:
    """Groups of subtrees that stand side by side and hold the same, without those that are
    numbered.
    """
    contents: dict[Names, Counter[object]] = defaultdict(Counter)
    for module in modules:
        for path in _above(module.names):
            contents[path][module.names[len(path) :], module.shapes] += 1
    groups: dict[object, list[Names]] = defaultdict(list)
    for path, content in contents.items():
        if content.total() >= MIN_MODULES and stem_and_number(path[-1]) is None:
            groups[path[:-1], frozenset(content.items())].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _is_told(
    path: Names, other: Names, group: Sequence[Names], partners: Mapping[Names, Names]
) -> bool:
    """Whether a path has its partner's name, or shares a word with it that no other path of the
    group does, nor it with theirs.
    """
    if path[-1] == other[-1] and all(each[-1] != path[-1] for each in group if each != path):
        return True
    shared = _words(path) & _words(other)
    rivals = [(each, partners[each]) for each in group if each != path and each in partners]
    return bool(
        shared - {word for each, target in rivals for word in _words(each) | _words(target)}
    )


def _words(path: Names) -> set[str]:
    return {word for name in path for word in words_of(name)}
