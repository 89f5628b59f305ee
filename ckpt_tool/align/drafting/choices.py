"""Rules with ops that differ in one name into one rule with a choice, `{q,k,v}`, and last names
that all have as a star.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckpt_tool.align.drafting.merging import choice, is_readable
from ckpt_tool.align.drafting.number_patterns import RuleDraft, with_words
from ckpt_tool.keys import Matcher, can_be_word, parse


def merge_slots(drafts: Sequence[RuleDraft], source_keys: Iterable[str]) -> list[RuleDraft]:
    """Rules with ops: several patterns as a choice where they differ in one name, and last names
    that all have as a star.
    """
    keys = list(source_keys)
    return [_short(draft) for draft in _merge_leaves(drafts, keys)]


def _merge_leaves(drafts: Sequence[RuleDraft], keys: Sequence[str]) -> list[RuleDraft]:
    """`a.weight -> b.weight` and `a.bias -> b.bias` as one, where their ops are the same."""
    groups: dict[object, list[RuleDraft]] = defaultdict(list)
    for draft in drafts:
        groups[_kind_but_for_leaf(draft)].append(draft)
    return [_with_star(group, keys) if len(group) > 1 else group[0] for group in groups.values()]


def _kind_but_for_leaf(draft: RuleDraft) -> object:
    """What drafts have in common that differ in their last name only; a draft's own where its
    patterns end differently.
    """
    patterns = (*draft.sources, *draft.targets)
    leaves = {pattern.rpartition(".")[2] for pattern in patterns}
    stems = tuple(pattern.rpartition(".")[0] for pattern in patterns)
    if len(leaves) > 1 or not all(stems) or not can_be_word(leaves.pop()):
        return id(draft)
    places = {key: str(place) for place, key in enumerate(draft.keys)}
    return stems, len(draft.sources), tuple(with_words(op, places) for op in draft.ops)


def _with_star(group: Sequence[RuleDraft], keys: Sequence[str]) -> RuleDraft:
    """One draft for several leaves: a star if the source has no other leaf there, else a named
    choice.
    """
    first = group[0]
    leaves = [draft.sources[0].rpartition(".")[2] for draft in group]
    star = Matcher(parse(f"{first.sources[0].rpartition('.')[0]}.*"))
    others = {key.rpartition(".")[2] for key in keys if star.match(key) is not None} - set(leaves)
    leaf = "*" if not others else f"{{leaf={','.join(leaves)}}}"
    sources, targets = (
        tuple(f"{pattern.rpartition('.')[0]}.{leaf}" for pattern in side)
        for side in (first.sources, first.targets)
    )
    return replace(first, sources=sources, targets=targets)


def _short(draft: RuleDraft) -> RuleDraft:
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
    return RuleDraft(
        sides[0], sides[1], tuple(with_words(op, words) for op in draft.ops), draft.keys
    )


def _as_choice(patterns: Sequence[str]) -> tuple[str, list[str]] | None:
    """One pattern for several that differ in one name, and the word that stands for each."""
    names = [pattern.split(".") for pattern in patterns]
    place = _differing_place(names)
    if place is None:
        return None
    words = [each[place] for each in names]
    if len(set(words)) < len(words) or not all(map(can_be_word, words)):
        return None
    name = choice(words)
    text = ".".join((*names[0][:place], name, *names[0][place + 1 :]))
    shown = text.split(".")[place]
    inner = shown[shown.index("{") + 1 : shown.index("}")].split(",")
    return (text, inner) if is_readable(text) else None


def _differing_place(names: Sequence[Sequence[str]]) -> int | None:
    """The one place in which lists of names differ; None where they differ in several, in none, or
    in length.
    """
    if len({len(each) for each in names}) > 1:
        return None
    places = [place for place, each in enumerate(zip(*names, strict=True)) if len(set(each)) > 1]
    return places[0] if len(places) == 1 else None
