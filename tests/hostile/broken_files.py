"""Makes broken, hostile and odd checkpoints: real files of torch and safetensors, with one thing wrong in each.

`must_refuse` holds files that no reader may accept, `must_read` odd ones that are valid, `either` those where both are right;
whatever becomes of them, nothing may run, hang or crash.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from safetensors.torch import save

W = torch.arange(4.0)
PAYLOADS = {
    "reduce": lambda marker: b"\x80\x02cbuiltins\nopen\nX" + _text(marker) + b"X\x01\0\0\0w\x86R.",
    "instance": lambda marker: b"(X" + _text(marker) + b"X\x01\0\0\0wibuiltins\nopen\n.",
    "object": lambda marker: b"(cbuiltins\nopen\nX" + _text(marker) + b"X\x01\0\0\0wo.",
    "new object": lambda marker: b"\x80\x02cbuiltins\nopen\nX" + _text(marker) + b"X\x01\0\0\0w\x86\x81.",
    "stack global": lambda marker: b"\x80\x04\x8c\x08builtins\x8c\x04open\x93X" + _text(marker) + b"X\x01\0\0\0w\x86R.",
    "then broken": lambda marker: b"\x80\x02cbuiltins\nopen\nX" + _text(marker) + b"X\x01\0\0\0w\x86R\xff",
    "dropped": lambda marker: b"\x80\x02cbuiltins\nopen\nX" + _text(marker) + b"X\x01\0\0\0w\x86R0}.",
    "getattr": lambda marker: b"\x80\x02cbuiltins\ngetattr\ncio\nopen\nX\x08\0\0\0__call__\x86RX" + _text(marker) + b"X\x01\0\0\0w\x86R.",
    "as a key": lambda marker: b"\x80\x02}cbuiltins\nopen\nX" + _text(marker) + b"X\x01\0\0\0w\x86RK\x01s.",
    "build": lambda marker: b"\x80\x02cpathlib\nPath\nX" + _text(marker) + b"\x85R}X\x03\0\0\0x=1K\x01sb.",
}
"""Pickles that would create the file `marker` if they were loaded."""


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def torch_file(value: object = None, **options: bool) -> bytes:
    out = io.BytesIO()
    torch.save({"w": W} if value is None else value, out, **options)
    return out.getvalue()


def archive(records: dict[str, bytes], method: int = zipfile.ZIP_STORED, root: str = "archive") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, content in records.items():
            made.writestr(name if "/" in name and name.startswith(root) else f"{root}/{name}", content)
    return out.getvalue()


def records(**changed: bytes | None) -> dict[str, bytes]:
    """The members of a file with one tensor `w`; None leaves one out."""
    with zipfile.ZipFile(io.BytesIO(torch_file())) as made:
        found = {name.split("/", 1)[1]: made.read(name) for name in made.namelist()}
    found |= {name: content for name, content in changed.items() if content is not None}
    return {name: content for name, content in found.items() if changed.get(name, b"") is not None}


def tensor_pickle(
    key: object = "0", count: object = 4, offset: object = 0, size: object = (4,), stride: object = (1,), kind: str = "FloatStorage"
) -> bytes:
    """The pickle of {'w': tensor} with these numbers."""
    plain = lambda value: pickle.dumps(value, 2)[2:-1]  # noqa: E731
    identity = b"(" + plain("storage") + f"ctorch\n{kind}\n".encode() + plain(key) + plain("cpu") + plain(count) + b"tQ"
    args = b"(" + identity + plain(offset) + plain(size) + plain(stride) + b"\x89}t"
    return b"\x80\x02}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + args + b"Rs."


def must_refuse() -> Iterator[tuple[str, bytes]]:
    yield from _cut_files()
    yield from _flipped_bits()
    yield from _directories()
    yield from _records()
    yield from _geometry()
    yield from _safetensors()


def _cut_files() -> Iterator[tuple[str, bytes]]:
    for name, raw in {
        "zip.pth": torch_file(),
        "legacy.pth": torch_file(_use_new_zipfile_serialization=False),
        "a.safetensors": save({"w": W}),
    }.items():
        for size in range(0, len(raw), max(1, len(raw) // 40)):
            yield f"cut-{size}-{name}", raw[:size]


def _flipped_bits() -> Iterator[tuple[str, bytes]]:
    raw = torch_file()
    start = raw.index(W.numpy().tobytes())
    for at in range(start, start + 16):
        yield f"flip-{at}.pth", raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
    pickled = raw.index(b"_rebuild_tensor_v2")
    yield "flip-pickle.pth", raw[:pickled] + b"X" + raw[pickled + 1 :]


def _directories() -> Iterator[tuple[str, bytes]]:
    raw = archive(records())
    central, end = raw.index(b"PK\1\2"), raw.index(b"PK\5\6")
    changes: dict[str, tuple[int, bytes]] = {
        "encrypted": (central + 8, b"\x01\0"),
        "unknown method": (central + 10, b"\x63\0"),
        "size": (central + 24, b"\xff\0\0\0"),
        "offset": (central + 42, b"\x01\0\0\0"),
        "offset far away": (central + 42, b"\xff\xff\xff\x7f"),
        "name": (central + 46, b"X"),
        "count": (end + 8, b"\x60\xea\x60\xea"),
        "fewer entries": (end + 8, b"\x02\0\x02\0"),
        "directory size": (end + 12, b"\xff\xff\xff\x7f"),
        "directory offset": (end + 16, b"\xff\xff\xff\x7f"),
        "second disk": (end + 4, b"\x01\0"),
        "local method": (8, b"\x08\0"),
        "local size": (18, b"\x07\0\0\0"),
        "local name": (30, b"Y"),
        "comment": (end + 20, b"\x09\0"),
    }
    for name, (at, patch) in changes.items():
        yield f"directory-{name}.pth", raw[:at] + patch + raw[at + len(patch) :]
    names = [raw.index(b"PK\1\2", at) for at in (central, central + 1)]
    first = raw[names[0] + 42 : names[0] + 46]
    yield "directory-same offset.pth", raw[: names[1] + 42] + first + raw[names[1] + 46 :]
    yield "directory-empty.pth", b"PK\5\6" + bytes(18)


def _records() -> Iterator[tuple[str, bytes]]:
    for name, made in {
        "no storage": records(**{"data/0": None}),
        "no pickle": records(**{"data.pkl": None}),
        "no version": records(version=None),
        "version": records(version=b"abc"),
        "byte order": records(byteorder=b"middle"),
        "short storage": {**records(), "data/0": bytes(12)},
        "odd storage": {**records(), "data/0": bytes(15)},
        "empty storage": {**records(), "data/0": b""},
        "upper case twin": {**records(), "DATA.PKL": b"\x80\x02N."},
        "two roots": {**records(), "archive2/x": b""} | {"../x": b""},
    }.items():
        yield f"records-{name}.pth", archive(made)
    yield "bomb.pth", archive({**records(), "data/0": bytes(16), "data/1": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    deflated = bytearray(archive({**records(), "data/0": bytes(range(200)) * 4}, zipfile.ZIP_DEFLATED))
    at = deflated.index(b"data/0") + 6
    deflated[at : at + 8] = b"\xff" * 8
    yield "garbage.pth", bytes(deflated)


def _geometry() -> Iterator[tuple[str, bytes]]:
    for name, numbers in {
        "offset": {"offset": 1},
        "offset negative": {"offset": -1},
        "offset huge": {"offset": 1 << 61},
        "stride": {"stride": (2,)},
        "stride negative": {"offset": 3, "stride": (-1,)},
        "rank": {"stride": (1, 1)},
        "size negative": {"size": (-4,)},
        "size huge": {"size": (1 << 62, 4), "stride": (0, 0)},
        "size truth": {"size": (True,)},
        "size fraction": {"size": (4.0,)},
        "size text": {"size": "4"},
        "count": {"count": 5},
        "count negative": {"count": -4},
        "count huge": {"count": 1 << 64},
        "count truth": {"count": True},
        "key path": {"key": "../version"},
        "key number": {"key": 0},
        "key missing": {"key": "1"},
        "type": {"kind": "LongStorage"},
        "unknown type": {"kind": "load"},
    }.items():
        yield f"geometry-{name}.pth", archive({**records(), "data.pkl": tensor_pickle(**numbers)})  # type: ignore[arg-type]
    yield "geometry-65 dimensions.pth", archive({**records(), "data.pkl": tensor_pickle(size=(1,) * 65, stride=(1,) * 65)})


def _safetensors() -> Iterator[tuple[str, bytes]]:
    raw = save({"w": W})
    for length in (0, 7, 1 << 31, 100_000_001, 1 << 63, (1 << 64) - 1):
        yield f"length-{length}.safetensors", length.to_bytes(8, "little") + raw[8:]
    yield "trailing-zip.safetensors", raw + torch_file()
    yield "bom.safetensors", struct.pack("<Q", 5) + b"\xef\xbb\xbf{}"
    yield "array.safetensors", struct.pack("<Q", 2) + b"[]"
    many = {f"t{i}": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} for i in range(20_000)}
    header = json.dumps(many).encode()
    yield "overlaps.safetensors", struct.pack("<Q", len(header)) + header + bytes(8)


def must_read() -> Iterator[tuple[str, bytes]]:
    """Each holds the tensor `w` of four floats."""
    yield "plain zip.pth", archive(records())
    yield "deflated.pth", archive(records(), zipfile.ZIP_DEFLATED)
    yield (
        "old.pth",
        archive(records(**{"byteorder": None, ".format_version": None, ".storage_alignment": None, ".data/serialization_id": None})),
    )
    yield "comment.pth", archive(records())[:-2] + b"\x03\0abc"
    yield "other root.pth", archive(records(), root="model.v1")
    yield "by hand.pth", archive({**records(), "data.pkl": tensor_pickle()})
    yield "trailing pickle bytes.pth", archive({**records(), "data.pkl": tensor_pickle() + b"junk"})
    yield "in disguise.pth", save({"w": W})
    yield "in disguise.safetensors", torch_file()
    yield "bytes as a key.pth", archive({**records(), "data.pkl": tensor_pickle().replace(b"X\x01\0\0\0w", b"U\x01w", 1)})
    yield "protocol 5.pth", torch_file(pickle_protocol=5)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Reading and refusing are both right, as long as it is soon over."""
    for name, raw in {
        "doubled tuples": b"\x80\x02}K\x01K\x01" + b"2\x86" * 200 + b"s.",
        "tuples as a key": b"\x80\x02}K\x01" + b"2\x86" * 200 + b"K\x01s.",
        "tuples in a set": b"\x80\x04\x8f(K\x01" + b"2\x86" * 200 + b"\x90.",
        "deep lists": b"]" * 50_000 + b"a" * 49_999 + b".",
        "deep calls": b"\x80\x02" + b"cx\ny\n" * 20_000 + b")R" + b"\x85R" * 19_999 + b".",
        "same hashes": b"\x80\x02}(" + b"".join(pickle.dumps(i * ((1 << 61) - 1), 2)[2:-1] + b"N" for i in range(20_000)) + b"u.",
        "a list in itself": b"\x80\x02]q\0h\0a.",
        "a module in itself": b"\x80\x02cx\ny\n)\x81q\0}(X\x0b\0\0\0_parametersNX\x08\0\0\0_modules}X\x01\0\0\0ah\0sub.",
        "a counter": b"\x80\x02ccollections\nCounter\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R.",
        "a memo far away": b"\x80\x02}r\xfe\xff\xff\xff.",
        "many marks": b"(" * 100_000 + b"N.",
        "an array of arrays": b"\x80\x02]" + b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85Ra" * 50 + b".",
    }.items():
        yield f"bomb-{name}.pth", archive({**records(), "data.pkl": raw})
        yield f"bomb-{name}.pkl", raw


