"""Two catalogs, key by key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Catalog, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.comparing.measure import Values

Kind = Literal["same", "value", "dtype", "shape", "only_a", "only_b", "renamed"]


@frozen
class Entry:
    """One key: what each side has of it, and how. `values` are there where the values were compared
    and differ.

    A renamed one has two names, how sure that is (0 to 1) and why. `how` are the ops that lead from
    the one to the other, as text and as plain data; `is_equal`: after these, all values are.
    """

    kind: Kind
    a: TensorInfo | None
    b: TensorInfo | None
    values: Values | None = None
    confidence: float | None = None
    evidence: str = ""
    how: str = ""
    plain_ops: tuple[object, ...] = ()
    is_equal: bool = False

    @property
    def key(self) -> str:
        """Its name in `a`, or in `b` where it is only there."""
        info = self.a or self.b
        assert info is not None
        return info.key

    @property
    def is_within(self) -> bool:
        """Whether its values differ, and by no more than is tolerated."""
        values = self.values
        return (
            self.kind == "value" and values is not None and 0 < values.changed <= values.tolerated
        )

    @property
    def is_cast(self) -> bool:
        """Whether it has two dtypes, and one side is the other one cast to its own."""
        values = self.values
        return (
            values is not None
            and values.is_cast
            and (self.a and self.a.dtype) is not (self.b and self.b.dtype)
        )


@frozen
class Uncompared:
    """A key that can't be read on a side: `a` and `b` say what it is there, `readable` for a plain
    tensor, None where there is none.
    """

    key: str
    a: str | None
    b: str | None


READABLE = "readable"


@frozen
class Diff:
    """Two catalogs and every key that isn't the same in both: those of `a` in its order, then those
    that only `b` has.

    `compared_values`: whether what isn't a change has equal values too, or only equal shapes
    and dtypes. `equal` are keys whose numbers are equal, but not all of their bytes: 0 and -0, NaNs
    of other bits. `uncompared` are keys that can't be read on a side. `regrouped` are rules for
    tensors that are fused on one side and split on the other; these are changes too. `beside`
    is the difference of what is outside of the state dicts on both sides. `labels` are what the
    sides are called, with the name of the state dict that was taken out of several; `notes` say in
    words what was compared with nothing, or not in every way, `layouts` what kind of file a side is
    that holds no whole model. `whole` are both sides before keys were chosen, where they were.

    >>> import ckpt_tool, torch
    >>> diff = ckpt_tool.diff({"a": torch.ones(2), "b": torch.ones(3)}, {"a": torch.ones(5)})
    >>> [(change.kind, change.key) for change in diff.changes]
    [('shape', 'a'), ('only_a', 'b')]
    >>> diff.counts["same"], diff.identical
    (0, False)
    """

    a: Catalog
    b: Catalog
    changes: tuple[Entry, ...]
    compared_values: bool = False
    regrouped: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    uncompared: tuple[Uncompared, ...] = ()
    beside: Diff | None = None
    labels: tuple[str, str] = ("a", "b")
    notes: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    whole: tuple[Catalog, Catalog] | None = None

    @property
    def whole_sides(self) -> tuple[Catalog, Catalog]:
        """Both sides with all of their keys, those that were not compared too."""
        return self.whole or (self.a, self.b)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every key that was compared once, those that are the same too."""
        changed = {entry.key: entry for entry in self.changes if entry.a is not None}
        source = [
            changed.get(key) or Entry("same", info, self.b[key])
            for key, info in self.a.items()
            if key in changed or key in self.b
        ]
        return (*source, *(entry for entry in self.changes if entry.a is None))

    @property
    def counts(self) -> dict[str, int]:
        """How many keys there are of each kind, those without any too."""
        found = Counter(entry.kind for entry in self.changes)
        unread = sum(one.key in self.a for one in self.uncompared)
        found["same"] = len(self.a) - unread - sum(entry.a is not None for entry in self.changes)
        return {kind: found[kind] for kind in get_args(Kind)}

    @property
    def identical(self) -> bool:
        """Whether all of both sides was compared, and is the same bit for bit, as far as values
        were compared.
        """
        return not (self.changes or self.equal or self.uncompared or self.notes) and (
            self.beside is None or self.beside.identical
        )

    @property
    def differs(self) -> bool:
        """Whether something differs, by more than is tolerated."""
        within = all(
            entry.kind == "value" and entry.values and not entry.values.beyond
            for entry in self.changes
        )
        one_sided = any(None in (one.a, one.b) for one in self.uncompared)
        return not within or one_sided or (self.beside is not None and self.beside.differs)

    @property
    def is_whole(self) -> bool:
        """Whether everything was compared that was asked for."""
        return not self.uncompared and (self.beside is None or self.beside.is_whole)


