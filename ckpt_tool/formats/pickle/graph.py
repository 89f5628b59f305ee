"""The objects of a pickle as a graph with named edges: modules, mappings, lists; and which of them
hold tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ckpt_tool.formats.limits import NODES
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    ArrayType,
    Global,
    Opaque,
    OpaqueTensor,
    PickleFault,
    SetValue,
    StorageRef,
    TensorRef,
    UnhashableKey,
)

Tensor = TensorRef | OpaqueTensor | ArrayRef
TENSOR_TYPES = frozenset((TensorRef, OpaqueTensor, ArrayRef))
_LEAVES = frozenset(
    (str, int, float, bool, type(None), bytes, complex, Global, StorageRef, ArrayType)
)


def module_state(value: object) -> dict[object, object] | None:
    """The attributes of a pickled `nn.Module`, wherever its class put them, or None for what is no
    module.
    """
    if type(value) is not Opaque:
        return None
    for candidate in (value.state, *value.args):
        if (
            isinstance(candidate, dict)
            and isinstance(candidate.get("_modules"), dict)
            and isinstance(candidate.get("_parameters"), dict)
        ):
            return candidate
    return None


def unwrap(value: object) -> object:
    """What a stand-in stands before: the module in a pickled `model.state_dict`, which is a bound
    method.
    """
    if (
        type(value) is Opaque
        and value.type_name in ("builtins.getattr", "__builtin__.getattr")
        and len(value.args) == 2
    ):
        owner, name = value.args
        if name == "state_dict" and module_state(owner):
            return owner
    return value


def compiled_module(value: object) -> object | None:
    """The module inside what `torch.compile` returned."""
    if (
        type(value) is Opaque
        and value.type_name == "torch._dynamo.eval_frame.OptimizedModule"
        and value.args
    ):
        return value.args[0] if module_state(value.args[0]) else None
    return None


def module_children(value: object) -> Iterator[tuple[str, object]] | None:
    """The parameters, persistent buffers and submodules in the order of `state_dict()`, or None for
    what is no module.
    """
    inner = compiled_module(value)
    if inner is not None:
        return iter([("_orig_mod", inner)])
    state = module_state(value)
    return _state_children(state) if state is not None else None


def _state_children(state: dict[object, object]) -> Iterator[tuple[str, object]]:
    hidden = state.get("_non_persistent_buffers_set")
    left_out = (
        {name for name in hidden.members if type(name) is str}
        if type(hidden) is SetValue
        else set()
    )
    yield from _named(state["_parameters"])
    yield from (
        (name, value) for name, value in _named(state.get("_buffers")) if name not in left_out
    )
    yield from _named(state["_modules"])


def module_leftovers(value: object) -> Iterator[tuple[str, object]]:
    """Of a module, what `state_dict()` leaves out: other attributes, and buffers that are not
    persistent.
    """
    state = module_state(value) or {}
    listed = {id(child) for _, child in _state_children(state)} if state else set()
    for name, child in _named(state):
        if name == "_buffers":
            yield from ((buffer, one) for buffer, one in _named(child) if id(one) not in listed)
        elif name not in ("_parameters", "_modules"):
            yield name, child


def has_renaming_hooks(value: object) -> bool:
    """Whether a module has hooks that may change what `state_dict()` gives; torch's own add
    versions alone.
    """
    state = module_state(value) or {}
    hooks = state.get("_state_dict_hooks")
    return isinstance(hooks, dict) and not all(_is_torchs(hook) for hook in hooks.values())


def _is_torchs(hook: object) -> bool:
    name = (
        hook.type_name if type(hook) is Opaque else hook.full_name if type(hook) is Global else ""
    )
    return name.startswith("torch.nn.utils.")


def _named(mapping: object) -> Iterator[tuple[str, object]]:
    if isinstance(mapping, dict):
        yield from ((key_text(key), child) for key, child in mapping.items() if child is not None)


def children(value: object) -> Iterable[tuple[str, object]]:
    """What a container or an object of an unknown class holds, by name. A module gives its
    attributes, not its state dict.
    """
    if isinstance(value, dict):
        return ((key if type(key) is str else key_text(key), child) for key, child in value.items())
    if isinstance(value, list | tuple):
        return ((str(index), child) for index, child in enumerate(value))
    if type(value) is SetValue:
        return children(value.members)
    if type(value) is ArrayRef:
        return children(value.objects)
    return _opaque_children(value) if type(value) is Opaque else ()


def containers(value: object) -> Iterator[dict[object, object] | list[object] | tuple[object, ...]]:
    """Whatever is gone through when the children of a value are listed; objects may share them."""
    if isinstance(value, dict | list | tuple):
        yield value
    elif type(value) is SetValue:
        yield value.members
    elif type(value) is Opaque:
        state = module_state(value)
        parts = value.state if type(value.state) is tuple else (value.state,)
        parts = (
            (state["_parameters"], state.get("_buffers"), state["_modules"], state)
            if state
            else (value.args, parts, *parts)
        )
        yield from (one for one in parts if isinstance(one, dict | list | tuple))


def _opaque_children(value: Opaque) -> Iterator[tuple[str, object]]:
    states = value.state if type(value.state) is tuple else (value.state,)
    for state in states:
        if isinstance(state, dict):
            yield from children(state)
        elif state is not None:
            yield "state", state
    yield from children(value.items)
    yield from children(value.appended)
    parts = [part for part in (value.callee, *value.args) if type(part) not in _LEAVES]
    yield from (
        ("args" if len(parts) == 1 else f"args.{number}", part) for number, part in enumerate(parts)
    )


def key_text(key: object) -> str:
    """A dict key as a part of a tensor's key."""
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        with suppress(UnicodeDecodeError):
            return key.decode()
    if type(key) in (int, bool, float):
        return str(key)
    return describe(key.value if type(key) is UnhashableKey else key, 60)


