"""The balance law: which holes of two patterns belong together, and which stand on one
side only.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from ckpt_tool.keys.pattern import Choice, Number, Pattern, PatternError, Rest, Star


@dataclass(frozen=True, slots=True)
class HolePairing:
    """A source and a target pattern whose holes are paired: holes that belong together have one id.

    `source_only` and `target_only` are the ids that stand on one side alone, from the left.
    """

    source: Pattern
    target: Pattern
    source_only: tuple[str, ...]
    target_only: tuple[str, ...]


def pair(source: Pattern, target: Pattern) -> HolePairing:
    """Pairs stars from the left, numbers, rests, tables and named choices by name, other choices in
    order and by length.

    Raises PatternError, with a place in the target's text, for holes that could be paired in two
    ways.
    """
    target = _with_named_holes(target, source)
    renamed = _with_choice_ids(target, dict(_paired_choices(source, target)))
    _check_kinds(source, renamed)
    source_ids, target_ids = _ids(source), _ids(renamed)
    return HolePairing(
        source,
        renamed,
        tuple(hole for hole in source_ids if hole not in target_ids),
        tuple(hole for hole in target_ids if hole not in source_ids),
    )


def _with_named_holes(target: Pattern, source: Pattern) -> Pattern:
    """The target with `{r}` and `{p}` standing for the source's `{r=**}` and `{p=gate,up}`."""
    named = {token.id: token for token in source.tokens if isinstance(token, Rest | Choice)}
    return replace(
        target,
        tokens=tuple(
            named.get(str(t.affine), t) if isinstance(t, Number) else t for t in target.tokens
        ),
    )


def _ids(pattern: Pattern) -> tuple[str, ...]:
    """The ids of a pattern's holes, each once, from the left; a sum of numbers counts as
    its names.
    """
    found: list[str] = []
    for token in pattern.tokens:
        match token:
            case Star(hole) | Rest(hole) | Choice(id=hole):
                found.append(hole)
            case Number(affine):
                found.extend(affine.names)
    return tuple(dict.fromkeys(found))


_KINDS = {Star: "a star", Rest: "a `**`", Choice: "a choice", Number: "a number"}


def _check_kinds(source: Pattern, target: Pattern) -> None:
    """Refuses one name for two things: a number can't choose a word, nor a choice be
    counted with.
    """
    kinds = {
        name: type(token)
        for token in source.holes
        for name in _ids(replace(source, tokens=(token,)))
    }
    for token, (start, end) in zip(target.tokens, target.spans, strict=True):
        for name in _ids(replace(target, tokens=(token,))):
            if kinds.get(name, type(token)) is not type(token):
                message = (
                    f"`{name}` is {_KINDS[kinds[name]]} in the source and {_KINDS[type(token)]} in "
                    "the target"
                )
                raise PatternError(message, start, end - start)


def _paired_choices(source: Pattern, target: Pattern) -> Iterator[tuple[str, str]]:
    """Pairs of a target choice's id and the source's that it belongs to."""
    source_choices = {choice.id: choice for choice in _choices(source)}
    target_choices = _choices(target)
    names = {choice.id for choice in target_choices if choice.id[0] != "{"} & source_choices.keys()
    for choice in target_choices:
        if choice.id in names:
            yield choice.id, choice.id
            _check_lengths(source_choices[choice.id], choice, target)
    left = _unnamed(source_choices.values(), names), _unnamed(target_choices, names)
    for source_choice, choice in _in_order(*left, target):
        _check_lengths(source_choice, choice, target)
        yield choice.id, source_choice.id


def _unnamed(choices: Iterable[Choice], names: Container[str]) -> list[Choice]:
    """The choices that no name pairs."""
    return [choice for choice in choices if choice.id not in names]


def _choices(pattern: Pattern) -> list[Choice]:
    return [token for token in pattern.tokens if isinstance(token, Choice)]


def _in_order(
    source: list[Choice], from_target: list[Choice], target: Pattern
) -> list[tuple[Choice, Choice]]:
    """The only way to pair the shorter list with a part of the longer one, in order and
    by length.
    """
    if len(source) == len(from_target):
        return list(zip(source, from_target, strict=True))
    short, long = sorted((source, from_target), key=len)
    ways = [
        way
        for way in combinations(long, len(short))
        if all(len(a.words) == len(b.words) for a, b in zip(short, way, strict=True))
    ]
    if len(ways) > 1 and from_target:
        start, end = target.span(from_target[0])
        raise PatternError(
            "the choices can be paired in several ways; name them, as in `{p=gate,up}`",
            start,
            end - start,
        )
    pairs = zip(short, ways[0], strict=True) if ways else zip((), (), strict=True)
    return [(a, b) if short is source else (b, a) for a, b in pairs]


def _check_lengths(one: Choice, other: Choice, target: Pattern) -> None:
    if len(one.words) != len(other.words):
        start, end = target.span(other)
        message = (
            f"a choice of {len(other.words)} words can't be paired with one of {len(one.words)} "
            f"(`{one.words[0]}`, …)"
        )
        raise PatternError(message, start, end - start)


def _with_choice_ids(target: Pattern, ids: dict[str, str]) -> Pattern:
    """The target with its paired choices under the source's ids, and the others under ids that the
    source hasn't.
    """
    fresh = {
        t.id: ids.get(t.id, f"{t.id}→" if t.id[0] == "{" else t.id)
        for t in target.tokens
        if isinstance(t, Choice)
    }
    return replace(
        target,
        tokens=tuple(
            replace(t, id=fresh[t.id]) if isinstance(t, Choice) else t for t in target.tokens
        ),
    )
