"""What lies beside tensors and goes the same way: the bias of a layer whose weight is split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.ops import Op, parse_ops
from ckpt_tool.ops.chain import Each
from ckpt_tool.tensors import Catalog

_WEIGHTS, _BIASES = ("weight", "kernel", "w"), ("bias", "b")


def followers(
    pair: Pair, source: Collection[str], target: Collection[str], catalogs: tuple[Catalog, Catalog]
) -> Iterator[Pair]:
    """The biases of the pair's weights, cut and joined as these are."""
    for leaf in _BIASES:
        for other in _BIASES:
            names = {
                **_renamed(pair.sources, leaf, source),
                **_renamed(pair.targets, other, target),
            }
            slots = [
                tuple(tuple(names.get(key, "") for key in slot) for slot in side)
                for side in (pair.sources, pair.targets)
            ]
            if all(key for side in slots for slot in side for key in slot):
                yield Pair(slots[0], slots[1], _plain(pair.ops, names))


def _renamed(slots: tuple[Slot, ...], leaf: str, known: Collection[str]) -> dict[str, str]:
    found = {}
    for key in (key for slot in slots for key in slot):
        weight = next((each for each in _WEIGHTS if key.endswith(each)), None)
        if weight and (name := key.removesuffix(weight) + leaf) in known:
            found[key] = name
    return found


def _plain(ops: tuple[Op, ...], names: Mapping[str, str]) -> tuple[Op, ...]:
    """The ops for vectors: nothing is turned, and what was along dimension 1 of a turned matrix is
    along its only one.
    """
    found: list[Op] = []
    for op in ops:
        if isinstance(op, Each):
            chains = {
                names[key]: kept for key, chain in op.chains if (kept := _plain(chain, names))
            }
            if chains:
                found.append(Each(tuple(chains.items())))
        elif op.name in ("split", "concat"):
            found += parse_ops({op.name: _along(op.argument())})
        elif op.name != "transpose":
            found.append(op)
    return tuple(found)


def _along(argument: object) -> object:
    return {**argument, "dim": 0} if isinstance(argument, dict) else 0
