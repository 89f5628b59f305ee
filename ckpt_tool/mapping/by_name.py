"""A plan by equal names: the same key, the same shape."""

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.keys.relations import prefix_rule
from ckpt_tool.mapping.compile import checked
from ckpt_tool.mapping.dtypes import DTypePolicy
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.mapping.ties import tied_with
from ckpt_tool.mapping.wrappers import wrapper_names, wrapper_prefix
from ckpt_tool.ops import Copy
from ckpt_tool.tensors import Catalog, shape_text

MOST_NOTES = 20


def plan_by_name(source: Catalog, target: Catalog, dtypes: DTypePolicy = "strict") -> Plan:
    """Pairs keys that are equal, or equal without a wrapper's prefix, when their shapes are too.

    A key whose shape differs keeps the target's value and is named in the plan's notes, as is a prefix that was left out. A key
    that the source lacks, but that is one tensor with another key of the target, gets what that one gets.
    Raises RuleError when nothing pairs.
    """
    names, notes = _without_wrappers(source, target)
    pairs = {key: names[key] for key in target if key in names}
    misfits = [key for key, name in pairs.items() if source[name].shape != target[key].shape]
    notes += [
        f"`{key}` stays fresh: the source has {shape_text(source[pairs[key]].shape)}, the target {shape_text(target[key].shape)}"
        for key in misfits[:MOST_NOTES]
    ]
    if len(misfits) > MOST_NOTES:
        notes.append(f"{len(misfits) - MOST_NOTES} more stay fresh because their shapes differ")
    matched = {key: name for key, name in pairs.items() if key not in set(misfits)}
    if not matched:
        raise RuleError([nothing_pairs(source, target)])
    origin, taken = Origin("name"), set(matched.values())
    tied = tied_with(target, matched, target.keys() - pairs.keys())
    followers = [(key, other) for key, others in tied.items() for other in others]
    notes += [f"`{other}` is tied to `{key}` in the target, and gets the same" for key, other in followers[:MOST_NOTES]]
    if len(followers) > MOST_NOTES:
        notes.append(f"{len(followers) - MOST_NOTES} more get the same as what they are tied to in the target")
    steps = tuple(_step(name, (key, *tied.get(key, ())), origin) for key, name in matched.items())
    dropped = tuple(key for key in source if key not in taken)
    made = {key for step in steps for key in step.outputs}
    kept = tuple(key for key in target if key not in made)
    return checked(Plan(steps, dropped, kept, source, target, tuple(notes)), dtypes, [])


def _step(name: str, keys: tuple[str, ...], origin: Origin) -> Step:
    return Step((name,), keys, (Copy(len(keys)),) if len(keys) > 1 else (), origin)


def _without_wrappers(source: Catalog, target: Catalog) -> tuple[dict[str, str], list[str]]:
    """The source key for each name as the target would write it, and what is said of prefixes that differ."""
    ours, theirs = wrapper_prefix(source), wrapper_prefix(target)
    if ours == theirs:
        return {key: key for key in source}, []
    notes = []
    if ours:
        notes.append(f"every key of the source begins with `{ours}` ({wrapper_names(ours)}); paired without it")
    if theirs:
        notes.append(f"every key of the target begins with `{theirs}` ({wrapper_names(theirs)}); paired without it")
    return {theirs + key.removeprefix(ours): key for key in source}, notes


def nothing_pairs(source: Catalog, target: Catalog) -> Problem:
    """The problem that no key of the source is a key of the target, with a rule to try where a prefix explains it."""
    rule = prefix_rule(source, target)
    notes = (
        [f"{f'all {rule[1]} keys that pair do' if rule[1] > 1 else 'the one key that pairs does'} so after -e '{rule[0]}'"] if rule else []
    )
    if not rule:
        notes = [f"a key of the source: {next(iter(source), '(none)')}", f"a key of the target: {next(iter(target), '(none)')}"]
    return Problem("nothing-pairs", "no key of the source is a key of the target with the same shape", None, tuple(notes))
