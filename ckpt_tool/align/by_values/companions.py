"""What lies beside tensors and goes the same way: the bias of a layer whose weight is split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import product

from ckpt_tool.align.by_values.unpaired import keys_of_pair
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.align.sides import Sides
from ckpt_tool.ops import Op, parse_ops
from ckpt_tool.ops.chain import Each

_WEIGHTS, _BIASES = ("weight", "kernel", "w"), ("bias", "b")


def followers(pair: Pair, keys: Sides[Collection[str]]) -> Iterator[Pair]:
    """The biases, among some keys, of a pair's weights, cut and joined as these are.

    >>> qkv = Pair((("qkv.weight",),), (("q.weight",), ("k.weight",)), parse_ops({"split": 0}))
    >>> bias = next(followers(qkv, Sides(["qkv.bias"], ["q.bias", "k.bias"])))
    >>> bias.sources, bias.targets
    ((('qkv.bias',),), (('q.bias',), ('k.bias',)))
    """
    for leaf, other in product(_BIASES, _BIASES):
        names = {
            **_renamed(pair.sources, leaf, keys.source),
            **_renamed(pair.targets, other, keys.target),
        }
        if all(keys_of_pair(pair).map(names.keys().__ge__)):
            sources, targets = (_with_names(slots, names) for slots in (pair.sources, pair.targets))
            yield Pair(sources, targets, _plain(pair.ops, names))


def _with_names(slots: tuple[Slot, ...], names: Mapping[str, str]) -> tuple[Slot, ...]:
    return tuple(tuple(names[key] for key in slot) for slot in slots)


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
