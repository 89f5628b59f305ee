"""The nested dict that was saved, with descriptions of its tensors: what `torch.save` would have
put into one file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.dcp.metadata import Metadata, SavedTensor, is_readable
from ckpt_tool.formats.limits import NESTING
from ckpt_tool.formats.pickle.storages import MAX_ELEMENTS
from ckpt_tool.formats.pickle.values import OpaqueTensor, StorageRef, TensorRef
from ckpt_tool.tensors import Shape
from ckpt_tool.torch_bridge import DTYPES

Node = dict[object, object]


class _Nodes:
    """The dicts by what they are, so that a value is never taken for one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root: Node = {}
        self.own: set[int] = {id(self.root)}

    def add(self, key: str, path: tuple[str | int, ...], value: object) -> None:
        """Puts a value where the path leads. Raises FormatError where another one is."""
        if len(path) > NESTING:
            raise self._fault(key, f"is {len(path)} dicts deep; at most {NESTING} are read")
        node = self.root
        for part in path[:-1]:
            inner = node.get(part)
            if inner is None:
                inner = node[part] = {}
                self.own.add(id(inner))
            if not isinstance(inner, dict) or id(inner) not in self.own:
                raise self._fault(key, "is inside of something that is not a dict")
            node = inner
        if path[-1] in node:
            raise self._fault(key, "has the place of another item")
        node[path[-1]] = value

    def _fault(self, key: str, fact: str) -> FormatError:
        return FormatError(self.path, fact, None, f"`{key[:200]}`")


def nest(metadata: Metadata, describe: Callable[[str], object], path: str) -> object:
    """The dict that was saved; `describe` says what stands for an object. Raises FormatError for
    items in each other's place.
    """
    nodes = _Nodes(path)
    for tensor in metadata.tensors:
        nodes.add(tensor.key, metadata.paths.get(tensor.key, (tensor.key,)), _tensor(tensor))
    for key in metadata.objects:
        nodes.add(key, metadata.paths.get(key, (key,)), describe(key))
    return _with_lists(nodes.root, nodes.own)


def _with_lists(node: Node, own: set[int]) -> object:
    """The same, with lists where the names are the numbers from 0 on."""
    for name, child in node.items():
        if isinstance(child, dict) and id(child) in own:
            node[name] = _with_lists(child, own)
    are_numbers = bool(node) and all(type(name) is int for name in node)
    if are_numbers and node.keys() == set(range(len(node))):
        return [node[number] for number in range(len(node))]
    return node


def _tensor(tensor: SavedTensor) -> TensorRef | OpaqueTensor:
    if not is_readable(tensor):
        name = tensor.type_name or "an unknown type"
        return OpaqueTensor(name[:40], f"a tensor of {name[:40]}", tensor.shape)
    dtype = DTYPES[tensor.type_name]
    size = dtype.itemsize or 1
    count = 1
    for extent in tensor.shape:
        count = min(count * extent, MAX_ELEMENTS)
    storage = StorageRef(tensor.key, tensor.type_name, dtype, size, count)
    return TensorRef(storage, dtype, tensor.shape, _stride(tensor.shape), 0)


def _stride(shape: Shape) -> tuple[int, ...]:
    strides = [1]
    for extent in reversed(shape[1:]):
        strides.append(min(strides[-1] * max(extent, 1), MAX_ELEMENTS))
    return tuple(reversed(strides)) if shape else ()


def keys_of(metadata: Metadata) -> Mapping[str, SavedTensor]:
    """The tensors by their flat keys."""
    return {tensor.key: tensor for tensor in metadata.tensors}
