"""A live state dict where a checkpoint could stand."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError, need_torch
from ckpt_tool.formats.key_order import are_declared_so
from ckpt_tool.tensors import Catalog, OnDisk, TensorInfo, UnreadableTensor, shape_text
from ckpt_tool.torch_bridge import (
    is_wrapper,
    local_part,
    memories,
    odd_info,
    odd_kind,
    odd_text,
    tensor_infos,
    to_bytes,
    whole_tensor,
)
from ckpt_tool.training.registered import (
    has_own_parameters,
    own_state,
    registered,
    registered_parameters,
)
from ckpt_tool.wording import type_text

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.formats import Extent, SourceFile

EXTRA_STATE = "_extra_state"
"""What a module's own `get_extra_state` gives, see `nn.Module`: no weight, and only the module's
code knows what to do with it.
"""


class LiveState:
    """A state dict in memory, with what the engine asks of an open checkpoint.

    `parameters` are all keys of each parameter, where it is that of a model. `others` are its keys
    that are no tensors, or no weights. Sparse and quantised tensors and
    numpy's arrays are `unreadable` in its catalog, as in that of a file; where it `is_target`,
    which keeps what it isn't given, its tensors are keys like others. `is_of_model` says that the
    order is the model's own. Raises InputError for tensors of lazy modules, which have no shape
    yet.
    """

    has_values = True
    files: tuple[SourceFile, ...] = ()

    def __init__(
        self,
        path: str,
        state_dict: Mapping[str, object],
        is_target: bool = False,
        parameters: tuple[tuple[str, ...], ...] = (),
        is_of_model: bool = False,
    ) -> None:
        self.path, self.parameters = path, parameters
        weights = _weights(state_dict)
        _check_shapes(path, weights)
        odd = {key: tensor for key, tensor in weights.items() if odd_kind(tensor)}
        self._tensors = {key: tensor for key, tensor in weights.items() if key not in odd}
        infos: dict[str, TensorInfo] = {info.key: info for info in tensor_infos(self._tensors)}
        unreadable: dict[str, UnreadableTensor] = {}
        if is_target:
            infos |= {key: odd_info(key, tensor) for key, tensor in odd.items()}
        else:
            unreadable = {key: _unreadable_tensor(key, tensor) for key, tensor in odd.items()}
            unreadable |= _unreadable_arrays(state_dict)
        known = weights.keys() | unreadable.keys()
        self.others = tuple(str(key) for key in state_dict if key not in known)
        listed = [infos[key] for key in state_dict if key in infos]
        self.metadata: Mapping[str, str] = {}
        self.versions: Mapping[str, Mapping[str, object]] = getattr(state_dict, "_metadata", {})
        is_declared = is_of_model or are_declared_so(listed, self.versions)
        self.catalog = Catalog(listed, True, unreadable.values(), is_declared)

    def extent(self, key: str) -> Extent | None:
        """None: nothing of it is a byte range of a file."""
        return None

    def extents(self, key: str) -> tuple[Extent, ...]:
        """None either."""
        return ()

    def chunks(self, key: str) -> Iterator[bytes]:
        """The contiguous little-endian bytes of a tensor, all at once. Raises InputError for one
        whose values can't be read.
        """
        self.check((key,))
        yield bytes(to_bytes(whole_tensor(self._tensors[key])))

    def check(self, keys: Iterable[str], threads: int = 1) -> None:
        """Raises InputError for a tensor whose values can't be read."""
        for key in keys:
            tensor = self._tensors[key]
            if tensor.is_meta:
                raise InputError(self.path, f"`{key}` is on the meta device, and has no values")
            if is_wrapper(local_part(tensor)):
                raise InputError(
                    self.path,
                    f"`{key}` is {type_text(tensor)}, whose values only its own class can read",
                )


def _weights(state_dict: Mapping[str, object]) -> dict[str, torch.Tensor]:
    import torch

    return {
        key: value
        for key, value in state_dict.items()
        if isinstance(value, torch.Tensor) and _is_weight(key, value)
    }


def _is_weight(key: object, value: object) -> bool:
    import torch

    return (
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and key.rpartition(".")[2] != EXTRA_STATE
    )


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _unreadable_tensor(key: str, tensor: torch.Tensor) -> UnreadableTensor:
    return UnreadableTensor(key, odd_kind(tensor), _shape_of(tensor), odd_text(tensor))


def _unreadable_arrays(state_dict: Mapping[str, object]) -> dict[str, UnreadableTensor]:
    """numpy's arrays of a state dict."""
    arrays = {key: value for key, value in state_dict.items() if _is_array(value)}
    return {key: _unreadable_array(key, array) for key, array in arrays.items()}


def _unreadable_array(key: str, array: object) -> UnreadableTensor:
    shape = tuple(array.shape)  # type: ignore[attr-defined]
    return UnreadableTensor(key, "array", shape, f"numpy array {array.dtype} {shape_text(shape)}")  # type: ignore[attr-defined]


