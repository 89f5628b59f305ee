"""Tensors that are named in a state dict and can't be read: each with its kind and shape, checked like others; whole DTensors are read."""

import pickle
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_agrees
from tests.formats.pickled_as import UTILS, As

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
MATRIX = torch.arange(6.0).reshape(2, 3)


def quantised(tensor: torch.Tensor, kind: torch.dtype = torch.qint8) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, kind)


def by_channel(kind: torch.dtype = torch.quint8) -> torch.Tensor:
    return torch.quantize_per_channel(MATRIX, torch.tensor([0.1, 0.2]), torch.tensor([0, 0]), 0, kind)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ODD: dict[str, tuple[object, str, tuple[int, ...] | None]] = {
        "int8": (quantised(MATRIX), "quantised", (2, 3)),
        "int32, turned": (quantised(MATRIX, torch.qint32).t(), "quantised", (3, 2)),
        "by channel": (by_channel(), "quantised", (2, 3)),
        "four bits": (torch._empty_affine_quantized((3, 5), scale=0.1, zero_point=0, dtype=torch.quint4x2), "quantised", (3, 5)),
        "a quantised scalar": (quantised(torch.tensor(1.0)), "quantised", ()),
        "sparse": (torch.eye(3).to_sparse(), "sparse", (3, 3)),
        "sparse, partly dense": (torch.ones(3, 4, 5).to_sparse(1), "sparse", (3, 4, 5)),
        "sparse and empty": (torch.zeros(0, 4).to_sparse(), "sparse", (0, 4)),
        "by rows": (torch.eye(3, 4).to_sparse_csr(), "sparse", (3, 4)),
        "by columns": (torch.eye(3, 4).to_sparse_csc(), "sparse", (3, 4)),
        "by blocks": (torch.eye(4, 6).to_sparse_bsr((2, 3)), "sparse", (4, 6)),
        "by blocks of columns": (torch.eye(4, 6).to_sparse_bsc((2, 3)), "sparse", (4, 6)),
        "in batches": (torch.ones(2, 3, 4).to_sparse_csr(), "sparse", (2, 3, 4)),
        "nested": (torch.nested.nested_tensor([torch.ones(1, 2), torch.ones(3, 2)]), "nested", None),
        "jagged": (torch.nested.nested_tensor([torch.ones(1, 2), torch.ones(3, 2)], layout=torch.jagged), "nested", None),
        "without data": (torch.empty(2, 5, device="meta"), "meta", (2, 5)),
        "not yet known": (torch.nn.parameter.UninitializedParameter(), "meta", None),
        "an array beside": (np.ones((2, 3), np.float32), "array", (2, 3)),
        "objects": (np.array([[1], None], object), "array", (2,)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_can_not_be_read_is_a_key_with_its_kind_and_shape(tmp_path: Path, name: str, is_zip: bool) -> None:
    value, kind, shape = ODD[name]
    try:
        torch.save({"state_dict": {"w": torch.ones(2), "odd": value}}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    except NotImplementedError:
        pytest.skip("torch does not save it so")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert list(checkpoint.catalog) == ["w"]
        found = checkpoint.catalog.unreadable["odd"]
        assert (found.key, found.kind, found.shape) == ("odd", kind, shape)
        assert ("state_dict.odd", "tensor", found.text) in [(extra.path, extra.kind, extra.text) for extra in checkpoint.extras]
        assert [one.tensors for one in checkpoint.contents.state_dicts] == [2]


def test_texts_and_numbers_are_no_tensors(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "names": np.array(["a", "b"]), "when": np.array("2020", "M8[D]"), "n": np.float32(2)}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert not checkpoint.catalog.unreadable


def test_a_file_of_odd_tensors_alone_is_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"a": quantised(MATRIX), "b": np.ones(2)}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert not checkpoint.catalog
        assert {key: tensor.kind for key, tensor in checkpoint.catalog.unreadable.items()} == {"a": "quantised", "b": "array"}


def test_odd_tensors_elsewhere_are_counted(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "other": {"q": quantised(MATRIX), "t": MATRIX}}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth#model") as checkpoint:
        assert [(one.path, one.tensors, one.nbytes) for one in checkpoint.contents.left_behind] == [("other", 2, 24)]
        assert not checkpoint.catalog.unreadable


def test_keys_that_become_the_same_as_an_odd_one_are_an_error(tmp_path: Path) -> None:
    torch.save({"a": {"b": quantised(MATRIX)}, "a.b": MATRIX}, tmp_path / "a.pth")
    with pytest.raises(FormatError, match=r"two tensors of its state dict are named `a\.b`"):
        open_checkpoint(tmp_path / "a.pth")


def qtensor(storage: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...], *scheme: object, offset: int = 0) -> As:
    arguments = (storage._typed_storage(), offset, size, stride, scheme or (torch.per_tensor_affine, 0.1, 0), False, {})
    return As(UTILS._rebuild_qtensor, arguments)


def sparse(indices: torch.Tensor, values: torch.Tensor, size: tuple[int, ...], layout: torch.layout = torch.sparse_coo) -> As:
    return As(UTILS._rebuild_sparse_tensor, (layout, (indices, values, size)))


def by_rows(pointers: int, indices: int, values: int, size: tuple[int, ...]) -> As:
    parts = (torch.zeros(pointers, dtype=torch.int64), torch.zeros(indices, dtype=torch.int64), torch.zeros(values))
    return As(UTILS._rebuild_sparse_tensor, (torch.sparse_csr, (*parts, size)))


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    N, V, Q = torch.zeros(2, 3, dtype=torch.int64), torch.ones(3), quantised(MATRIX)
    LIES = {
        "beyond the storage": qtensor(Q, (2, 4), (4, 1)),
        "a negative stride": qtensor(Q, (2, 3), (-3, 1)),
        "a size that is a text": qtensor(Q, "x", (3, 1)),  # type: ignore[arg-type]
        "a plain storage": qtensor(MATRIX, (2, 3), (3, 1)),
        "scales along no axis": qtensor(Q, (2, 3), (3, 1), torch.per_channel_affine, V[:2], N[0, :2], 2),
        "too few scales": qtensor(Q, (2, 3), (3, 1), torch.per_channel_affine, V[:1], N[0, :1], 0),
        "scales beyond their storage": qtensor(Q, (2, 3), (3, 1), torch.per_channel_affine, As(
            UTILS._rebuild_tensor_v2, (torch.ones(1)._typed_storage(), 0, (2,), (1,), False, {})), N[0, :2], 0),
        "no scheme": qtensor(Q, (2, 3), (3, 1), 5),
        "more indices than dimensions": sparse(N, V, (4,)),
        "more indices than values": sparse(N, torch.ones(2), (4, 4)),
        "values of another shape": sparse(N[:1], torch.ones(3, 2), (4, 4)),
        "indices that are floats": sparse(torch.zeros(2, 3), V, (4, 4)),
        "entries in nothing": sparse(N, V, (0, 4)),
        "a negative size": sparse(N, V, (-1, 4)),
        "an unknown layout": sparse(N, V, (4, 4), torch.strided),
        "too few pointers": by_rows(3, 3, 3, (3, 4)),
        "other indices than values": by_rows(4, 2, 3, (3, 4)),
        "no rows": by_rows(4, 3, 3, (4,)),
        "sizes for more than there are": As(UTILS._rebuild_nested_tensor, (torch.ones(9), N[:, :2], N[:, :2], N[0])),
        "strides of another shape": As(UTILS._rebuild_nested_tensor, (torch.ones(9), N, N[:1], N[0, :2])),
        "a stride too many": As(UTILS._rebuild_meta_tensor_no_storage, (torch.float32, (2, 3), (3,), False)),
        "a size below zero": As(UTILS._rebuild_meta_tensor_no_storage, (torch.float32, (-2,), (1,), False)),
    }  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_the_geometry_of_what_is_only_listed_is_checked(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.ones(1), "odd": LIES[name]}, tmp_path / "a.pth")
    with pytest.raises(FormatError):
        open_checkpoint(tmp_path / "a.pth")


