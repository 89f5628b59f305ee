"""Keys of a target that are one tensor (tied weights): in a model, what one of them gets, all of them have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.tensors import Catalog

MOST_NOTES = 20


def ties(catalog: Catalog) -> dict[str, list[str]]:
    """Groups of keys that are one tensor, by what their `same_as` names, which may be a tensor of the file that is not in the catalog."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, info in catalog.items():
        if info.same_as is not None:
            groups[info.same_as].append(key)
    return {first: [first, *others] if first in catalog else others for first, others in groups.items()}


def tied_with(catalog: Catalog, mapped: Iterable[str], free: Iterable[str]) -> dict[str, list[str]]:
    """For keys that are mapped, the free keys that are the same tensor; each of these once."""
    groups, sought, found = ties(catalog), frozenset(free), {}
    for key in mapped if groups else ():
        if others := [other for other in groups.pop(catalog[key].same_as or key, ()) if other in sought]:
            found[key] = others
    return found


def tie_notes(plan: Plan) -> list[str]:
    """What is said of keys that are one tensor in the target, and don't get one value."""
    notes = list(_notes(plan)) if plan.target is not None else []
    more = len(notes) - MOST_NOTES
    return [*notes[:MOST_NOTES], f"{more} more tied keys of the target don't get what they are tied to"] if more > 0 else notes


def _notes(plan: Plan) -> Iterator[str]:
    assert plan.target is not None
    kept = frozenset(plan.kept)
    for group in ties(plan.target).values():
        mapped = [key for key in group if key in plan.producers]
        for key in group if mapped else ():
            if key in kept:
                fact = f"`{key}` is kept, but the target ties it to `{mapped[0]}`, which is mapped"
                yield f"{fact}: a model that ties them has what is loaded last"
        for key in mapped[1:]:
            if value_of(plan, key) != value_of(plan, mapped[0]):
                fact = f"`{key}` is mapped from elsewhere than `{mapped[0]}`, which the target ties it to"
                yield f"{fact}: a model that ties them has what is loaded last"


def value_of(plan: Plan, key: str) -> object:
    """Equal for two keys that are sure to get the same value."""
    step: Step = plan.producers[key][0]
    inputs = tuple(plan.source[name].same_as or name for name in step.inputs)
    is_one_for_all = len(step.outputs) == 1 or any(op.name == "copy" for op in step.ops)
    return inputs, tuple(op for op in step.ops if op.name != "copy"), 0 if is_one_for_all else step.outputs.index(key)
