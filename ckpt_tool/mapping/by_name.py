"""A plan by equal names: the same key, the same shape, after one prefix that one side has and the
other lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import ckpt_tool.ops
from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.frozen import frozen
from ckpt_tool.keys import fold
from ckpt_tool.keys.prefix import Prefix, unique_prefix
from ckpt_tool.keys.relations import prefix_rules
from ckpt_tool.mapping.accounting.account import NOTHING_NAMED, Pairing, account, without_named
from ckpt_tool.mapping.accounting.coverage import tally_of
from ckpt_tool.mapping.accounting.dtypes import DTypePolicy
from ckpt_tool.mapping.accounting.heads import ShapeMismatch, are_heads, has_shape_of_a_table
from ckpt_tool.mapping.accounting.ties import tied_with
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.accounting.wrappers import wrapper_names, wrapper_prefix
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.tensors import Catalog, counted, shape_text
from ckpt_tool.wording import named

MAX_NOTES = 12


def plan_by_name(
    source: Catalog,
    target: Catalog,
    dtypes: DTypePolicy = "strict",
    named: RuleSet = NOTHING_NAMED,
    excuses_heads: bool = True,
) -> Plan:
    """Pairs keys that are equal, or equal but for a prefix, when their shapes are too.

    A key that the source lacks, but that is one tensor with another key of the target, gets what
    that one gets. Heads for another number of classes stay fresh, if nothing else is left, unless
    heads are not to be excused; everything else that pairs with nothing must be `named`. Raises
    RuleError for keys that are neither mapped nor named, and when nothing pairs.
    """
    open_source, open_target = without_named(named, source, target)
    naming = name_keys(open_source, open_target, (source, target))
    pairs, mismatches = _pairs(naming, open_source, open_target)
    if not pairs:
        raise RuleError(
            [nothing_pairs(open_source, open_target)],
            tally_of((), open_target, keys_of(open_source), target),
        )
    steps, tied = _steps(pairs, open_target)
    heads = _Heads(mismatches, open_source, open_target)
    are_excused = excuses_heads and heads.are_all_that_is_left(pairs.values(), {*pairs, *tied})
    shapes = list(_shape_notes(mismatches, open_target))
    if are_excused or named.rest_target == "keep":
        fresh, remarks = [f"{line}; stays fresh" for line in shapes], []
    else:
        fresh, remarks = [], [*shapes, *_fit_notes(mismatches, open_source, target)]
    notes = [*naming.notes, *fresh, *_tie_notes(tied)]
    excused = (heads.sources, heads.targets) if are_excused else ((), ())
    pairing = Pairing(steps, notes, remarks, excused, naming.name_of)
    return account(pairing, named, source, target, dtypes)


def _pairs(
    naming: Naming, source: Catalog, target: Catalog
) -> tuple[dict[str, str], list[ShapeMismatch]]:
    """The source key of each target key whose name and shape agree; and the pairs whose shapes
    don't.
    """
    origins = {name: key for key in source if (name := naming.name_of(key)) is not None}
    pairs: dict[str, str] = {}
    mismatches: list[ShapeMismatch] = []
    for key, info in target.items():
        origin = origins.get(key)
        if origin is None:
            continue
        shape = source[origin].shape
        if shape == info.shape:
            pairs[key] = origin
        else:
            mismatches.append(ShapeMismatch(origin, key, shape, info.shape))
    return pairs, mismatches


@frozen
class _Heads:
    """Pairs by name whose shapes differ, which may be heads for other classes."""

    mismatches: Sequence[ShapeMismatch]
    source: Catalog
    target: Catalog

    @property
    def sources(self) -> set[str]:
        return {each.source for each in self.mismatches}

    @property
    def targets(self) -> set[str]:
        return {each.target for each in self.mismatches}

    def are_all_that_is_left(self, taken: Iterable[str], made: Collection[str]) -> bool:
        """Whether there are some, all are heads, and all other keys are `taken` or `made`."""
        if not self.mismatches:
            return False
        accounted, produced = {*taken, *self.sources}, {*made, *self.targets}
        return (
            all(key in accounted for key in keys_of(self.source))
            and all(key in produced for key in self.target)
            and are_heads(self.mismatches, self.source, self.target)
        )


def _steps(pairs: Mapping[str, str], target: Catalog) -> tuple[list[Step], dict[str, str]]:
    """A step for each source key, and for target keys that are one tensor with a paired one, which
    that is.
    """
    tied = tied_with(target, pairs, target.keys() - pairs.keys())
    origin = Origin("name")
    steps = []
    for key, name in pairs.items():
        outputs = (key, *tied.get(key, ()))
        ops = (ckpt_tool.ops.Copy(len(outputs)),) if len(outputs) > 1 else ()
        steps.append(Step((name,), outputs, ops, origin))
    return steps, {other: key for key, others in tied.items() for other in others}


@frozen
class Naming:
    """What the target calls a key of the source, and what is said of prefixes that differ."""

    name_of: Callable[[str], str | None]
    notes: tuple[str, ...] = ()


def name_keys(
    source: Catalog, target: Catalog, whole: tuple[Catalog, Catalog] | None = None
) -> Naming:
    """How the names of two catalogs relate: equal, or equal but for wrappers' prefixes and one
    other that most keys have. `whole` are the two with the keys that are left out here, of which
    the notes count how many have a prefix.
    """
    wrapper, target_wrapper = wrapper_prefix(keys_of(source)), wrapper_prefix(keys_of(target))
    if wrapper == target_wrapper:
        wrapper = target_wrapper = ""
    cuts = wrapper, target_wrapper
    plain = [
        {key[len(cut) :]: info.shape for key, info in catalog.items()}
        for catalog, cut in zip((source, target), cuts, strict=True)
    ]
    prefix = unique_prefix(*plain)
    whole = whole or (source, target)
    return Naming(
        lambda key: _renamed(key[len(wrapper) :], prefix, target_wrapper),
        tuple(_prefix_notes(prefix, cuts, whole)),
    )


def _renamed(key: str, prefix: Prefix, before: str) -> str | None:
    name = prefix.renamed(key)
    return None if name is None else before + name


def _prefix_notes(
    prefix: Prefix, cuts: tuple[str, str], whole: tuple[Catalog, Catalog]
) -> Iterator[str]:
    """What is left out at the beginning of names: wrappers' prefixes, then the other."""
    sides = ("source", "target")
    for side, text, catalog in zip(sides, cuts, whole, strict=True):
        if text:
            yield _prefix_note(side, text, f" ({wrapper_names(text)})", list(catalog))
    for side, text, cut, catalog in zip(
        sides, (prefix.strip, prefix.add), cuts, whole, strict=True
    ):
        if text:
            yield _prefix_note(side, text, "", [key.removeprefix(cut) for key in catalog])


