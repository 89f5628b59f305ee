"""Between torch's tensors and bytes, in both directions."""

import pytest
import torch

from ckpt_tool.tensors import DType
from ckpt_tool.torch_bridge import (
    DTYPES,
    tensor_info,
    tensor_infos,
    to_bytes,
    to_tensor,
    torch_dtype,
)

TENSORS = [
    torch.randn(3, 4),
    torch.randn(3, 4).t(),
    torch.randn(6)[::2],
    torch.randn(4, 1).as_strided((1,), (2,)),
    torch.randn(1).expand(3),
    torch.randn(2, dtype=torch.complex64).conj(),
    torch.empty(0, 3),
    torch.tensor(5),
    torch.tensor([True, False]),
    torch.randn(3).to(torch.float8_e5m2),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}")
def test_bytes_and_back(tensor):
    info = tensor_info("x", tensor)
    back = to_tensor(to_bytes(tensor), info.dtype, info.shape)
    assert back.shape == tensor.shape
    assert torch.equal(back.float() if back.dtype.itemsize == 1 else back, tensor.float() if tensor.dtype.itemsize == 1 else tensor)


def test_bytes_keep_their_tensor_alive():
    window = to_bytes(torch.full((1000,), 7, dtype=torch.uint8))
    assert set(bytes(window)) == {7}


def test_every_type_of_torch_has_its_name():
    for name, dtype in DTYPES.items():
        if hasattr(torch, name):  # the last ones came with torch 2.7 and 2.8
            assert str(torch_dtype(dtype)) == f"torch.{name}"
    with pytest.raises(ValueError, match="has no type for F6_E2M3"):
        torch_dtype(DType.F6_E2M3)


def test_ties_name_their_first_key():
    shared = torch.randn(4)
    infos = tensor_infos({"a": shared, "b": shared[1:], "c": shared.clone()})
    assert [info.shared_storage_with for info in infos] == [None, "a", None]


def test_a_tensor_without_plain_bytes_is_refused():
    with pytest.raises(ValueError, match="which has no plain bytes"):
        tensor_info("x", torch.eye(2).to_sparse())
