"""A plan by equal names: the same key, the same shape, after one prefix that one side has and the
other lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.keys import fold
from ckpt_tool.keys.prefix import Prefix, unique_prefix
from ckpt_tool.keys.relations import prefix_rule
from ckpt_tool.mapping.accounting.account import NOTHING_NAMED, Pairing, account, without_named
from ckpt_tool.mapping.accounting.coverage import tally_of
from ckpt_tool.mapping.accounting.dtypes import DTypePolicy
from ckpt_tool.mapping.accounting.heads import ShapeMismatch, are_heads, has_shape_of_a_table
from ckpt_tool.mapping.accounting.shape_mismatches import fit_note
from ckpt_tool.mapping.accounting.ties import tied_with
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.accounting.wrappers import wrapper_names, wrapper_prefix
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.ops import Copy
from ckpt_tool.tensors import Catalog, shape_text

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
    from_source, from_target = without_named(named, source, target)
    naming = name_keys(from_source, from_target)
    names = {name: key for key in from_source if (name := naming.name_of(key)) is not None}
    pairs = {key: names[key] for key in from_target if key in names}
    shapes = (
        (name, key, from_source[name].shape, from_target[key].shape) for key, name in pairs.items()
    )
    shape_mismatches = [ShapeMismatch(*each) for each in shapes if each[2] != each[3]]
    for shape_mismatch in shape_mismatches:
        del pairs[shape_mismatch.target]
    if not pairs:
        raise RuleError(
            [nothing_pairs(source, target)], tally_of((), from_target, keys_of(from_source), target)
        )
    steps, tied = _steps(pairs, from_target)
    heads = ({each.source for each in shape_mismatches}, {each.target for each in shape_mismatches})
    are_excused = (
        bool(shape_mismatches)
        and excuses_heads
        and _is_all(heads, pairs, {*pairs, *tied}, from_source, from_target)
    )
    are_excused = are_excused and are_heads(shape_mismatches, from_source, from_target)
    told = list(_misfit_notes(shape_mismatches, from_target))
    is_told = are_excused or named.rest_target == "keep"
    notes = [
        *naming.notes,
        *(f"{line}; stays fresh" for line in told if is_told),
        *_tie_notes(tied),
    ]
    remarks = [] if is_told else [*told, *_fit_notes(shape_mismatches, from_source)]
    return account(
        Pairing(steps, notes, remarks, heads if are_excused else ((), ()), naming.name_of),
        named,
        source,
        target,
        dtypes,
    )


def _is_all(
    heads: tuple[set[str], set[str]],
    pairs: Mapping[str, str],
    made: set[str],
    source: Catalog,
    target: Catalog,
) -> bool:
    """Whether nothing else is left on either side."""
    taken = {*pairs.values()}
    from_source = all(key in taken or key in heads[0] for key in keys_of(source))
    return from_source and all(key in made or key in heads[1] for key in target)


def _steps(pairs: Mapping[str, str], target: Catalog) -> tuple[list[Step], dict[str, str]]:
    """A step for each source key, and for target keys that are one tensor with a paired one, which
    that is.
    """
    tied = tied_with(target, pairs, target.keys() - pairs.keys())
    origin = Origin("name")
    steps = []
    for key, name in pairs.items():
        outputs = (key, *tied.get(key, ()))
        steps.append(
            Step((name,), outputs, (Copy(len(outputs)),) if len(outputs) > 1 else (), origin)
        )
    return steps, {other: key for key, others in tied.items() for other in others}


@dataclass(frozen=True, slots=True)
class Naming:
    """What the target calls a key of the source, and what is said of prefixes that differ."""

    name_of: Callable[[str], str | None]
    notes: tuple[str, ...] = ()


def name_keys(source: Catalog, target: Catalog) -> Naming:
    """How the names of two catalogs relate: equal, or equal but for wrappers' prefixes and one
    other that most keys have.
    """
    from_source, from_target = wrapper_prefix(keys_of(source)), wrapper_prefix(keys_of(target))
    if from_source == from_target:
        from_source = from_target = ""
    notes = [
        f"every key of the {side} begins with `{prefix}` ({wrapper_names(prefix)}); paired without it"
        for side, prefix in (("source", from_source), ("target", from_target)) if prefix
    ]  # fmt: skip
    plain = [
        {key[len(cut) :]: info.shape for key, info in side.items()}
        for side, cut in ((source, from_source), (target, from_target))
    ]
    prefix = unique_prefix(*plain)
    return Naming(
        lambda key: _renamed(key[len(from_source) :], prefix, from_target),
        (*notes, *_prefix_note(prefix, *plain)),
    )


def _renamed(key: str, prefix: Prefix, before: str) -> str | None:
    name = prefix.renamed(key)
    return None if name is None else before + name


def _prefix_note(
    prefix: Prefix, source: Mapping[str, object], target: Mapping[str, object]
) -> Iterator[str]:
    for text, side, keys in ((prefix.strip, "source", source), (prefix.add, "target", target)):
        if text:
            count = sum(key.startswith(text) for key in keys)
            which = "every key" if count == len(keys) else f"{count:,} of {len(keys):,} keys"
            begins = "begins" if count == len(keys) else "begin"
            yield f"{which} of the {side} {begins} with `{text}`; paired without it"


def _misfit_notes(shape_mismatches: Sequence[ShapeMismatch], target: Catalog) -> Iterator[str]:
    """A line for each pattern of keys whose shapes differ alike."""
    known = {each.target: each for each in shape_mismatches}
    folds = fold(
        {each.target: (each.source_shape, each.target_shape) for each in shape_mismatches}, target
    )
    for one in folds[:MAX_NOTES]:
        first, many = known[one.keys[0]], f" ({len(one.keys)})" if len(one.keys) > 1 else ""
        name = one.pattern if len(one.keys) > 1 else one.keys[0]
        yield f"`{name}`{many}: {shape_text(first.source_shape)} in the source, {shape_text(first.target_shape)} in the target"
    if len(folds) > MAX_NOTES:
        yield f"{len(folds) - MAX_NOTES} more patterns of keys have another shape in the target"


def _fit_notes(shape_mismatches: Sequence[ShapeMismatch], source: Catalog) -> list[str]:
    """What adapts the first of them."""
    if not shape_mismatches:
        return []
    first = shape_mismatches[0]
    return fit_note(
        first.target,
        first.source_shape,
        first.target_shape,
        has_shape_of_a_table(first.source, source),
    )


def _tie_notes(tied: Mapping[str, str]) -> Iterator[str]:
    for other, key in list(tied.items())[:MAX_NOTES]:
        yield f"`{other}` is tied to `{key}` in the target, and gets the same"
    if len(tied) > MAX_NOTES:
        yield f"{len(tied) - MAX_NOTES} more get the same as what they are tied to in the target"


def nothing_pairs(source: Catalog, target: Catalog) -> Problem:
    """The problem that no key of the source is a key of the target, with a rule to try where a
    prefix explains it.
    """
    rule = prefix_rule(source, target)
    notes = (
        [
            f"{f'all {rule[1]} keys that pair do' if rule[1] > 1 else 'the one key that pairs does'} so after -e '{rule[0]}'"
        ]
        if rule
        else []
    )
    if not rule:
        sides = (("source", source), ("target", target))
        notes = [f"a key of the {side}: {key}" for side, keys in sides for key in keys_of(keys)[:1]]
        notes += [f"the {side} has no keys" for side, keys in sides if not keys_of(keys)]
    return Problem(
        "nothing-pairs",
        "no key of the source is a key of the target with the same shape",
        None,
        tuple(notes),
    )
