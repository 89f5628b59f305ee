"""Rules drafted for two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ckpt_tool.api.options import check_confidence
from ckpt_tool.api.remarks.long_names import check_names
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.sides import open_side, open_target
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.tensors import Catalog, shape_text
from ckpt_tool.watching import Watch, WatchedTensors, unwatched

if TYPE_CHECKING:
    from ckpt_tool.advising import Doubt
    from ckpt_tool.align import Suggestion
    from ckpt_tool.api.sides import Given
    from ckpt_tool.engine.sources import TensorSource

UNALIGNED = ("the source", "the target", "the source and the target")
"""What errors of sides that can't be aligned are about: no file is at fault."""
MAX_PATTERNS = 3
"""Patterns of a side that a doubt names."""


def suggest_rules(
    source: Given,
    target: Given,
    hints: Sequence[str] = (),
    min_confidence: float | None = None,
    values: bool = False,
    watch: Watch = unwatched,
) -> Suggestion:
    """The fewest rules for what aligns between two checkpoints, by names and shapes, and with
    `values` by what tensors hold.

    `hints` are pairs: `source key -> target key`.
    """
    from ckpt_tool.advising import doubts_in_words
    from ckpt_tool.align import MIN_CONFIDENCE, suggest, suggest_by_values

    check_confidence(min_confidence)
    pairs = [_hint(text) for text in hints]
    least = MIN_CONFIDENCE if min_confidence is None else min_confidence
    with open_side(source) as opened_source, open_target(target, opened_source) as opened_target:
        check_names(opened_source.path, opened_source.catalog)
        check_names(opened_target.path, opened_target.catalog)
        with _advised():
            if values:
                sides = (with_values(opened_source), with_values(opened_target))
                with watch(sum(each.catalog.nbytes for each in sides)) as on_progress:
                    one, other = (WatchedTensors(each, on_progress) for each in sides)
                    found = suggest_by_values(one, other, pairs, least)
            else:
                found = suggest(opened_source.catalog, opened_target.catalog, pairs, least)
        doubts = _doubts(found, opened_source, opened_target)
        catalogs = opened_source.catalog, opened_target.catalog
        words = (*_not_followed(pairs, found, *catalogs), *doubts_in_words(doubts))
        found = replace(
            found,
            doubts=words,
            doubtful=tuple((one.path, one.other) for one in doubts if one.path),
        )
        return _without_belonging(found, *catalogs) if words or not found.rules else found


@contextmanager
def _advised() -> Iterator[None]:
    """Sides that can't be aligned, with what can be done instead: there is no other way here."""
    try:
        yield
    except InputError as error:
        if error.path in UNALIGNED:
            hint = "write rules, or try `--by position` of `ckpt plan`"
            raise InputError(error.path, error.fact, hint) from None
        raise


def _without_belonging(found: Suggestion, source: Catalog, target: Catalog) -> Suggestion:
    """A draft that leaves something to a person, without lines that would drop and keep what may
    belong together: once uncommented they would lose it without a word.
    """
    from ckpt_tool.advising import belonging

    alignment = found.alignment
    done = {key for pair in alignment.shape_mismatches for key in pair}
    done.update(key for one in alignment.ambiguous for key in (*one.sources, *one.targets))
    left, fresh = (
        {key: catalog[key].shape for key in keys if key in catalog and key not in done}
        for keys, catalog in (
            (alignment.unpaired_source, source),
            (alignment.unpaired_target, target),
        )
    )
    belong, belong_to = belonging(left, fresh)
    doubt = (
        f"{_patterns(belong, source)} and {_patterns(belong_to, target)} may belong together, so "
        "neither `drop:` nor `keep:` has them"
    )
    sources = (*belong, *_named(found, 0, source))
    targets = (*belong_to, *_named(found, 1, target))
    ready = found.ready and replace(
        found.ready,
        drop=_other_patterns(found.ready.drop, sources, source),
        keep=_other_patterns(found.ready.keep, targets, target),
    )
    return replace(
        found,
        drop=_other_patterns(found.drop, sources, source),
        keep=_other_patterns(found.keep, targets, target),
        ready=ready,
        doubts=(*found.doubts, doubt) if belong else found.doubts,
    )


