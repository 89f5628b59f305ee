"""Variants of the containers without a directory: torch's legacy stream and tar, npy and npz, GGUF. Each valid one holds `w` of four floats."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator

import numpy as np
import torch

from tests.hostile.variants_safetensors import Variant

MAGIC, FLOATS = 0x1950A86A20F9469CFC6C, struct.pack("<4f", 0, 1, 2, 3)
COUNTS = (-1, -(1 << 63), 0, 1, 3, 5, 1 << 31, 1 << 61, 1 << 62, (1 << 63) - 1)
HEAD, STOP = b"\x80\x02", b"."


def plain(value: object) -> bytes:
    """The opcodes of a value, without a pickle's begin and end."""
    return pickle.dumps(value, 2)[2:-1]


def other_variants() -> Iterator[Variant]:
    for made, suffix in ((_legacy, "pth"), (_tar, "tar"), (_npy, "npy"), (_npz, "npz"), (_gguf, "gguf")):
        for name, raw, verdict in made():
            yield f"{made.__name__[1:]}-{name}.{suffix}", raw, verdict


def tensor(view: object = None, identity: bytes = b"", count: object = 4, size: object = (4,), key: object = "7") -> bytes:
    """The pickle of {'w': tensor} as a legacy stream has it: its persistent ids know views."""
    parts = plain("storage") + b"ctorch\nFloatStorage\n" + plain(key) + plain("cpu") + plain(count) + plain(view)
    made = identity or b"(" + parts + b"tQ"
    return HEAD + b"}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + made + plain(0) + plain(size) + plain((1,)) + b"\x89}tRs."


def legacy(magic: object = MAGIC, protocol: object = 1001, info: object = None, value: bytes = tensor(), keys: object = ("7",), count: int = 4,
           content: bytes = FLOATS, tail: bytes = b"") -> bytes:  # fmt: skip
    listed = list(keys) if type(keys) is tuple else keys
    dumped = [pickle.dumps(one, 2) for one in (magic, protocol, {"little_endian": True} if info is None else info)]
    return b"".join([*dumped, value, pickle.dumps(listed, 2), struct.pack("<q", count), content, tail])


def _legacy() -> Iterator[Variant]:
    whole = legacy()
    yield "as it should be", whole, "read"
    for end in range(len(whole)):
        yield f"cut at {end}", whole[:end], "refuse"
    for number, magic in enumerate((MAGIC + 1, -MAGIC, 0, True, None, str(MAGIC), float(MAGIC), [MAGIC])):
        yield f"magic {number}", legacy(magic), "refuse" if number in (0, 1, 7) else "either"  # a pickle of something else, and bytes behind it
    for number, protocol in enumerate((1000, 1002, -1001, 1 << 70, "1001", 1001.0, None, [1001])):
        yield f"protocol {number}", legacy(protocol=protocol), "refuse" if protocol != 1001.0 else "either"
    for number, info in enumerate(({"little_endian": False}, {}, [], 0, "x" * 100_000, {"type_sizes": {"int": 1 << 99}}, {1: {2: {3: 4}}})):
        yield f"system {number}", legacy(info=info), "read"
    for number, keys in enumerate(((), ("7", "7"), ("8",), (7,), ("7", "8"), ("8", "7"), (None,), (("7",),), "7", {"7": 1}, {"7"}, None, 1, ("",), ("7\0",), ("٧",))):
        yield f"keys {number}", legacy(keys=keys), "refuse" if number != 9 else "either"
    for count in COUNTS:
        yield f"count {count}", legacy(count=count), "refuse"
        yield f"both counts {count}", legacy(value=tensor(count=count), count=count), "refuse" if count < 4 or count > 4 else "read"
    for number, view in enumerate(((), ("8", 0), ("8", 0, 4, 0), ("8", -1, 4), ("8", 1, 4), ("8", 0, 5), ("8", 0, -1), ("8", 1 << 62, 4), ("8", None, 4), (8, 0, 4), "8", 1, [1, 2, 3], ("8", True, 4), ("8", 0.0, 4))):
        yield f"view {number}", legacy(value=tensor(view)), "refuse" if number not in (0, 9) else "either"
    yield "a view", legacy(value=tensor(("8", 1, 4), count=6), count=6, content=struct.pack("<6f", 9, 0, 1, 2, 3, 9)), "read"
    for number, identity in enumerate((plain("module") + b"cbait\nrun\n" + plain("bait.py") + plain("open('marker', 'w')"), plain("module"), plain("storage"), plain("tensor") + plain("7"))):
        yield f"identity {number}", legacy(value=tensor(identity=b"(" + identity + b"tQ")), "refuse"
    yield "a module's source", legacy(value=HEAD + b"(" + plain("module") + b"cbait\nrun\n" + plain("b.py") + plain("import bait") + b"tQ)R."), "either"
    magic, after = whole[:15], whole[15:]
    for number, start in enumerate((b"\x80\x02" * 40 + magic, b"N0" * 200 + magic, b"\x80\x02L119547037146038801333356L\n.", b"\x80\x03" + b"K\x01K\x0200" * 9 + magic)):
        yield f"the magic number in other opcodes {number}", start + after, "refuse" if number == 1 else "read"
    for number, tail in enumerate((b"x", bytes(1000), whole, b"\x80\x02cbait\nrun\n)R.")):
        yield f"tail {number}", legacy(tail=tail), "either"


