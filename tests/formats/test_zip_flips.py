"""One flipped bit anywhere in a .pth: what we read, torch reads too, with the same values or with the checksum's word against it."""

import io

import torch

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import open_checkpoint


def read_by_torch(content: bytes) -> dict[str, torch.Tensor] | None:
    try:
        return torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # torch leaks errors of many kinds
        return None


def read_by_us(path) -> dict[str, torch.Tensor] | None:
    try:
        with open_checkpoint(path) as checkpoint:
            return {key: checkpoint.read(key) for key in checkpoint.catalog}
    except FormatError:
        return None


def test_no_flipped_bit_makes_a_file_that_we_read_and_torch_refuses(tmp_path):
    path, out = tmp_path / "flipped.pth", io.BytesIO()
    torch.save({"w": torch.arange(3.0)}, out)
    content = bytearray(out.getvalue())
    start = content.index(b"PK\1\2")  # the directory and the ends: what lies before is held by checksums
    for place in range(start, len(content)):
        for bit in range(8):
            content[place] ^= 1 << bit
            path.write_bytes(content)
            ours = read_by_us(path)
            if ours is not None:
                theirs = read_by_torch(bytes(content))
                assert theirs is not None, f"byte {place - start} of the directory, bit {bit}"
                assert ours.keys() == theirs.keys()
                assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
            content[place] ^= 1 << bit
