"""Two catalogs compared where some keys have another name on the other side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ckpt_tool.comparing.catalogs import Compare, Diff, Entry, kind_of, uncompared
from ckpt_tool.tensors import Catalog


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The key of the other side that is the same tensor: its name there, how sure that is and why.

    `how` are the ops between the two as text, empty where there are none; `is_equal` tells that
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
    taken = {other.key for other in counterparts.values()}
    partners = {
        key: counterparts.get(key) or Counterpart(key)
        for key in a
        if key in counterparts or (key in b and key not in taken)
    }
    changed = {key: _entry(key, a, b, partners.get(key)) for key in a}
    alike = [key for key, other in partners.items() if _is_measured(key, other, a, b)]
    equal: list[str] = []
    for key, values in zip(alike, compare(alike), strict=True) if compare else ():
        if values and (values.changed or values.beyond or changed[key]):
            entry = changed[key] or Entry("value", a[key], b[partners[key].key])
            changed[key] = replace(entry, values=values)
        elif values:
            equal.append(key)
    target = {other.key for other in partners.values()}
    source = [entry for entry in changed.values() if entry]
    added = [Entry("only_b", None, info) for key, info in b.items() if key not in target]
    return Diff(
        a,
        b,
        (*source, *added),
        compare is not None,
        equal=tuple(equal),
        uncompared=uncompared(a, b),
    )


def _entry(key: str, a: Catalog, b: Catalog, other: Counterpart | None) -> Entry | None:
    """What differs between a key and its counterpart as far as the catalogs tell; None where
    nothing does.
    """
    if other is None:
        return Entry("only_a", a[key], None)
    info = b[other.key]
    if other.key != key:
        return Entry(
            "renamed",
            a[key],
            info,
            None,
            other.confidence,
            other.evidence,
            other.how,
            other.plain_ops,
        )
    if (a[key].shape, a[key].dtype) != (info.shape, info.dtype):
        return Entry(
            kind_of(a[key], info),
            a[key],
            info,
            None,
            None,
            other.evidence,
            other.how,
            other.plain_ops,
        )
    return (
        Entry("value", a[key], info, None, None, other.evidence, other.how, other.plain_ops)
        if other.how
        else None
    )


def _is_measured(key: str, other: Counterpart, a: Catalog, b: Catalog) -> bool:
    """Whether values are compared: of one shape, not known to be equal as they are, and not under
    another name through ops.
    """
    if a[key].shape != b[other.key].shape:
        return False
    return other.key == key if other.how else not other.is_equal
