"""What DeepSpeed's files of ZeRO say: the model's states of one process, the optimizer's part of
each.

The names of members are those of deepspeed/checkpoint/constants.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.rank_files import MAX_RANKS
from ckpt_tool.formats.distributed.zero.flat import Flat, flat_part
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.unreadable import dimensions
from ckpt_tool.formats.pickle.values import Opaque, TensorRef
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.tensors import Shape

Members = Mapping[object, object]
Shapes = dict[str, Shape]
NO_ZERO = "is it the file of another program, or of an older DeepSpeed?"


@dataclass(frozen=True, slots=True)
class ModelStates:
    """The names and shapes that the flat partitions have; what is stored by itself; and ties, each
    name with that of which it is a copy.
    """

    groups: tuple[Shapes, ...]
    buffers: Mapping[str, TensorRef]
    frozen_shapes: Shapes
    frozen: Mapping[str, TensorRef]
    shared: Mapping[str, str]
    order: tuple[str, ...]

    @property
    def shapes(self) -> Shapes:
        """Those of all groups, in their order."""
        return {name: shape for group in self.groups for name, shape in group.items()}


@dataclass(frozen=True, slots=True)
class Partition:
    """One process's part: its flat groups and, by slot, those of the optimizer's state."""

    path: str
    stage: int
    counts: tuple[int, ...]
    groups: tuple[Flat, ...]
    paddings: tuple[tuple[int, ...], ...]
    """What stands behind each parameter of each group (DeepSpeed 0.19 and later); may be empty."""
    slots: Mapping[str, tuple[Flat, ...]]


def model_states(pickled: PickledFile) -> ModelStates:
    """What `*_model_states.pt` says. Raises FormatError."""
    root = _members(pickled.root, "the file", pickled)
    _refuse_experts(root, pickled)
    if "param_shapes" not in root or "buffer_names" not in root:
        name = "param_shapes" if "param_shapes" not in root else "buffer_names"
        raise FormatError(pickled.path, f"has no `{name}`, which DeepSpeed's have", NO_ZERO)
    given = root["param_shapes"]
    groups = given if isinstance(given, list | tuple) else [given]
    module = root.get("module")
    tensors = module if isinstance(module, dict) else {}
    return ModelStates(
        tuple(_shapes(group, "param_shapes", pickled) for group in groups),
        _buffers(root["buffer_names"], tensors, pickled),
        _shapes(root.get("frozen_param_shapes") or {}, "frozen_param_shapes", pickled),
        _tensors(root.get("frozen_param_fragments") or {}, "frozen_param_fragments", pickled),
        _shared(root.get("shared_params") or {}, pickled),
        tuple(name for name in tensors if type(name) is str),
    )


def _members(value: object, name: str, pickled: PickledFile) -> Members:
    if not isinstance(value, dict):
        raise FormatError(
            pickled.path, f"{name} is {describe(value, 80)}, where a dict belongs", NO_ZERO
        )
    return value


def _shapes(value: object, name: str, pickled: PickledFile) -> Shapes:
    found: Shapes = {}
    for key, size in _members(value, f"its `{name}`", pickled).items():
        shape = dimensions(tuple(size) if isinstance(size, list) else size)
        if type(key) is not str or shape is None:
            fact = (
                f"its `{name}` has {describe(key, 60)}: {describe(size, 60)}, which is not a shape"
            )
            raise FormatError(pickled.path, fact)
        found[key] = shape
    return found


def _tensors(value: object, name: str, pickled: PickledFile) -> dict[str, TensorRef]:
    found: dict[str, TensorRef] = {}
    for key, tensor in _members(value, f"its `{name}`", pickled).items():
        if type(key) is not str or type(tensor) is not TensorRef:
            fact = f"its `{name}` has {describe(key, 60)}: {describe(tensor, 60)}, not a tensor"
            raise FormatError(pickled.path, fact)
        found[key] = tensor
    return found


def _buffers(names: object, module: Members, pickled: PickledFile) -> dict[str, TensorRef]:
    if not isinstance(names, list | tuple):
        raise FormatError(pickled.path, f"its `buffer_names` is {describe(names, 80)}, not a list")
    wanted = {name for name in names if type(name) is str}
    return _tensors({key: one for key, one in module.items() if key in wanted}, "module", pickled)


def _shared(value: object, pickled: PickledFile) -> dict[str, str]:
    pairs = _members(value, "its `shared_params`", pickled)
    found = {one: of for one, of in pairs.items() if type(one) is str and type(of) is str}
    if len(found) != len(pairs):
        raise FormatError(pickled.path, "its `shared_params` has something other than names")
    return found


def _refuse_experts(root: Members, pickled: PickledFile) -> None:
    if any(root.get(name) for name in ("ds_autoep_layers", "autoep_layers")):
        raise FormatError(
            pickled.path,
            "is of a model whose experts are spread over the ranks (AutoEP)",
            "DeepSpeed's ds_to_universal.py joins them",
        )


def partition(pickled: PickledFile) -> Partition:
    """What `*_optim_states.pt` says. Raises FormatError."""
    root = _members(pickled.root, "the file", pickled)
    states = _members(root.get("optimizer_state_dict"), "its `optimizer_state_dict`", pickled)
    stage = _stage(states, pickled)
    name = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    groups = _flat_groups(states.get(name), name, pickled)
    return Partition(
        pickled.path,
        stage,
        _counts(states.get("partition_count"), pickled),
        groups,
        _paddings(states.get("param_alignment_paddings"), pickled),
        _slots(states, stage, len(groups), pickled),
    )


def _stage(states: Members, pickled: PickledFile) -> int:
    """A number, or DeepSpeed's enum of one; its optimizer for bfloat16 notes none, and cuts as
    stage 1.
    """
    given = states.get("zero_stage")
    if given is None and "single_partition_of_fp32_groups" in states:
        return 1
    number = given.args[0] if type(given) is Opaque and len(given.args) == 1 else given
    if type(number) is not int or not 1 <= number <= 3:
        fact = f"its `zero_stage` is {describe(given, 60)}, where 1, 2 or 3 belongs"
        raise FormatError(pickled.path, fact, NO_ZERO)
    return number


def _counts(given: object, pickled: PickledFile) -> tuple[int, ...]:
    counts = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not counts or not all(type(one) is int and 1 <= one <= MAX_RANKS for one in counts):
        fact = f"its `partition_count` is {describe(given, 60)}, not a number of ranks"
        raise FormatError(pickled.path, fact, NO_ZERO)
    return counts


def _paddings(given: object, pickled: PickledFile) -> tuple[tuple[int, ...], ...]:
    each = () if given is None else given
    found = [_numbers(group) for group in each] if isinstance(each, list | tuple) else [None]
    if None in found:
        fact = f"its `param_alignment_paddings` is {describe(given, 60)}, not numbers by group"
        raise FormatError(pickled.path, fact)
    return tuple(group for group in found if group is not None)


def _numbers(value: object) -> tuple[int, ...] | None:
    """A list of sizes, if it is one."""
    some = tuple(value) if isinstance(value, list | tuple) else (None,)
    return some if all(type(one) is int and one >= 0 for one in some) else None


def _flat_groups(value: object, name: str, pickled: PickledFile) -> tuple[Flat, ...]:
    if not isinstance(value, list | tuple):
        fact = f"its `{name}` is {describe(value, 60)}, where a list of flat tensors belongs"
        raise FormatError(pickled.path, fact, NO_ZERO)
    return tuple(flat_part(one, f"{name}.{at}", pickled) for at, one in enumerate(value))


def _slots(
    states: Members, stage: int, groups: int, pickled: PickledFile
) -> dict[str, tuple[Flat, ...]]:
    """The slots that have a flat vector for each group; what else an optimizer keeps is left."""
    base = states.get("optimizer_state_dict" if stage == 3 else "base_optimizer_state")
    by_group = base.get("state") if isinstance(base, dict) else base
    if isinstance(by_group, dict):
        by_group = [by_group.get(at) for at in range(groups)]
    if not isinstance(by_group, list | tuple) or len(by_group) != groups:
        return {}
    each = [one for one in by_group if isinstance(one, dict)]
    names = [] if len(each) != groups or not each else list(each[0])
    return {
        name: tuple(flat_part(one[name], name, pickled) for one in each)
        for name in names
        if type(name) is str and all(_is_flat(one.get(name)) for one in each)
    }


def _is_flat(value: object) -> bool:
    return type(value) is TensorRef and type(value.shape) is tuple and len(value.shape) == 1