Members = list[tuple[str, bytes]]


def tar_members(count: int = 4, tensors: int = 1, storages: int = 1, rank: int = 1, sizes: tuple[int, ...] = (4, 1, 0), views: object = (), owner: object = 5,
                value: bytes = b"\x80\x02}X\x01\0\0\0wK\x01Qs.") -> Members:  # fmt: skip
    dumps = lambda *values: b"".join(pickle.dumps(one, 2) for one in values)  # noqa: E731
    made = dumps(storages, (5, "cpu", torch.FloatStorage)) + struct.pack("<q", count) + FLOATS + dumps(list(views) if type(views) is tuple else views)
    described = dumps(tensors, (1, owner, torch.FloatTensor)) + struct.pack(f"<ii{len(sizes)}q", rank, 0, *sizes)
    return [("sys_info", dumps({})), ("pickle", value), ("tensors", described), ("storages", made)]


def tar(members: Members, change: dict[str, dict[str, object]] | None = None, form: int = tarfile.PAX_FORMAT, pax: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=form) as archive:
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            info.pax_headers = pax or {}
            for field, value in (change or {}).get(name, {}).items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def resealed(raw: bytes, at: int, field: bytes) -> bytes:
    """A tar archive with another field in its first header, whose checksum is right."""
    header = raw[:at] + field + raw[at + len(field) : 148] + b" " * 8 + raw[156:512] if at < 148 else raw[:148] + b" " * 8 + raw[156:at] + field + raw[at + len(field) : 512]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:] + raw[512:]


