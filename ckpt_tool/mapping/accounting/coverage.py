"""The whole accounting: every key of both sides once, every shape and dtype right, every rule of
use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from math import prod

from ckpt_tool.errors import Location, Problem, Tally
from ckpt_tool.keys import PatternSet, fold, nearest, quote
from ckpt_tool.keys.pattern import Choice
from ckpt_tool.mapping.accounting.scales import CODES, scale_of
from ckpt_tool.mapping.accounting.shape_mismatches import fit_note
from ckpt_tool.mapping.accounting.ties import tied_with
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.accounting.wrappers import wrapper_prefix
from ckpt_tool.mapping.assign import Claim, Claims
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.reading.misread import NO_EXPRESSIONS, looks_like_an_expression
from ckpt_tool.mapping.rules import Rule, RuleSet, part_of
from ckpt_tool.tensors import Catalog, DType, Shape, TensorInfo, counted, shape_text

MAX_PATTERNS = 12
"""Patterns of unnamed keys that are listed; the others are counted."""
MAX_EXPLAINED, MAX_COMPARED = 100, 1_000_000
"""Patterns that no key fits for which it is said why, and keys that these are compared with."""


def kept_keys(
    rules: RuleSet, steps: Iterable[Step], target: Catalog | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The target keys that no step produces: those that are kept, with the index of the keep
    pattern, and those unnamed.

    The index is -1 where `rest:` keeps them.
    """
    produced = {key for step in steps for key in step.outputs}
    keepers = PatternSet([selector.matcher for selector in rules.keep])
    kept: dict[str, int] = {}
    unnamed: list[str] = []
    for key in target or ():
        if key in produced:
            continue
        if keeper := keepers.first(key):
            kept[key] = keeper[0]
        elif rules.rest_target == "keep":
            kept[key] = -1
        else:
            unnamed.append(key)
    return kept, tuple(unnamed)


def tally_of(
    made: Collection[str], fresh: Collection[str], left: Collection[str], target: Catalog | None
) -> Tally | None:
    """How far it would come; None without a target, or where nothing is left."""
    if target is None or not (fresh or left):
        return None
    elements = {key: prod(info.shape) for key, info in target.items()}
    mapped = sum(key in elements for key in made)
    return Tally(
        mapped, len(fresh), len(left), sum(elements[key] for key in fresh), sum(elements.values())
    )


def check_rules_of_use(rules: RuleSet, claims: Claims, source: Catalog) -> Iterator[Problem]:
    """Rules and drops that take nothing, and words of choices that stand for nothing."""
    prefix = wrapper_prefix(source)
    hint = (
        (f'every key of the source begins with `{prefix}`: add `strip: ["{prefix}"]`',)
        if prefix and not claims.prefixes
        else ()
    )
    patience = _Patience(len(source))
    for rule, taken, unreadable in zip(rules.rules, claims.by_rule, claims.unreadable, strict=True):
        if taken or unreadable:
            yield from _dead_words(rule, taken)
        elif rule.sources and not rule.is_optional:
            yield _dead_rule(rules, rule, claims, source, hint, patience)
    yield from _dead_drops(
        rules, {index for index, keys in enumerate(claims.dropped) if keys}, source, patience
    )


def check_dead_drops(rules: RuleSet, used: Collection[int], source: Catalog) -> Iterator[Problem]:
    """Drops that take nothing; `used` are the indices of those that do."""
    return _dead_drops(rules, used, source, _Patience(len(source)))


def _dead_drops(
    rules: RuleSet, used: Collection[int], source: Catalog, patience: _Patience
) -> Iterator[Problem]:
    for index, selector in enumerate(rules.drop):
        if index not in used and not selector.is_optional:
            notes = _nearest_note(selector.pattern.text, source) if patience.takes_another() else ()
            yield Problem(
                "dead-rule",
                f"`{selector.pattern}` drops nothing: no key of the source matches it",
                selector.where,
                notes,
            )


