"""Modules that do more on loading than copying: what torch would make of the values, before any is copied.

A module may override `_load_from_state_dict` or have hooks before loading, mostly to read older state dicts. torch itself loads into
an empty twin of such a module: its code sees the state dict that it would see, and nothing of the module changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.engine.versions import renamed_versions
from ckpt_tool.errors import InputError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.torch_bridge import identity_of
from ckpt_tool.training.filling import Tensors
from ckpt_tool.training.twins import Twin, has_loading_code, is_overridden
from ckpt_tool.training.values import step_values

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn.modules.module import _IncompatibleKeys

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState

Versions = Mapping[str, Mapping[str, object]]
OF_NAMES_ALONE = ("torch.distributed.fsdp", "torch.distributed.algorithms._checkpoint")
"""Where torch's own hooks come from that undo what its state-dict hooks did to names, or put parameters into their places."""


@dataclass(slots=True)
class Hooked:
    """What modules with code of their own make of a plan's values.

    `values` are the tensors that they load, by identity, with what they get; `changed` the keys whose values they changed, and
    `filled` the kept keys that they filled. `attributes` are what they noted on modules.
    """

    values: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    attributes: list[tuple[nn.Module, str, object]] = field(default_factory=list)


def run_hooks(module: nn.Module, plan: Plan, source: Checkpoint | LiveState, tensors: Tensors) -> Hooked:
    """Runs the hooks before loading, and each module's own loading code, where the plan fills something.

    All values of such a module are in memory at once, as torch has them. Raises InputError where its code fails, asks for keys that the
    plan doesn't give, or changes values that the plan makes in another way than from the module's own names.
    """
    hooked = Hooked()
    keys = {id(tensors[key]): key for key in (*plan.kept, *plan.producers)}
    versions: Versions | None = None
    for path, region in _regions(module):
        names = {name: keys.get(id(tensor)) for name, tensor in region.state_dict(keep_vars=True).items()}
        part = _Part(module, path, region, names, {name: key for name, key in names.items() if key in plan.producers})
        if part.loaded and not part.is_whole_norm:
            versions = renamed_versions(plan, source.versions, {}) if versions is None else versions
            given = part.given(plan, source, tensors)
            before = {name: value._version for name, value in given.items()}
            twin = _loaded(part, given, versions)
            unchanged = {name for name, value in given.items() if value._version == before[name]}
            _take(hooked, part, plan, keys, {name: given[name] for name in unchanged}, twin)
    return hooked