def holders(root: object) -> tuple[set[int], bool]:
    """The ids of all objects that hold a tensor, at any depth, and whether one is torch's. Raises
    PickleFault.

    Each object is looked at once; the ids are good as long as `root` lives.
    """
    has_torch = type(root) in (TensorRef, OpaqueTensor)
    parents: dict[int, int | list[int]] = {id(root): []}
    pending, found = [root], [id(root)] if type(root) in TENSOR_TYPES else []
    while pending:
        value = pending.pop()
        me = id(value)
        for child in parts_of(value):
            kind = type(child)
            if kind is TensorRef:
                has_torch = True
                found.append(me)
            elif kind not in _LEAVES:
                if kind in TENSOR_TYPES:
                    has_torch = has_torch or kind is OpaqueTensor
                    found.append(me)
                if id(child) not in parents:
                    pending.append(child)
                _add_parent(parents, id(child), me)
        if len(parents) > NODES:
            raise PickleFault(f"holds more than {NODES} objects")
    return _with_ancestors(found, parents), has_torch


def _add_parent(parents: dict[int, int | list[int]], child: int, parent: int) -> None:
    """Most objects have a single parent, for which a list would be too much."""
    known = parents.setdefault(child, parent)
    if isinstance(known, list):
        if not known or known[-1] != parent:
            known.append(parent)
    elif known != parent:
        parents[child] = [known, parent]


def _with_ancestors(found: list[int], parents: dict[int, int | list[int]]) -> set[int]:
    holding: set[int] = set()
    while found:
        node = found.pop()
        if node not in holding:
            holding.add(node)
            known = parents[node]
            found += known if isinstance(known, list) else [known]
    return holding


def parts_of(value: object) -> Iterable[object]:
    """The objects that a value refers to, themselves and not copies, so that their ids last."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    if type(value) is Opaque:
        return (value.callee, value.args, value.state, value.items, value.appended)
    if type(value) is SetValue:
        return value.members
    return value.objects if type(value) is ArrayRef else ()
