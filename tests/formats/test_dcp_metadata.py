"""`.metadata` read in steps and by single opcodes: the same, whatever torch may have written."""

import pathlib
import pickle
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.dcp.metadata import Metadata as Read
from ckpt_tool.formats.distributed.dcp.metadata import read_metadata
from ckpt_tool.formats.distributed.dcp.shortcuts import ChunkReader, _asked_of_many, asked_numbers
from ckpt_tool.formats.pickle.machine import PickleMachine

SIZES = st.sampled_from([0, 1, 3, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, 1 << 33, 1 << 40, (1 << 62) - 1])
KEYS = st.one_of(st.sampled_from(["w", "model.layers.0.weight", "é", "x" * 300, "j\\0\\0\\1", "h", "\x94", ""]), st.text(max_size=8))


@dataclass
class Tensor:
    rank: int
    chunks: list[tuple[int, ...]]
    dtype: torch.dtype


TENSORS = st.integers(0, 6).flatmap(
    lambda rank: st.builds(
        Tensor, st.just(rank), st.lists(st.tuples(*[SIZES] * rank), max_size=5, unique=True), st.sampled_from([torch.float32, torch.bfloat16, torch.int8])
    )
)


def metadata(tensors: dict[str, Tensor], *, shares: bool, places: list[int], repeats: int = 1) -> Metadata:
    """What these would be; `shares`: whether equal values are one object, as they are in one process."""
    items: dict[str, object] = {"object": BytesStorageMetadata()}
    storage = {MetadataIndex("object"): _StorageInfo("__0_0.distcp", 0, 10)}
    texts: dict[str, str] = {}
    for number in range(repeats):
        for name, tensor in tensors.items():
            key = f"{name}.{number}" if number else name
            chunks = []
            for at, offsets in enumerate(tensor.chunks):
                size = torch.Size(offsets)
                chunks.append(ChunkStorageMetadata(size, size if shares else torch.Size(offsets)))
                again = key if shares else "".join(list(key))
                storage[MetadataIndex(again, size, at if at % 2 else None)] = _StorageInfo(texts.setdefault(f"__{at}", f"__{at}_0.distcp") if shares else f"__{at}_0.distcp", places[at % len(places)], at)
            items[key] = TensorStorageMetadata(TensorProperties(dtype=tensor.dtype), torch.Size((1,) * tensor.rank), chunks)
    version = {"version": "1.0.0"} if "version" in Metadata.__dataclass_fields__ else {}  # torch 2.6 has none
    return Metadata(items, {key: tuple(key.split(".")) for key in items}, storage, StorageMeta(pathlib.Path("/a/b")), **version)


def both(raw: bytes) -> tuple[Read | str, Read | str]:
    return tuple(outcome(raw, in_steps) for in_steps in (True, False))  # type: ignore[return-value]


def outcome(raw: bytes, in_steps: bool) -> Read | str:
    try:
        return read_metadata(raw, "m", in_steps)
    except FormatError as error:
        return f"{error.fact} {error.place if '`' in str(error.place) else ''}"


def steps(raw: bytes) -> int:
    machine = PickleMachine(raw, shortcuts=ChunkReader)
    machine.load("m", "m")
    assert machine.shortcuts
    return machine.shortcuts.taken


@settings(max_examples=40)
@given(st.dictionaries(KEYS, TENSORS, max_size=4), st.booleans(), st.lists(SIZES, min_size=1, max_size=5), st.sampled_from([4, 5]), st.sampled_from([1, 12]))
def test_steps_read_what_single_opcodes_read(tensors: dict[str, Tensor], shares: bool, places: list[int], protocol: int, repeats: int) -> None:
    raw = pickle.dumps(metadata(tensors, shares=shares, places=places, repeats=repeats), protocol)
    one, other = both(raw)
    assert one == other


@settings(max_examples=150)
@given(st.data())
def test_they_agree_on_damaged_streams_too(data: st.DataObject) -> None:
    raw = bytearray(DAMAGED)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([*b"hjK\x94ub(R"])))
    one, other = both(bytes(raw))
    assert one == other