def _tar() -> Iterator[Variant]:
    usual = tar_members()
    whole = tar(usual)
    for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("ustar", tarfile.USTAR_FORMAT)):
        yield f"as it should be, {name}", tar(usual, form=form), "read"
    yield "with folders and dots", tar([("./", b""), *((f"./{name}", raw) for name, raw in usual)], {"./": {"type": tarfile.DIRTYPE}}), "read"
    yield "in another order", tar(usual[::-1]), "read"
    yield "with times and owners", tar(usual, pax={"mtime": "1.5", "uname": "é"}), "read"
    for end in range(0, len(whole) - 10_240, 97):
        yield f"cut at {end}", whole[:end], "refuse"
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, b"Z"):
        for member, _ in usual[1:]:
            yield f"{member} is of type {kind.decode()}", tar(usual, {member: {"type": kind, "linkname": "/etc/passwd", "size": 0}}), "refuse"
    for number, pax in enumerate(({"path": "pickle"}, {"size": "3"}, {"linkpath": "/etc/passwd"}, {"path": "../../x"})):
        yield f"renamed {number}", tar(usual, pax=pax), "refuse"
    for number, pax in enumerate(({"GNU.sparse.major": "1", "GNU.sparse.name": "x"}, {"GNU.sparse.size": "3"}, {"comment": "x" * 70_000 + " path=x"})):
        yield f"made otherwise {number}", tar(usual, pax=pax), "refuse"
    hidden = tar_members(count=0)[3][1]
    for number, name in enumerate(("storages\0x", "storages\0", "./storages")):
        yield f"hidden {number}", tar([*usual, (name, hidden)]), "refuse"
    for kind in (tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE):
        yield f"headers in the bytes of type {kind.decode()}", tar([("x", tar([("storages", hidden)])), *usual], {"x": {"type": kind}}), "refuse"
    yield "headers in the bytes of an old folder", tar([("x/", tar([("storages", hidden)])), *usual], {"x/": {"type": tarfile.AREGTYPE}}), "refuse"
    for number, (at, field) in enumerate(((148, b"\0" + whole[148:155]), (100, b"none    "), (136, b"0000000000x\0"), (337, b"9"), (124, b"\x80" + bytes(9) + b"\4"))):
        yield f"a number that is none {number}", resealed(whole, at, field) if at != 148 else whole[:at] + field + whole[at + 8 :], "refuse"
    for at, field in ((108, b"\x80" + bytes(6) + b"\1"), (136, b"\xff" * 12)):
        yield f"a large number at {at}", resealed(whole, at, field), "read"
    for name in ("x/" * 60 + "storages", "x" * 120):
        yield f"a name of {len(name)} letters", tar([*usual[:3], (name, usual[3][1])], form=tarfile.USTAR_FORMAT if "/" in name else tarfile.GNU_FORMAT), "refuse"
    for number, name in enumerate(("../x", "/etc/passwd", "a" * 300, "\x1b[2J", "é", "pickle/", "PICKLE", "./pickle.txt", "C:\\x")):
        yield f"beside it {number}", tar([*usual, (name, b"x")]), "either"
    for number in range(1, 4):
        yield f"twice {number}", tar([*usual, usual[number]]), "refuse"
        yield f"missing {number}", tar(usual[:number] + usual[number + 1 :]), "refuse"
        yield f"empty {number}", tar([*usual[:number], (usual[number][0], b""), *usual[number + 1 :]]), "refuse"
    for count in COUNTS:
        yield f"count {count}", tar(tar_members(count=count)), "refuse"
        yield f"{count} tensors", tar(tar_members(tensors=count)), "refuse" if count != 1 else "read"
        yield f"{count} storages", tar(tar_members(storages=count)), "refuse" if count != 1 else "read"
        yield f"a size of {count}", tar(tar_members(sizes=(count, 1, 0))), "refuse" if not 0 <= count <= 4 else "either"
        yield f"a stride of {count}", tar(tar_members(sizes=(4, count, 0))), "refuse" if not 0 <= count <= 1 else "either"
        yield f"an offset of {count}", tar(tar_members(sizes=(4, 1, count))), "refuse" if count else "read"
    for rank in (-1, 2, 65, 1 << 30, -(1 << 31)):
        yield f"rank {rank}", tar(tar_members(rank=rank)), "refuse"
    for number, views in enumerate((((6, 5, 0, 4),), ((6, 5, 1, 4),), ((6, 9, 0, 4),), ((5, 5, 0, 4),), ((6, 5, -1, 1),), (5,), (("6", 5, 0, 1),), None, {}, "x")):
        yield f"views {number}", tar(tar_members(views=views)), "read" if number == 0 else "either" if number > 6 else "refuse"
    for number, owner in enumerate((6, "5", None, -5, 5.0, True, (5,))):
        yield f"owner {number}", tar(tar_members(owner=owner)), "refuse" if owner != 5 else "either"
    for number, value in enumerate((b"\x80\x02cbait\nrun\n)R.", b"\x80\x02K\x02Q.", b"\x80\x02NQ.", b"\x80\x02)Q.", b"\x80\x02}Q.", b"\x80\x02K\x01Q", b"P1\n.", b"P\xff\n.", b"P9" + b"9" * 5000 + b"\n.")):
        yield f"value {number}", tar(tar_members(value=value)), "either" if number in (0, 6) else "refuse"
    yield "a number that is none", whole[:124] + b"zzzzzzzzzzzz" + whole[136:], "refuse"
    yield "a number in base 256", whole[:124] + b"\x80" + bytes(10) + b"\x05" + whole[136:], "refuse"
    yield "a wrong sum", whole[:148] + b"0000000\0" + whole[156:], "refuse"


