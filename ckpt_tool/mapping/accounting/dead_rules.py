"""Rules, drops and keeps of no use, and words of choices that stand for no key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ckpt_tool.errors import Problem
from ckpt_tool.frozen import frozen
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.accounting.nearest import meant_notes
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.accounting.wrappers import wrapper_prefix
from ckpt_tool.mapping.assign import Claim, Claims, strip_prefixes
from ckpt_tool.mapping.rules import Rule, RuleSet, RuleSide, Selector, part_of
from ckpt_tool.tensors import Catalog
from ckpt_tool.wording import named

DROP = "`drop:`"
DROPS_FIRST = "`drop:` comes before all rules: narrow its pattern, or leave this rule out"
INLINE = "-e"
"""Where rules of the command line stand."""
MAX_EXPLAINED, MAX_COMPARED = 100, 1_000_000
"""Patterns that no key fits for which it is said why, and keys that these are compared with."""


def check_rules_of_use(rules: RuleSet, claims: Claims, source: Catalog) -> Iterator[Problem]:
    """Rules and drops that take nothing, and words of choices that stand for nothing."""
    prefix = "" if claims.prefixes else wrapper_prefix(source)
    use, patience = _Use(rules, claims, source, prefix), _Patience(len(source))
    for rule, taken, unreadable in zip(rules.rules, claims.by_rule, claims.unreadable, strict=True):
        if rule.is_optional or not rule.sources:
            continue
        if taken or unreadable:
            yield from _dead_words(rule, taken)
        elif patience.takes_another():
            yield use.why_dead(rule)
        else:
            side = rule.sources[0]
            message = f"`{side.pattern}` gets no key of the source"
            yield Problem("dead-rule", message, side.where, use.prefix_note(rule))
    used = {index for index, keys in enumerate(claims.dropped) if keys}
    yield from _dead_drops(rules, used, source, patience)


def check_dead_drops(rules: RuleSet, used: Collection[int], source: Catalog) -> Iterator[Problem]:
    """Drops that take nothing; `used` are the indices of those that do."""
    return _dead_drops(rules, used, source, _Patience(len(source)))


def _dead_drops(
    rules: RuleSet, used: Collection[int], source: Catalog, patience: _Patience
) -> Iterator[Problem]:
    for index, selector in enumerate(rules.drop):
        if index in used or selector.is_optional:
            continue
        message = f"`{selector.pattern}` drops nothing"
        notes: tuple[str, ...] = ()
        if patience.takes_another():
            why, notes = _why_nothing_is_dropped(rules, index, source)
            message = f"{message}: {why}"
        yield Problem("dead-rule", message, selector.where, notes)


def _why_nothing_is_dropped(
    rules: RuleSet, index: int, source: Catalog
) -> tuple[str, tuple[str, ...]]:
    """Why a pattern drops nothing, and notes on it."""
    selector = rules.drop[index]
    names = {key: strip_prefixes(key, rules.strip) for key in keys_of(source)}
    key = next((key for key, name in names.items() if _matches(selector, name)), None)
    if key is None:
        return "no key of the source matches it", meant_notes(selector.pattern.text, source)
    first = next(one for one in rules.drop if _matches(one, names[key]))
    by = f"{named(key)} is dropped by `{first.pattern}` ({first.where})"
    return "all that it matches are dropped by an earlier line", (by,)


def _matches(selector: Selector, name: str) -> bool:
    return selector.matcher.match(name) is not None


class _Patience:
    """How many patterns without a key are explained: each is compared with all keys, and nobody
    reads hundreds of explanations.
    """

    def __init__(self, keys: int) -> None:
        self._left = min(MAX_EXPLAINED, max(1, MAX_COMPARED // max(1, keys)))

    def takes_another(self) -> bool:
        self._left -= 1
        return self._left >= 0


@frozen
class _Use:
    """What the keys of a source tell of a rule that takes none of them. `prefix` is a wrapper's,
    which all of them have and nothing strips.
    """

    rules: RuleSet
    claims: Claims
    source: Catalog
    prefix: str

    def why_dead(self, rule: Rule) -> Problem:
        """Whether no key matches a rule, or others take those that do."""
        pattern, where = rule.sources[0].pattern, rule.sources[0].where
        key = next((key for key in self.source if self._matches(rule, key)), None)
        if key is not None:
            taker = self._taker_of(key)
            message = f"`{pattern}` gets no key: `{key}` is taken by {taker}"
            return Problem("shadowed-rule", message, where, (DROPS_FIRST,) if taker == DROP else ())
        notes = self._notes(rule)
        from ckpt_tool.mapping.reading.misread import NO_EXPRESSIONS, looks_like_an_expression

        if looks_like_an_expression(pattern.text):
            notes = (NO_EXPRESSIONS,)
        return Problem("dead-rule", f"`{pattern}` matches no key of the source", where, notes)

    def _notes(self, rule: Rule) -> tuple[str, ...]:
        text, lacks = rule.sources[0].pattern.text, self.prefix_note(rule)
        names = [key.removeprefix(self.prefix) for key in self.source] if lacks else []
        if any(matcher.match(name) is not None for matcher in rule.matchers for name in names):
            return lacks
        return meant_notes(f"{self.prefix if lacks else ''}{text}", self.source) or lacks

    def prefix_note(self, rule: Rule) -> tuple[str, ...]:
        """What to do about a wrapper's prefix that this rule lacks."""
        side = rule.sources[0]
        if not self.prefix or side.pattern.text.startswith(self.prefix):
            return ()
        todo = f'add `strip: ["{self.prefix}"]`'
        if side.where.file == INLINE:
            start = side.where.column - 1
            text = f"{side.where.text[:start]}{self.prefix}{side.where.text[start:]}"
            todo = f"write `-e '{text}'`"
        elif self._is_written:
            todo = f"begin it with `{self.prefix}`, as other rules do"
        return (f"every key of the source begins with `{self.prefix}`: {todo}",)

    @property
    def _is_written(self) -> bool:
        """Whether other rules have the prefix, so that taking it off would leave them dead."""
        sides = (side for rule in self.rules.rules for side in rule.sources)
        return any(side.pattern.text.startswith(self.prefix) for side in sides)

    def _matches(self, rule: Rule, key: str) -> bool:
        name = key.removeprefix(self.claims.prefixes.get(key, ""))
        return any(matcher.match(name) is not None for matcher in rule.matchers)

    def _taker_of(self, key: str) -> str:
        for rule, taken in zip(self.rules.rules, self.claims.by_rule, strict=True):
            if any(claim.key == key for claim in taken):
                return f"line {rule.where.line} (`{rule.text}`)"
        return DROP


