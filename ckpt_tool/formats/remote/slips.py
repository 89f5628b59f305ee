"""Addresses and names of files that are written with a slip, so that they lead nowhere: what was
probably meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_SCHEMES = ("https", "http", "hf", "s3", "gs", "gcs", "az", "abfs", "memory", "file")
_ONE_SLASH = re.compile(rf"({'|'.join(_SCHEMES)})(?::/?(?![/:])|[:;]?//)(.+)", re.I | re.S)
_CHAINED = re.compile(r"[a-z0-9]+::(.+)", re.I | re.S)
_LIBRARY = re.compile(r"([a-z]+):(?:/{0,2})([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)")
_LIBRARIES = ("torchvision", "timm")
_HOST = re.compile(
    r"(?:localhost|[\w-]+(?:\.[\w-]+)+)(?::\d{1,5})/.+"
    r"|(?:www\.[\w-]+|[\w-]+)(?:\.[\w-]+)*\.(?:ai|app|co|com|de|dev|edu|gov|io|net|org)/.+",
    re.I | re.S,
)
_ON_THE_HUB = re.compile(
    r"([\w-]+/[\w.-]+)"
    r"(?<!\.pth)(?<!\.pt)(?<!\.bin)(?<!\.ckpt)(?<!\.pkl)(?<!\.safetensors)(?<!\.json)(?<!\.txt)(?<!\.keys)"
)
"""`OWNER/NAME`, which is no file's name."""


def address_meant(path: str) -> str | None:
    """The address that a path which leads nowhere was probably meant for.

    >>> address_meant("hf:timm/resnet50.a1_in1k"), address_meant("https:/host/model.pth")
    ('hf://timm/resnet50.a1_in1k', 'https://host/model.pth')
    """
    if found := _ONE_SLASH.fullmatch(path):
        scheme, rest = found[1].lower(), found[2]
        return f"file:///{rest}" if scheme == "file" else f"{scheme}://{rest}"
    if found := _CHAINED.fullmatch(path):
        scheme = path.partition(":")[0].lower()
        return found[1] if "://" in found[1] else f"{scheme}://{found[1]}"
    if (found := _LIBRARY.fullmatch(path)) and (
        near := get_close_matches(found[1], _LIBRARIES, 1, 0.7)
    ):
        return f"{near[0]}:{found[2]}"
    if _HOST.fullmatch(path):
        is_here = path.startswith(("localhost", "127."))
        return f"{'http' if is_here else 'https'}://{path}"
    return None


def on_the_hub(path: str) -> str | None:
    """What a path would be on the hub, where it looks like the name of a repository."""
    return f"hf://{path}" if _ON_THE_HUB.fullmatch(path) else None


def nearest_file(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`; None where none is 60 % alike without its suffix, which many
    files have.

    >>> nearest_file("dett.yaml", ["det.yaml", "bert.yaml"]), nearest_file("nope.pth", ["out.pth"])
    ('det.yaml', None)
    """
    stem, matcher = os.path.splitext(name)[0], SequenceMatcher(autojunk=False)
    best, likest = None, (0.6, 0.0)
    for other in sorted(names):
        matcher.set_seqs(stem, os.path.splitext(other)[0])
        if matcher.real_quick_ratio() < likest[0] or matcher.quick_ratio() < likest[0]:
            continue
        ratio = matcher.ratio()
        if (alike := (ratio, SequenceMatcher(None, name, other, False).ratio())) > likest:
            best, likest = other, alike
    return best
