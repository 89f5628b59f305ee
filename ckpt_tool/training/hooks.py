"""Modules that do more on loading than copying: what torch would make of the values, before any is
copied.

A module may override `_load_from_state_dict` or have hooks before loading, mostly to read older
state dicts. torch itself loads into such a module, so that its code sees what it would see; a
snapshot of the module is put back where anything then stops the load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.engine.versions import renamed_versions
from ckpt_tool.errors import InputError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.torch_bridge import Memory, identity_of, is_wrapper, memory_of, same_bytes
from ckpt_tool.training.filling import LiveTensors
from ckpt_tool.training.snapshots import Snapshot, exchange, held
from ckpt_tool.training.values import step_values

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn.modules.module import _IncompatibleKeys

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState

Versions = Mapping[str, Mapping[str, object]]
OF_NAMES_ALONE = ("torch.distributed.fsdp", "torch.distributed.algorithms._checkpoint")
"""Where torch's own hooks come from that undo what its state-dict hooks did to names, or put
parameters into their places.
"""


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

    def add(self, taken: _Taken) -> None:
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
    for path, region in _regions(module):
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
            taken = _taken(part, unchanged, slots, snapshot)
            if taken.is_changed and not part.has_own_names(plan):
                raise part.refused(
                    f"changes `{(taken.changed + taken.filled)[0]}` on loading, by code for its "
                    "own state dicts, and the plan makes it from other names"
                )
            hooked.add(taken)
            _put_back(part, slots, taken.replaced)
    return hooked


def _part_of(
    module: nn.Module, path: str, region: nn.Module, plan: Plan, keys: Mapping[int, str]
) -> _Part:
    """A module with the keys of the model for its own names, and those that the plan fills."""
    state = region.state_dict(keep_vars=True)
    names = {name: keys.get(id(tensor)) for name, tensor in state.items()}
    loaded = {name: key for name, key in names.items() if key in plan.producers}
    return _Part(module, path, region, names, loaded)


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
        if not is_inside and (
            _may_change_values(each) or (each is module and _is_overridden(each, "load_state_dict"))
        ):
            yield path, each
            outer = path


def _has_loading_code(module: nn.Module) -> bool:
    """Whether a module loads its own tensors in another way than torch does."""
    return _is_overridden(module, "_load_from_state_dict")


def _is_overridden(module: nn.Module, name: str) -> bool:
    from torch import nn

    return getattr(type(module), name) is not getattr(nn.Module, name) or name in vars(module)


def _may_change_values(module: nn.Module) -> bool:
    hooks = [getattr(hook, "hook", hook) for hook in module._load_state_dict_pre_hooks.values()]
    return _has_loading_code(module) or any(
        not str(hook.__module__).startswith(OF_NAMES_ALONE) for hook in hooks
    )


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tensor of a module, where it stands, and its key of the state dict, or an empty one."""

    tensors: Mapping[str, torch.Tensor | None]
    name: str
    tensor: torch.Tensor
    key: str

    @property
    def now(self) -> torch.Tensor | None:
        return self.tensors.get(self.name)

    @property
    def is_replaced(self) -> bool:
        return self.now is not self.tensor


@dataclass(frozen=True, slots=True)
class _Part:
    """A module with all in it: the model's key for each name of its own state dict, or None, and
    for those that are loaded.
    """

    root: nn.Module
    path: str
    module: nn.Module
    keys: Mapping[str, str | None]
    loaded: Mapping[str, str]

    def given(
        self, plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors
    ) -> dict[str, torch.Tensor]:
        """The values that the plan has for the module, by its own names."""
        wanted = set(self.loaded.values())
        values: dict[str, torch.Tensor] = {}
        for step in {
            id(step): step for step, _ in (plan.producers[key] for key in self.loaded.values())
        }.values():
            found = zip(step.outputs, step_values(step, source, tensors), strict=True)
            values.update((key, value) for key, value in found if key in wanted)
        return {name: values[key] for name, key in self.loaded.items()}

    def slots(self, keys: Mapping[int, str]) -> list[_Slot]:
        """Every tensor of the module."""
        from torch.jit import ScriptModule

        modules = list(self.module.modules())
        if any(isinstance(each, ScriptModule) for each in modules):
            raise self.refused("can't be loaded: it has TorchScript in it")
        dicts: list[Mapping[str, torch.Tensor | None]] = [
            tensors for each in modules for tensors in (each._parameters, each._buffers)
        ]
        return [
            _Slot(tensors, name, tensor, keys.get(id(tensor), ""))
            for tensors in dicts
            for name, tensor in tensors.items()
            if tensor is not None
        ]

    @property
    def is_whole_norm(self) -> bool:
        """Whether it is one of torch's normalisations and the plan fills all of it: then its code
        only copies.

        It gives older state dicts a counter that is missing, or complains of statistics that the
        module has no place for.
        """
        from torch.nn.modules.batchnorm import _NormBase
        from torch.nn.modules.instancenorm import _InstanceNorm

        codes = (_NormBase._load_from_state_dict, _InstanceNorm._load_from_state_dict)
        is_norm = (
            type(self.module)._load_from_state_dict in codes
            and not self.module._load_state_dict_pre_hooks
        )
        return is_norm and len(self.loaded) == len(self.keys)

    def has_own_names(self, plan: Plan) -> bool:
        """Whether the plan fills the module from the same names below one path, unchanged but for
        their dtype.
        """
        steps = [(name, plan.producers[key][0]) for name, key in self.loaded.items()]
        origins = [
            (name, step.inputs[0])
            for name, step in steps
            if all(op.name == "cast" for op in step.ops)
        ]
        paths = {key.removesuffix(name) for name, key in origins if key.endswith(name)}
        return (
            len(paths) == 1
            and len(origins) == len(steps)
            and all(key == min(paths) + name for name, key in origins)
        )

    def refused(self, fact: str) -> InputError:
        who = f"`{self.path}` ({type(self.module).__name__}) " if self.path else ""
        hint = (
            "let its own `load_state_dict` read the file, or one that `ckpt map` has written, "
            "and keep its keys here"
        )
        return InputError(type(self.root).__name__, f"{who}{fact}", hint)


