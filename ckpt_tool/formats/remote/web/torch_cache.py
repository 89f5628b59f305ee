"""The folder in which torch keeps what `torch.hub.load_state_dict_from_url` has downloaded, and
what is known of the files in it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from ckpt_tool.errors import InputError
from ckpt_tool.formats.files import sha256_at
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.web.address import Address

_DIGEST = re.compile(r"-([a-f0-9]{8,64})\.")
_COUNTED = re.compile(r"00\d*|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_COUNTERS = ("ckpt", "checkpoint", "step", "steps", "shard", "model", "epoch", "iter", "weights")
"""Digits alone behind one of these, or that begin with zeros, count something; others are a day."""


@dataclass(frozen=True, slots=True)
class Note:
    """What was noted when a file came into the cache: `version` is the server's ETag or date,
    `stamp` tells whether it is still this file.
    """

    url: str = ""
    version: str = ""
    sha256: str = ""
    stamp: tuple[int, ...] = ()


def folder() -> str:
    """`$TORCH_HOME/hub/checkpoints`, as torch finds it; what `torch.hub.set_dir` has set counts."""
    hub = sys.modules.get("torch.hub")
    if hub is not None:
        return os.path.join(str(hub.get_dir()), "checkpoints")
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    return os.path.join(os.path.expanduser(home), "hub", "checkpoints")


def name_of(address: Address) -> str:
    """The last part of the address's path, as torch names the file. Raises InputError."""
    name = os.path.basename(urlsplit(address.url).path)
    if name in ("", ".", ".."):
        raise InputError(
            address.shown, "names no file", "give the address of a file, or of an index"
        )
    return name


def digest_in(name: str) -> str:
    """The start of the SHA-256 that a file's name has, as torchvision and timm write it
    (`resnet50-0676ba61.pth`); an empty text for none.
    """
    found = _DIGEST.search(name)
    if found is None or (found[1].isdecimal() and _is_counted(name[: found.start()], found[1])):
        return ""
    return found[1]


def _is_counted(before: str, digits: str) -> bool:
    """Whether digits alone are rather a number than the start of a SHA-256."""
    word = re.split(r"[-_.]", before.lower())[-1]
    return _COUNTED.fullmatch(digits) is not None or word in _COUNTERS


def place_for(address: Address) -> str:
    """Where this address's file belongs: where torch would look, but beside what is of another
    address.
    """
    name = name_of(address)
    usual = os.path.join(folder(), name)
    note = note_of(usual)
    if note.url in ("", address.identity) or digest_in(name) or not os.path.exists(usual):
        return usual
    own = sha256(address.identity.encode()).hexdigest()[:16]
    return os.path.join(folder(), "by_address", own, name)


def cached(address: Address, access: Access) -> str | None:
    """The path of the address's file where it is in the cache and is what it should be. Raises
    InputError where it is not.
    """
    path = place_for(address)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    note = note_of(path)
    if digests := wanted_digests(path, access):
        # What a person asked for is worth reading the file; a digest in a name was checked once.
        found = sha256_at(path) if access.sha256 else note.sha256 or sha256_at(path)
        if not any(found.startswith(one) for one in digests):
            hint = f"{access.option('refresh')} downloads it again"
            if access.offline:
                hint = f"without {access.option('offline')}, {hint}"
            elif access.refresh:  # the server was asked, and has this very file
                hint = "the server's file is this one: is the digest right?"
            raise wrong_digest(path, found, digests, access, hint)
        if found != note.sha256:
            write_note(path, Note(address.identity, note.version, found, _stamp(status)))
    elif not note.url:
        access.reporter.note(
            f"{address.shown}: {path} is used, as torch does; nothing in it says its address "
            f"({access.option('refresh')} asks)"
        )
        write_note(path, Note(address.identity, stamp=_stamp(status)))
    return path


def wanted_digests(path: str, access: Access) -> tuple[str, ...]:
    """The starts of the SHA-256 of which a file must have one: those that were asked for, else that
    of its name.
    """
    own = digest_in(os.path.basename(path))
    return tuple(one.lower() for one in access.sha256) or ((own,) if own else ())


def wrong_digest(
    path: str, found: str, wanted: tuple[str, ...], access: Access, hint: str
) -> InputError:
    """The error of a file that is another than it should be."""
    by = access.asked_by if access.sha256 else "its name"
    expected = " or ".join(wanted)
    shown = found if len(expected) > 32 else f"{found[: max(map(len, wanted))]}…"
    return InputError(path, f"its SHA-256 is {shown}, not {expected}, as {by} has it", hint)


def note_of(path: str) -> Note:
    """What was noted of the file at this path; an empty note where nothing was, or it is another
    file by now.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        with open(_note_path(path), encoding="utf-8") as file:
            found = json.load(file)
        note = Note(
            str(found["url"]), str(found["version"]), str(found["sha256"]), tuple(found["stamp"])
        )
        if note.stamp == _stamp(os.stat(path)):
            return note
    return Note()


def write_note(path: str, note: Note) -> None:
    """Notes it beside the file, for the next time; where that can't be, it is found out again."""
    with suppress(OSError):
        temporary = f"{_note_path(path)}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
        os.replace(temporary, _note_path(path))


def remove(path: str) -> None:
    """Takes a file out of the cache again, with what was noted of it."""
    for each in (path, _note_path(path)):
        with suppress(OSError):
            os.unlink(each)


def noted(address: Address, path: str, version: str, digest: str, status: os.stat_result) -> None:
    """Notes what has just been downloaded, and is about to get this name."""
    write_note(path, Note(address.identity, version, digest, _stamp(status)))


def _note_path(path: str) -> str:
    head, name = os.path.split(path)
    return os.path.join(head, f".{name}.ckpt-note")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ino
