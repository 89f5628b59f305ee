"""What explains tensors that differ, and what to try: shapes that a `fit:` adapts, transposed
twins, a checkpoint loaded by half.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.keys import fold
from ckpt_tool.mapping.accounting.shape_mismatches import (
    WORDS,
    KeyFit,
    fit_for,
    fit_lines,
    rule_file,
)
from ckpt_tool.mapping.reading.writing import flow
from ckpt_tool.tensors import Shape, counted

MAX_KEYS = 2000
"""Keys that differ, beyond which nothing is explained: the folding of more takes long."""
UNLIKE = 0.1
"""The cosine below which two tensors have nothing in common; of random ones with so many elements
it is far below.
"""
ENOUGH = 1000
MAX_PATTERNS = 4


def misfit_hints(diff: Diff) -> list[str]:
    """One line each for what explains some of the differences."""
    if not diff.changes or len(diff.changes) > MAX_KEYS:
        return []
    # The parts that two ranks hold are no versions of one tensor.
    return [*_twins(diff), *_fits(diff), *(() if diff.layouts else _half_loaded(diff))]


def _twins(diff: Diff) -> Iterator[str]:
    """Tensors that are equal but for their layout, with the rule that changes it."""
    by_ops: dict[str, list[Entry]] = defaultdict(list)
    for entry in diff.changes:
        if entry.plain_ops and entry.kind != "renamed":
            by_ops[entry.how].append(entry)
    for how, entries in by_ops.items():
        patterns = _exact_patterns(entries, diff)
        ops = entries[0].plain_ops
        text = flow(ops[0] if len(ops) == 1 else ops)
        options = " ".join(
            f"-e {shlex.quote(f'{pattern} -> {pattern}: {text}')}" for pattern in patterns
        )
        if len(patterns) <= MAX_PATTERNS:
            yield f"{_tensors(len(entries))} equal after {options}"
        else:
            more = f"{', '.join(patterns[:MAX_PATTERNS])} and {len(patterns) - MAX_PATTERNS} more"
            yield f"{_tensors(len(entries))} equal after `{how}`: {more}"


def _exact_patterns(entries: Sequence[Entry], diff: Diff) -> list[str]:
    """Patterns that match these keys and no other of the first side: one that leaves numbers open,
    where there is one.
    """
    from ckpt_tool.align import Pair, draft_rules
    from ckpt_tool.keys import Matcher, PatternError, parse

    keys = {each.key for each in entries}
    whole = diff.whole_sides[0]
    lines = draft_rules([Pair(((key,),), ((key,),), ()) for key in keys], whole, False)
    if len(lines) == 1 and len(keys) > 1:
        pattern = lines[0].strip('"').partition(" -> ")[0]
        try:
            matcher = Matcher(parse(pattern))
        except PatternError:
            return _patterns(entries, diff)
        if {key for key in whole if matcher.match(key) is not None} == keys:
            return [pattern]
    return _patterns(entries, diff)


def _tensors(count: int) -> str:
    return f"{count} tensors are" if count > 1 else "1 tensor is"


def _fits(diff: Diff) -> Iterator[str]:
    """Shapes that a `fit:` adapts, as a rule file that does it."""
    shapes = list(_other_shapes(diff))
    found = [
        KeyFit(key, name)
        for key, source, target in shapes
        if (name := fit_for(key, source, target, diff.whole_sides[1]))
    ]
    rest = [_patterns(_of_kind(diff, kind), diff) for kind in ("only_a", "only_b")]
    # Where keys are left on both sides, some may be the same under another name; what nothing
    # adapts is no small difference; and what is renamed needs other rules.
    if not found or len(found) < len(shapes) or all(rest) or _of_kind(diff, "renamed"):
        return
    lines = fit_lines(found, _every_key(diff))
    if len(lines) <= MAX_PATTERNS:
        reasons = ", ".join(WORDS[name] for name in lines)
        yield f"{reasons}? a rule file that adapts a to b: {rule_file(lines, *rest)}"


def _other_shapes(diff: Diff) -> Iterator[tuple[str, Shape, Shape]]:
    """Keys whose shapes differ, and no op explains it, with both shapes."""
    for each in _of_kind(diff, "shape"):
        if each.a and each.b and not each.how:
            yield each.key, each.a.shape, each.b.shape


def _of_kind(diff: Diff, kind: str) -> list[Entry]:
    return [each for each in diff.changes if each.kind == kind]


def _patterns(entries: Sequence[Entry], diff: Diff) -> list[str]:
    return [one.pattern for one in fold({each.key: None for each in entries}, _every_key(diff))]


def _every_key(diff: Diff) -> list[str]:
    """The keys of both files: what is proposed is for these, whatever was compared."""
    return [key for side in diff.whole_sides for key in side]


def _half_loaded(diff: Diff) -> Iterator[str]:
    """Equal tensors beside ones of the same name that have nothing in common with the
    other side's. Counters and other integers are equal in unrelated networks too, and so are the
    ones and zeros of norms and biases: of tensors with two dimensions some must be.
    """
    if not diff.compared_values:
        return
    infos = [each.a for each in diff.entries if each.kind == "same" and each.a]
    equal = [info for info in infos if info.dtype.is_floating or info.dtype.is_complex]
    unlike = [each for each in diff.changes if each.kind == "value" and _is_unlike(each)]
    if sum(len(info.shape) > 1 for info in equal) < 2 or len(unlike) < 2:
        return
    patterns = _patterns(unlike, diff)
    left = len(patterns) - MAX_PATTERNS
    more = f" and {counted(left, 'more pattern')}" if left > 0 else ""
    names = "  ".join(patterns[:MAX_PATTERNS])
    yield (
        f"loaded in part? {len(equal)} tensors of floating-point numbers are equal, but "
        f"{len(unlike)} of {ENOUGH:,} or more have nothing in common (|cosine| below {UNLIKE:g}): "
        f"{names}{more}"
    )


def _is_unlike(entry: Entry) -> bool:
    values = entry.values
    return (
        values is not None
        and values.elements >= ENOUGH
        and values.changed > 0.9 * values.elements
        and abs(values.cosine) < UNLIKE
    )
