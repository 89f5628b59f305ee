"""Keys of a target that are one tensor (tied weights): in a model, what one of them gets, all of
them have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ckpt_tool.keys import Fold, fold
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import Catalog, counted
from ckpt_tool.wording import named

MAX_NOTES = 20


def ties(catalog: Catalog) -> dict[str, list[str]]:
    """Groups of keys that are one tensor, by what their `tied_to` names, which may be a tensor of
    the file that is not in the catalog.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key, info in catalog.items():
        if info.tied_to is not None:
            groups[info.tied_to].append(key)
    return {
        first: [first, *others] if first in catalog else others for first, others in groups.items()
    }


def tied_with(catalog: Catalog, mapped: Iterable[str], free: Iterable[str]) -> dict[str, list[str]]:
    """For keys that are mapped, the free keys that are the same tensor; each of these once."""
    groups, sought, found = ties(catalog), frozenset(free), {}
    for key in mapped if groups else ():
        if others := [
            other for other in groups.pop(catalog[key].tied_to or key, ()) if other in sought
        ]:
            found[key] = others
    return found


def tie_notes(plan: Plan) -> list[str]:
    """What is said of keys that are one tensor in the target, and don't get one value: one line a
    pattern.
    """
    facts = dict(_facts(plan)) if plan.target is not None else {}
    folds = (
        fold({key: is_kept for key, (is_kept, _) in facts.items()}, plan.target or ())
        if facts
        else []
    )
    notes = [_note(one, *facts[one.keys[0]]) for one in folds]
    more = sum(len(one.keys) for one in folds[MAX_NOTES:])
    verb, them = ("does", "it") if more == 1 else ("do", "them")
    tied = f"{counted(more, 'more tied key')} of the target"
    ends = f"{tied} {verb} not get what the target ties {them} to"
    return [*notes[:MAX_NOTES], ends] if more else notes


def _facts(plan: Plan) -> Iterator[tuple[str, tuple[bool, str]]]:
    """Keys that don't get what they are tied to: whether each is kept, and the first key of its
    tensor that is mapped.
    """
    assert plan.target is not None
    kept = frozenset(plan.kept)
    for group in ties(plan.target).values():
        mapped = [key for key in group if key in plan.producers]
        yield from ((key, (True, mapped[0])) for key in group if mapped and key in kept)
        yield from (
            (key, (False, mapped[0]))
            for key in mapped[1:]
            if plan.identities[key] != plan.identities[mapped[0]]
        )


def _note(one: Fold, is_kept: bool, other: str) -> str:
    end = "a model that ties them has what is loaded last"
    if len(one.keys) > 1:
        fact = (
            "are kept, but the target ties them to keys that are mapped"
            if is_kept
            else "are mapped from elsewhere than the keys that the target ties them to"
        )
        return f"{named(one.pattern)} ({len(one.keys):,}) {fact}: {end}"
    if is_kept:
        fact = f"is kept, but the target ties it to {named(other)}, which is mapped"
        return f"{named(one.pattern)} {fact}: {end}"
    elsewhere = f"is mapped from elsewhere than {named(other)}, which the target ties it to"
    return f"{named(one.pattern)} {elsewhere}: {end}"
