"""A plan for another copy of the same weights, such as their moving average: the same steps, as far
as the copy has what they read.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.mapping.accounting.wrappers import wrapper_prefix
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.tensors import Catalog, shape_text


def prefixes_of(keys: Iterable[str], plan: Plan) -> list[str]:
    """What stands before the keys of each whole copy among some keys (`module.`, or nothing)."""
    known = dict.fromkeys(keys)
    read = [key for step in plan.steps for key in step.inputs]
    if not read:
        return []
    ends = [key.removesuffix(read[0]) for key in known if key.endswith(read[0])]
    before = [one for one in ends if not one or one.endswith(".")]
    return [one for one in before if all(f"{one}{key}" in known for key in read)]


def plan_as_named(plan: Plan, keys: Iterable[str]) -> Plan:
    """The plan for keys that may lack a wrapper's prefix (`module.`) that all of the weights' keys
    have. Its outputs lose that prefix, too, if all of them have it.
    """
    known = dict.fromkeys(keys)
    prefix = wrapper_prefix(plan.source)
    if not prefix or plan.kept or _reads_some(plan, known):
        return plan
    outputs = [key for step in plan.steps for key in step.outputs]
    has_prefix = {key.startswith(prefix) for key in outputs}
    if len(has_prefix) != 1:
        return plan
    bare = _without_prefix(plan, prefix)
    return bare if prefixes_of(known, bare) or _reads_some(bare, known) else plan


def _reads_some(plan: Plan, keys: Container[str]) -> bool:
    return any(key in keys for step in plan.steps for key in step.inputs)


def _without_prefix(plan: Plan, prefix: str) -> Plan:
    def names(keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(key.removeprefix(prefix) for key in keys)

    def catalog(given: Catalog) -> Catalog:
        named = given.values()
        return Catalog(replace(one, key=one.key.removeprefix(prefix)) for one in named)

    steps = [
        replace(step, inputs=names(step.inputs), outputs=names(step.outputs)) for step in plan.steps
    ]
    return replace(
        plan,
        steps=tuple(steps),
        dropped=names(plan.dropped),
        source=catalog(plan.source),
        target=plan.target and catalog(plan.target),
    )


def plan_for_copy(plan: Plan, copy: Catalog, name: str) -> Plan:
    """The plan for a copy that lies beside the weights, under `name`, its keys without a prefix.

    What the copy lacks, as buffers in an average of the parameters alone, it lacks then, too.
    Raises RuleError where a step could be done in part, and where a shape is another.
    """
    steps = [step for step in plan.steps if not step.inputs or step.inputs[0] in copy]
    problems = [problem for step in plan.steps for problem in _misfits(plan, step, copy, name)]
    lacks = next((key for step in plan.steps for key in step.inputs if key not in copy), None)
    if lacks is not None and plan.kept:
        problems.append(
            _problem(
                f"`{name}` lacks `{lacks}`, and `{plan.kept[0]}` would be added to it as it is in "
                "the target: whether it has such a tensor isn't known"
            )
        )
    if problems:
        raise RuleError(problems)
    made = {key for step in steps for key in step.outputs} | set(plan.kept)
    target = plan.target and Catalog(info for key, info in plan.target.items() if key in made)
    dropped = tuple(key for key in plan.dropped if key in copy)
    return replace(plan, steps=tuple(steps), dropped=dropped, source=copy, target=target, notes=())


def _misfits(plan: Plan, step: Step, copy: Catalog, name: str) -> Iterable[Problem]:
    found = [key for key in step.inputs if key in copy]
    if found and len(found) < len(step.inputs):
        lacks = next(key for key in step.inputs if key not in copy)
        yield _problem(
            f"`{name}` has `{found[0]}`, and lacks `{lacks}`: `{step.outputs[0]}` needs both"
        )
    for key in found:
        if copy[key].shape != plan.source[key].shape:
            here, there = shape_text(copy[key].shape), shape_text(plan.source[key].shape)
            yield _problem(f"`{key}` is {here} in `{name}`, and {there} in the weights")


def _problem(message: str) -> Problem:
    return Problem("copy", message, None)
