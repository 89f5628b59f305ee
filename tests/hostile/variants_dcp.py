# mypy: disable-error-code="return-value,dict-item"
"""Variants of distributed checkpoints (DCP): calls in `.metadata` and in what it leads to, bombs, parts that don't fit, places that aren't there."""

import copy
import io
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
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

A, B = "__0_0.distcp", "__1_0.distcp"


class Bait:
    """Unpickling one runs a command that leaves a mark in the working directory."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch marker",)


class Evaluated:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("open('marker', 'w')",)


class Loaded:
    """A function of torch that opens what it is told to."""

    def __reduce__(self) -> tuple[object, ...]:
        return torch.load, ("marker",)


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@dataclass
class Folder:
    """A tensor `w` of two parts in two files, a number `n`, an object `o`."""

    metadata: Metadata
    files: dict[str, bytes]
    raw: bytes | None = None
    after: list[Callable[[Path], None]] = field(default_factory=list)

    @property
    def places(self) -> dict[MetadataIndex, _StorageInfo]:
        return self.metadata.storage_data

    @property
    def w(self) -> TensorStorageMetadata:
        return self.metadata.state_dict_metadata["w"]

    def place(self, key: str = "w", **changes: object) -> None:
        """Changes where the first part of a key lies."""
        index = next(one for one in self.places if one.fqn == key)
        self.places[index] = replace(self.places[index], **changes)

    def swap(self, one: MetadataIndex, other: MetadataIndex) -> None:
        """Two parts, each in the place of the other."""
        self.places[one], self.places[other] = self.places[other], self.places[one]

    def share(self, one: MetadataIndex, other: MetadataIndex) -> None:
        """Two parts in the place of the first."""
        self.places[other] = copy.copy(self.places[one])

    def put(self, content: bytes) -> None:
        """Another first part of `w`."""
        self.files["other.distcp"] = content
        self.place(relative_path="other.distcp", offset=0, length=len(content))

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        raw = pickle.dumps(self.metadata, 4) if self.raw is None else self.raw
        if raw:
            (folder / ".metadata").write_bytes(raw)
        for change in self.after:
            change(folder)


def whole() -> Folder:
    torch.manual_seed(0)
    size = torch.Size
    parts = {("w", (0, 0)): torch.randn(3, 6), ("w", (3, 0)): torch.randn(2, 6), ("n", ()): torch.tensor(7)}
    files, places = {A: b"", B: b""}, {}
    for (key, offset), tensor in parts.items():
        name, content = B if offset == (3, 0) else A, saved(tensor)
        places[MetadataIndex(key, offset)] = _StorageInfo(name, len(files[name]), len(content))
        files[name] += content
    content = saved({"lr": 0.1})
    places[MetadataIndex("o")] = _StorageInfo(A, len(files[A]), len(content))
    files[A] += content
    chunks = [ChunkStorageMetadata(size((0, 0)), size((3, 6))), ChunkStorageMetadata(size((3, 0)), size((2, 6)))]
    number = TensorStorageMetadata(TensorProperties(dtype=torch.int64), size(()), [ChunkStorageMetadata(size(()), size(()))])
    items = {"w": TensorStorageMetadata(TensorProperties(), size((5, 6)), chunks), "n": number, "o": BytesStorageMetadata()}
    return Folder(Metadata(items, {key: (key,) for key in items}, places, StorageMeta("x"), "1.0.0"), files)


Change = Callable[[Folder], object]
VARIANTS: dict[str, tuple[str, Change]] = {}
"""What is done to a folder, and what the refusal says."""


def variant(reason: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        VARIANTS[change.__name__] = reason, change
        return change

    return add


def each(reason: str, changes: dict[str, Change]) -> None:
    VARIANTS.update({name: (reason, change) for name, change in changes.items()})


def replaced(one: bytes, other: bytes) -> Change:
    """The `.metadata` with other bytes at one place; frames are left out, whose lengths would no longer fit."""

    def change(folder: Folder) -> None:
        raw = b"\x80\x04" + pickle.dumps(folder.metadata, 4)[11:]
        assert raw.count(one) == 1, raw.count(one)
        folder.raw = raw.replace(one, other)

    return change


def set_attribute(name: str, value: object) -> Change:
    return lambda folder: setattr(folder.metadata, name, value)


def chunk(number: int, **changes: object) -> Change:
    return lambda folder: folder.w.chunks.__setitem__(number, replace(folder.w.chunks[number], **changes))


def offsets(*numbers: object) -> Change:
    """The second part elsewhere, and its bytes with it."""

    def change(folder: Folder) -> None:
        old = folder.w.chunks[1].offsets
        chunk(1, offsets=torch.Size(numbers))(folder)
        folder.places[MetadataIndex("w", numbers)] = folder.places.pop(MetadataIndex("w", old))

    return change


def more(*numbers: int, sizes: tuple[int, ...]) -> Change:
    """One more part."""

    def change(folder: Folder) -> None:
        folder.w.chunks.append(ChunkStorageMetadata(torch.Size(numbers), torch.Size(sizes)))
        content = saved(torch.zeros(sizes))
        folder.files["more.distcp"] = content
        folder.places[MetadataIndex("w", numbers)] = _StorageInfo("more.distcp", 0, len(content))

    return change


def named(name: str) -> Change:
    return lambda folder: folder.place(relative_path=name)


def not_a_size(value: object) -> object:
    """A `torch.Size` of what torch would not take."""

    class Odd:
        def __reduce__(self) -> tuple[object, ...]:
            return torch.Size, (value,)

    return Odd()


each("would call or import (posix|nt)?\\.?(os\\.)?system", {
    "call_as_the_root": lambda folder: setattr(folder, "raw", pickle.dumps(Bait(), 4)),
    "call_as_an_attribute": set_attribute("more", Bait()),
    "call_in_the_planners_data": lambda folder: folder.metadata.planner_data.update(w=Bait()),
    "call_as_a_key_of_the_planners_data": lambda folder: folder.metadata.planner_data.update({Bait(): ("w",)}),
    "call_as_a_place": lambda folder: folder.places.update({MetadataIndex("w", (0, 0)): Bait()}),
    "call_as_a_parts_name": lambda folder: folder.places.update({Bait(): folder.places[MetadataIndex("w", (0, 0))]}),
    "call_as_a_part": lambda folder: folder.w.chunks.append(Bait()),
    "call_as_a_shape": lambda folder: setattr(folder.w, "size", Bait()),
    "call_as_an_offset": chunk(0, offsets=Bait()),
    "call_as_a_type": lambda folder: setattr(folder.w, "properties", Bait()),
    "call_as_a_tensor": lambda folder: folder.metadata.state_dict_metadata.update(x=Bait()),
    "call_as_the_storage_meta": set_attribute("storage_meta", Bait()),
    "call_as_the_version": set_attribute("version", Bait()),
    "call_as_a_file_name": lambda folder: folder.place(relative_path=Bait()),
    "call_in_protocol_0": lambda folder: setattr(folder, "raw", pickle.dumps([Bait()], 0)),
})  # fmt: skip
each("would call or import", {
    "eval_as_an_attribute": set_attribute("more", Evaluated()),
    "a_function_of_torch": set_attribute("more", Loaded()),
    "import_of_a_command": set_attribute("more", os.system),
    "call_by_the_class_of_an_item": replaced(b"h\x00\x8c\x14BytesStorageMetadata\x94\x93", b"\x8c\x02os\x8c\x06system\x94\x93"),
    "call_inside_of_a_part": lambda folder: folder.put(saved([torch.zeros(3, 6), Bait()])),
    "call_as_a_part_of_a_file": lambda folder: folder.put(saved(Bait())),
})  # fmt: skip


@variant("would call or import")
def call_in_a_tensors_hooks(folder: Folder) -> None:
    tensor = torch.zeros(3, 6)
    tensor.note = Bait()  # type: ignore[attr-defined]
    folder.put(saved(tensor))


LAUGHS = b"".join(b"\x94h\x00h\x00\x86" if not number else b"\x94h%ch%c\x86" % (number, number) for number in range(60))
each("refers to the same objects over and over|copies the same|has a path|stood under|is none|not a distributed|lies|is in a file|is at an|is neither|impossible|a shape|has a part|takes more|makes ", {
    "bomb_of_references": lambda folder: setattr(folder, "raw", b"\x80\x04)" + LAUGHS + b"."),
    "bomb_of_containers": lambda folder: setattr(folder, "raw", b"\x80\x04(" + b"]" * 3_000_000 + b"l."),
    "bomb_of_marks": lambda folder: setattr(folder, "raw", b"\x80\x04" + b"(" * 2_000_000 + b"."),
    "deep_lists": lambda folder: setattr(folder, "raw", b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."),
})  # fmt: skip
each("at most 200 are read", {"deep_path": lambda folder: folder.metadata.planner_data.update(w=("a",) * 5000)})
each("an impossible", {
    "negative_offset": offsets(-1, 0),
    "huge_offset": offsets(1 << 62, 0),
    "huge_size": chunk(1, sizes=torch.Size(((1 << 63) - 1, 6))),
    "integer_beyond_all": chunk(1, sizes=not_a_size((1 << 2000, 6))),
    "fraction_as_a_size": chunk(1, sizes=not_a_size((2.0, 6))),
    "text_as_a_size": chunk(1, sizes=not_a_size(("2", 6))),
    "truth_as_a_size": chunk(1, sizes=not_a_size((True, 6))),
    "nothing_as_a_size": chunk(1, sizes=None),
    "list_as_an_offset": chunk(1, offsets=[3, 0]),
    "shape_of_100_dimensions": lambda folder: setattr(folder.w, "size", torch.Size((1,) * 100)),
    "negative_shape": lambda folder: setattr(folder.w, "size", torch.Size((-5, 6))),
    "no_shape": lambda folder: setattr(folder.w, "size", None),
})  # fmt: skip
each("declares a tensor of|of its .* elements", {"shape_beyond_all": lambda folder: setattr(folder.w, "size", torch.Size((1 << 40, 1 << 40)))})
each("outside of its shape", {"part_outside": offsets(4, 0), "part_too_wide": chunk(1, sizes=torch.Size((2, 7)))})
each("a part of it is missing", {
    "gap": lambda folder: (folder.w.chunks.pop(), folder.places.pop(MetadataIndex("w", (3, 0)))),
    "smaller_part": chunk(1, sizes=torch.Size((1, 6))),
    "no_parts": lambda folder: (folder.w.chunks.clear(), folder.places.pop(MetadataIndex("w", (3, 0))), folder.places.pop(MetadataIndex("w", (0, 0)))),
    "larger_tensor": lambda folder: setattr(folder.w, "size", torch.Size((6, 6))),
})  # fmt: skip
each("lie over each other", {
    "overlap": offsets(2, 0),
    "third_part_over_both": more(2, 0, sizes=(2, 6)),
    "parts_over_each_other_in_their_file": lambda folder: folder.place("n", offset=folder.places[MetadataIndex("n", ())].offset - 100),
})  # fmt: skip
each("`w` and `w` lie over each other, at bytes 0 to|`n` and `o` lie over each other, at bytes", {
    "two_parts_at_the_same_bytes": lambda folder: folder.share(MetadataIndex("w", (0, 0)), MetadataIndex("w", (3, 0))),
    "a_tensor_and_an_object_at_the_same_bytes": lambda folder: folder.share(MetadataIndex("n", ()), MetadataIndex("o")),
})  # fmt: skip
each("`w`: has no place in the dict that was saved: `planner_data` has those of 2 of 3 items|has no place in the dict that was saved", {
    "an_item_that_the_planner_does_not_have": lambda folder: folder.metadata.planner_data.pop("w"),
    "an_item_without_a_path": lambda folder: folder.metadata.planner_data.update(w=()),
})  # fmt: skip
each("dimensions at", {
    "part_of_one_dimension": chunk(1, sizes=torch.Size((12,))),
    "tensor_of_three_dimensions": lambda folder: setattr(folder.w, "size", torch.Size((5, 6, 1))),
})  # fmt: skip
each("whose place is not given", {
    "number_in_two_parts": lambda folder: folder.metadata.state_dict_metadata["n"].chunks.append(ChunkStorageMetadata(torch.Size(()), torch.Size(()))),
    "part_without_bytes": lambda folder: folder.places.pop(MetadataIndex("w", (3, 0))),
    "part_twice": lambda folder: folder.w.chunks.append(folder.w.chunks[0]),
    "bytes_under_another_offset": lambda folder: folder.places.update({MetadataIndex("w", (3, 1)): folder.places.pop(MetadataIndex("w", (3, 0)))}),
})  # fmt: skip
each("that it does not have", {"bytes_of_no_part": lambda folder: folder.places.update({MetadataIndex("w", (9, 9)): folder.places[MetadataIndex("n", ())]})})
each("has bytes, and no description", {"bytes_of_no_tensor": lambda folder: folder.places.update({MetadataIndex("x", (0,)): folder.places[MetadataIndex("n", ())]})})
each("not a plain file name", {
    f"file_named_{number}": named(name)
    for number, name in enumerate(("../a.distcp", "/etc/passwd", "C:a.distcp", "a/b.distcp", "a\\b.distcp", "", ".", "..", "a\0b", ".metadata"))
})  # fmt: skip
each("is not a string", {"file_named_by_a_number": lambda folder: folder.place(relative_path=3), "tensor_named_by_a_number": lambda folder: folder.metadata.state_dict_metadata.update({3: folder.w})})
each("an impossible place", {
    "negative_place": lambda folder: folder.place(offset=-1),
    "negative_length": lambda folder: folder.place(length=-1),
    "place_beyond_all": lambda folder: folder.place(offset=1 << 70),
    "fraction_as_a_place": lambda folder: folder.place(offset=0.5),
    "no_length": lambda folder: folder.place(length=None),
})  # fmt: skip
each("is cut off|longer than the file", {
    "place_behind_the_end": lambda folder: folder.place(offset=1 << 40),
    "length_beyond_the_end": lambda folder: folder.place("o", length=1 << 30),
    "file_cut": lambda folder: folder.files.update({B: folder.files[B][:-1]}),
    "file_empty": lambda folder: folder.files.update({B: b""}),
    "metadata_cut": lambda folder: setattr(folder, "raw", pickle.dumps(folder.metadata, 4)[:-200]),
    "part_too_short": lambda folder: folder.place(length=folder.places[MetadataIndex("w", (0, 0))].length - 1),
    "part_of_no_bytes": lambda folder: folder.place(length=0),
})  # fmt: skip
each("went through zstd", {"compressed": lambda folder: folder.place(transform_descriptors=["zstd"])})
each("can't be found: __1_0.distcp", {"file_missing": lambda folder: folder.files.pop(B)})
each("is a link out of its folder", {
    "link_out": lambda folder: folder.after.append(lambda path: ((path / B).rename(path.parent / f"{path.name}-outside"), (path / B).symlink_to(path.parent / f"{path.name}-outside"))),
    "link_to_a_device": lambda folder: folder.after.append(lambda path: ((path / B).unlink(), (path / B).symlink_to("/dev/zero"))),
})  # fmt: skip
each("is a pipe", {"pipe": lambda folder: folder.after.append(lambda path: ((path / B).unlink(), os.mkfifo(path / B)))})
each("is a folder, not a file|is a directory", {"folder_as_a_file": lambda folder: folder.after.append(lambda path: ((path / B).unlink(), (path / B).mkdir()))})
each("where `.metadata` says F32 3×6", {
    "part_of_another_type": lambda folder: folder.put(saved(torch.zeros(3, 6, dtype=torch.int32))),
    "part_of_another_shape": lambda folder: folder.put(saved(torch.zeros(6, 3))),
    "part_of_another_rank": lambda folder: folder.put(saved(torch.zeros(18))),
    "parts_swapped": lambda folder: folder.swap(MetadataIndex("w", (0, 0)), MetadataIndex("w", (3, 0))),
})  # fmt: skip
each("holds something else than one tensor", {
    "part_is_a_dict": lambda folder: folder.put(saved({"w": torch.zeros(3, 6)})),
    "part_is_a_number": lambda folder: folder.put(saved(3)),
    "part_is_an_ordered_dict": lambda folder: folder.put(saved(OrderedDict())),
    "part_is_the_object": lambda folder: folder.swap(MetadataIndex("w", (0, 0)), MetadataIndex("o")),
})  # fmt: skip
each("is not a plain tensor, but", {
    "part_is_sparse": lambda folder: folder.put(saved(torch.zeros(3, 6).to_sparse())),
    "part_has_no_data": lambda folder: folder.put(saved(torch.zeros(3, 6, device="meta"))),
})  # fmt: skip
each("zip archive|is cut off|one behind the other", {
    "part_is_no_archive": lambda folder: folder.put(b"\0" * 3000),
    "part_is_of_old_torch": lambda folder: folder.put(saved(torch.zeros(3, 6), _use_new_zipfile_serialization=False)),
    "part_begins_too_early": lambda folder: folder.place("n", offset=folder.places[MetadataIndex("n", ())].offset - 1, length=folder.places[MetadataIndex("n", ())].length + 1) or folder.place(length=folder.places[MetadataIndex("w", (0, 0))].length - 1),
    "part_of_two_archives": lambda folder: folder.put(saved(torch.zeros(3, 6)) * 2),
})  # fmt: skip


@variant("inflates from|needs .* bytes|the pickle says")
def part_inflates(folder: Folder) -> None:
    """A storage that is deflated to next to nothing, in an archive that says it has a gigabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(torch.zeros(3, 6)))) as given, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name in given.namelist():
            made.writestr(name, b"\0" * (100 << 20) if name.endswith("data/0") else given.read(name))
    folder.put(buffer.getvalue())


