"""Rules that differ in one name into one rule with a choice, `{q,k,v}`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from ckpt_tool.align.numbers import Draft, with_words
from ckpt_tool.keys import Matcher, PatternError, can_be_word, parse

MOST_WORDS = 12
"""A choice of more words is hard to read."""

Rename = tuple[str, str]


def merge_choices(renames: Sequence[Rename]) -> list[Rename]:
    """Renames with those merged that differ in one name of each side; the order of the others is kept."""
    merged = list(renames)
    while (found := _mergeable(merged)) is not None:
        places, rename = found
        merged[places[0]] = rename
        merged = [each for place, each in enumerate(merged) if place not in places[1:]]
    return merged


def _mergeable(renames: Sequence[Rename]) -> tuple[list[int], Rename] | None:
    """The first renames that can be one, with what they become."""
    alike: dict[object, list[int]] = defaultdict(list)
    for place, rename in enumerate(renames):
        for spots in _spots(rename):
            alike[_without(rename, spots)].append(place)
    for place, rename in enumerate(renames):
        for spots in _spots(rename):
            group = alike[_without(rename, spots)]
            if len(group) > 1:
                places = group[group.index(place) :]
                merged = _merged([renames[i] for i in places], spots) if 1 < len(places) <= MOST_WORDS else None
                if merged and not _has_exceptions(renames, places):
                    return places, merged
    return None


def _spots(rename: Rename) -> Iterator[tuple[int, int]]:
    """The places of a name on each side that can be a word of a choice."""
    ours, theirs = ([at for at, name in enumerate(side.split(".")) if can_be_word(name)] for side in rename)
    return product(ours, theirs)


def _without(rename: Rename, spots: tuple[int, int]) -> object:
    """The names of both sides but for one of each."""
    return tuple((*names[:at], None, *names[at + 1 :]) for names, at in zip((side.split(".") for side in rename), spots, strict=True))


def _merged(renames: Sequence[Rename], spots: tuple[int, int]) -> Rename | None:
    """One rename for several that differ at these names; None where words would stand twice."""
    sides = []
    for side, spot in enumerate(spots):
        names = [rename[side].split(".") for rename in renames]
        words = [each[spot] for each in names]
        text = ".".join((*names[0][:spot], choice(words), *names[0][spot + 1 :]))
        if len(set(words)) < len(words) or not _is_readable(text):
            return None
        sides.append(text)
    return sides[0], sides[1]


def _has_exceptions(renames: Sequence[Rename], places: Sequence[int]) -> bool:
    """Whether another rename is an exception from one of these, so that their order matters."""
    for place in places:
        stem = renames[place][0].removesuffix("**")
        if any(other.startswith(stem) for i, (other, _) in enumerate(renames) if i not in places and stem):
            return True
    return False


def choice(words: Sequence[str]) -> str:
    """`{q,k,v}_proj` for `q_proj`, `k_proj`, `v_proj`: what all begin or end with, up to an underscore, stands outside."""
    if len(set(words)) == 1:
        return words[0]
    before = _shared([word.split("_") for word in words])
    after = _shared([word.split("_")[::-1] for word in words])
    shortest = min(len(word.split("_")) for word in words)
    before, after = (before, after) if before + after < shortest else (0, min(after, shortest - 1))
    inner = ["_".join(word.split("_")[before : len(word.split("_")) - after]) for word in words]
    parts = words[0].split("_")
    head, tail = "_".join(parts[:before]), "_".join(parts[len(parts) - after :]) if after else ""
    return f"{head}{'_' if head else ''}{{{','.join(inner)}}}{'_' if tail else ''}{tail}"


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many parts all begin with."""
    return next((i for i, each in enumerate(zip(*parts, strict=False)) if len(set(each)) > 1), min(map(len, parts)))


def _is_readable(text: str) -> bool:
    try:
        Matcher(parse(text))
    except PatternError:
        return False
    return True


def merge_slots(drafts: Sequence[Draft], source_keys: Iterable[str]) -> list[Draft]:
    """Rules with ops: several patterns as a choice where they differ in one name, and last names that all have as a star."""
    keys = list(source_keys)
    return [_short(draft) for draft in _merge_leaves(drafts, keys)]


def _merge_leaves(drafts: Sequence[Draft], keys: Sequence[str]) -> list[Draft]:
    """`a.weight -> b.weight` and `a.bias -> b.bias` as one, where their ops are the same."""
    groups: dict[object, list[Draft]] = defaultdict(list)
    for draft in drafts:
        patterns = (*draft.sources, *draft.targets)
        leaves = {pattern.rpartition(".")[2] for pattern in patterns}
        stems = tuple(pattern.rpartition(".")[0] for pattern in patterns)
        places = {key: str(place) for place, key in enumerate(draft.keys)}
        is_leaf = len(leaves) == 1 and all(stems) and can_be_word(next(iter(leaves)))
        kind = (stems, len(draft.sources), tuple(with_words(op, places) for op in draft.ops)) if is_leaf else id(draft)
        groups[kind].append(draft)
    return [_with_star(group, keys) if len(group) > 1 else group[0] for group in groups.values()]


def _with_star(group: Sequence[Draft], keys: Sequence[str]) -> Draft:
    """One draft for several leaves: a star if the source has no other leaf there, else a named choice."""
    first = group[0]
    leaves = [draft.sources[0].rpartition(".")[2] for draft in group]
    star = Matcher(parse(f"{first.sources[0].rpartition('.')[0]}.*"))
    others = {key.rpartition(".")[2] for key in keys if star.match(key) is not None} - set(leaves)
    leaf = "*" if not others else f"{{leaf={','.join(leaves)}}}"
    sources, targets = (tuple(f"{pattern.rpartition('.')[0]}.{leaf}" for pattern in side) for side in (first.sources, first.targets))
    return replace(first, sources=sources, targets=targets)


def _short(draft: Draft) -> Draft:
    """Several patterns of one key each as one with a choice; the words of `each` follow."""
    words = dict(zip(draft.keys, (*draft.sources, *draft.targets), strict=True))
    sides = []
    is_collected = any("{e}" in pattern for pattern in draft.sources)
    for patterns in (draft.sources, draft.targets):
        found = _as_choice(patterns) if len(patterns) > 1 and not is_collected else None
        if found is None:
            sides.append(patterns)
            continue
        for pattern, word in zip(patterns, found[1], strict=True):
            words |= {key: word for key, text in words.items() if text == pattern}
        sides.append((found[0],))
    return Draft(sides[0], sides[1], tuple(with_words(op, words) for op in draft.ops), draft.keys)


def _as_choice(patterns: Sequence[str]) -> tuple[str, list[str]] | None:
    """One pattern for several that differ in one name, and the word that stands for each."""
    names = [pattern.split(".") for pattern in patterns]
    if len({len(each) for each in names}) > 1:
        return None
    spots = [spot for spot in range(len(names[0])) if len({each[spot] for each in names}) > 1]
    if len(spots) != 1 or not all(can_be_word(each[spots[0]]) for each in names):
        return None
    words = [each[spots[0]] for each in names]
    text = ".".join((*names[0][: spots[0]], choice(words), *names[0][spots[0] + 1 :]))
    shown = text.split(".")[spots[0]]
    inner = shown[shown.index("{") + 1 : shown.index("}")].split(",")
    return (text, inner) if len(set(words)) == len(words) and _is_readable(text) else None
