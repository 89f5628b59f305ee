"""Names of files and keys as a page shows them: nothing hidden, nothing endless, and packed."""

from collections.abc import Iterable
from os.path import commonprefix

from ckpt_tool.formats.remote.addresses import without_secrets
from ckpt_tool.report.parts.style import safe

MAX_NAME = 300
"""Characters of a name that are shown."""
_END = 60


def shown(text: str) -> str:
    """The text with what steers or hides characters written out, and the middle of a very long one
    left out.

    >>> shown("layer\\u202e.weight")
    'layer\\\\u202e.weight'
    >>> len(shown("x" * 1_000_000))
    300
    """
    if len(text) > MAX_NAME:
        note = f" … {len(text):,} characters … "
        start = MAX_NAME - _END - len(note)
        # Written out characters take up to six each.
        text = text[: max(40, start)] + note + text[-_END:]
    return safe(text)


def said(text: str) -> str:
    """The same of a text that may hold addresses: without what is secret in these.

    >>> said("https://me:secret@host/model.pth")
    'https://host/model.pth'
    """
    return shown(without_secrets(text))


def packed(names: Iterable[str]) -> dict[str, list[object]]:
    """Names one after the other, each by how many characters it shares with the one before, and the
    rest of it.

    >>> packed(["layer1.0.conv1.weight", "layer1.0.conv2.weight"])
    {'shared': [0, 13], 'rest': ['layer1.0.conv1.weight', '2.weight']}
    """
    before = ""
    shared: list[object] = []
    rest: list[object] = []
    for name in names:
        count = len(commonprefix((before, name)))  # noqa: RUF071
        shared.append(count)
        rest.append(name[count:])
        before = name
    return {"shared": shared, "rest": rest}