def call_post_hooks(module: nn.Module, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Calls the hooks after loading, those of inner modules first, as `load_state_dict` does."""
    from torch.nn.modules.module import _IncompatibleKeys

    _call_post_hooks(module, _IncompatibleKeys(list(missing), list(unexpected)))


def _call_post_hooks(module: nn.Module, keys: _IncompatibleKeys) -> None:
    for child in module._modules.values():
        if child is not None:
            _call_post_hooks(child, keys)
    for hook in module._load_state_dict_post_hooks.values():
        hook(module, keys)


def _regions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that may change what they load, by their paths."""
    outer: str | None = None
    for path, each in module.named_modules():
        is_inside = outer is not None and (not outer or path.startswith(f"{outer}."))
        if not is_inside and (_may_change_values(each) or (each is module and is_overridden(each, "load_state_dict"))):
            yield path, each
            outer = path


def _may_change_values(module: nn.Module) -> bool:
    hooks = [getattr(hook, "hook", hook) for hook in module._load_state_dict_pre_hooks.values()]
    return has_loading_code(module) or any(not str(hook.__module__).startswith(OF_NAMES_ALONE) for hook in hooks)


@dataclass(frozen=True, slots=True)
class _Part:
    """A module with all in it: the model's key for each name of its own state dict, or None, and for those that are loaded."""

    root: nn.Module
    path: str
    module: nn.Module
    keys: Mapping[str, str | None]
    loaded: Mapping[str, str]

    def given(self, plan: Plan, source: Checkpoint | LiveState, tensors: Tensors) -> dict[str, torch.Tensor]:
        """The values that the plan has for the module, by its own names."""
        wanted = set(self.loaded.values())
        values: dict[str, torch.Tensor] = {}
        for step in {id(step): step for step, _ in (plan.producers[key] for key in self.loaded.values())}.values():
            found = zip(step.outputs, step_values(step, source, tensors), strict=True)
            values.update((key, value) for key, value in found if key in wanted)
        return {name: values[key] for name, key in self.loaded.items()}

    @property
    def is_whole_norm(self) -> bool:
        """Whether it is one of torch's normalisations and the plan fills all of it: then its code only copies.

        It gives older state dicts a counter that is missing, or complains of statistics that the module has no place for.
        """
        from torch.nn.modules.batchnorm import _NormBase
        from torch.nn.modules.instancenorm import _InstanceNorm

        codes = (_NormBase._load_from_state_dict, _InstanceNorm._load_from_state_dict)
        is_norm = type(self.module)._load_from_state_dict in codes and not self.module._load_state_dict_pre_hooks
        return is_norm and len(self.loaded) == len(self.keys)

    def has_own_names(self, plan: Plan) -> bool:
        """Whether the plan fills the module from the same names below one path, unchanged but for their dtype."""
        steps = [(name, plan.producers[key][0]) for name, key in self.loaded.items()]
        origins = [(name, step.inputs[0]) for name, step in steps if all(op.name == "cast" for op in step.ops)]
        paths = {key.removesuffix(name) for name, key in origins if key.endswith(name)}
        return len(paths) == 1 and len(origins) == len(steps) and all(key == min(paths) + name for name, key in origins)

    def refused(self, fact: str) -> InputError:
        who = f"`{self.path}` ({type(self.module).__name__}) " if self.path else ""
        hint = "let its own `load_state_dict` read the file, or one that `ckpt map` has written, and keep its keys here"
        return InputError(type(self.root).__name__, f"{who}{fact}", hint)


def _loaded(part: _Part, given: Mapping[str, torch.Tensor], versions: Versions) -> Twin:
    """A twin of the module, loaded by torch."""
    from torch import nn

    state = OrderedDict(given)
    state._metadata = _own_versions(part, versions)  # type: ignore[attr-defined]
    is_whole = part.module is part.root and is_overridden(part.module, "load_state_dict")
    try:
        twin = Twin(part.module, with_copies=is_whole)
        load = twin.module.load_state_dict if is_whole else partial(nn.Module.load_state_dict, twin.module)
        result = load(state, strict=False, assign=True)
    except Exception as error:
        raise part.refused(f"can't be loaded: {type(error).__name__}: {error}") from error
    if asked := [key for key in getattr(result, "missing_keys", ()) if key not in part.keys]:
        raise part.refused(f"asks for `{asked[0]}` on loading, which the plan doesn't give")
    if twin.has_other_parts:
        raise part.refused("puts other modules into itself on loading")
    return twin


def _own_versions(part: _Part, versions: Versions) -> dict[str, dict[str, object]]:
    """torch's versions for the module and those in it, by their paths from it."""
    name, key = next(iter(part.loaded.items()))
    prefix = key.removesuffix(name)
    inside = {path: version for path, version in versions.items() if f"{path}.".startswith(prefix)}
    return {f"{path}.".removeprefix(prefix).removesuffix("."): dict(version) for path, version in inside.items()}


def _take(hooked: Hooked, part: _Part, plan: Plan, keys: Mapping[int, str], given: Mapping[str, torch.Tensor], twin: Twin) -> None:
    """Adds what the twin was filled with; `given` are the values that its code has left as they were."""
    untouched = {key: given.get(name) for name, key in part.loaded.items()}
    changed: list[str] = []
    filled: list[str] = []
    for slot in twin.slots():
        key = keys.get(id(slot.tensor), "")
        if not slot.is_filled:
            if key in untouched:
                raise part.refused(f"leaves out `{key}` on loading")
            continue
        if slot.now is None or slot.now.shape != slot.tensor.shape:
            raise part.refused(f"gives `{key}` another shape on loading")
        if slot.is_written:
            raise part.refused(f"has written to `{key}` itself before all was checked")
        hooked.values[id(slot.tensor)] = slot.tensor, slot.now
        if key not in untouched:
            filled.append(key)
        elif not _is_one(slot.now, untouched[key]):
            changed.append(key)
    if (changed or filled) and not part.has_own_names(plan):
        fact = f"changes `{(changed + filled)[0]}` on loading, by code for its own state dicts, and the plan makes it from other names"
        raise part.refused(fact)
    hooked.changed += changed
    hooked.filled += [key for key in filled if key]
    hooked.attributes += twin.attributes()


def _is_one(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and identity_of(one) == identity_of(other)
