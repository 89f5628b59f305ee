"""Valid inputs of every parser, which the fuzzer changes. Small, so that a change hits something that matters."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from tests.formats.pickled_as import UTILS, As, from_type, parameter, v2, with_state
from tests.hostile.broken_files import (
    PAYLOADS,
    archive,
    bombs,
    must_read,
    records,
    tensor_pickle,
    torch_file,
)

ROOT = Path(__file__).parent.parent.parent
W = torch.arange(6.0).reshape(2, 3)


def _quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(W, 0.1, 0, torch.qint8)


STORAGES = {
    "plain": {"w": W},
    "tied": {"a": W, "b": W, "c": W[1:], "t": W.t()},
    "types": {str(d): torch.ones(3).to(d) for d in (torch.float16, torch.bfloat16, torch.int8, torch.float8_e5m2, torch.complex64)},
    "odd": {"empty": torch.zeros(0, 3), "scalar": torch.tensor(1.0), "flat": torch.zeros(1).expand(4)},
    "training": {
        "state_dict": OrderedDict(w=W),
        "optimizer": {"state": {0: {"step": 1, "exp_avg": W}}},
        "epoch": 3,
        "names": ["a", b"b", None],
    },
    "sparse": {"s": torch.eye(3).to_sparse(), "q": _quantised()},
}


def safetensors() -> list[bytes]:
    return [save(values) for values in ({"w": W}, {"a": W, "b": torch.zeros(0), "c": torch.tensor(1, dtype=torch.int8)}, {})] + [
        save({"w": W.to(torch.bfloat16)}, {"format": "pt", "note": "é\n"})
    ]


def torch_zip() -> list[bytes]:
    made = [torch_file(value) for value in STORAGES.values()] + [torch_file({"w": W, "t": W.T}, pickle_protocol=number) for number in range(1, 6)]
    return made + [raw for name, raw in must_read() if name.endswith(".pth")]


def states() -> list[bytes]:
    """Files whose tensors have states, attributes, lazy bits, or are made by any of torch's functions."""
    a, b, c = torch.arange(4.0), torch.full((4,), 66.0), torch.tensor([1 + 2j, 3 + 4j])
    place = (b._typed_storage(), 0, (4,), (1,))
    made: list[object] = [
        with_state(a, {"tag": 1, "more": b}), with_state(a, (None, {"x": 1})), with_state(c, {"imag": torch.ones(2)}), from_type(a, {"data": b}),
        from_type(a, {"tag": 1}, torch.nn.Parameter), v2(c, {"conj": True, "neg": True}), v2(a, state=place), parameter(a, True),
        parameter(parameter(a), state=(b, None, OrderedDict(), False, None)), As(torch.FloatTensor, (), place), As(torch.Tensor, ()),
        As(torch.nn.Parameter, (a,), (True, False, OrderedDict())), As(torch.nn.Parameter, (v2(c, {"conj": True}), False)),
        As(UTILS._rebuild_tensor_v3, (a.clone().untyped_storage(), 0, (8,), (1,), False, OrderedDict(), torch.bfloat16)),
        As(UTILS._rebuild_device_tensor_from_cpu_tensor, (a, torch.float32, "cpu", False)), _quantised(), torch.eye(3).to_sparse(),
        As(UTILS._rebuild_meta_tensor_no_storage, (torch.float32, (2,), (1,), False)), torch.eye(3).to_sparse_csr(),
    ]  # fmt: skip
    pairs = [torch_file({"w": one, "a": a, "b": b}) for one in made]
    shared = [torch_file({"a": a, "p": parameter(a, state=place), "w": with_state(a, {"data": b})})]
    return pairs + shared + [torch_file({"w": one}, _use_new_zipfile_serialization=False) for one in made[:12]]


def torchscript() -> list[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [torch.jit.script(module).save_to_buffer() for module in (torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(2)))]


def legacy() -> list[bytes]:
    return [torch_file(value, _use_new_zipfile_serialization=False) for name, value in STORAGES.items() if name != "sparse"]


def pickles() -> list[bytes]:
    values = [
        {"w": np.ones(3)},
        [1, 2.5, "a", b"b", None, (1 << 70)],
        {"a": {"b": [{}]}},
        OrderedDict(a={1, 2}),
        np.float64(1),
        bytearray(5),
    ]
    made = [pickle.dumps(value, protocol) for value in values for protocol in (0, 2, 4, 5)]
    members = [dict(_members(torch_file(value)))["data.pkl"] for value in STORAGES.values()]
    return made + members + [tensor_pickle()] + [payload("m") for payload in PAYLOADS.values()]


