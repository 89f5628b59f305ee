"""Weights of modules of one form that may have been exchanged: q, k and v, twin branches, gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Parting
from ckpt_tool.tracing.pairs import Pair
from ckpt_tool.tracing.recording import Recorder
from ckpt_tool.tracing.sketches import Sketch, distance, farthest

if TYPE_CHECKING:
    import torch
    from torch import nn

Change = tuple[str, Callable[[], Iterator[None]]]
"""What is said of a change, and a context in which it holds."""
MAX_ALIKE = 5
"""Modules of one form whose orders are tried."""


def reassigned(own: Mapping[str, torch.Tensor]) -> Iterator[Change]:
    """Modules with equal tensors in another order: q, k and v; with all their tensors, then with
    those of one name, as where the rule of the weights alone is wrong.
    """
    owners: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in own.items():
        owner, _, name = key.rpartition(".")
        if owner:
            owners.setdefault(owner, {})[name] = tensor
    alike: dict[object, list[str]] = {}
    for owner, tensors in owners.items():
        form = tuple(sorted((name, tuple(each.shape)) for name, each in tensors.items()))
        alike.setdefault(form, []).append(owner)
    for group in alike.values():
        all_names = sorted(owners[group[0]])
        yield from _in_other_orders(own, group[:MAX_ALIKE], all_names, "")
        for name in all_names if len(all_names) > 1 else ():
            yield from _in_other_orders(own, group[:MAX_ALIKE], [name], f".{name}")


def _in_other_orders(
    own: Mapping[str, torch.Tensor], group: Sequence[str], names: Sequence[str], shown: str
) -> Iterator[Change]:
    """Tensors of some names, of which modules with all of theirs, or what is `shown`, are named."""
    what = "values" if shown else "weights"
    for order in islice(permutations(group), 1, None):
        moves = [both for both in zip(group, order, strict=True) if both[0] != both[1]]
        moved = {
            f"{owner}.{name}": own[f"{source}.{name}"].detach()
            for owner, source in moves
            for name in names
        }
        said = (f"`{owner}{shown}` with the {what} of `{source}{shown}`" for owner, source in moves)
        yield " and ".join(said), values_of(own, moved)


def exchanged_beside(
    second: nn.Module, parting: Parting, pairs: Sequence[Pair], record: Recorder
) -> Iterator[Change]:
    """Modules inside of the place that get the same inputs, with each other's weights: what each
    gives agrees with its counterpart's, but is used as another's is, as of a gate and what it
    gates.
    """
    path = parting.row.other
    prefix = f"{path}." if path else ""
    groups: list[tuple[Sequence[Sketch], dict[str, torch.Tensor]]] = []
    for pair in pairs if parting.kind == "code" else ():
        call = record.calls.get((pair.other, 0))
        if call is None or pair.other == path or not pair.other.startswith(prefix):
            continue
        state = second.get_submodule(pair.other).state_dict(keep_vars=True)
        own = next((held for took, held in groups if _are_equal(took, call.inputs)), None)
        if own is None:
            own = {}
            groups.append((call.inputs, own))
        own.update({f"{pair.other}.{key}": tensor for key, tensor in state.items()})
    for _, own in groups:
        yield from reassigned(own)


def _are_equal(ones: Sequence[Sketch], others: Sequence[Sketch]) -> bool:
    return len(ones) == len(others) > 0 and all(
        distance(one, other) == 0 for one, other in zip(ones, others, strict=True)
    )


def values_of(
    own: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]
) -> Callable[[], Iterator[None]]:
    """Other values for some tensors, for a while."""

    def change() -> Iterator[None]:
        before = {key: own[key].detach().clone() for key in others}
        new = {key: value.clone() for key, value in others.items()}
        try:
            for key, value in new.items():
                own[key].detach().copy_(value)
            yield
        finally:
            for key, value in before.items():
                own[key].detach().copy_(value)

    return change


@dataclass(frozen=True, slots=True)
class Twin:
    """A module of the second network that gets what `one` of the first does, whose counterpart is
    `other`, another one.
    """

    got: str
    one: str
    other: str


def twins_of(
    pairs: Sequence[Pair], parting: Parting, floor: float, records: tuple[Recorder, Recorder]
) -> Iterator[Twin]:
    """Modules whose inputs the one that first gets other inputs has: it may have been mapped the
    wrong way round with their counterparts, or another module is missing, or called elsewhere.
    """
    at = parting.at
    if at is None:
        return
    got = records[1].calls[at.other, at.call].inputs
    for pair in pairs:
        call = records[0].calls.get((pair.one, 0))
        if call is None or pair.one == at.one or not _are_siblings(pair.other, at.other):
            continue
        apart = farthest(call.inputs, got)
        if apart is not None and apart.distance <= max(floor, apart.floor):
            yield Twin(at.other, pair.one, pair.other)


def exchanged(second: nn.Module, twins: Sequence[Twin]) -> Iterator[Change]:
    """Twin branches that were mapped the wrong way round: each with the other's weights."""
    for twin in twins:
        one, other = (
            second.get_submodule(path).state_dict(keep_vars=True) for path in (twin.got, twin.other)
        )
        if _forms(one) == _forms(other) and one:
            own = {
                f"{path}.{key}": tensor
                for path, state in ((twin.got, one), (twin.other, other))
                for key, tensor in state.items()
            }
            moved = {f"{twin.got}.{key}": tensor.detach() for key, tensor in other.items()}
            moved |= {f"{twin.other}.{key}": tensor.detach() for key, tensor in one.items()}
            said = (
                f"`{twin.got}` with the weights of `{twin.other}` and `{twin.other}` with the "
                f"weights of `{twin.got}`"
            )
            yield said, values_of(own, moved)


def _forms(state: Mapping[str, torch.Tensor]) -> dict[str, object]:
    return {key: tensor.shape for key, tensor in state.items()}


def _are_siblings(one: str, other: str) -> bool:
    return one.count(".") == other.count(".") and one != other
