"""torch's `state_dict._metadata` under new names: the versions of modules, by which they read older
state dicts.
"""

from collections.abc import Mapping

from ckpt_tool.mapping.plan import Plan

Versions = Mapping[str, Mapping[str, object]]


def renamed_versions(plan: Plan, source: Versions, target: Versions) -> Versions:
    """The target's entries, and over them the source's for each module whose tensors come from it.

    A module that holds tensors takes the entry of the module that they came from; the modules
    around it follow as long as their last names agree.
    """
    if not source and not target:
        return {}
    renamed = dict(target)
    for step in plan.steps:
        for output in step.outputs:
            _carry(
                renamed,
                source,
                _parent(step.inputs[0]) if step.inputs else None,
                _parent(output),
                not target,
            )
    return {module: renamed[module] for module in _in_order(renamed, plan)}


def _carry(
    renamed: dict[str, Mapping[str, object]],
    source: Versions,
    from_source: str | None,
    target: str,
    with_owners: bool,
) -> None:
    if from_source is not None and from_source in source:
        renamed[target] = source[from_source]
    while (
        with_owners
        and from_source
        and target
        and from_source.rpartition(".")[2] == target.rpartition(".")[2]
    ):
        from_source, target = _parent(from_source), _parent(target)
        if from_source in source:
            renamed.setdefault(target, source[from_source])


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _in_order(renamed: Mapping[str, object], plan: Plan) -> list[str]:
    """Modules as torch lists them, owners before what they own, in the order of the
    output's keys.
    """
    order: dict[str, None] = {}
    for key in plan.outputs:
        names = key.split(".")[:-1]
        order.update(dict.fromkeys(".".join(names[:depth]) for depth in range(len(names) + 1)))
    listed = [module for module in order if module in renamed]
    return listed + [module for module in renamed if module not in order]
