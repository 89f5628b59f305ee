"""What of a file stays outside of what is taken from it: by kind, number and bytes, in one line."""

from collections.abc import Iterator, Sequence

from ckpt_tool.formats import LeftBehind
from ckpt_tool.wording import plural, size_text

MAX_NAMES = 8


def left_behind_text(left: Sequence[LeftBehind], of: str = "") -> str:
    """`not copied: optimizer (15 tensors, 3.2 kB), epoch, arch`; empty where all is copied. `of`
    says whose it is.
    """
    listed = left_behind_list(left)
    return f"not copied{of}: {listed}" if listed else ""


def left_behind_list(left: Sequence[LeftBehind]) -> str:
    """What has tensors by its name, with their number and bytes; the names of the rest."""
    return ", ".join(_parts(left))


def _parts(left: Sequence[LeftBehind]) -> Iterator[str]:
    with_tensors = [one for one in left if one.tensors]
    for one in with_tensors[:MAX_NAMES]:
        kind = "" if one.kind in one.path else f"{one.kind}, "
        yield f"{one.path} ({kind}{plural(one.tensors, 'tensor')}, {size_text(one.nbytes)})"
    if len(with_tensors) > MAX_NAMES:
        more = with_tensors[MAX_NAMES:]
        yield f"{len(more)} more with {plural(sum(one.tensors for one in more), 'tensor')}"
    if names := [one.path for one in left if not one.tensors and one.path]:
        yield _some(names)


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    hidden = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {hidden} more" if hidden > 0 else "")
