"""Models in parts on several processes: what stops one of them stops all, before any has filled a
tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ckpt_tool.errors import InputError
from ckpt_tool.torch_bridge import is_distributed

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed import ProcessGroup


class Processes:
    """The processes that hold parts of one model; of a model that is whole in this
    process, nobody.
    """

    def __init__(self, module: nn.Module) -> None:
        self._name = type(module).__name__
        self._groups = _groups(module)
        self._are_told = False

    def agree(self) -> None:
        """Waits until all processes have come here. Raises InputError where one of them has failed
        before.
        """
        fault = self._exchange(None)
        if fault:
            self._are_told = True
            raise InputError(self._name, fault, "no process has loaded anything")

    def tell(self, error: Exception) -> None:
        """Tells the others, who wait in `agree`, why this process doesn't come."""
        if not self._are_told:
            self._exchange(error)

    def go(self) -> None:
        """Agrees for the last time: what fails from here on concerns this process alone."""
        self.agree()
        self._are_told = True

    def _exchange(self, error: Exception | None) -> str | None:
        """The fault of any process; each group passes on what the ones before have heard."""
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
            dist.all_gather_object(heard, fault, group)
            fault = next((each for each in heard if each), None)
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


def _groups(module: nn.Module) -> list[ProcessGroup]:
    """The groups of all meshes over which the model's tensors are spread, in the order of the
    tensors.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return []
    tensors = [
        tensor for tensor in (*module.parameters(), *module.buffers()) if is_distributed(tensor)
    ]
    meshes = dict.fromkeys(tensor.device_mesh for tensor in tensors)  # type: ignore[attr-defined]
    return [
        group
        for mesh in meshes
        if mesh.get_coordinate() is not None
        for group in mesh.get_all_groups()
    ]