Compare: TypeAlias = "Callable[[Sequence[str]], Iterable[Values | None]]"
"""How the values of keys of equal shape and dtype differ, if they do, one after the other."""


def diff_catalogs(a: Catalog, b: Catalog, compare: Compare | None = None) -> Diff:
    """The difference of two catalogs, and of their values where there is something to `compare`
    them, across types too.
    """
    alike, changed = ([], {}) if a is b and not compare else _compare_forms(a, b)
    equal: list[str] = []
    if compare:
        measured = [*alike, *_cast(changed)]
        for key, values in zip(measured, compare(measured), strict=True):
            entry = _with_values(key, values, changed.get(key), a, b)
            if entry is not None:
                changed[key] = entry
            elif values is not None:
                equal.append(key)
    return Diff(
        a,
        b,
        (*_in_order(changed, a), *_only_in(b, a)),
        compare is not None,
        equal=tuple(equal),
        uncompared=uncompared(a, b),
    )


def _cast(changed: Mapping[str, Entry]) -> Iterator[str]:
    """The keys that differ in dtype alone."""
    return (key for key, entry in changed.items() if entry.kind == "dtype")


def _in_order(changed: Mapping[str, Entry], catalog: Catalog) -> list[Entry]:
    return [changed[key] for key in catalog if key in changed] if changed else []


def _compare_forms(a: Catalog, b: Catalog) -> tuple[list[str], dict[str, Entry]]:
    """The keys of `a` that have one shape and dtype on both sides, and what differs of others."""
    alike: list[str] = []
    changed: dict[str, Entry] = {}
    for key, info in a.items():
        other = b.get(key)
        if other is not None and _is_alike(info, other):
            alike.append(key)
        elif key not in b.unreadable:
            changed[key] = Entry(kind_of_difference(info, other), info, other)
    return alike, changed


def _is_alike(info: TensorInfo, other: TensorInfo) -> bool:
    return other is info or (info.shape == other.shape and info.dtype is other.dtype)


def _with_values(
    key: str, values: Values | None, known: Entry | None, a: Catalog, b: Catalog
) -> Entry | None:
    """What differs of a key whose values were compared; None for numbers that are all equal."""
    if values is None:
        return known
    if known is not None:
        return replace(known, values=values)
    if values.changed or values.beyond:
        return Entry("value", a[key], b[key], values)
    return None


def _only_in(b: Catalog, a: Catalog) -> Iterator[Entry]:
    """The keys of `b` that `a` has not, in the order of `b`."""
    for key, info in b.items() if a is not b else ():
        if key not in a and key not in a.unreadable:
            yield Entry("only_b", None, info)


def uncompared(a: Catalog, b: Catalog) -> tuple[Uncompared, ...]:
    """The keys that can't be read on a side, and what they are on both."""

    def kind(key: str, side: Catalog) -> str | None:
        if key in side.unreadable:
            return side.unreadable[key].kind
        return READABLE if key in side else None

    return tuple(
        Uncompared(key, kind(key, a), kind(key, b))
        for key in dict.fromkeys((*a.unreadable, *b.unreadable))
    )


def kind_of_difference(info: TensorInfo, other: TensorInfo | None) -> Kind:
    """What differs of a key that isn't the same in both."""
    if other is None:
        return "only_a"
    return "shape" if info.shape != other.shape else "dtype"
