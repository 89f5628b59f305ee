"""Variants of torch's zip files whose directory, headers and members contradict each other, or are of kinds that nobody should trust."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.hostile.broken_files import records, tensor_pickle
from tests.hostile.variants_safetensors import Variant

Numbers = dict[str, int]
MIB = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A member. `local` and `central` are what its two headers say otherwise than what is true; `central` has `header`, `disk` too."""

    name: bytes
    content: bytes
    method: int = 0
    local: Numbers | None = None
    central: Numbers | None = None
    local_name: bytes | None = None
    extra: bytes = b""
    central_extra: bytes = b""
    descriptor: bytes = b""
    raw: bytes | None = None


def entries(**changed: bytes | None) -> list[Entry]:
    return [Entry(f"archive/{name}".encode(), content) for name, content in records(**changed).items()]


def build(members: list[Entry], prefix: bytes = b"", tail: bytes = b"", comment: bytes = b"", between: bytes = b"", **end: int) -> bytes:
    """The archive. `end` overrides the numbers of the end record: disk, first, here, count, size, start."""
    out, central = bytearray(prefix), bytearray()
    for one in members:
        raw = one.raw if one.raw is not None else _deflated(one.content) if one.method == 8 else one.content
        true = {"flags": 0, "method": one.method, "crc": zlib.crc32(one.content), "stored": len(raw), "size": len(one.content)}
        start, said = len(out), true | (one.local or {})
        name = one.name if one.local_name is None else one.local_name
        lengths = (said.get("names", len(name)), said.get("extras", len(one.extra)))
        out += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, said["flags"], said["method"], 0, 0, said["crc"], said["stored"], said["size"], *lengths)
        out += name + one.extra + raw + one.descriptor
        said = {**true, "header": start, "disk": 0, "comment": 0, "external": 0, **(one.central or {})}
        head = (20, 20, said["flags"], said["method"], 0, 0, said["crc"], said["stored"], said["size"], len(one.name), len(one.central_extra))
        central += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *head, said["comment"], said["disk"], 0, said["external"], said["header"]) + one.name + one.central_extra
    start = len(out) + len(between)
    numbers = {"disk": 0, "first": 0, "here": len(members), "count": len(members), "size": len(central), "start": start, "length": len(comment)} | end
    return bytes(out + between + central) + tail + struct.pack("<4sHHHHIIH", b"PK\5\6", *numbers.values()) + comment


def _deflated(content: bytes) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    return made.compress(content) + made.flush()


def with_entry(name: str, **changes: object) -> list[Entry]:
    """The usual members, one of them changed."""
    return [replace(one, **changes) if one.name == f"archive/{name}".encode() else one for one in entries()]  # type: ignore[arg-type]


def zip_variants() -> Iterator[Variant]:
    for made in (_contradictions, _names, _kinds, _ends, _zip64, _bombs, _surroundings):
        for name, raw, verdict in made():
            yield f"{made.__name__[1:]}-{name}.pth", raw, verdict


def _contradictions() -> Iterator[Variant]:
    """What the two headers of a member say, for a storage and for the pickle."""
    for member in ("data/0", "data.pkl"):
        size = len(records()[member])
        for number, name in enumerate((b"archive/DATA/0", b"archive/data/1", b"archive/data.pk", b"", b"x" * 14, b"archive/data/0\0", b"/" * 14)):
            yield f"local name {member}-{number}", build(with_entry(member, local_name=name)), "refuse"
        for field, values in {"crc": (1, 0xFFFFFFFF), "stored": (0, size - 1, size + 1, 0x7FFFFFFF), "size": (0, size - 1, size + 1, 0xFFFFFFFE),
            "method": (1, 8, 12, 99), "flags": (1, 0x20, 0x40, 0x2000), "names": (0, 1, 13, 15, 0xFFFF), "extras": (0xFFFF,)}.items():  # fmt: skip
            for value in values:
                yield f"local {field} {value} {member}", build(with_entry(member, local={field: value})), "refuse"
        for field, values in {"crc": (1, 0xFFFFFFFF), "stored": (0, size - 1, size + 1, 0x7FFFFFFF), "size": (0, size - 1, size + 1, 0xFFFFFFFE),
            "method": (1, 8, 12, 14, 93, 99), "flags": (1, 0x20, 0x40, 0x2000), "header": (1, 0x7FFFFFFF, 0xFFFFFFFE)}.items():  # fmt: skip
            for value in values:
                yield f"central {field} {value} {member}", build(with_entry(member, central={field: value})), "refuse"
        both = {"size": size + 4, "stored": size + 4}
        yield f"both sizes too large {member}", build(with_entry(member, local=both, central=both)), "refuse"
        both = {"size": size - 4, "stored": size - 4}
        yield f"both sizes too small {member}", build(with_entry(member, local=both, central=both)), "refuse"
        both = {"crc": 0x12345678}
        yield f"both checksums wrong {member}", build(with_entry(member, local=both, central=both)), "refuse"
        yield f"on another disk {member}", build(with_entry(member, central={"disk": 1})), "either"
        wrong = struct.pack("<4sIII", b"PK\7\10", 1, 2, 3)
        yield f"wrong descriptor {member}", build(with_entry(member, local={"flags": 8}, central={"flags": 8}, descriptor=wrong)), "either"
        blank = {"flags": 8, "crc": 0, "stored": 0, "size": 0}
        yield f"no descriptor {member}", build(with_entry(member, local=blank, central={"flags": 8})), "either"
    offsets = _offsets()
    for other in offsets:
        if other != "data/0":
            yield f"storage is {other}", build(with_entry("data/0", central={"header": offsets[other]})), "refuse"


