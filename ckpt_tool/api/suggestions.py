"""Rules drafted for two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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
        if values:
            sides = (with_values(opened_source), with_values(opened_target))
            with watch(sum(each.catalog.nbytes for each in sides)) as on_progress:
                one, other = (WatchedTensors(each, on_progress) for each in sides)
                found = suggest_by_values(one, other, pairs, least)
        else:
            found = suggest(opened_source.catalog, opened_target.catalog, pairs, least)
        doubts = _doubts(found, opened_source, opened_target)
        catalogs = opened_source.catalog, opened_target.catalog
        return replace(
            found,
            doubts=(*_not_followed(pairs, found, *catalogs), *doubts_in_words(doubts)),
            doubtful=tuple((one.path, one.other) for one in doubts if one.path),
        )


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