def _load(
    part: _Part, slots: Sequence[_Slot], given: Mapping[str, torch.Tensor], versions: Versions
) -> None:
    """Lets torch load the module; tensors that can't be written to as they are, on the meta device
    or in parts, are replaced by it.
    """
    from torch import nn

    state = OrderedDict(given)
    state._metadata = _own_versions(part, versions)  # type: ignore[attr-defined]
    load = part.module.load_state_dict
    if part.module is not part.root or not _is_overridden(part.module, "load_state_dict"):
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


def _own_versions(part: _Part, versions: Versions) -> dict[str, dict[str, object]]:
    """torch's versions for the module and those in it, by their paths from it."""
    name, key = next(iter(part.loaded.items()))
    prefix = key.removesuffix(name)
    inside = {path: version for path, version in versions.items() if f"{path}.".startswith(prefix)}
    return {
        f"{path}.".removeprefix(prefix).removesuffix("."): dict(version)
        for path, version in inside.items()
    }


@dataclass(slots=True)
class _Taken:
    """What a module was filled with by its own code: keys whose values it changed, keys that it
    filled besides, slots that have another tensor now, tensors that were written to.
    """

    changed: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    replaced: list[_Slot] = field(default_factory=list)
    written: list[_Slot] = field(default_factory=list)

    @property
    def is_changed(self) -> bool:
        """Whether the code did more than copy."""
        return bool(self.changed) or any(self.filled)


def _taken(
    part: _Part,
    given: Mapping[str, torch.Tensor],
    slots: Sequence[_Slot],
    snapshot: Snapshot,
) -> _Taken:
    """What the module was filled with; `given` are the values that its code has left as they were.
    Raises InputError for what can't be kept.
    """
    untouched = {key: given.get(name) for name, key in part.loaded.items()}
    taken = _Taken()
    for slot in slots:
        if slot.is_replaced and not slot.key:
            continue  # no tensor of the state dict: it is as the code left it
        now = slot.now
        if now is None or now.shape != slot.tensor.shape:
            raise part.refused(f"gives `{slot.key}` another shape on loading")
        is_asked = slot.key in untouched
        if not (slot.is_replaced or _is_filled(now, is_asked, snapshot)):
            if is_asked:
                raise part.refused(f"leaves out `{slot.key}` on loading")
            continue
        (taken.replaced if slot.is_replaced else taken.written).append(slot)
        if not is_asked:
            taken.filled.append(slot.key)
        elif not _has_value(now, untouched[slot.key]):
            taken.changed.append(slot.key)
    return taken


def _is_filled(now: torch.Tensor, is_asked: bool, snapshot: Snapshot) -> bool:
    """Whether a tensor that stayed was written to; one that nobody asked for counts where its
    values are others.
    """
    return snapshot.is_written(now) if is_asked else snapshot.is_changed(now)


def _put_back(part: _Part, slots: Sequence[_Slot], replaced: Sequence[_Slot]) -> None:
    """Puts the module's own tensors, which others know, where torch or the code has put others,
    also where the code has noted these.
    """
    known = {id(slot.now): (slot.now, slot.tensor) for slot in replaced}
    owners = {id(slot.now): id(slot.tensor) for slot in replaced}
    own = {memory_of(slot.tensor) for slot in slots} - {None}
    memories: dict[Memory | None, str] = {}
    for slot in replaced:
        assert slot.now is not None
        memory = memory_of(slot.now)
        if owners[id(slot.now)] != id(slot.tensor) or memory in own:
            raise part.refused(f"ties `{slot.key}` to another tensor on loading")
        if memory:
            memories[memory] = slot.key
    exchange(part.module, known)
    _refuse_views(part, memories, {id(slot.tensor) for slot in slots})


def _refuse_views(part: _Part, memories: Mapping[Memory | None, str], own: Collection[int]) -> None:
    """What the code has noted of tensors that don't stay would go on showing these."""
    import torch

    for each in held(part.module) if memories else ():
        memory = memory_of(each) if isinstance(each, torch.Tensor) and id(each) not in own else None
        if memory in memories:
            raise part.refused(
                f"keeps a view of `{memories[memory]}` on loading, which is replaced where it is "
                "on the meta device or in parts"
            )


def _has_value(now: torch.Tensor, given: torch.Tensor | None) -> bool:
    if given is None:
        return False
    return identity_of(now) == identity_of(given) or (
        not is_wrapper(now) and now.dtype == given.dtype and same_bytes(now, given)
    )