def _offsets() -> dict[str, int]:
    found, at = {}, 0
    for one in entries():
        found[one.name.decode().removeprefix("archive/")] = at
        at += 30 + len(one.name) + len(one.content)
    return found


def _names() -> Iterator[Variant]:
    payload = b"\x80\x02cbait\nrun\n)R."
    for number, name in enumerate((b"archive/data.pkl", b"archive/DATA.PKL", b"ARCHIVE/data.pkl", b"archive/Data.pkl", "archıve/data.pkl".encode(),
        b"archive/data/0", b"archive/DATA/0", b"archive/version", b"archive/VERSION", b"archive/byteorder", "archive/ver\u017fion".encode())):  # fmt: skip
        verdict = "either" if number == 4 else "refuse"
        yield f"twin last-{number}", build([*entries(), Entry(name, payload)]), verdict
        yield f"twin first-{number}", build([Entry(name, payload), *entries()]), verdict
    for number, name in enumerate((b"archive/a\0b", b"", b"archive/\xff", b"archive/\xc0\x80", b"archive/\xed\xa0\x80")):
        says_utf8 = {"flags": 0x800}
        yield f"no name-{number}", build([*entries(), Entry(name, b"x", local=says_utf8, central=says_utf8)]), "refuse"
        yield f"another encoding-{number}", build([*entries(), Entry(name, b"x")]), "refuse" if number < 2 else "read"
    for number, name in enumerate((b"../x", b"/etc/passwd", b"archive/../../x", b"archive\\data.pkl", b"other/data.pkl", b"data.pkl", b"archive/", b"archive",
        b"archive/data/../data.pkl", b"archive//data.pkl", b"./archive/data.pkl", b"archive/data.pkl/", b"archive/data.pkl ", b"archive/\x1b[2J", b"\xef\xbb\xbfarchive/x",
        "archive/\u202ex".encode(), b"archive/" + b"a" * 60_000, b"C:\\x", b"archive/code/x.py", b"archive/constants.pkl", b"a.npy")):  # fmt: skip
        yield f"odd name last-{number}", build([*entries(), Entry(name, b"x")]), "either"
        yield f"odd name first-{number}", build([Entry(name, b"x"), *entries()]), "either"
    for number, key in enumerate(("../version", "/0", "0/", "00", "+0", " 0", "0 ", "٠", "0\0", "-0", "", "x" * 300, "1e0", "data/0", "..", "0\n")):
        yield f"storage key-{number}", build([*entries(**{"data.pkl": tensor_pickle(key=key)})]), "refuse"


