"""Two catalogs, key by key."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from ckpt_tool.diff.values import Values
from ckpt_tool.tensors import Catalog, TensorInfo

Kind = Literal["same", "value", "dtype", "shape", "only_a", "only_b", "renamed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: what each side has of it, and how. `values` are there where the values were compared and differ."""

    kind: Kind
    a: TensorInfo | None
    b: TensorInfo | None
    values: Values | None = None

    @property
    def key(self) -> str:
        info = self.a or self.b
        assert info is not None
        return info.key


@dataclass(frozen=True, slots=True)
class Diff:
    """Every key of both catalogs once: those of `a` in its order, then those that only `b` has.

    `compared_values` tells whether `same` means equal values too, or only equal shapes and dtypes.
    """

    a: Catalog
    b: Catalog
    entries: tuple[Entry, ...]
    compared_values: bool = False

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(entry.kind for entry in self.entries)
        return {kind: found[kind] for kind in get_args(Kind)}

    @property
    def identical(self) -> bool:
        return all(entry.kind == "same" for entry in self.entries)


def diff_catalogs(a: Catalog, b: Catalog, compare: Callable[[str], Values | None] | None = None) -> Diff:
    """The difference of two catalogs; `compare` tells for a key of equal shape and dtype how its values differ, if they do."""
    entries = [_entry(info, b, compare) for info in a.values()]
    entries += [Entry("only_b", None, info) for key, info in b.items() if key not in a]
    return Diff(a, b, tuple(entries), compare is not None)


def _entry(info: TensorInfo, b: Catalog, compare: Callable[[str], Values | None] | None) -> Entry:
    if info.key not in b:
        return Entry("only_a", info, None)
    other = b[info.key]
    if info.shape != other.shape:
        return Entry("shape", info, other)
    if info.dtype is not other.dtype:
        return Entry("dtype", info, other)
    values = compare(info.key) if compare else None
    return Entry("value" if values else "same", info, other, values)