def _named(found: Suggestion, side: Literal[0, 1], catalog: Catalog) -> Iterator[str]:
    """The keys of one side that are ambiguous, or in modules that doubts pair with others whose
    place isn't known.
    """
    for group in found.alignment.ambiguous:
        yield from (group.sources, group.targets)[side]
    known = {key for pair in found.alignment.shape_mismatches for key in pair}
    for pair in found.doubtful:
        if all(pair) and known.isdisjoint(pair):
            yield from _module_of(pair[side], catalog)


def _module_of(path: str, catalog: Catalog) -> list[str]:
    """The keys of a module, or of the one that owns a key; the key alone where that has modules
    inside.
    """
    if path not in catalog:
        return [key for key in catalog if key.startswith(f"{path}.")]
    owner = path.rpartition(".")[0]
    inside = [key for key in catalog if owner and key.startswith(f"{owner}.")]
    return inside if all(key.rpartition(".")[0] == owner for key in inside) and inside else [path]


def _other_patterns(
    patterns: Sequence[str], keys: Sequence[str], catalog: Catalog
) -> tuple[str, ...]:
    """Patterns for what some match but for these keys."""
    from ckpt_tool.keys import Matcher, fold, parse

    left_out = set(keys)
    matchers = [Matcher(parse(pattern)) for pattern in patterns]
    matched = {key: None for key in catalog if any(one.match(key) is not None for one in matchers)}
    rest = {key: None for key in matched if key not in left_out}
    if len(rest) == len(matched):
        return tuple(patterns)
    return tuple(one.pattern for one in fold(rest, catalog))


def _patterns(keys: Sequence[str], catalog: Catalog) -> str:
    """The first patterns for keys, and how many more there are."""
    from ckpt_tool.keys import fold

    folds = fold(dict.fromkeys(keys), catalog)
    more = f" and {len(folds) - MAX_PATTERNS:,} more" if len(folds) > MAX_PATTERNS else ""
    return ", ".join(f"`{one.pattern}`" for one in folds[:MAX_PATTERNS]) + more


def _doubts(found: Suggestion, source: Checkpoint, target: TensorSource) -> tuple[Doubt, ...]:
    """Why the keys that nothing pairs with are not safely dropped and kept."""
    from ckpt_tool.advising import judge
    from ckpt_tool.api.next_steps.leftovers import leftovers_of

    return judge(leftovers_of(found.plan, source, target)).doubts if found.plan else ()


def _not_followed(
    hints: Sequence[tuple[str, str]], found: Suggestion, source: Catalog, target: Catalog
) -> Iterator[str]:
    """Hints that the draft doesn't follow, and why: none is ignored in silence."""
    alignment = found.alignment
    origins = {
        key: [origin for slot in each.pair.sources for origin in slot]
        for each in alignment.pairs
        for slot in each.pair.targets
        for key in slot
    }
    for origin, key in hints:
        if origin in origins.get(key, ()):
            continue
        others = [other for other, sources in origins.items() if origin in sources]
        if (origin, key) in alignment.shape_mismatches:
            why = _needed(origin, key, source, target)
        elif key in origins:
            why = f"`{key}` is made of `{origins[key][0]}`"
        elif others:
            why = f"`{origin}` makes `{others[0]}`"
        else:
            why = "nothing else shows that they belong together"
        if why:
            yield f"--hint '{origin} -> {key}' isn't followed: {why}"


def _needed(origin: str, key: str, source: Catalog, target: Catalog) -> str:
    """What keeps tensors of other shapes apart; nothing for a head, which stays fresh."""
    from ckpt_tool.align.other_shapes import fit_between

    fit = fit_between(origin, key, source, target)
    if fit == "fresh":
        return ""
    shapes = f"{shape_text(source[origin].shape)} and {shape_text(target[key].shape)}"
    what = "no `fit:` adapts the one to the other" if fit is None else "need a `fit:`"
    return f"they are {shapes}, and {what}"


def _hint(text: str) -> tuple[str, str]:
    from ckpt_tool.keys.quoting import arrows

    found = arrows(text)
    source, target = (
        (text[: found[0][0]].strip(), text[found[0][1] :].strip()) if found else ("", "")
    )
    if not (source and target):
        raise InputError("--hint", f"`{text}` is not 'SOURCE KEY -> TARGET KEY'")
    return source, target