def pickled_arrays() -> list[bytes]:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    values = [
        {"a": a, "t": a.T, "big": a.astype(">f8"), "view": a[:, ::2], "again": a},
        [a.astype(kind) for kind in ("f2", "i1", "u8", "?", "c16")],
        {"n": {"zero": np.zeros((0, 3)), "none": np.ones(()), "b": np.array(["x"])}, "s": np.float32(2)},
        (a.astype("V4"), np.datetime64("2020")),
    ]
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def tars() -> list[bytes]:
    dumps = lambda *values: b"".join(pickle.dumps(value, 2) for value in values)  # noqa: E731
    storages = dumps(1, (7, "cpu", torch.FloatStorage)) + struct.pack("<q4f", 4, 0, 1, 2, 3) + dumps([(5, 7, 1, 3)])
    tensors = dumps(1, (1, 5, torch.FloatTensor)) + struct.pack("<ii2q2qq", 2, 0, 1, 2, 2, 1, 1)
    content = {"sys_info": dumps({}), "pickle": b"\x80\x02}X\x01\0\0\0wK\x01Qs.", "tensors": tensors, "storages": storages}
    made = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:", format=form) as archive:
            for name, raw in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(raw)
                archive.addfile(info, io.BytesIO(raw))
        made.append(out.getvalue())
    return made


def arrays() -> list[bytes]:
    values = {"a": np.ones((2, 3), np.float32), "f": np.asfortranarray(np.ones((2, 3))), "big": np.ones(3, ">i4"), "s": np.array("ab")}
    made = []
    for save_all in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save_all(out, **values)
        made.append(out.getvalue())
    for value in values.values():
        out = io.BytesIO()
        np.save(out, value)
        made.append(out.getvalue())
    return made


def gguf() -> list[bytes]:
    text = lambda value: struct.pack("<Q", len(value)) + value  # noqa: E731
    pairs = [
        text(b"general.alignment") + struct.pack("<II", 4, 32),
        text(b"general.name") + struct.pack("<I", 8) + text(b"me"),
        text(b"sizes") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3),
        text(b"nested") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 8, 1) + text(b"x"),
    ]
    tensors = [text(b"w") + struct.pack("<IQQIQ", 2, 3, 2, 0, 0), text(b"q") + struct.pack("<IQIQ", 1, 32, 8, 32)]
    made = []
    for count in range(len(pairs) + 1):
        raw = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + b"".join(pairs[:count]) + b"".join(tensors)
        made.append(raw + bytes(-len(raw) % 32) + bytes(range(24)) + bytes(42))
    return made


def indexes() -> list[bytes]:
    """Texts of an index; `a.safetensors` and `b.bin` lie beside it, with the tensors `a` and `b`."""
    maps = [{"a": "a.safetensors"}, {"a": "a.safetensors", "b": "b.bin"}, {"b": "b.bin"}, {}]
    return [json.dumps({"metadata": {"total_size": 48}, "weight_map": places}).encode() for places in maps]


def key_lists() -> list[bytes]:
    return [b"conv.weight\tF32\t64x3x7x7\nsteps\tI64\tscalar\n", b'"a\\u001b"\tBF16\t0x3\r\n\r\n', "é\tF4\t2x2\n".encode()]


def rule_files() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "mappings").glob("*.yaml")) if path.stat().st_size < 4000]


def patterns() -> list[bytes]:
    sides = [
        "layer{s}.{b}.conv{n}.* -> layer{s}.{b}.bottleneck.{3*n-3}.*", "**.weight -> **.w", "module.** -> **", "fc.{weight,bias} -> head.{weight,bias}",
        "a{i=0..3}.{j=0..2} -> b{3*i+j}", "x.{p:q,k,v}.* -> y.{p}.*", "blocks.{n}.attn.qkv.* -> l.{n}.{p=q,k,v}.*: split(0)", "h\\*.* -> h.*",
    ]  # fmt: skip
    return [side.encode() for side in sides]


def junk() -> list[bytes]:
    """The beginnings of files of other kinds."""
    return [gzip.compress(b"x"), b"\x89HDF\r\n\x1a\n" + bytes(40), b"<html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x07\x12\x07pytorch",
            b'{"error": "not found"}', b"\x81\xa1a\x93\x01\x02\x03", b"PK\5\6" + bytes(18), bytes(100)]  # fmt: skip


def bad_pickles() -> list[bytes]:
    return [raw for name, raw in bombs() if name.endswith(".pkl") and len(raw) < 100_000]


def _members(raw: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as made:
        return [(name.split("/", 1)[1], made.read(name)) for name in made.namelist()]


def repacked(members: dict[str, bytes], chance_of_deflate: bool) -> bytes:
    """A torch zip of these members, with right checksums."""
    return archive(members, zipfile.ZIP_DEFLATED if chance_of_deflate else zipfile.ZIP_STORED)


def members_of(raw: bytes) -> dict[str, bytes]:
    return dict(_members(raw))


def with_pickle(raw: bytes) -> bytes:
    return archive({**records(), "data.pkl": raw})
