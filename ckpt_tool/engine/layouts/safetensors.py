"""A safetensors file: u64 length, JSON header, tensors back to back.
https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping, Sequence

from ckpt_tool.engine.layouts.layout import Labels, OutputTensor, Pieces
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.limits import HEADER_BYTES
from ckpt_tool.tensors import DType

FOREIGN = (DType.C128, DType.C32)
"""Element types that safetensors has no name for."""


class SafetensorsLayout:
    """Header and data in the order of the members. The format knows no shared tensors: each member
    has its own bytes.
    """

    needs_checksums = False
    shares_tensors = False

    def __init__(self, members: Sequence[OutputTensor], labels: Labels, name: str) -> None:
        header: dict[str, object] = (
            {"__metadata__": dict(labels.metadata)} if labels.metadata else {}
        )
        self._starts: dict[str, int] = {}
        end = 0
        for member in members:
            info = member.info
            _check(info.key, info.dtype, name)
            self._starts[info.key] = end
            header[info.key] = {
                "dtype": info.dtype.value,
                "shape": list(info.shape),
                "data_offsets": [end, end + info.nbytes],
            }
            end += info.nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "strict"
        )
        # Padded with spaces, so that the data begins at a multiple of 8, as the reference writer
        # does.
        self._header = text + b" " * (-len(text) % 8)
        if len(self._header) > HEADER_BYTES:
            raise OutputError(
                name,
                f"its header would have {len(self._header):,} bytes; "
                f"readers take at most {HEADER_BYTES:,}",
            )
        self._data = 8 + len(self._header)
        self.size = self._data + end

    def offset(self, key: str) -> int:
        """The byte at which a tensor begins."""
        return self._data + self._starts[key]

    def head(self) -> Pieces:
        """The header with its length."""
        return [(0, len(self._header).to_bytes(8, "little") + self._header)]

    def tail(self, checksums: Mapping[str, int]) -> Pieces:
        """Nothing: the header says all."""
        return []


def _check(key: str, dtype: DType, name: str) -> None:
    if key == "__metadata__":
        raise OutputError(
            name,
            "`__metadata__` can't be the key of a tensor in safetensors",
            "write a .pth, or rename it",
        )
    if not key.isascii() and any("\ud800" <= mark <= "\udfff" for mark in key):
        raise OutputError(
            name,
            f"`{key}` has half of a surrogate pair, which is not text in safetensors",
            "write a .pth, or rename it",
        )
    if dtype in FOREIGN:
        raise OutputError(
            name,
            f"`{key}` is {dtype.value}, which safetensors has no name for",
            "write a .pth, or cast it",
        )