def _shape_of(tensor: torch.Tensor) -> tuple[int, ...] | None:
    return None if tensor.is_nested else tuple(tensor.shape)


def _check_shapes(path: str, tensors: Mapping[str, torch.Tensor]) -> None:
    from torch.nn.parameter import is_lazy

    for key, tensor in tensors.items():
        if is_lazy(tensor):
            raise InputError(
                path,
                f"`{key}` has no shape yet: its module is lazy",
                "run a batch through the model first",
            )


def state_dict_of(source: object) -> Mapping[str, object]:
    """The state dict that is meant by a state dict or a module. Raises InputError for anything
    else, and says where one is.
    """
    need_torch()
    from torch import nn

    if isinstance(source, nn.Module):
        return unwrapped(source).state_dict()
    if not isinstance(source, Mapping):
        raise InputError(
            "source", f"is {type_text(source)}", "give a path, a state dict or a module"
        )
    state_dict = _read(source)
    if state_dict and not any(_is_weight(key, value) for key, value in state_dict.items()):
        raise _without_tensors(state_dict)
    return state_dict


def _read(state_dict: Mapping[str, object]) -> Mapping[str, object]:
    """A state dict with the tensors themselves in the place of those that are still on disk; one
    for all keys of a tied weight.
    """
    on_disk = [each for each in state_dict.values() if isinstance(each, OnDisk)]
    if not on_disk:
        return state_dict
    found = {each.identity: each for each in on_disk}
    tensors = {identity: each.read() for identity, each in found.items()}
    read = OrderedDict(
        (key, tensors[value.identity] if isinstance(value, OnDisk) else value)
        for key, value in state_dict.items()
    )
    read._metadata = getattr(state_dict, "_metadata", {})  # type: ignore[attr-defined]
    return read


def _without_tensors(given: Mapping[str, object]) -> InputError:
    """What to say of a mapping that is no state dict: where in it one is, if one is."""
    inside = [name for name, value in given.items() if _holds_weights(value)]
    if not inside:
        key, value = next(iter(given.items()))
        fact = f"has no tensors: `{key}` is {type_text(value)}"
        return InputError("the state dict", fact)
    names = ", ".join(f"`{name}`" for name in inside[:9])
    fact = f"has no tensors itself, but {names} {'has' if len(inside) == 1 else 'have'}"
    return InputError("the state dict", fact, f"give `source[{inside[0]!r}]`")


def keys_of_parameters(
    module: nn.Module, state: Mapping[str, torch.Tensor] | None = None
) -> tuple[tuple[str, ...], ...]:
    """All keys of each parameter, in the order of `module.parameters()`, which may leave some out;
    without a key in the state dict, its names. `state` is that state dict with its own tensors,
    where it was asked for it.
    """
    keys = keys_by_parameter(module, state)
    if not has_own_parameters(module):
        return tuple(map(tuple, keys.values()))
    given = {id(parameter): parameter for parameter in module.parameters()}
    strange = (f"parameters()[{place}]" for place in range(len(given)))
    return tuple(tuple(keys.get(each, (name,))) for each, name in zip(given, strange, strict=True))


def keys_by_parameter(
    module: nn.Module, state: Mapping[str, torch.Tensor] | None = None
) -> dict[int, list[str]]:
    """The same of all parameters of its modules, by their identity, in torch's own order."""
    named = [(id(parameter), name) for name, parameter in registered_parameters(module)]
    keys: dict[int, list[str]] = {identity: [] for identity, _ in named}
    for key, tensor in (own_state(module) if state is None else state).items():
        if (found := keys.get(id(tensor))) is not None:
            found.append(key)
    for identity, name in named:
        if name not in (found := keys[identity]):
            found.append(name)
    return keys


def apart_from(module: nn.Module, state_dict: Mapping[str, object]) -> Mapping[str, object]:
    """A state dict with copies of those tensors that lie in a module's memory, so that they stay as
    they are while it is filled.
    """
    from torch import Tensor

    own = [tensor for _, tensor in registered(module)]
    given = {key: value for key, value in state_dict.items() if isinstance(value, Tensor)}
    found = memories([*own, *given.values()])
    taken = set(found[: len(own)]) - {None}
    shared = {key for key, memory in zip(given, found[len(own) :], strict=True) if memory in taken}
    apart = OrderedDict(
        (key, value.detach().clone() if key in shared else value)  # type: ignore[attr-defined]
        for key, value in state_dict.items()
    )
    apart._metadata = getattr(state_dict, "_metadata", {})  # type: ignore[attr-defined]
    return apart


def _holds_weights(value: object) -> bool:
    from torch import nn

    if isinstance(value, Mapping):
        return any(_is_weight(key, inner) for key, inner in value.items())
    return isinstance(value, nn.Module)


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DataParallel, DistributedDataParallel and torch.compile, however
    often wrapped.
    """
    need_torch()
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    if not isinstance(model, nn.Module):
        raise InputError("model", f"is {type_text(model)}, not an nn.Module")
    while True:
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model