DAMAGED = pickle.dumps(metadata({"w": Tensor(2, [(0, 0), (1, 0), (2, 0)], torch.float32), "v": Tensor(1, [(3,)], torch.int8)}, shares=False, places=[5], repeats=30), 4)


def test_nearly_all_parts_are_read_in_steps() -> None:
    raw = pickle.dumps(metadata({"w": Tensor(2, [(row, 0) for row in range(50)], torch.float32)}, shares=False, places=[7], repeats=100), 4)
    assert steps(raw) > 0.95 * 3 * 5000


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("pickler", [pickle.dumps, pickle._dumps])  # type: ignore[attr-defined]
def test_every_protocol_by_both_of_pythons_writers(protocol: int, pickler) -> None:
    made = metadata({"w": Tensor(2, [(0, 0), (1, 0)], torch.float32)}, shares=True, places=[7], repeats=20)
    one, other = both(pickler(made, protocol))
    assert isinstance(one, Read)
    assert one == other
    assert len(one.tensors) == 20


def test_a_size_of_one_object_that_is_asked_for_again_is_kept() -> None:
    """`size` and the only chunk's `sizes` may be one object, as may a part's offsets in both halves."""
    made = metadata({"w": Tensor(2, [(row, 0) for row in range(40)], torch.float32)}, shares=True, places=[7], repeats=30)
    raw = pickle.dumps(made, 4)
    assert steps(raw) > 1000
    one, other = both(raw)
    assert isinstance(one, Read)
    assert one == other


def test_many_numbers_are_found_as_few_are() -> None:
    raw = b"".join(b"j" + number.to_bytes(4, "little") for number in range(0, 3000, 7)) + b"jj\x01\0\0\0j" + b"j" * 20_000
    assert _asked_of_many(raw) == asked_numbers(raw)


def test_metadata_that_megatron_derives(tmp_path: Path) -> None:
    module = types.ModuleType("megatron_core_strategies")

    @dataclass
    class MCoreMetadata(Metadata):
        mcore_data: dict[str, dict[str, object]] = field(default_factory=dict)

    MCoreMetadata.__module__, MCoreMetadata.__qualname__ = module.__name__, "MCoreMetadata"
    module.MCoreMetadata = MCoreMetadata  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        plain = metadata({"w": Tensor(1, [(0,)], torch.float32)}, shares=False, places=[7])
        raw = pickle.dumps(MCoreMetadata(**vars(plain), mcore_data={"w": {"nd_reformulated_orig_global_shape": (1,)}}), 4)
    finally:
        del sys.modules[module.__name__]
    read = read_metadata(raw, "m")
    assert [tensor.key for tensor in read.tensors] == ["w"]
    assert read.asked.calls == ("megatron_core_strategies.MCoreMetadata",)


def test_properties_of_the_time_of_sharded_tensors() -> None:
    """Up to torch 2.2 they were torch.distributed._shard.sharded_tensor.metadata.TensorProperties, with an enum that has moved since."""
    raw = pickle.dumps(metadata({"w": Tensor(1, [(0,)], torch.float32)}, shares=False, places=[7]), 2)
    old = raw.replace(b"ctorch.distributed.checkpoint.metadata\nTensorProperties\n", b"ctorch.distributed._shard.sharded_tensor.metadata\nTensorProperties\n")
    old = old.replace(b"ctorch.distributed.checkpoint.metadata\n_MEM_FORMAT_ENCODING\n", b"ctorch.distributed._shard.sharded_tensor.metadata\nMEM_FORMAT_ENCODING\n")
    assert old.count(b"sharded_tensor") == 2
    assert read_metadata(old, "m") == read_metadata(raw, "m")


def test_a_whole_part_may_lie_under_no_offset() -> None:
    made = metadata({"w": Tensor(1, [(3,)], torch.float32)}, shares=False, places=[7])
    made.storage_data = {MetadataIndex(index.fqn): place for index, place in made.storage_data.items()}
    assert read_metadata(pickle.dumps(made, 4), "m").tensors[0].ranges[0].offset == 7
