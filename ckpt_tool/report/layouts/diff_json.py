"""A diff as machines read it."""

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.tensors import Catalog, TensorInfo


def diff_json(diff: Diff, names: tuple[str, str], verbose: bool = False) -> dict[str, object]:
    """The contract's JSON; `same` entries are listed with `verbose` only."""
    entries = [_entry_json(entry) for entry in (diff.entries if verbose else diff.changes)]
    found: dict[str, object] = {
        "schema": 1,
        "a": _side_json(names[0], diff.a),
        "b": _side_json(names[1], diff.b),
        "identical": diff.identical,
        "counts": diff.counts,
        "entries": entries,
        "differs": diff.differs,
        "equal": list(diff.equal),
        "uncompared": [{"key": one.key, "a": one.a, "b": one.b} for one in diff.uncompared],
    }
    found |= {"beside": diff_json(diff.beside, names, verbose)} if diff.beside is not None else {}
    found |= {"notes": list(diff.notes)} if diff.notes else {}
    return found | ({"regrouped": list(diff.regrouped)} if diff.regrouped else {})


def _side_json(path: str, catalog: Catalog) -> dict[str, object]:
    return {"path": path, "tensors": len(catalog), "bytes": catalog.nbytes}


def _entry_json(entry: Entry) -> dict[str, object]:
    found: dict[str, object] = {
        "kind": entry.kind,
        "a": _info_json(entry.a),
        "b": _info_json(entry.b),
    }
    if entry.confidence is not None:
        found |= {"confidence": entry.confidence, "evidence": entry.evidence}
    if entry.how:
        found["how"] = entry.how
    if entry.values:
        values = entry.values
        found |= {
            "elements": values.elements,
            "changed": values.changed,
            "max_abs": values.max_abs,
            "cosine": values.cosine,
        }
        found |= {
            "beyond": values.beyond,
            "max_finite": values.largest,
            "nans": list(values.nans),
            "infs": list(values.infs),
        }
        found |= {"equal_after_cast": values.is_cast} if entry.kind == "dtype" else {}
    return found


def _info_json(info: TensorInfo | None) -> dict[str, object] | None:
    return {"key": info.key, "dtype": info.dtype.value, "shape": list(info.shape)} if info else None