def _kinds() -> Iterator[Variant]:
    for flags in range(16):
        verdict = "refuse" if 1 << flags not in (2, 4, 8, 16, 1 << 11) and (flags not in (1, 2, 3, 11)) else "either"
        yield f"flag {flags}", build(with_entry("data/0", local={"flags": 1 << flags}, central={"flags": 1 << flags})), verdict
    for member, external in (("data/0", 0x10), ("data.pkl", 0x10), ("data/0", 0xFFFFFFFF), ("data/0", 0x41ED0010)):
        yield f"marked as a folder {external:#x} {member}", build(with_entry(member, central={"external": external})), "refuse"
    yield "marked read only, hidden, a link", build(with_entry("data/0", central={"external": 0xA1FF0027})), "read"
    for method in (1, 2, 6, 7, 9, 10, 12, 14, 18, 93, 95, 96, 97, 98, 99, 0xFFFF):
        for member in ("data/0", "data.pkl"):
            yield f"method {method} {member}", build(with_entry(member, local={"method": method}, central={"method": method})), "refuse"
    for member in ("data/0", "data.pkl"):
        kept = {"method": 8}
        yield f"called deflated {member}", build(with_entry(member, local=kept, central=kept)), "refuse"
        content = records()[member]
        raw = _deflated(content)
        for name, broken in {"cut": raw[:-3], "nothing": b"", "junk": b"\xff" * len(raw), "more": raw + b"junk", "zlib": zlib.compress(content)}.items():
            yield f"deflate {name} {member}", build(with_entry(member, method=8, raw=broken)), "either" if name == "more" else "refuse"
        for size in (0, 1, len(content) - 1, len(content) + 1, len(content) + 4096):
            said = {"size": size}
            yield f"inflates to other than {size} {member}", build(with_entry(member, method=8, local=said, central=said)), "refuse"


