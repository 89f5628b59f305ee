"""Arrays of numpy inside pickles: those that numpy wrote are tensors, others are refused or listed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_agrees

ORDER = b"X\x01\0\0\0>"
WHOLE = pickle.dumps({"w": np.arange(1, 3, dtype=">f4")}, 2)
"""An array whose elements are big-endian; it ends with the array's state, its place in the dict, and the end."""


def test_an_array_is_a_tensor(tmp_path: Path) -> None:
    assert WHOLE.count(ORDER) == 1
    assert WHOLE.endswith(b"bs.")
    (tmp_path / "a.pkl").write_bytes(WHOLE)
    assert_agrees(tmp_path / "a.pkl", {"w": torch.tensor([1.0, 2.0])})


SWAP_F4 = b"cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87Rq\x7f(K\x03" + ORDER + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"


@pytest.mark.parametrize(
    ("raw", "fact"),
    [
        (WHOLE.replace(ORDER, b"X\x02\0\0\0>x"), "has a type of elements as numpy never writes it"),
        (WHOLE.replace(ORDER, b"N"), "has a type of elements as numpy never writes it"),
        (WHOLE[:-3] + b"0K\x01bs.", "gives an array a state that numpy never writes"),
        (
            b"\x80\x02}X\x01\0\0\0wcnumpy.core.multiarray\nscalar\n" + SWAP_F4 + b"X\x04\0\0\0\0\0\0?\x86Rh\x7f(K\x03" + ORDER + b"NNNtb0s.",
            "changes the type of elements of an array that is made already",
        ),
    ],
)
def test_arrays_as_numpy_never_writes_them_are_refused(tmp_path: Path, raw: bytes, fact: str) -> None:
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(FormatError, match=fact):
        open_checkpoint(str(tmp_path / "a.pkl")).close()


class OnDevice:
    """A tensor of XLA as torch wrote it before 1.12."""

    def __init__(self, kind: torch.dtype) -> None:
        self.kind = kind

    def __reduce__(self) -> object:
        return torch._utils._rebuild_xla_tensor, (np.arange(6, dtype=np.float32).reshape(2, 3), self.kind, "xla:0", False)


def test_arrays_that_were_tensors_of_a_device_are_read(tmp_path: Path) -> None:
    torch.save({"w": OnDevice(torch.float32)}, tmp_path / "a.pth")
    assert_agrees(tmp_path / "a.pth", torch.load(tmp_path / "a.pth", map_location="cpu", weights_only=False))


def test_arrays_that_torch_casts_on_loading_are_listed_only(tmp_path: Path) -> None:
    """Tensors of BF16 were arrays of F32 and a dtype."""
    torch.save({"w": OnDevice(torch.bfloat16)}, tmp_path / "a.pth")
    assert torch.load(tmp_path / "a.pth", map_location="cpu", weights_only=False)["w"].dtype is torch.bfloat16
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert [(extra.path, extra.text) for extra in checkpoint.extras] == [("w", "array <f4 2×3, which becomes bfloat16 on loading")]
        assert not checkpoint.catalog
