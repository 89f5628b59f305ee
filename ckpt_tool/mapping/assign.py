"""Which rule takes which source key: drops first, then the first rule that matches."""

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_tool.keys import Binding, PatternSet
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.tensors import Catalog, TensorInfo


@dataclass(frozen=True, slots=True)
class Claim:
    """A source key taken by a rule: by its pattern number `side`, whose holes stand for `binding`."""

    key: str
    side: int
    binding: Binding


@dataclass(frozen=True, slots=True)
class Claims:
    """What became of every source key. `by_rule[i]` are the claims of rule i, `dropped[i]` the keys
    of the i-th drop pattern.

    `unreadable[i]` are keys that rule i would take, but that can't be read.
    """

    by_rule: tuple[tuple[Claim, ...], ...]
    dropped: tuple[tuple[str, ...], ...]
    unnamed: tuple[str, ...]
    prefixes: dict[str, str]
    """The prefix that `strip:` took off, for the keys that had one."""
    unreadable: tuple[tuple[str, ...], ...] = ()


def assign_rules(rules: RuleSet, source: Catalog) -> Claims:
    """Takes each source key once, but for rules of `also:`, which may read what others take."""
    sides = [
        (rule, side) for rule, each in enumerate(rules.rules) for side in range(len(each.sources))
    ]
    owners = [(rule, side) for rule, side in sides if not rules.rules[rule].is_extra]
    readers = [(rule, side) for rule, side in sides if rules.rules[rule].is_extra]
    takers = PatternSet([rules.rules[rule].matchers[side] for rule, side in owners])
    droppers = PatternSet([selector.matcher for selector in rules.drop])
    by_rule: list[list[Claim]] = [[] for _ in rules.rules]
    dropped: list[list[str]] = [[] for _ in rules.drop]
    unnamed: list[str] = []
    prefixes: dict[str, str] = {}
    for key in keys_of(source):
        name = strip_prefixes(key, rules.strip) if rules.strip else key
        if name != key:
            prefixes[key] = key.removesuffix(name)
        if drop := droppers.first(name):
            dropped[drop[0]].append(key)
            continue
        taken = takers.first(name)
        if taken:
            rule, side = owners[taken[0]]
            by_rule[rule].append(Claim(key, side, taken[1]))
        is_read = False
        for rule, side in readers:
            if (binding := rules.rules[rule].matchers[side].match(name)) is not None:
                by_rule[rule].append(Claim(key, side, binding))
                is_read = True
        if not taken and not is_read:
            unnamed.append(key)
    unreadable = tuple(
        tuple(claim.key for claim in taken if claim.key in source.unreadable) for taken in by_rule
    )
    readable = tuple(
        tuple(claim for claim in taken if claim.key not in source.unreadable) for taken in by_rule
    )
    return Claims(readable, tuple(map(tuple, dropped)), tuple(unnamed), prefixes, unreadable)


def strip_prefixes(key: str, prefixes: tuple[str, ...]) -> str:
    """The key without the prefixes of `strip:`, taken off until none fits."""
    name = key
    while prefix := next(
        (prefix for prefix in prefixes if prefix and name.startswith(prefix)), None
    ):
        name = name[len(prefix) :]
    return name


def names_of(source: Catalog, prefixes: tuple[str, ...]) -> Mapping[str, TensorInfo]:
    """The tensors by the names that patterns see."""
    return (
        {strip_prefixes(key, prefixes): info for key, info in source.items()}
        if prefixes
        else source
    )