def _ends() -> Iterator[Variant]:
    count, size = len(entries()), len(build(entries()))
    for field, values in {"disk": (1, 0xFFFE), "first": (1,), "here": (0, count - 1, count + 1), "count": (0, count - 1, count + 1, 0xFFFE),
        "size": (0, 1, 45, 0x7FFFFFFF), "start": (0, 1, size, size * 2, 0x7FFFFFFF), "length": (1, 5, 0xFFFF)}.items():  # fmt: skip
        for value in values:
            yield f"{field} {value}", build(entries(), **{field: value}), "refuse"
    for number in (0, count - 1, count + 1, 0xFFFE):
        yield f"both counts {number}", build(entries(), here=number, count=number), "refuse"
    yield "no entries", build([]), "refuse"
    whole = build(entries())
    for cut in (1, 2, 10, 21, 22, 23, 60, len(whole) // 2, len(whole) - 4, len(whole) - 30):
        yield f"cut by {cut}", whole[:-cut], "refuse"


def _zip64() -> Iterator[Variant]:
    count = len(entries())
    plain = build(entries())
    start, directory = plain.index(b"PK\1\2"), plain.rindex(b"PK\5\6") - plain.index(b"PK\1\2")

    def end(**changes: int) -> bytes:
        numbers = {"length": 44, "made": 45, "needed": 45, "disk": 0, "first": 0, "here": count, "count": count, "size": directory, "start": start} | changes
        locator = {"locator_disk": 0, "at": start + directory, "disks": 1}
        locator = {name: numbers.pop(name, value) for name, value in locator.items()}
        return struct.pack("<4sQHHIIQQQQ", b"PK\6\6", *numbers.values()) + struct.pack("<4sIQI", b"PK\6\7", *locator.values())

    wide = {"here": 0xFFFF, "count": 0xFFFF, "size": 0xFFFFFFFF, "start": 0xFFFFFFFF}
    yield "all wide", build(entries(), tail=end(), **wide), "either"
    yield "missing", build(entries(), **wide), "refuse"
    yield "as torch writes it", build(entries(), tail=end()), "read"
    for name, value in (("start", 0), ("start", start + 1), ("size", directory - 46), ("count", count - 1)):
        yield f"contradicted {name} {value}", build(entries(), tail=end(), **{name: value} | ({"here": value} if name == "count" else {})), "refuse"
    yield "extensible data", build(entries(), tail=end(length=52)[:56] + bytes(8) + end(length=52)[56:]), "refuse"
    for other in (plain, build(with_entry("data/0", content=bytes(24)))):
        whole, second = (one[: one.rindex(b"PK\5\6")] + end() + one[one.rindex(b"PK\5\6") :] for one in (plain, other))
        yield f"two archives, {other == plain}", whole + second, "refuse"
    for name, value in (("start", 1 << 63), ("start", (1 << 64) - 1), ("size", 1 << 63), ("size", (1 << 64) - 1), ("count", 1 << 63), ("here", 0), ("disk", 1), ("first", 1),
        ("at", 1 << 63), ("at", 0), ("at", start), ("at", (1 << 64) - 1), ("disks", 9), ("locator_disk", 1), ("count", 0), ("count", count - 1), ("start", start + 1)):  # fmt: skip
        yield f"{name} {value}", build(entries(), tail=end(**{name: value}), **wide), "refuse"
    size = len(records()["data/0"])
    narrow = {"size": 0xFFFFFFFF, "stored": 0xFFFFFFFF}
    for name, extra, verdict in (
        ("right", struct.pack("<HHQQ", 1, 16, size, size), "either"), ("none", b"", "refuse"), ("short", struct.pack("<HHQ", 1, 8, size), "refuse"),
        ("huge", struct.pack("<HHQQ", 1, 16, 1 << 63, 1 << 63), "refuse"), ("longer than there is", struct.pack("<HHQQ", 1, 0xFFFF, size, size), "refuse"),
        ("cut inside a number", struct.pack("<HHQQ", 1, 34, size, size) + b"half", "refuse"), ("of half a number more", struct.pack("<HHQQI", 1, 20, size, size, 0), "either"),
        ("wrong", struct.pack("<HHQQ", 1, 16, size - 4, size - 4), "refuse"), ("of another kind", struct.pack("<HHQQ", 2, 16, size, size), "refuse"),
        ("twice", struct.pack("<HHQQ", 1, 16, size, size) + struct.pack("<HHQQ", 1, 16, 4, 4), "either"),
    ):  # fmt: skip
        yield f"extra {name}", build(with_entry("data/0", central=narrow, central_extra=extra)), verdict


def _bombs() -> Iterator[Variant]:
    zeros = bytes(64 * MIB)
    count = len(zeros) // 4
    storage = [replace(one, content=zeros, method=8) if one.name.endswith(b"data/0") else one for one in entries(**{"data.pkl": tensor_pickle(count=count, size=(count,))})]
    yield "storage", build(storage), "refuse"
    for name, content in {"pickle": b"N0" * (16 * MIB) + b"}.", "version": zeros, "byteorder": zeros}.items():
        member = {"pickle": "data.pkl"}.get(name, name)
        yield name, build([replace(one, content=content, method=8) if one.name == f"archive/{member}".encode() else one for one in entries()]), "refuse"
    kernel = Entry(b"archive/data/1", bytes(MIB), 8)
    shared = [replace(kernel, name=f"archive/data/{number}".encode(), central={"header": 0}) for number in range(1, 50)]
    yield "members over each other", build([kernel, *entries(), *shared]), "refuse"
    yield "many members", build([*entries(), *(Entry(f"archive/x{number}".encode(), b"") for number in range(60_000))]), "either"
    lies = {"size": 0xFFFFFFF0}
    yield "declares 4 GiB", build(with_entry("data/0", method=8, local=lies, central=lies)), "refuse"


def _surroundings() -> Iterator[Variant]:
    whole = build(entries())
    yield "as it should be", whole, "read"
    yield "comment", build(entries(), comment=b"about"), "read"
    nothing = Entry(b"archive/nothing", b"", 8, raw=b"\x07junk")
    yield "an empty member of junk", build([*entries(), nothing]), "refuse"
    yield "the largest comment", build(entries(), comment=b"x" * 0xFFFF), "read"
    yield "the letters of an end in the comment", build(entries(), comment=b"PK\5\6"), "read"
    yield "an end in the comment", build(entries(), comment=b"PK\5\6" + bytes(18)), "either"
    yield "an archive in the comment", build(entries(), comment=build([Entry(b"archive/data.pkl", b"\x80\x02cbait\nrun\n)R.")])[:0xFFFF]), "either"
    yield "prefix, offsets right", build(entries(), prefix=b"junk"), "either"
    yield "prefix, offsets wrong", b"#!/bin/sh\n" + whole, "refuse"
    yield "bytes after it", whole + b"junk", "either"
    yield "zeros after it", whole + bytes(512), "either"
    other = build(with_entry("data/0", content=bytes(24)))
    yield "two archives", whole + whole, "refuse"
    yield "two archives of the same sizes", whole + other, "refuse"
    yield "gap before the directory", build(entries(), between=b"gap"), "either"
    yield "safetensors before it", b"\x10\0\0\0\0\0\0\0{}" + bytes(14) + whole, "refuse"
