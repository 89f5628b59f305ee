"""Two catalogs compared where some keys have another name on the other side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ckpt_tool.comparing.catalogs import Compare, Diff, Entry, Kind, kind_of_difference, uncompared
from ckpt_tool.comparing.measure import Values
from ckpt_tool.tensors import Catalog


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The key of the other side that is the same tensor: its name there, how sure that is and why.

    `how` are the ops between the two as text, empty where there are none; `is_equal` says that
    their values are known to be equal then.
    """

    key: str
    confidence: float = 1.0
    evidence: str = ""
    how: str = ""
    is_equal: bool = False
    plain_ops: tuple[object, ...] = ()


def diff_renamed(
    a: Catalog, b: Catalog, counterparts: Mapping[str, Counterpart], compare: Compare | None = None
) -> Diff:
    """The difference of two catalogs, where keys of `a` that have a counterpart are compared with
    that, all others by name.
    """
    partners = dict(_partners(a, b, counterparts))
    changed = {key: _entry(key, a, b, partners.get(key)) for key in a}
    equal: list[str] = []
    for key, values in _measured(partners, a, b, compare) if compare else ():
        if values is None:
            changed[key] = _as_equal(changed[key])
        elif changed[key] or values.changed or values.beyond:
            entry = changed[key] or Entry("value", a[key], b[partners[key].key])
            changed[key] = replace(entry, values=values)
        else:
            equal.append(key)
    return Diff(
        a,
        b,
        (*filter(None, changed.values()), *_added(b, partners)),
        compare is not None,
        equal=tuple(equal),
        uncompared=uncompared(a, b),
    )


def _added(b: Catalog, partners: Mapping[str, Counterpart]) -> Iterator[Entry]:
    """The keys of `b` that are nobody's partners."""
    taken = {other.key for other in partners.values()}
    return (Entry("only_b", None, info) for key, info in b.items() if key not in taken)


def _partners(
    a: Catalog, b: Catalog, counterparts: Mapping[str, Counterpart]
) -> Iterator[tuple[str, Counterpart]]:
    """What each key of `a` is compared with: its counterpart, or the key of its name in `b` that is
    nobody's counterpart.
    """
    taken = {other.key for other in counterparts.values()}
    for key in a:
        if key in counterparts:
            yield key, counterparts[key]
        elif key in b and key not in taken:
            yield key, Counterpart(key)


def _measured(
    partners: Mapping[str, Counterpart], a: Catalog, b: Catalog, compare: Compare
) -> Iterator[tuple[str, Values | None]]:
    """The keys whose values are compared, and by how much they differ; None where the bytes are
    equal.
    """
    keys = [key for key, other in partners.items() if _is_measured(key, other, a, b)]
    yield from zip(keys, compare(keys), strict=True)


def _as_equal(entry: Entry | None) -> Entry | None:
    return replace(entry, is_equal=True) if entry and entry.kind != "dtype" else entry


def _entry(key: str, a: Catalog, b: Catalog, other: Counterpart | None) -> Entry | None:
    """What differs between a key and its counterpart as far as the catalogs say; None where
    nothing does.
    """
    if other is None:
        return Entry("only_a", a[key], None)
    info = b[other.key]
    kind: Kind
    confidence = None
    if other.key != key:
        kind, confidence = "renamed", other.confidence
    elif (a[key].shape, a[key].dtype) != (info.shape, info.dtype):
        kind = kind_of_difference(a[key], info)
    elif other.how:
        kind = "value"
    else:
        return None
    return Entry(
        kind,
        a[key],
        info,
        None,
        confidence,
        other.evidence,
        other.how,
        other.plain_ops,
        other.is_equal,
    )


def _is_measured(key: str, other: Counterpart, a: Catalog, b: Catalog) -> bool:
    """Whether values are compared: of one shape, not known to be equal as they are, and not under
    another name through ops. What keeps its name and has another dtype is measured too.
    """
    if a[key].shape != b[other.key].shape:
        return False
    if other.key == key and a[key].dtype is not b[key].dtype:
        return True
    return other.key == key if other.how else not other.is_equal
