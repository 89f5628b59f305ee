"""Which rule takes which source key: drops first, then the first rule that matches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Binding, PatternSet
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.tensors import Catalog, TensorInfo


@frozen
class Claim:
    """A source key taken by a rule: by its pattern number `side`, whose holes are `binding`."""

    key: str
    side: int
    binding: Binding


@frozen
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


class _Takers:
    """The patterns of the rules' sources: those of which the first takes a key, and those of
    `also:`, which all read it.
    """

    def __init__(self, rules: RuleSet) -> None:
        sides = [
            (index, side, matcher)
            for index, rule in enumerate(rules.rules)
            for side, matcher in enumerate(rule.matchers[: len(rule.sources)])
        ]
        self._owners = [each for each in sides if not rules.rules[each[0]].is_extra]
        self._readers = [each for each in sides if rules.rules[each[0]].is_extra]
        self._patterns = PatternSet([matcher for _, _, matcher in self._owners])

    def claims(self, key: str, name: str) -> Iterator[tuple[int, Claim]]:
        """Each rule that gets a key, by the name that patterns see, with its claim."""
        if taken := self._patterns.first(name):
            rule, side, _ = self._owners[taken[0]]
            yield rule, Claim(key, side, taken[1])
        for rule, side, matcher in self._readers:
            if (binding := matcher.match(name)) is not None:
                yield rule, Claim(key, side, binding)


def assign_rules(rules: RuleSet, source: Catalog) -> Claims:
    """Takes each source key once, but for rules of `also:`, which may read what others take."""
    takers, droppers = _Takers(rules), PatternSet([selector.matcher for selector in rules.drop])
    by_rule: list[list[Claim]] = [[] for _ in rules.rules]
    dropped: list[list[str]] = [[] for _ in rules.drop]
    unnamed: list[str] = []
    prefixes = _prefixes(keys_of(source), rules.strip)
    for key in keys_of(source):
        name = key[len(prefixes.get(key, "")) :]
        if drop := droppers.first(name):
            dropped[drop[0]].append(key)
            continue
        claims = list(takers.claims(key, name))
        for rule, claim in claims:
            by_rule[rule].append(claim)
        if not claims:
            unnamed.append(key)
    return Claims(
        tuple(_readable(taken, source) for taken in by_rule),
        tuple(map(tuple, dropped)),
        tuple(unnamed),
        prefixes,
        tuple(_unreadable(taken, source) for taken in by_rule),
    )


def _prefixes(keys: Iterable[str], strip: tuple[str, ...]) -> dict[str, str]:
    """The prefix that `strip:` takes off, for the keys that have one."""
    if not strip:
        return {}
    names = ((key, strip_prefixes(key, strip)) for key in keys)
    return {key: key.removesuffix(name) for key, name in names if name != key}


def _readable(taken: Sequence[Claim], source: Catalog) -> tuple[Claim, ...]:
    return tuple(claim for claim in taken if claim.key not in source.unreadable)


def _unreadable(taken: Sequence[Claim], source: Catalog) -> tuple[str, ...]:
    return tuple(claim.key for claim in taken if claim.key in source.unreadable)


def strip_prefixes(key: str, prefixes: tuple[str, ...]) -> str:
    """The key without the prefixes of `strip:`, taken off until none fits."""
    name = key
    while prefix := next(
        (prefix for prefix in prefixes if prefix and name.startswith(prefix)), None
    ):
        name = name[len(prefix) :]
    return name


def names_for_patterns(source: Catalog, prefixes: tuple[str, ...]) -> Mapping[str, TensorInfo]:
    """The tensors by the names that patterns see."""
    return (
        {strip_prefixes(key, prefixes): info for key, info in source.items()}
        if prefixes
        else source
    )
