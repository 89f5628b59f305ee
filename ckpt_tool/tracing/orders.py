"""The other orders of channels in which two networks may hold the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Order = tuple[int, ...]
"""Of each place in the second network the place in the first."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders that rules give channels, by their number."""

    by_size: Mapping[int, tuple[Order, ...]] = field(default_factory=dict)

    def variants(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """A tensor of the first network with its channels in the orders of the second: along the
        last dimension, and the second as convolutions have them.

        >>> import torch
        >>> orders = Orders({3: ((2, 1, 0),)})
        >>> [each.tolist() for each in orders.variants(torch.tensor([[1, 2, 3]]))]
        [[[3, 2, 1]]]
        """
        for axis in sorted({1, tensor.dim() - 1} & set(range(tensor.dim()))):
            yield from self.along(tensor, axis)

    def along(self, tensor: torch.Tensor, axis: int) -> Iterator[torch.Tensor]:
        """The same along one dimension."""
        import torch

        for order in self.by_size.get(tensor.shape[axis], ()):
            places = torch.tensor(order, device=tensor.device)
            yield tensor.detach().index_select(axis, places)


NO_ORDERS = Orders()
