"""A state dict or a module in memory as an open checkpoint: compared, planned for and written from
as a file is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_tool.formats import Checkpoint
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.placements.byte_ranges import CHUNK
from ckpt_tool.training.live import (
    LiveState,
    keys_of_parameters,
    state_dict_of,
    unwrapped,
)

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.formats import Extent


class LiveCheckpoint(Checkpoint):
    """What is in memory, with all that an open file can do; nothing is copied until it is asked
    for.

    `name` is what messages call it. Raises InputError for what is neither a module nor a state dict
    with tensors.
    """

    is_file = False
    has_values = True

    def __init__(self, given: nn.Module | Mapping[str, object], name: str) -> None:
        is_of_model = not isinstance(given, Mapping)
        self._live = LiveState(name, state_dict_of(given), is_of_model=is_of_model)
        self.parameters = () if isinstance(given, Mapping) else keys_of_parameters(unwrapped(given))
        contents = Contents(self._live.catalog, {}, versions=self._live.versions)
        super().__init__(name, "memory", contents)

    def only(self, keys: Collection[str]) -> Checkpoint:
        """The same with these keys alone."""
        some = super().only(keys)
        twin = object.__new__(LiveCheckpoint)
        vars(twin).update(vars(some), _live=self._live)
        return twin

    def extent(self, key: str) -> Extent | None:
        """None: nothing of it is a byte range of a file."""
        return None

    def extents(self, key: str) -> tuple[Extent, ...]:
        """None either."""
        return ()

    def has_parts(self, key: str) -> bool:
        """False: a tensor is in memory already."""
        return False

    def chunks(self, key: str, size: int = CHUNK) -> Iterator[bytes]:
        """The contiguous little-endian bytes of a tensor, all at once."""
        return self._live.chunks(key)

    def check(self, keys: Iterable[str], threads: int = 1) -> None:
        """Raises InputError for a tensor whose values can't be read, on the meta device say."""
        self._live.check(keys, threads)