def npy(header: str | bytes, content: bytes = FLOATS, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    text = header.encode("latin-1") if isinstance(header, str) else header
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + text + content


USUAL = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n"


def _npy() -> Iterator[Variant]:
    whole = npy(USUAL)
    yield "as it should be", whole, "either"
    for end in range(1, len(whole)):
        yield f"cut at {end}", whole[:end], "refuse"
    for version in (b"\2\0", b"\3\0", b"\1\1", b"\0\0", b"\4\0", b"\xff\xff"):
        yield f"version {version.hex()}", npy(USUAL, version=version if version[0] else b"\0\0"), "either" if version[0] in (1, 2, 3) else "refuse"
    for length in (0, 1, len(USUAL) - 1, len(USUAL) + 1, 0xFFFF):
        yield f"header of {length}", npy(USUAL, length=length), "either" if length == len(USUAL) - 1 else "refuse"
    for length in (0xFFFFFFFF, 1 << 31, 10_001):
        yield f"wide header of {length}", npy(USUAL, version=b"\2\0", length=length), "refuse"
    for number, shape in enumerate(("(3,)", "(5,)", "(-4,)", "(4.0,)", "('4',)", "(True,)", "(None,)", "4", "(4)", "[4]", "(4, 0, 9)", "(1,) * 4", "(__import__('os').system('x'),)", "(" + "1," * 65 + ")",
        "(" + "9" * 18 + ",)", "(" + "9" * 400 + ",)", "(0x4,)", "(4_0,)", "(4,,)", "(,4)", "(٤,)".encode().decode("latin-1"), "(1e1,)", "((4,),)", "(" * 900)):  # fmt: skip
        yield f"shape {number}", npy(USUAL.replace("(4,)", shape)), "refuse"
    for number, kind in enumerate(("O", "|O", "|O8", "<f3", "<f", "f4f4", "", "<f4'", "\x1b[2J", "V" + "9" * 400, "<M8[ns]", "<f1" + "0" * 300, ">f4", "|f4", "=f4", "<i4", "float32", "<x4")):
        yield f"type {number}", npy(USUAL.replace("<f4", kind)), "refuse" if number < 3 else "either"
    for number, kind in enumerate(("[('a', '<f4')]", "[('a', '|O')]", "[('a', [('b', 'O')])]", "[" * 4000, "f()", "('<f4', (4,))", "[('\x1b[2J', '<f4')]", "[('a', '<f4', (1 << 99,))]")):
        yield f"structure {number}", npy(USUAL.replace("'<f4'", kind)), "either"
    for number, text in enumerate(("", "{}", "[]", "None", "x" * 9999, "{" * 900, " " * 9999, "\0" * 100, USUAL * 2, USUAL[:-3], USUAL + "x", "#" + USUAL, USUAL.replace("False", "0"), USUAL.replace("False", "false"))):
        yield f"text {number}", npy(text), "refuse"
    yield "bytes behind", npy(USUAL, FLOATS + b"x"), "refuse"


def npz(members: dict[str | zipfile.ZipInfo, bytes] | dict[str, bytes] | dict[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _npz() -> Iterator[Variant]:
    usual, order = npy(USUAL), USUAL.replace("False", "True")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield f"as it should be {method}", npz({"w.npy": usual, "v.npy": npy(order)}, method), "read"
        yield f"big-endian {method}", npz({"w.npy": npy(USUAL.replace("<", ">"), struct.pack(">4f", 0, 1, 2, 3))}, method), "read"
        yield f"not an array {method}", npz({"w.npy": b"junk"}, method), "refuse"
        yield f"empty {method}", npz({"w.npy": b""}, method), "refuse"
    for number, name in enumerate(("../x.npy", "/etc/passwd.npy", "\x1b[2J.npy", ".npy", "a/b/c.npy", "w.npy.npy", "é.npy", "x" * 9000 + ".npy", "\u202e.npy", "W.npy")):
        yield f"name {number}", npz({name: usual, "w.npy": usual}), "refuse" if name == "W.npy" else "either"
    for number, name in enumerate(("w.txt", "data.pkl", "archive/data.pkl", "x.NPY", "npy")):
        yield f"another member {number}", npz({"w.npy": usual, name: b"\x80\x02cbait\nrun\n)R."}), "refuse"
    for name, raw in _npz_of_other_writers(usual):
        yield name, raw, "read"
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object))
    yield "objects", npz({"w.npy": objects.getvalue()}), "refuse"
    yield "objects that run", npz({"w.npy": npy(USUAL.replace("<f4", "|O"), b"\x80\x02cbait\nrun\n)R.")}), "refuse"
    yield "a bomb", npz({"w.npy": npy(USUAL.replace("(4,)", f"({1 << 24},)"), bytes(1 << 26))}, zipfile.ZIP_DEFLATED), "refuse"
    whole = npz({"w.npy": usual})
    for end in range(5, len(whole), 7):
        yield f"cut at {end}", whole[:end], "refuse"
    at = whole.index(FLOATS)
    yield "a flipped bit", whole[: at + 5] + b"\xff" + whole[at + 6 :], "refuse"


def _npz_of_other_writers(usual: bytes) -> Iterator[tuple[str, bytes]]:
    """Archives as Python's zipfile writes them when it is asked to."""
    for name, fields in {
        "a comment on a member": {"comment": b"x" * 1000}, "of DOS": {"create_system": 0}, "with rights": {"external_attr": 0o100644 << 16},
        "with a time": {"extra": b"UT\5\0\1\0\0\0\0"}, "read-only": {"external_attr": 1},
    }.items():  # fmt: skip
        info = zipfile.ZipInfo("w.npy")
        for field, value in fields.items():  # type: ignore[attr-defined]
            setattr(info, field, value)
        yield name, npz({info: usual})
    yield "a name longer than what is looked at first", npz({"k" * 60_000 + ".npy": usual, "w.npy": usual})
    out = io.BytesIO(npz({"w.npy": usual}))
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"x" * 1000
        with archive.open("v.npy", "w", force_zip64=True) as member:
            member.write(usual)
    yield "another member put behind", out.getvalue()
    stream = io.BytesIO()
    stream.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("w.npy", usual)
        archive.writestr("v.npy", usual, zipfile.ZIP_DEFLATED)
    yield "written to a pipe", stream.getvalue()


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_tensor(name: bytes = b"w", sizes: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes) if rank is None else rank, *sizes, kind & 0xFFFFFFFF, offset)


