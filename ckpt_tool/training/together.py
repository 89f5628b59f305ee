"""Models in parts on several processes: what stops one of them stops all, before any has filled a
tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ckpt_tool.errors import InputError
from ckpt_tool.formats.digests import sample_of
from ckpt_tool.torch_bridge import is_distributed
from ckpt_tool.training.registered import registered

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed import ProcessGroup

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.mapping.plan import Plan
    from ckpt_tool.training.live import LiveState


class Processes:
    """The processes that hold parts of one model; of a model that is whole in this
    process, nobody.
    """

    def __init__(self, module: nn.Module) -> None:
        self._name = type(module).__name__
        self._groups = _groups(module)
        self._are_told = False

    def agree(self, plan: Plan | None = None, source: Checkpoint | LiveState | None = None) -> None:
        """Waits until all processes have come here. Raises InputError where one of them has failed
        before, or has another plan or another source.
        """
        said = _digest(plan, source) if plan and source and self._groups else ""
        fault = self._exchange(None, said)
        if fault:
            self._are_told = True
            raise InputError(self._name, fault, "no process has loaded anything")

    def tell(self, error: Exception) -> None:
        """Tells the others, who wait in `agree`, why this process doesn't come."""
        if not self._are_told:
            self._exchange(error, "")

    def go(self) -> None:
        """Agrees for the last time: what fails from here on concerns this process alone."""
        self.agree()
        self._are_told = True

    def share(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of the keys that this process is to look at for all of them."""
        if not self._groups:
            return keys
        import torch.distributed as dist

        group = max(self._groups, key=dist.get_world_size)
        return keys[dist.get_rank(group) :: dist.get_world_size(group)]

    def _exchange(self, error: Exception | None, said: str) -> str | None:
        """The fault of any process, or that they say different things; each group passes on what
        the ones before have heard.
        """
        import torch.distributed as dist

        fault = (
            None
            if error is None
            else f"process {dist.get_rank()} can't load: {error}"
            if self._groups
            else None
        )
        for group in self._groups:
            heard: list[Any] = [None] * dist.get_world_size(group)
            dist.all_gather_object(heard, (fault, said), group)
            fault = next((each for each, _ in heard if each), None)
            others = [at for at, (_, each) in enumerate(heard) if each != said]
            if fault is None and others and all(each for _, each in heard):
                ranks = dist.get_process_group_ranks(group)
                fault = (
                    f"process {ranks[others[0]]} would load something else than process "
                    f"{dist.get_rank()}: their sources, rules or models differ"
                )
        return fault


@contextmanager
def together(module: nn.Module) -> Iterator[Processes]:
    """The processes of a model, who hear of what is raised inside the block before they have agreed
    for the last time.
    """
    processes = Processes(module)
    try:
        yield processes
    except Exception as error:
        processes.tell(error)
        raise


def _digest(plan: Plan, source: Checkpoint | LiveState) -> str:
    """What tells whether two processes have the same plan for the same tensors."""
    from hashlib import sha256

    digest = sha256(repr([plan.dropped, plan.kept]).encode())
    for step in plan.steps:
        infos = [plan.source[key] for key in step.inputs]
        some = [sample_of(each) for key in step.inputs for each in source.extents(key)]
        digest.update(repr((step.inputs, infos, some, step.outputs, step.ops)).encode())
    return digest.hexdigest()


def _groups(module: nn.Module) -> list[ProcessGroup]:
    """The groups of all meshes over which the model's tensors are spread, in the order of the
    tensors.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return []
    tensors = [
        tensor
        for tensor in {id(one): one for _, one in registered(module)}.values()
        if is_distributed(tensor)
    ]
    meshes = dict.fromkeys(tensor.device_mesh for tensor in tensors)  # type: ignore[attr-defined]
    return [
        group
        for mesh in meshes
        if mesh.get_coordinate() is not None
        for group in mesh.get_all_groups()
    ]
