"""Equal subtrees side by side, such as two towers: which is which, only their names can tell."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, is_below, numberless_names, paths_above
from ckpt_tool.align.naming.vocabulary import stem_and_number, words_of

MIN_MODULES = 3


def uncertain_branches(
    modules: Modules, matches: Sequence[Match], hints: Sequence[Candidate]
) -> set[Candidate]:
    """The pairs of modules inside equal subtrees whose names have nothing in common that the
    others' haven't.
    """
    partners = _partners(modules, matches)
    hinted = {path for i, _ in hints for path in paths_above(modules.source[i].names)}
    doubtful: list[Names] = []
    for group in _equal_siblings(modules.source):
        if _are_counted(group, partners):
            continue
        unknown = _unrecognised(group, partners)
        if len(unknown) > 1 and hinted.isdisjoint(group):
            doubtful += unknown
    names = {match.candidate: modules.source[match.source].names for match in matches}
    return {candidate for candidate, path in names.items() if _is_in_any(path, doubtful)}


def _is_in_any(names: Names, paths: Sequence[Names]) -> bool:
    return any(is_below(names, path) for path in paths)


def _partners(modules: Modules, matches: Sequence[Match]) -> dict[Names, Names]:
    """For each path of the source the outermost path of the target that has all of its pairs."""
    met: dict[Names, Counter[Names]] = defaultdict(Counter)
    sizes: Counter[Names] = Counter()
    for match in matches:
        target = paths_above(modules.target[match.target].names)
        sizes.update(target)
        for path in paths_above(modules.source[match.source].names):
            met[path].update(target)
    return {path: _outermost(counts, sizes) for path, counts in met.items() if counts}


def _outermost(counts: Mapping[Names, int], sizes: Mapping[Names, int]) -> Names:
    """Of the paths that were met most often the one that has least besides, and is the shortest."""
    most = max(counts.values())
    best = [path for path, count in counts.items() if count == most]
    return min(best, key=lambda path: (sizes[path], len(path)))


def _equal_siblings(modules: Sequence[ModuleTensors]) -> list[list[Names]]:
    """Groups of subtrees that stand side by side and hold the same."""
    contents: dict[Names, Counter[object]] = defaultdict(Counter)
    for module in modules:
        for path in paths_above(module.names):
            contents[path][module.names[len(path) :], module.shapes] += 1
    groups: dict[object, list[Names]] = defaultdict(list)
    for path, content in contents.items():
        if content.total() >= MIN_MODULES:
            groups[path[:-1], frozenset(content.items())].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _are_counted(group: Sequence[Names], partners: Mapping[Names, Names]) -> bool:
    """Whether subtrees are numbered, and their partners differ in numbers alone: numbers mean an
    order, and names none.
    """
    if not all(stem_and_number(path[-1]) for path in group):
        return False
    return len({numberless_names(partners[path]) for path in group if path in partners}) < 2


def _unrecognised(group: Sequence[Names], partners: Mapping[Names, Names]) -> list[Names]:
    return [path for path in group if not _is_recognised(path, group, partners)]


def _is_recognised(path: Names, group: Sequence[Names], partners: Mapping[Names, Names]) -> bool:
    """Whether a path has its partner's name, or shares a word with it that no other path of the
    group does, nor it with theirs.
    """
    if path not in partners:
        return False
    partner, others = partners[path], [other for other in group if other != path]
    if path[-1] == partner[-1] and all(other[-1] != path[-1] for other in others):
        return True
    taken: set[str] = set()
    for other in partners.keys() & others:
        taken |= _words(other) | _words(partners[other])
    return bool(_words(path) & _words(partner) - taken)


def _words(path: Names) -> set[str]:
    return {word for name in path for word in words_of(name)}
