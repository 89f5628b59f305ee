"""Modules that do more on loading than copying: what torch would make of the values, before any is
copied.

A module may override `_load_from_state_dict` or have hooks before loading, mostly to read older
state dicts. torch itself loads into such a module, so that its code sees what it would see; a
snapshot of the module is put back where anything then stops the load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.engine.versions import renamed_versions
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.torch_bridge import is_wrapper
from ckpt_tool.training.load_hooks.effects import Taken, put_back, taken_by
from ckpt_tool.training.load_hooks.parts import HookedModule, Slot, is_overridden, regions_of
from ckpt_tool.training.memory.filling import LiveTensors
from ckpt_tool.training.registered import own_state
from ckpt_tool.training.snapshots import Snapshot

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn.modules.module import _IncompatibleKeys

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState

Versions = Mapping[str, Mapping[str, object]]


@dataclass(slots=True)
class Hooked:
    """What modules with code of their own make of a plan's values.

    `in_place` are the identities of tensors that are filled; `values` are others that are to be
    filled, by identity, with what they get. `changed` are the keys whose values the code changed,
    `filled` the kept keys that it filled.
    """

    values: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    in_place: set[int] = field(default_factory=set)
    changed: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)

    def add(self, taken: Taken) -> None:
        """Takes in what one module was filled with."""
        self.values.update(
            (id(slot.tensor), (slot.tensor, slot.now))
            for slot in taken.replaced
            if slot.now is not None
        )
        self.in_place.update(id(slot.tensor) for slot in taken.written)
        self.changed += taken.changed
        self.filled += [key for key in taken.filled if key]

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has its value already, or one that waits for it."""
        return id(tensor) in self.values or id(tensor) in self.in_place


def run_hooks(
    module: nn.Module,
    plan: Plan,
    source: Checkpoint | LiveState,
    tensors: LiveTensors,
    undo: ExitStack,
) -> Hooked:
    """Runs the hooks before loading, and each module's own loading code, where the plan fills
    something.

    `undo` gets what puts everything back. All values of such a module are in memory at once, as
    torch has them, and its former ones too. Raises InputError where its code fails, asks for keys
    that the plan doesn't give, or changes values that the plan makes in another way than from the
    module's own names.
    """
    hooked = Hooked()
    keys = {id(tensors[key]): key for key in (*plan.kept, *plan.producers)}
    versions: Versions | None = None
    for path, region in regions_of(module):
        part = _part_of(module, path, region, plan, keys)
        if part.loaded and not part.is_whole_norm:
            versions = renamed_versions(plan, source.versions, {}) if versions is None else versions
            given = part.given(plan, source, tensors)
            before = {name: value._version for name, value in given.items()}
            slots = part.slots(keys)
            snapshot = Snapshot(region)
            undo.callback(snapshot.restore)
            _load(part, slots, given, versions)
            unchanged = {
                name: value for name, value in given.items() if value._version == before[name]
            }
            taken = taken_by(part, unchanged, slots, snapshot)
            if taken.is_changed and not part.has_own_names(plan):
                raise part.refused(
                    f"changes `{(taken.changed + taken.filled)[0]}` on loading, by code for its "
                    "own state dicts, and the plan makes it from other names"
                )
            hooked.add(taken)
            put_back(part, slots, taken.replaced)
    return hooked


def _part_of(
    module: nn.Module, path: str, region: nn.Module, plan: Plan, keys: Mapping[int, str]
) -> HookedModule:
    """A module with the keys of the model for its own names, and those that the plan fills."""
    state = own_state(region)
    names = {name: keys.get(id(tensor)) for name, tensor in state.items()}
    loaded = {name: key for name, key in names.items() if key in plan.producers}
    return HookedModule(module, path, region, names, loaded)


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


def _load(
    part: HookedModule, slots: Sequence[Slot], given: Mapping[str, torch.Tensor], versions: Versions
) -> None:
    """Lets torch load the module; tensors that can't be written to as they are, on the meta device
    or in parts, are replaced by it.
    """
    from torch import nn

    state = OrderedDict(given)
    state._metadata = _own_versions(part, versions)  # type: ignore[attr-defined]
    load = part.module.load_state_dict
    if part.module is not part.root or not is_overridden(part.module, "load_state_dict"):
        load = partial(nn.Module.load_state_dict, part.module)
    needs_new = any(slot.tensor.is_meta or is_wrapper(slot.tensor) for slot in slots)
    options = {"assign": True} if needs_new else {}
    parts = _parts_of(part.module)
    try:
        with _without_post_hooks(part.module):
            result = load(state, strict=False, **options)
    except Exception as error:
        raise part.refused(f"can't be loaded: {type(error).__name__}: {error}") from error
    if asked := [key for key in getattr(result, "missing_keys", ()) if key not in part.keys]:
        raise part.refused(f"asks for `{asked[0]}` on loading, which the plan doesn't give")
    if _parts_of(part.module) != parts:
        raise part.refused("puts other modules into itself on loading")


def _parts_of(module: nn.Module) -> list[object]:
    """All modules, and the names of all tensors, in a module."""
    modules = module.named_modules(remove_duplicate=False)
    return [(path, id(each), [*each._parameters], [*each._buffers]) for path, each in modules]


@contextmanager
def _without_post_hooks(module: nn.Module) -> Iterator[None]:
    """Hooks after loading wait until all of the model is loaded."""
    waiting = [
        (each._load_state_dict_post_hooks, dict(each._load_state_dict_post_hooks))
        for each in module.modules()
    ]
    for hooks, _ in waiting:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, before in waiting:
            new = dict(hooks)
            hooks.clear()
            hooks.update({**before, **new})


def _own_versions(part: HookedModule, versions: Versions) -> dict[str, dict[str, object]]:
    """torch's versions for the module and those in it, by their paths from it."""
    name, key = next(iter(part.loaded.items()))
    prefix = key.removesuffix(name)
    inside = {path: version for path, version in versions.items() if f"{path}.".startswith(prefix)}
    return {
        f"{path}.".removeprefix(prefix).removesuffix("."): dict(version)
        for path, version in inside.items()
    }
