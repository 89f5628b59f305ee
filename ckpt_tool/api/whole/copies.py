"""Other copies of the weights in a training checkpoint, such as their moving average, which follow
the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.planning import Planned
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.opening import split_fragment
from ckpt_tool.formats.torch_files.contents import ReadPickle
from ckpt_tool.formats.torch_files.state_dicts import Container
from ckpt_tool.mapping.copies import plan_as_named, plan_for_copy, prefixes_of
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.engine.whole.weights import Part
    from ckpt_tool.mapping.plan import Plan


COUNT = "n_averaged"
"""What an AveragedModel has beside its module: how many models it is the average of."""


def copy_parts(weights: Part, names: Iterable[str], stack: ExitStack) -> Iterator[Part]:
    """The state dicts of these names, with the plan for each. Raises InputError for one that is
    none, or no copy of the weights; RuleError where the plan does not fit it.
    """
    from ckpt_tool.engine.whole.weights import Part

    plan, source = weights.plan, weights.source
    assert isinstance(source, Checkpoint)
    taken = [_taken(source).value]
    location = split_fragment(source.path)[0]
    for name in names:
        wanted = name.removeprefix("#")
        copy = stack.enter_context(open_checkpoint(f"{location}#{wanted}", source))
        where = _taken(copy)
        if any(where.value is one for one in taken):
            raise InputError("--also", f"`{name}` is mapped already", "leave it out")
        taken.append(where.value)
        named = plan_as_named(plan, copy.catalog)
        prefix = _prefix(copy, named, name, where.text, source)
        view = _of_weights(copy, prefix, named.source)
        made = plan_for_copy(named, view.catalog, wanted)
        _check_average(copy, prefix, made, name)
        yield Part(where.path, made, view, weights.target, prefix)


def why_not_mapped(weights: Part, name: str) -> str | None:
    """Why a state dict of the file can't follow the plan of the weights; None where it can."""
    try:
        with ExitStack() as closing:
            list(copy_parts(weights, [name], closing))
    except InputError as error:
        return error.fact
    except RuleError as error:
        return error.problems[0].message
    return None


def _dict_of_weights(source: Checkpoint, path: str, prefix: str) -> str:
    """The dict inside of a state dict whose keys are those of the weights, where the prefix that
    they have is its name; else nothing.
    """
    inner = f"{path}.{prefix[:-1]}"
    try:
        with ExitStack() as closing:
            if prefix:
                closing.enter_context(
                    open_checkpoint(f"{split_fragment(source.path)[0]}#{inner}", source)
                )
    except InputError:
        return ""
    return inner if prefix else ""


def _taken(side: Checkpoint) -> Container:
    read = side.contents.kept
    assert isinstance(read, ReadPickle)
    return read.described.listing.taken


def _prefix(copy: Checkpoint, plan: Plan, name: str, place: str, source: Checkpoint) -> str:
    """What stands before a copy's keys, which may lack some of what the plan reads. Raises
    InputError where it has nothing of it, where that is a dict of its own, and where there are
    several.
    """
    found = prefixes_of(copy.catalog, plan) or [*dict.fromkeys(_prefixes_of_some(copy, plan))]
    if not found:
        fact = f"`{name}` has none of the weights' keys"
        raise InputError("--also", fact, f"it has `{next(iter(copy.catalog))}`")
    inside = [f"'#{inner}'" for one in found if (inner := _dict_of_weights(source, place, one))]
    if len(found) > 1:
        several = " and ".join(f"behind `{one}`" if one else "bare" for one in found[:3])
        fact = f"`{name}` has the weights' keys several times: {several}"
        hint = "map it alone, by rules that say which"
        if inside:
            hint = f"name those: --also {' --also '.join(inside)}"
        raise InputError("--also", fact, hint)
    if inside:
        fact = f"`{name}` has the weights' keys in a dict of their own"
        raise InputError("--also", fact, f"name that: {inside[0]}")
    return found[0]


def _prefixes_of_some(copy: Checkpoint, plan: Plan) -> Iterator[str]:
    """What stands before those keys of a copy that the first step reads of which it has any."""
    for step in plan.steps:
        ends = {
            one.removesuffix(key): None
            for key in step.inputs
            for one in copy.catalog
            if one.endswith(key)
        }
        if before := [one for one in ends if not one or one.endswith(".")]:
            yield from before
            return


def _check_average(copy: Checkpoint, prefix: str, plan: Plan, name: str) -> None:
    """Raises InputError where torch's AveragedModel would lose the `module.` that all of its keys
    have.
    """
    is_average = COUNT in copy.catalog and COUNT not in plan.source and not prefix
    lost = next((key for key in plan.producers if not key.startswith("module.")), None)
    if is_average and lost is not None:
        fact = (
            f"`{name}` is an AveragedModel, whose keys begin with `module.`, and `{lost}` would not"
        )
        raise InputError("--also", fact, "map it alone, by rules of its own")


def _of_weights(copy: Checkpoint, prefix: str, weights: Catalog) -> Checkpoint:
    """The same open checkpoint with those tensors that the weights have, their keys shortened; what
    else is there (a decay, a count of updates) stays as it is.
    """
    contents = copy.contents
    names = {
        key: key.removeprefix(prefix)
        for key in copy.catalog
        if key.startswith(prefix) and key.removeprefix(prefix) in weights
    }
    if not prefix and len(names) == len(copy.catalog):
        return copy
    tied = {key: names.get(key) for key in copy.catalog}
    catalog = Catalog(
        replace(
            info,
            key=names[key],
            shared_storage_with=tied.get(info.shared_storage_with or ""),
            tied_to=tied.get(info.tied_to or ""),
        )
        for key, info in copy.catalog.items()
        if key in names
    )
    placements = {new: contents.placements[key] for key, new in names.items()}
    versions = {} if prefix else contents.versions
    view = replace(contents, catalog=catalog, placements=placements, versions=versions)
    return Checkpoint(copy.path, copy.format, view, copy.files)


def other_copies(planned: Planned, mapped: Sequence[str]) -> list[str]:
    """The state dicts of the source that have the weights' keys and don't follow the plan, as those
    `mapped` do.
    """
    if planned.plan is None or not isinstance(planned.source, Checkpoint):
        return []
    contents = planned.source.contents
    keys = [info.key for info in contents.elsewhere]
    found = []
    for place in contents.state_dicts:
        inside = [key[len(place.path) + 1 :] for key in keys if key.startswith(f"{place.path}.")]
        is_mapped = any(f"{name}.".startswith(f"{place.path}.") for name in mapped)
        is_other = place.path and place.path != contents.taken and not is_mapped
        plan = plan_as_named(planned.plan, inside)
        prefixes = prefixes_of(inside, plan) if is_other else []
        inner = [_dict_of_weights(planned.source, place.path, one) for one in prefixes]
        found += [each or place.path for each in inner if each or len(prefixes) == 1]
    return found
