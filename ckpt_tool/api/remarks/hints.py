"""Where the `hint:` lines below a diff are worded: what explains a difference, and what to try."""

from __future__ import annotations

import shlex

from ckpt_tool.comparing import Diff
from ckpt_tool.errors import RuleError
from ckpt_tool.keys.relations import equal_positions, prefix_rules
from ckpt_tool.tensors import Catalog, counted

MAX_RULES = 5
"""Rules for regrouped tensors that are shown."""


def diff_hints(result: Diff, names: tuple[str, str]) -> list[str]:
    """What explains the differences, and what to try."""
    explained: list[str] = []
    # What explains shapes and values takes long to import: not for keys alone.
    if any(entry.kind in ("shape", "value") or entry.how for entry in result.changes):
        from ckpt_tool.api.remarks.shape_mismatches import misfit_hints

        explained = misfit_hints(result)
    regrouped = [
        f"fused on one side, split on the other: -e {shlex.quote(rule)}"
        for rule in result.regrouped[:MAX_RULES]
    ]
    return [*explained, *regrouped, *_relation_hints(result, names)]


def _relation_hints(result: Diff, names: tuple[str, str]) -> list[str]:
    """What to try where little pairs by name: the prefix that explains it, or a draft of
    the rules.
    """
    counts = result.counts
    if not (counts["only_a"] and counts["only_b"]) or 2 * (counts["same"] + counts["value"]) > min(
        len(result.a), len(result.b)
    ):
        return []
    a, b = result.whole_sides
    rules, count = prefix_rules(a, b)
    if rules:
        which = counted(count, "key")
        which = f"all {which}" if count == len(a) > 1 else which
        after = " or ".join(f"-e '{rule}'" for rule in rules)
        fact = f"{'is a key' if count == 1 else 'are keys'} of {names[1]} after {after}"
        return [f"{which} of {names[0]} {fact}"]
    if not _pair_by_position(a, b):
        return []
    many = f"all {len(a)} tensors have equal shapes, one by one"
    fact = many if len(a) > 1 else "the two tensors have equal shapes"
    return [f"{fact}: ckpt plan {shlex.join(names)} --by position"]


def _pair_by_position(a: Catalog, b: Catalog) -> bool:
    from ckpt_tool.mapping import plan_by_position

    if equal_positions(a, b) < max(len(a), len(b)):
        return False
    try:
        plan_by_position(a, b)
    except RuleError:
        return False
    return True
