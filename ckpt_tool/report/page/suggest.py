"""The page of `ckpt suggest`: what belongs together, how sure that is, and what is left open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpt_tool.align import Aligned, Suggestion
from ckpt_tool.report.page.document import (
    NONE,
    Item,
    Keys,
    Measure,
    Page,
    PageSide,
    Status,
    Table,
    Why,
    keys_of,
)
from ckpt_tool.report.page.plan import ops_in_words
from ckpt_tool.report.suggest import mismatches_of
from ckpt_tool.tensors import Catalog, UnreadableTensor

SHAPE, UNDECIDED = "of another shape", "undecided"
STATUSES = (
    Status("paired", "good", "are sure enough for a rule"),
    Status("unsure", "warn", "are below the confidence that was asked for"),
    Status("ambiguous", "special", "can't be decided by names and shapes"),
    Status(SHAPE, "bad", "have the same place on both sides: one is unused, one has no source"),
    Status(UNDECIDED, "special", "have no pair, and can't just be dropped or kept: see More"),
    Status("without a source", "calm", "keys of the target that nothing pairs with"),
    Status("unused", "muted", "keys of the source that nothing pairs with"),
)


def suggest_page(
    found: Suggestion,
    names: tuple[str, str],
    answer: str,
    onwards: str | None = None,
) -> Page:
    """The page; `names` are what the sides are called, `answer` is the command's last line,
    whose first part says what is mapped."""
    plan = found.plan
    sides = _catalogs(found) if plan is None or plan.target is None else (plan.source, plan.target)
    keys = keys_of(sides[0]), keys_of(sides[1])
    items = [_pair(each, keys, found.min_confidence) for each in found.alignment.pairs]
    confidence = {at: each.confidence for at, each in enumerate(found.alignment.pairs)}
    items += _open_groups(found, keys)
    measure = Measure("confidence", "confidence", confidence, is_least_worst=True)
    rules = Table(
        "Drafted rules",
        ("rule", "tensors", "confidence", "evidence"),
        tuple(
            (rule.text, f"{rule.tensors:,}", f"{rule.confidence:.2f}", rule.evidence)
            for rule in found.rules
        ),
    )
    listed: tuple[PageSide, ...] = (
        keys[0].side("from", names[0], sides[0]),
        keys[1].side("into", names[1], sides[1]),
    )
    left = (*(f"undecided: {doubt}" for doubt in found.doubts), *found.shape_mismatches)
    return Page(
        "suggest",
        answer,
        "good" if found.is_complete else "warn",
        listed,
        STATUSES,
        tuple(items),
        (measure,),
        notes=(*left, *_ambiguities(found)),
        tables=(rules,) if rules.rows else (),
        text=found.text,
        next=onwards,
    )


def _catalogs(found: Suggestion) -> tuple[Catalog, Catalog]:
    """The keys of both sides where nothing aligns, in whatever form they are."""
    alignment = found.alignment
    return _bare(alignment.unpaired_source), _bare(alignment.unpaired_target)


def _bare(keys: Iterable[str]) -> Catalog:
    return Catalog((), unreadable=(UnreadableTensor(key, "tensor") for key in keys))


def _pair(each: Aligned, keys: tuple[Keys, Keys], least: float) -> Item:
    a = tuple(keys[0].numbers[key] for slot in each.pair.sources for key in slot)
    b = tuple(keys[1].numbers[key] for slot in each.pair.targets for key in slot)
    ops = ops_in_words(each.pair.ops)
    why = Why("alignment", ops=ops, confidence=each.confidence, evidence=each.evidence)
    return Item(a, b, "paired" if each.confidence >= least else "unsure", why)


def _open_groups(found: Suggestion, keys: tuple[Keys, Keys]) -> list[Item]:
    """What no pair has: mismatches, groups that are ambiguous, and what is left on each side."""
    done: tuple[set[str], set[str]] = (set(), set())
    items = []
    for a, b in mismatches_of(found):
        if a not in done[0] and b not in done[1]:
            items.append(Item((keys[0].numbers[a],), (keys[1].numbers[b],), SHAPE))
            done[0].add(a)
            done[1].add(b)
    for group in found.alignment.ambiguous:
        a_keys = [key for key in group.sources if key not in done[0]]
        b_keys = [key for key in group.targets if key not in done[1]]
        items.append(
            Item(
                _numbers(a_keys, keys[0]), _numbers(b_keys, keys[1]), "ambiguous", note=group.reason
            )
        )
        done[0].update(a_keys)
        done[1].update(b_keys)
    for a_keys, b_keys in _undecided(found, done):
        items.append(Item(_numbers(a_keys, keys[0]), _numbers(b_keys, keys[1]), UNDECIDED))
        done[0].update(a_keys)
        done[1].update(b_keys)
    for key in found.alignment.unpaired_target:
        if key not in done[1]:
            items.append(Item(NONE, (keys[1].numbers[key],), "without a source"))
    for key in found.alignment.unpaired_source:
        if key not in done[0]:
            items.append(Item((keys[0].numbers[key],), NONE, "unused"))
    return items


def _undecided(
    found: Suggestion, done: tuple[set[str], set[str]]
) -> Iterator[tuple[list[str], list[str]]]:
    """The keys of both sides of each doubt that has none of another; those that may belong together
    in one.
    """
    left = [
        {key: None for key in keys if key not in taken}
        for keys, taken in zip(
            (found.alignment.unpaired_source, found.alignment.unpaired_target), done, strict=True
        )
    ]
    for path, other in found.doubtful:
        ends = [[key for key in side if _is_in(key, path, other)] for side in left]
        for side, keys in zip(left, ends, strict=True):
            for key in keys:
                del side[key]
        if any(ends):
            yield ends[0], ends[1]


def _is_in(key: str, *paths: str) -> bool:
    return any(path and (key == path or key.startswith(f"{path}.")) for path in paths)


def _numbers(names: Iterable[str], keys: Keys) -> tuple[int, ...]:
    return tuple(keys.numbers[name] for name in names)


def _ambiguities(found: Suggestion) -> tuple[str, ...]:
    return tuple(f"hint: --hint '{each.group.hint}'" for each in found.alignment.questions[:12])