class _Patience:
    """How many patterns without a key are explained: each is compared with all keys, and nobody
    reads hundreds of explanations.
    """

    def __init__(self, keys: int) -> None:
        self._left = min(MAX_EXPLAINED, max(1, MAX_COMPARED // max(1, keys)))

    def takes_another(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _dead_rule(
    rules: RuleSet,
    rule: Rule,
    claims: Claims,
    source: Catalog,
    hint: tuple[str, ...],
    patience: _Patience,
) -> Problem:
    pattern, where = rule.sources[0].pattern, rule.sources[0].where
    if not patience.takes_another():
        return Problem("dead-rule", f"`{pattern}` gets no key of the source", where, hint)
    key = next((key for key in source if _matches(rule, key, claims)), None)
    if key is None:
        notes = (
            (NO_EXPRESSIONS,)
            if looks_like_an_expression(pattern.text)
            else hint or _nearest_note(pattern.text, source)
        )
        return Problem("dead-rule", f"`{pattern}` matches no key of the source", where, notes)
    taker = next(
        (
            other
            for other, taken in zip(rules.rules, claims.by_rule, strict=True)
            if any(c.key == key for c in taken)
        ),
        None,
    )
    by = f"line {taker.where.line} (`{taker.text}`)" if taker else "`drop:`"
    return Problem("shadowed-rule", f"`{pattern}` gets no key: `{key}` is taken by {by}", where)


def _matches(rule: Rule, key: str, claims: Claims) -> bool:
    name = key.removeprefix(claims.prefixes.get(key, ""))
    return any(matcher.match(name) is not None for matcher in rule.matchers)


def _dead_words(rule: Rule, taken: Sequence[Claim]) -> Iterator[Problem]:
    """Words of a written choice that stand for no key: half a group, or a typo. Tables may hold
    words to spare.
    """
    for number, side in enumerate(rule.sources):
        for token in side.pattern.tokens:
            if not isinstance(token, Choice) or token.is_table or rule.is_optional:
                continue
            used = {claim.binding[token.id] for claim in taken if claim.side == number}
            dead = [word for index, word in enumerate(token.words) if used and index not in used]
            if dead:
                start, end = side.pattern.span(token)
                words = ", ".join(f"`{word}`" for word in dead)
                message = (
                    f"{words} of `{side.pattern.text[start:end]}` matches no key of the source"
                )
                yield Problem("dead-word", message, part_of(side.where, side.pattern, start, end))


def _nearest_note(pattern: str, keys: Iterable[str]) -> tuple[str, ...]:
    names = pattern.split(".")
    plain = list(takewhile(lambda name: not set(name) & set("*{"), names))
    if not plain or len(plain) == len(names):
        near = nearest(pattern, keys)
        return (f"nearest key: {near}",) if near else ()
    # What stands before the first wildcard is a path, of which there are fewer than keys.
    paths = dict.fromkeys(".".join(key.split(".")[: len(plain)]) for key in keys)
    path = ".".join(plain)
    near = None if path in paths else nearest(path, paths)
    return (f"nearest path: {near}",) if near else ()


def check_unnamed(
    rules: RuleSet,
    source_keys: Sequence[str],
    target_keys: Sequence[str],
    source: Catalog,
    target: Catalog | None,
    remarks: Sequence[str] = (),
) -> Iterator[Problem]:
    """Keys of either side that nothing names: one problem a side, its keys folded. `remarks` say
    what else is known of them.
    """
    where = rules.where if rules.rules else None
    if source_keys and rules.rest_source != "drop":
        near = nearest(source_keys[0], target_keys) if where else None
        problem = _unnamed(
            source_keys, source, where, ("unmapped-source", "source", "drop", "target"), near
        )
        yield problem if target_keys else replace(problem, notes=(*problem.notes, *remarks))
    if target_keys and target is not None and rules.rest_target != "keep":
        near = nearest(target_keys[0], source_keys) if where else None
        problem = _unnamed(
            target_keys, target, where, ("unmapped-target", "target", "keep", "source"), near
        )
        yield replace(problem, notes=(*problem.notes, *_tie_hint(target_keys, target), *remarks))


def _tie_hint(keys: Sequence[str], target: Catalog) -> Iterator[str]:
    """What to do about keys that are one tensor with others, which rules did name."""
    unnamed = frozenset(keys)
    tied = tied_with(target, (key for key in target if key not in unnamed), unnamed)
    for key, others in islice(tied.items(), 1):
        yield f"`{others[0]}` is tied to `{key}` in the target: a rule for both ends in `-> {{{quote(key)},{quote(others[0])}}}: copy`"


def _unnamed(
    keys: Sequence[str],
    catalog: Catalog,
    where: Location | None,
    words: tuple[str, str, str, str],
    near: str | None,
) -> Problem:
    code, side, section, other = words
    folds = fold(dict.fromkeys(keys), keys_of(catalog))
    verb = {"drop": "dropped", "keep": "kept"}[section]
    fact = f"{'is' if len(keys) == 1 else 'are'} neither mapped nor {verb}"
    names = f"`{folds[0].pattern}`: " if len(folds) == 1 else ""
    notes = (
        [f"`{one.pattern}` ({len(one.keys)})" for one in folds[:MAX_PATTERNS]]
        if len(folds) > 1
        else []
    )
    if len(folds) > MAX_PATTERNS:
        notes.append(counted(len(folds) - MAX_PATTERNS, "more pattern"))
    is_in_file = where is not None and not where.file.startswith("-")
    on_line = f"`--{section} PATTERN`, or `{section}=` in Python, names what is meant to be {verb}"
    notes.append(f"list what is meant to be {verb} under `{section}:`" if is_in_file else on_line)
    if near:
        notes.append(f"nearest key of the {other} that is left over, for `{keys[0]}`: {near}")
    return Problem(
        code, f"{names}{counted(len(keys), 'key')} of the {side} {fact}", where, tuple(notes)
    )


def check_dead_keeps(
    rules: RuleSet, kept: dict[str, int], target: Catalog | None
) -> Iterator[Problem]:
    used = set(kept.values())
    patience = _Patience(len(target or ()))
    for index, selector in enumerate(rules.keep):
        if target is None or index in used or selector.is_optional or selector.pattern.text == "**":
            continue
        if not patience.takes_another():
            yield Problem("dead-rule", f"`{selector.pattern}` keeps nothing", selector.where)
        elif any(selector.matcher.match(key) is not None for key in target):
            message = f"`{selector.pattern}` keeps nothing: all that it matches get a value or are kept by an earlier line"
            yield Problem("dead-rule", message, selector.where)
        else:
            notes = _nearest_note(selector.pattern.text, target)
            yield Problem(
                "dead-rule",
                f"`{selector.pattern}` keeps nothing: no key of the target matches it",
                selector.where,
                notes,
            )


def check_collisions(steps: Sequence[Step]) -> Iterator[Problem]:
    """Target keys with two producers; both sources and both rules are named."""
    producers: dict[str, Step] = {}
    reported: set[tuple[int, int]] = set()
    for step in steps:
        for key in step.outputs:
            first = producers.setdefault(key, step)
            pair = (id(first.origin.rule), id(step.origin.rule))
            if first is not step and pair not in reported:
                reported.add(pair)
                yield _collision(key, first, step)


def _collision(key: str, first: Step, second: Step) -> Problem:
    places = [
        f"{_origin_of(step)} by line {step.origin.line} (`{step.origin.rule.text}`)"
        for step in (first, second)
        if step.origin.rule
    ]
    where = second.origin.rule.targets[0].where if second.origin.rule else None
    return Problem(
        "collision",
        f"`{key}` would get two values: from {_origin_of(first)} and from {_origin_of(second)}",
        where,
        tuple(places),
    )


def _origin_of(step: Step) -> str:
    return f"`{step.inputs[0]}`" if step.inputs else f"`{step.ops[0].name}`"


def check_outputs(plan: Plan, target: Catalog) -> Iterator[Problem]:
    """Keys that the target doesn't have, and shapes and dtypes that it has otherwise; one problem a
    rule and kind.
    """
    found: dict[tuple[str, int], list[tuple[str, Step, str]]] = defaultdict(list)
    for key, (step, info) in plan.producers.items():
        fault = _fault(key, info.dtype, info.shape, target)
        if fault:
            found[(fault[0], id(step.origin.rule))].append((key, step, fault[1]))
    for (code, _), faults in found.items():
        key, step, message = faults[0]
        notes = (
            list(_nearest_of_shape(plan.producers[key][1], target))
            if code == "unknown-target"
            else []
        )
        if code == "shape":
            notes += fit_note(key, plan.producers[key][1].shape, target[key].shape)
        if code == "dtype":
            notes.append(_dtype_note(step, plan.source))
        if len(faults) > 1:
            notes.append(f"{len(faults)} keys in all")
        yield Problem(
            code,
            message,
            step.origin.rule.targets[0].where if step.origin.rule else None,
            tuple(notes),
        )


def _dtype_note(step: Step, source: Catalog) -> str:
    """What to do about another dtype."""
    for key in step.inputs:
        info = source[key]
        if info.dtype in CODES and (scale := scale_of(key, source)):
            return f"`{key}` holds codes, and `{scale}` their scale: dequantise first, a cast alone would ignore the scale"
        if info.dtype in CODES and not info.dtype.is_floating and len(info.shape) > 1:
            return f"`{key}` holds whole numbers: codes of a quantised weight are nothing without a scale; `--dtype target` casts them bare"
    return "say `cast:` in the rule, or `--dtype target` to cast and `--dtype source` to leave it as it is"


def _nearest_of_shape(info: TensorInfo, target: Catalog) -> tuple[str, ...]:
    """The nearest key that the tensor would fit; any nearest key where it fits none."""
    return _nearest_note(
        info.key, [key for key in target if target[key].shape == info.shape]
    ) or _nearest_note(info.key, target)


def _fault(key: str, dtype: DType, shape: Shape, target: Catalog) -> tuple[str, str] | None:
    if key not in target:
        return "unknown-target", f"`{key}` is not a key of the target"
    wanted = target[key]
    if wanted.shape != shape:
        return (
            "shape",
            f"`{key}` would get {shape_text(shape)}, the target has {shape_text(wanted.shape)}",
        )
    if wanted.dtype is not dtype:
        return "dtype", f"`{key}` would get {dtype.value}, the target has {wanted.dtype.value}"
    return None


def check_expect(rules: RuleSet, plan: Plan) -> Iterator[Problem]:
    for name, count in plan.counts.items():
        wanted = getattr(rules.expect, name) if rules.expect else None
        if rules.expect and wanted is not None and wanted != count:
            yield Problem(
                "expect", f"{count} {name}, but {wanted} are expected", rules.expect.where
            )
