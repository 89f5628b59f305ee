"""Two catalogs, key by key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ckpt_tool.comparing.measure import Values
from ckpt_tool.tensors import Catalog, TensorInfo

Kind = Literal["same", "value", "dtype", "shape", "only_a", "only_b", "renamed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: what each side has of it, and how. `values` are there where the values were compared
    and differ.

    A renamed one has two names, how sure that is (0 to 1) and why. `how` are the ops that lead from
    the one to the other, as text and as plain data.
    """

    kind: Kind
    a: TensorInfo | None
    b: TensorInfo | None
    values: Values | None = None
    confidence: float | None = None
    evidence: str = ""
    how: str = ""
    plain_ops: tuple[object, ...] = ()

    @property
    def key(self) -> str:
        info = self.a or self.b
        assert info is not None
        return info.key


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A key that can't be read on a side: `a` and `b` say what it is there, `readable` for a plain
    tensor, None where there is none.
    """

    key: str
    a: str | None
    b: str | None


READABLE = "readable"


@dataclass(frozen=True, slots=True)
class Diff:
    """Two catalogs and every key that isn't the same in both: those of `a` in its order, then those
    that only `b` has.

    `compared_values` tells whether what isn't a change has equal values too, or only equal shapes
    and dtypes. `equal` are keys whose numbers are equal, but not all of their bytes: 0 and -0, NaNs
    of other bits. `uncompared` are keys that can't be read on a side. `regrouped` are rules for
    tensors that one side has joined and the other apart; these are changes all the same. `beside`
    is the difference of what lies outside of the state dicts on both sides. `labels` are what the
    sides are called, with the name of the state dict that was taken out of several; `notes` say in
    words what was compared with nothing, `layouts` what kind of file a side is that holds no whole
    model.
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


Compare = Callable[[Sequence[str]], Iterable[Values | None]]
"""How the values of keys of equal shape and dtype differ, if they do, one after the other."""


def diff_catalogs(a: Catalog, b: Catalog, compare: Compare | None = None) -> Diff:
    """The difference of two catalogs, and of their values where there is something to `compare`
    them, across types too.
    """
    changed: dict[str, Entry] = {}
    alike = []
    for key, info in a.items() if compare or a is not b else ():
        other = b.get(key)
        if other is not None and (
            other is info or (info.shape == other.shape and info.dtype is other.dtype)
        ):
            alike.append(key)
        elif key not in b.unreadable:
            changed[key] = Entry(kind_of(info, other), info, other)
    measured = [*alike, *(key for key, entry in changed.items() if entry.kind == "dtype")]
    equal = []
    for key, values in zip(measured, compare(measured), strict=True) if compare else ():
        if values and key in changed:
            changed[key] = replace(changed[key], values=values)
        elif values and (values.changed or values.beyond):
            changed[key] = Entry("value", a[key], b[key], values)
        elif values:
            equal.append(key)
    source = [changed[key] for key in a if key in changed] if changed else []
    target = (
        [
            Entry("only_b", None, info)
            for key, info in b.items()
            if key not in a and key not in a.unreadable
        ]
        if a is not b
        else []
    )
    return Diff(
        a,
        b,
        (*source, *target),
        compare is not None,
        equal=tuple(equal),
        uncompared=uncompared(a, b),
    )


def uncompared(a: Catalog, b: Catalog) -> tuple[Uncompared, ...]:
    """The keys that can't be read on a side, and what they are on both."""

    def kind(key: str, side: Catalog) -> str | None:
        return (
            side.unreadable[key].kind
            if key in side.unreadable
            else READABLE
            if key in side
            else None
        )

    return tuple(
        Uncompared(key, kind(key, a), kind(key, b))
        for key in dict.fromkeys((*a.unreadable, *b.unreadable))
    )


def kind_of(info: TensorInfo, other: TensorInfo | None) -> Kind:
    """What differs of a key that isn't the same in both."""
    if other is None:
        return "only_a"
    return "shape" if info.shape != other.shape else "dtype"