def attacks(marker: str) -> Iterator[tuple[str, bytes]]:
    """Files that would create `marker`, in every place where a pickle is read."""
    for name, payload in PAYLOADS.items():
        raw = payload(marker)
        yield f"attack-{name}.pkl", raw
        yield f"attack-{name}.pth", archive({**records(), "data.pkl": raw})
    raw = PAYLOADS["reduce"](marker)
    legacy = torch_file(_use_new_zipfile_serialization=False)
    cuts = _pickle_ends(legacy)
    for number, (start, end) in enumerate(cuts):
        yield f"attack-legacy-{number}.pth", legacy[:start] + raw + legacy[end:]


def _pickle_ends(raw: bytes) -> list[tuple[int, int]]:
    """First byte and the byte after the last of the five pickles of a legacy stream."""
    stream, ends = io.BytesIO(raw), [0]
    load: Callable[[], object] = lambda: _Skipper(stream).load()  # noqa: E731
    for _ in range(5):
        load()
        ends.append(stream.tell())
    return list(pairwise(ends))


class _Skipper(pickle.Unpickler):
    """Reads a pickle of our own making past its end."""

    def persistent_load(self, identity: object) -> object:
        return torch.UntypedStorage(16)

    def find_class(self, module: str, name: str) -> object:
        return (lambda *args: None) if name.startswith("_rebuild") else super().find_class(module, name)
