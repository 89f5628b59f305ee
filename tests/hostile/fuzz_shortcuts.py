"""Shortcuts for what every writer writes say what the strict readers say, whatever the input."""

import io
import pickle
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch.distributed.checkpoint.metadata import MetadataIndex

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.dcp.metadata import read_metadata
from ckpt_tool.formats.flat_files.safetensors import HeaderFault, _read_plain, _read_strictly
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.strict_json import JsonFault
from ckpt_tool.formats.torch_files.zip_archive import StorageIds
from tests.hostile.promises import Misread
from tests.hostile.variants_dcp import whole


def pickle_of(state: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, pickle_protocol=protocol)
    return zipfile.ZipFile(buffer).read("archive/data.pkl")


def state_dicts() -> list[bytes]:
    """Pickles of so many tensors that most are read in one step each: plain ones, views, tied ones, parameters."""
    plain = {f"layers.{i}.q_proj.weight": torch.zeros(2, 3) for i in range(50)}
    one = torch.zeros(300, 4)
    views = {f"v.{i}": one[i:, :2].t() for i in range(50)}
    tied = plain | {f"tied.{i}": plain["layers.40.q_proj.weight"] for i in range(3)} | {"z": plain["layers.41.q_proj.weight"].detach()}
    mixed = {f"m.{i}": torch.zeros((1,) * (i % 6), dtype=(torch.int64, torch.bfloat16, torch.bool)[i % 3]) for i in range(50)}
    parameters = {f"p.{i}": torch.nn.Parameter(torch.ones(i + 1)) for i in range(40)}
    return [pickle_of(state) for state in (plain, views, tied, mixed, parameters, {"model": plain, "step": 3})] + [pickle_of(plain, 4)]


def flat(value: object) -> object:
    """A value as plain data, by its content alone."""
    if is_dataclass(value):
        return (type(value).__name__, *(flat(getattr(value, field.name)) for field in fields(value)))
    if isinstance(value, dict):
        return (type(value).__name__, [(flat(key), flat(one)) for key, one in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [flat(one) for one in value])
    return (type(value).__name__, repr(value))


def described(data: bytes, *, in_steps: bool) -> tuple[object, bool]:
    """What the pickle describes, or that it is refused; and whether steps were taken."""
    machine = PickleMachine(data, persistent=StorageIds().find)
    if not in_steps:
        machine.shortcuts = None
    try:
        value = flat(machine.load("file", "data.pkl"))
    except (FormatError, RecursionError):
        return "refused", False
    return (value, sorted(machine.calls), machine.pos), bool(machine.shortcuts and machine.shortcuts.has_skipped)


def check_steps(raw: bytes, path: Path) -> None:
    if described(raw, in_steps=True)[0] != described(raw, in_steps=False)[0]:
        raise Misread("a pickle is read otherwise in steps than by its opcodes")


def dcp_metadata() -> list[bytes]:
    """`.metadata` of so many parts that most are read in one step each."""
    made = []
    for protocol in (4, 5):
        folder = whole()
        for at in range(40):
            folder.metadata.state_dict_metadata[f"w.{at}"] = folder.w
            for index, place in list(folder.places.items()):
                if index.fqn == "w":
                    folder.places[MetadataIndex(f"w.{at}", index.offset, at)] = place
        made.append(pickle.dumps(folder.metadata, protocol))
    return made


def outcome(raw: bytes, *, in_steps: bool) -> object:
    try:
        return read_metadata(raw, "m", in_steps)
    except FormatError as error:
        return error.fact


def check_dcp_metadata(raw: bytes, path: Path) -> None:
    if outcome(raw, in_steps=True) != outcome(raw, in_steps=False):
        raise Misread("a `.metadata` is read otherwise in steps than by its opcodes")


def headers() -> list[bytes]:
    made = [
        save({f"a.{i}": torch.zeros(i, 2) for i in range(3)}, {"format": "pt"}),
        save({"é": torch.zeros(2), "b": torch.zeros((), dtype=torch.int64), "c": torch.zeros(3, dtype=torch.bool)}),
        save({}),
    ]
    return [raw[8 : 8 + int.from_bytes(raw[:8], "little")] for raw in made]


def check_header(raw: bytes, path: Path) -> None:
    try:
        plain = _read_plain(raw)
    except (HeaderFault, JsonFault):
        return
    if plain is not None and plain != _read_strictly(raw):
        raise Misread("a header is read otherwise by the shortcut than number by number")