@variant("don't match their checksum")
def part_with_a_flipped_bit(folder: Folder) -> None:
    content = bytearray(saved(torch.full((3, 6), 2.0)))
    content[content.index(b"\0\0\0@\0\0\0@")] ^= 1
    folder.put(bytes(content))


@variant("needs .* bytes of a storage")
def part_outside_of_its_storage(folder: Folder) -> None:
    content = saved(torch.zeros(3, 6))
    small, shape = saved(torch.zeros(2)), b"K\x03K\x06\x86"
    assert shape in content
    with zipfile.ZipFile(io.BytesIO(small)) as given:
        names = {name: given.read(name) for name in given.namelist()}
    root = next(iter(names)).split("/")[0]
    data = names[f"{root}/data.pkl"]
    at = data.index(b"K\x02\x85")
    names[f"{root}/data.pkl"] = data[:at] + shape + data[at + 3 :].replace(b"K\x01\x85", b"K\x06K\x01\x86")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, one in names.items():
            made.writestr(name, one)
    folder.put(buffer.getvalue())


each("not a distributed checkpoint's `Metadata`", {
    "metadata_of_a_dict": lambda folder: setattr(folder, "raw", pickle.dumps({"w": 1}, 4)),
    "metadata_of_a_number": lambda folder: setattr(folder, "raw", pickle.dumps(3, 4)),
    "metadata_of_another_class": lambda folder: setattr(folder, "raw", pickle.dumps(folder.w, 4)),
    "no_tensors": set_attribute("state_dict_metadata", None),
    "list_of_tensors": set_attribute("state_dict_metadata", []),
})  # fmt: skip
each("does not say where its items are", {"no_places": set_attribute("storage_data", None), "list_of_places": set_attribute("storage_data", [])})
each("bytes behind its pickle", {"bytes_behind": lambda folder: setattr(folder, "raw", pickle.dumps(folder.metadata, 4) + b"more")})
each("its pickle", {
    "no_pickle": lambda folder: setattr(folder, "raw", b"<html>"),
    "unknown_opcode": lambda folder: setattr(folder, "raw", b"\x80\x04\xff."),
    "extension_of_the_registry": lambda folder: setattr(folder, "raw", b"\x80\x04\x82\x01."),
    "text_beyond_the_end": lambda folder: setattr(folder, "raw", b"\x80\x04\x8d" + b"\xff" * 8),
    "no_such_memo": lambda folder: setattr(folder, "raw", b"\x80\x04j\xff\0\0\0."),
    "buffers_from_outside": lambda folder: setattr(folder, "raw", b"\x80\x05\x97."),
    "persistent_ids": lambda folder: setattr(folder, "raw", b"\x80\x04K\x01Q."),
})  # fmt: skip
each("neither a tensor nor an object", {"tensor_of_no_kind": lambda folder: folder.metadata.state_dict_metadata.update(x=3)})
each("parts that are not a list", {"parts_in_a_dict": lambda folder: setattr(folder.w, "chunks", {})})
each("has the place of another item", {"two_of_one_path": lambda folder: folder.metadata.planner_data.update(n=("w",))})
each("is inside of something that is not a dict", {"inside_of_a_tensor": lambda folder: folder.metadata.planner_data.update(n=("w", "n"))})
each("neither a name nor a number", {"path_of_fractions": lambda folder: folder.metadata.planner_data.update(n=(0.5,))})
each("without its `.metadata`", {"no_metadata": lambda folder: setattr(folder, "raw", b"")})
each("was not finished", {"unfinished": lambda folder: (setattr(folder, "raw", b""), folder.files.update({".metadata.tmp": b"x"}))})
each("a `.metadata` of its own", {"metadata_of_each_process": lambda folder: (setattr(folder, "raw", b""), folder.files.update({"__0.metadata": b"x", "__1.metadata": b"x"}))})
each("is empty", {"empty_metadata": lambda folder: folder.after.append(lambda path: (path / ".metadata").write_bytes(b""))})


@variant("has two places for the part at")
def two_places_for_a_part(folder: Folder) -> None:
    """A dict of Python's can't have a key twice; its pickle can."""
    other = copy.copy(folder.places[MetadataIndex("w", (0, 0))])
    folder.places[MetadataIndex("w", (77, 0))] = other
    raw = pickle.dumps(folder.metadata, 4)
    at = raw.rindex(b"K\x4dK\x00\x86")
    folder.raw = raw[:at] + b"K\x00K\x00\x86" + raw[at + 5 :]
    pickletools.dis(folder.raw, io.StringIO())