def test_a_storage_of_a_sparse_tensor_that_is_missing_is_told(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "odd": torch.eye(3).to_sparse()}, tmp_path / "a.pth")
    raw = (tmp_path / "a.pth").read_bytes().replace(b"a/data/2", b"a/data/7")
    (tmp_path / "b.pth").write_bytes(raw)
    with pytest.raises(FormatError, match="data/2` is missing"):
        open_checkpoint(tmp_path / "b.pth")


class Packed(torch.Tensor):
    """A wrapper subclass, as torchao's are: its values are in what it wraps."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Packed":
        return torch.Tensor._make_wrapper_subclass(cls, (8, 2), dtype=torch.bfloat16)  # type: ignore[attr-defined, no-any-return]

    def __init__(self, inner: torch.Tensor) -> None:
        self.packed, self.scale = inner, torch.ones(1)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return Packed(args[0].packed) if func is torch.ops.aten.detach.default else NotImplemented


class Tagged(torch.Tensor):
    """A subclass on plain memory."""


def test_a_wrapper_of_an_unknown_class_is_named_and_its_parts_are_checked(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "p": Packed(torch.zeros(4, dtype=torch.uint8))}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        found = checkpoint.catalog.unreadable["p"]
        assert (found.kind, found.shape) == ("subclass", (8, 2))
        assert found.text.endswith("Packed, bfloat16 8×2")
        assert f"{__name__}.Packed" in checkpoint.asked
    raw = (tmp_path / "a.pth").read_bytes().replace(b"a/data/1", b"a/data/9")
    (tmp_path / "b.pth").write_bytes(raw)
    with pytest.raises(FormatError, match="data/1` is missing"):
        open_checkpoint(tmp_path / "b.pth")


def test_a_subclass_on_plain_memory_is_read_unless_it_holds_more(tmp_path: Path) -> None:
    plain, more = torch.ones(2).as_subclass(Tagged), torch.ones(3).as_subclass(Tagged)
    plain.tag, more.scale = "x", torch.ones(1)  # type: ignore[attr-defined]
    torch.save({"plain": plain, "more": more}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert list(checkpoint.catalog) == ["plain"]
        assert checkpoint.catalog.unreadable["more"].kind == "subclass"
        assert checkpoint.asked == (f"{__name__}.Tagged",)


@pytest.fixture(params=[1, 2], ids=["a mesh of one", "a mesh of two"])
def mesh(request: pytest.FixtureRequest) -> Iterator[dist.DeviceMesh]:  # type: ignore[name-defined]
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield init_device_mesh("cpu", (request.param,))
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", [lambda one: one, torch.nn.Parameter], ids=["plain", "parameter"])
@pytest.mark.parametrize("placement", [Replicate(), Shard(0), Shard(1), Partial()], ids=str)
def test_a_distributed_tensor_is_read_where_its_part_is_the_whole(tmp_path: Path, mesh: dist.DeviceMesh, placement: Placement, wrap) -> None:  # type: ignore[name-defined]
    torch.save({"w": wrap(DTensor.from_local(MATRIX.clone(), mesh, [placement], run_check=False)), "b": torch.ones(1)}, tmp_path / "a.pth")
    if placement.is_replicate() or (mesh.size() == 1 and not placement.is_partial()):
        assert_agrees(tmp_path / "a.pth", {"w": MATRIX, "b": torch.ones(1)})
        return
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        found = checkpoint.catalog.unreadable["w"]
        assert found.kind == "DTensor"
        assert found.shape == {"S(0)": (4, 3), "S(1)": (2, 6), "P(sum)": (2, 3), "P": (2, 3)}[str(placement)]
        assert "2×3 is here" in found.text
        assert list(checkpoint.catalog) == ["b"]
        assert not checkpoint.asked


def test_the_shard_that_has_all_rows_is_the_whole(tmp_path: Path) -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        one = DTensor.from_local(MATRIX[:1].clone(), mesh, [Shard(0)], run_check=False, shape=torch.Size([1, 3]), stride=(3, 1))
        torch.save({"w": one}, tmp_path / "a.pth")
    finally:
        dist.destroy_process_group()
    assert_agrees(tmp_path / "a.pth", {"w": MATRIX[:1]})


def test_a_sharded_tensor_of_fsdp_is_named_so(tmp_path: Path) -> None:
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor import Shard as LocalShard  # type: ignore[attr-defined]
    from torch.distributed._shard.sharded_tensor import (  # type: ignore[attr-defined]
        ShardedTensor,
        ShardedTensorMetadata,
        TensorProperties,
    )

    shards = [ShardMetadata([2 * rank, 0], [2, 3], f"rank:{rank}/cpu") for rank in (0, 1)]
    whole = ShardedTensorMetadata(shards, torch.Size([4, 3]), TensorProperties(dtype=torch.float32))
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        made = ShardedTensor._init_from_local_shards_and_global_metadata([LocalShard(MATRIX, shards[0])], whole)
        torch.save({"w": made, "b": torch.ones(1)}, tmp_path / "a.pt")
    finally:
        dist.destroy_process_group()
    with open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert list(checkpoint.catalog) == ["b"]
        assert (checkpoint.catalog.unreadable["w"].kind, checkpoint.catalog.unreadable["w"].shape) == ("ShardedTensor", (4, 3))
        assert "1 ShardedTensor, " in checkpoint.contents.layout


def test_structures_of_numpy_and_packed_blocks_of_gguf_are_listed_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2), s=np.zeros(3, [("a", "<f4")]), t=np.array(["x"]))
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        assert {key: (one.kind, one.shape) for key, one in checkpoint.catalog.unreadable.items()} == {"s": ("array", (3,))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.ones(2), "s": np.zeros(3, [("a", "<f4")])}))
    with open_checkpoint(tmp_path / "a.pkl") as checkpoint:
        assert {key: (one.kind, one.shape) for key, one in checkpoint.catalog.unreadable.items()} == {"s": ("array", (3,))}
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"q" + struct.pack("<IQIQ", 1, 32, 8, 0)
    (tmp_path / "a.gguf").write_bytes(head + bytes(-len(head) % 32) + bytes(34))
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        assert {key: (one.kind, one.shape) for key, one in checkpoint.catalog.unreadable.items()} == {"q": ("quantised", (32,))}