def _dead_words(rule: Rule, taken: Sequence[Claim]) -> Iterator[Problem]:
    """Words of a written choice that stand for no key: half a group, or a typo. Tables may hold
    words to spare.
    """
    for number, side in enumerate(rule.sources):
        for token in side.pattern.tokens:
            if isinstance(token, Choice) and not token.is_table:
                used = {claim.binding[token.id] for claim in taken if claim.side == number}
                yield from _dead_words_of(side, token, used)


def _dead_words_of(side: RuleSide, choice: Choice, used: Collection[object]) -> Iterator[Problem]:
    """`used` are the indices of the words that stand for a key; where none does, the whole rule is
    dead.
    """
    dead = [f"`{word}`" for index, word in enumerate(choice.words) if index not in used]
    if used and dead:
        start, end = side.pattern.span(choice)
        text = side.pattern.text[start:end]
        message = f"{', '.join(dead)} of `{text}` matches no key of the source"
        yield Problem("dead-word", message, part_of(side.where, side.pattern, start, end))


def check_dead_keeps(
    rules: RuleSet, kept: Mapping[str, int], target: Catalog | None
) -> Iterator[Problem]:
    """Keeps that keep nothing; `kept` has for each key that is kept the index of its pattern."""
    if target is None:
        return
    used = set(kept.values())
    patience = _Patience(len(target))
    for index, selector in enumerate(rules.keep):
        if index in used or selector.is_optional:
            continue
        message = f"`{selector.pattern}` keeps nothing"
        notes: tuple[str, ...] = ()
        if patience.takes_another():
            why, notes = _why_nothing_is_kept(selector, target)
            message = f"{message}: {why}"
        yield Problem("dead-rule", message, selector.where, notes)


def _why_nothing_is_kept(selector: Selector, target: Catalog) -> tuple[str, tuple[str, ...]]:
    """Why a pattern keeps nothing, and notes on it."""
    if any(_matches(selector, key) for key in target):
        return "all that it matches get a value or are kept by an earlier line", ()
    return "no key of the target matches it", meant_notes(selector.pattern.text, target)