def _prefix_note(side: str, text: str, owner: str, keys: Sequence[str]) -> str:
    count = sum(key.startswith(text) for key in keys)
    which = "every key" if count == len(keys) else f"{count:,} of {len(keys):,} keys"
    begins = "begins" if count in (1, len(keys)) else "begin"
    return f"{which} of the {side} {begins} with `{text}`{owner}; paired without it"


def _shape_notes(mismatches: Sequence[ShapeMismatch], target: Catalog) -> Iterator[str]:
    """A line for each pattern of keys whose shapes differ alike."""
    known = {each.target: each for each in mismatches}
    folds = fold(
        {each.target: (each.source_shape, each.target_shape) for each in mismatches}, target
    )
    for one in folds[:MAX_NOTES]:
        first, count = known[one.keys[0]], len(one.keys)
        name = f"{named(one.pattern)} ({count})" if count > 1 else named(one.keys[0])
        source_shape, target_shape = shape_text(first.source_shape), shape_text(first.target_shape)
        yield f"{name}: {source_shape} in the source, {target_shape} in the target"
    if len(folds) > MAX_NOTES:
        more = counted(len(folds) - MAX_NOTES, "more pattern")
        yield f"{more} of keys with another shape in the target"


def _fit_notes(mismatches: Sequence[ShapeMismatch], source: Catalog, target: Catalog) -> list[str]:
    """What adapts the first of them that something adapts."""
    if not mismatches:
        return []
    from ckpt_tool.mapping.accounting.shape_mismatches import fit_note

    for each in mismatches[:MAX_NOTES]:
        are_words = has_shape_of_a_table(each.source, source)
        shapes = each.source_shape, each.target_shape
        if found := fit_note(each.target, *shapes, target, are_words):
            return found
    return []


def _tie_notes(tied: Mapping[str, str]) -> Iterator[str]:
    for other, key in list(tied.items())[:MAX_NOTES]:
        yield f"{named(other)} is tied to {named(key)} in the target, and gets the same"
    if len(tied) > MAX_NOTES:
        yield f"{len(tied) - MAX_NOTES} more get the same as what they are tied to in the target"


def nothing_pairs(source: Catalog, target: Catalog) -> Problem:
    """The problem that no key of the source is a key of the target, with a rule to try where a
    prefix explains it.
    """
    rules, count = prefix_rules(source, target)
    notes = [_prefix_remedy(rules, count)] if rules else list(_first_keys(source, target))
    message = "no key has the same name and shape on both sides"
    return Problem("nothing-pairs", message, None, tuple(notes))


def _prefix_remedy(rules: Sequence[str], count: int) -> str:
    """What pairs keys, for a person to choose where several prefixes do as well."""
    first, *others = (f"-e '{rule}'" for rule in rules)
    pairs = f"pairs {counted(count, 'key')}"
    return (
        f"{first} {pairs}; so does {', and so does '.join(others)}"
        if others
        else f"{first} {pairs}"
    )


def _first_keys(source: Catalog, target: Catalog) -> Iterator[str]:
    """A key of each side, then the sides that have none."""
    sides = {"source": keys_of(source), "target": keys_of(target)}
    yield from (f"a key of the {side}: {keys[0]}" for side, keys in sides.items() if keys)
    yield from (f"the {side} has no keys" for side, keys in sides.items() if not keys)