def gguf(tensors: tuple[bytes, ...] = (gguf_tensor(),), pairs: tuple[bytes, ...] = (), content: bytes = FLOATS, version: int = 3,
         announced: tuple[int, int] | None = None) -> bytes:  # fmt: skip
    counts = announced or (len(tensors), len(pairs))
    raw = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return raw + bytes(-len(raw) % 32) + content


def _gguf() -> Iterator[Variant]:
    pairs = (text(b"general.name") + struct.pack("<I", 8) + text(b"me"), text(b"n") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3))
    whole = gguf(pairs=pairs)
    yield "as it should be", whole, "read"
    yield "version 2", gguf(version=2), "read"
    kinds = [text(f"kind {kind}".encode()) + struct.pack("<I", kind) + b"\xff" * size for kind, size in ((0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8))]
    yield "values of every kind", gguf(pairs=tuple(kinds)), "read"
    yield "bytes between", gguf((gguf_tensor(offset=64),), content=bytes(64) + FLOATS), "read"
    yield "in another order", gguf((gguf_tensor(b"v", offset=32), gguf_tensor()), content=FLOATS + bytes(16) + FLOATS), "read"
    yield "a number", gguf((gguf_tensor(), gguf_tensor(b"n", sizes=(), offset=32)), content=FLOATS + bytes(16) + FLOATS[:4]), "read"
    yield "an array of three million texts", gguf(pairs=(text(b"a") + struct.pack("<IIQ", 9, 8, 3_000_001) + bytes(24_000_008),)), "refuse"
    for end in range(4, len(whole)):
        yield f"cut at {end}", whole[:end], "refuse"
    for version in (0, 1, 4, 99, 2 << 24, 3 << 24, 0xFFFFFFFF):
        yield f"version {version}", gguf(version=version), "refuse"
    for count in (2, 3, 1 << 31, 1 << 32, 1 << 62, (1 << 64) - 1):
        yield f"{count} tensors", gguf(announced=(count, 0)), "refuse"
        yield f"{count} values", gguf(announced=(1, count)), "refuse"
        yield f"a name of {count} bytes", gguf((struct.pack("<Q", count) + b"w",)), "refuse" if count > 3 else "either"
        yield f"an array of {count} texts", gguf(pairs=(text(b"a") + struct.pack("<IIQ", 9, 8, count),)), "refuse"
        yield f"{count} wide", gguf((gguf_tensor(sizes=(max(count, 5),)),)), "refuse"
        yield f"at {count}", gguf((gguf_tensor(offset=count),)), "refuse"
        yield f"at {count} times 32", gguf((gguf_tensor(offset=(count << 5) & (1 << 64) - 1),)), "refuse" if count << 5 & (1 << 64) - 1 else "read"
    for kind in range(-1, 60):
        yield f"type {kind}", gguf((gguf_tensor(kind=kind),)), "read" if kind == 0 else "either"
        yield f"a row of type {kind}", gguf((gguf_tensor(sizes=(256,), kind=kind),), content=bytes(4096)), "either"
    for kind in (13, 14, 77, 1 << 31, 0xFFFFFFFF):
        yield f"a value of type {kind}", gguf(pairs=(text(b"a") + struct.pack("<II", kind, 0),)), "refuse"
        yield f"values of type {kind}", gguf(pairs=(text(b"a") + struct.pack("<IIQI", 9, kind, 1, 0),)), "refuse"
    for alignment in (0, 1, 7, 8, 33, 64, 1 << 20, 1 << 21, (1 << 31) + 1, 0xFFFFFFFF):
        yield f"aligned to {alignment}", gguf(pairs=(text(b"general.alignment") + struct.pack("<II", 4, alignment),)), "either" if alignment in (8, 64, 1 << 20) else "refuse"
    for number, value in enumerate((struct.pack("<Id", 12, 32.0), struct.pack("<I", 8) + text(b"32"), struct.pack("<I?", 7, True), struct.pack("<IIQ", 9, 4, 0))):
        yield f"aligned to something else {number}", gguf(pairs=(text(b"general.alignment") + value,)), "refuse"
    for rank in (0, 2, 4, 5, 65, 1 << 31):
        yield f"rank {rank}", gguf((gguf_tensor(rank=rank),)), "refuse"
    yield "rank 4", gguf((gguf_tensor(sizes=(4, 1, 1, 1)),)), "either"
    yield "sizes whose product wraps", gguf((gguf_tensor(sizes=(1 << 32, 1 << 32)),)), "refuse"
    yield "sizes that wrap to the right size", gguf((gguf_tensor(sizes=((1 << 63) + 2, 2)),)), "refuse"
    yield "nothing of anything", gguf((gguf_tensor(sizes=(1 << 63, 0)),)), "either"
    yield "twice", gguf((gguf_tensor(), gguf_tensor())), "refuse"
    yield "over each other", gguf((gguf_tensor(), gguf_tensor(b"v"))), "refuse"
    yield "a value twice", gguf(pairs=(pairs[0], pairs[0])), "refuse"
    for number, name in enumerate((b"", b"\xff", b"\xed\xa0\x80", b"\x1b[2J", b"a\0b", b"x" * 70_000, "\u202e".encode())):
        yield f"name {number}", gguf((gguf_tensor(name),)), "refuse" if number in (1, 2) else "either"
        yield f"text {number}", gguf(pairs=(text(b"a") + struct.pack("<I", 8) + text(name),)), "refuse" if number in (1, 2) else "read"
    for depth in (1, 4, 5, 50, 20_000):
        nested = struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 1) + b"\1"
        yield f"arrays in arrays {depth}", gguf(pairs=(text(b"a") + struct.pack("<I", 9) + nested,)), "either" if depth < 6 else "refuse"
