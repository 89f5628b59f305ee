"""What explains that two networks diverge: each change is tried on the second network's own module,
with the first one's inputs, and said only where it makes the outputs agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, combinations, islice, permutations
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Parting
from ckpt_tool.tracing.exact import Found, distance_of
from ckpt_tool.tracing.explaining.activations import unlike_functions, unlike_modules
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.pairs import Pair
from ckpt_tool.tracing.recording import Recorder, Setting, copied, quiet
from ckpt_tool.tracing.sketches import farthest, tensors_in
from ckpt_tool.tracing.weights import Concerned

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.mapping.plan import Plan

Change = tuple[str, Callable[[], Iterator[None]]]
"""What is said of a change, and a context in which it holds."""
MAX_TRIES = 200
MAX_JOINED = 4
SIMPLE = (int, float, str, bool, tuple, type(None))
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
HEAD_SIZES = ("head_dim", "head_size", "dim_head", "d_head")


def hints_of(
    plan: Plan,
    one: nn.Module,
    other: nn.Module,
    pairs: Sequence[Pair],
    parting: Parting,
    found: Found,
    floor: float,
    concerned: Sequence[Concerned],
    records: tuple[Recorder, Recorder],
    setting: Setting,
    orders: Orders,
) -> Iterator[str]:
    """What was tried and explains it, most likely first; where nothing does, what differs in how
    the two modules are set.
    """
    twins = list(_twins(pairs, parting, floor, records))
    first = one.get_submodule(parting.row.one)
    second = other.get_submodule(parting.row.other)
    unlike = unlike_modules(first, second, parting, found, setting)
    trial = _Trial(second, found, floor, setting, orders if parting.row.other else NO_ORDERS)
    changes = chain(
        _exchanges(other, twins),
        ((each.change_said, each.replaced) for each in unlike),
        _changes(plan, first, second, parting, concerned, orders)
        if parting.kind != "drift"
        else (),
    )
    yield from (each.said for each in unlike)
    for said, change in () if trial.agrees(_nothing) else islice(changes, MAX_TRIES):
        if trial.agrees(change):
            yield f"verified: {said} makes the outputs agree"
            return
    if not unlike:
        yield from unlike_functions(first, second, parting, found, setting)
    for twin in twins:
        yield f"`{twin.got}` gets what `{twin.one}` of the first network gets"
    if parting.kind == "drift":
        return
    differing = [f"`{name}` is {a!r} and {b!r}" for name, a, b in _unlike(first, second)]
    if differing:
        yield f"set otherwise: {'; '.join(differing[:5])}"


def _nothing() -> Iterator[None]:
    yield


class _Trial:
    """The second network's module on the first one's inputs."""

    def __init__(
        self, module: nn.Module, found: Found, floor: float, setting: Setting, orders: Orders
    ) -> None:
        self._module, self._call, self._floor = module, found.calls[1], floor
        self._expected = tensors_in(found.calls[0].output)
        self._setting, self._orders = setting, orders

    def _run(self, setting: Setting) -> object:
        with quiet(self._module, setting):
            return self._module(*copied(self._call.args), **copied(self._call.kwargs))

    def agrees(self, change: Callable[[], Iterator[None]]) -> bool:
        """Whether the outputs agree while the change holds."""
        with contextmanager(change)():
            try:
                given = self._setting.run(self._run)
            except Exception:
                return False
            apart = distance_of(self._expected, tensors_in(given), self._orders)
        return apart is not None and apart.relative <= self._floor


def _changes(
    plan: Plan,
    first: nn.Module,
    second: nn.Module,
    parting: Parting,
    concerned: Sequence[Concerned],
    orders: Orders,
) -> Iterator[Change]:
    prefix = f"{parting.row.other}." if parting.row.other else ""
    state = {f"{prefix}{key}": tensor for key, tensor in second.state_dict(keep_vars=True).items()}
    own = {each.key: state[each.key] for each in concerned if each.key in state}
    yield from _settings(first, second)
    yield from _orders(own)
    yield from _joined(own, concerned)
    yield from _rotary(second, own or {key: one for key, one in state.items() if one.dim() == 2})
    yield from _transposed(own)
    yield from _ordered(own, orders)


def _settings(first: nn.Module, second: nn.Module) -> Iterator[Change]:
    """A number, a text or a flag of the module as the first one's has it."""
    for name, value, current in _unlike(first, second):
        owner, _, attribute = name.rpartition(".")
        module = second.get_submodule(owner)

        def change(
            module: nn.Module = module, attribute: str = attribute, value: object = value
        ) -> Iterator[None]:
            before = getattr(module, attribute)
            setattr(module, attribute, value)
            try:
                yield
            finally:
                setattr(module, attribute, before)

        yield f"`{name}` = {value!r} (it is {current!r})", change


def _unlike(first: nn.Module, second: nn.Module) -> Iterator[tuple[str, object, object]]:
    """Attributes that both have, of the module and of those at the same path inside, and that
    differ.
    """
    inside = dict(second.named_modules())
    for path, module in first.named_modules():
        other = inside.get(path)
        for name, value in vars(module).items() if other is not None else ():
            current = vars(other).get(name, value)
            if name.startswith("_") or name == "training" or value == current:
                continue
            if isinstance(value, SIMPLE) and isinstance(current, SIMPLE):
                yield (f"{path}.{name}" if path else name), value, current


def _orders(own: Mapping[str, torch.Tensor]) -> Iterator[Change]:
    """Modules with equal tensors in another order: q, k and v."""
    owners: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in own.items():
        owner, _, name = key.rpartition(".")
        owners.setdefault(owner, {})[name] = tensor
    alike: dict[object, list[str]] = {}
    for owner, tensors in owners.items():
        form = tuple(sorted((name, tuple(each.shape)) for name, each in tensors.items()))
        alike.setdefault(form, []).append(owner)
    for group in alike.values():
        for order in islice(permutations(group[:5]), 1, None):
            moved = {
                f"{owner}.{name}": own[f"{source}.{name}"]
                for owner, source in zip(group, order, strict=False)
                for name in owners[owner]
                if owner != source
            }
            names = " and ".join(
                f"`{owner}` with the weights of `{source}`"
                for owner, source in zip(group, order, strict=False)
                if owner != source
            )
            yield names, _values(own, {key: tensor.detach() for key, tensor in moved.items()})


def _joined(own: Mapping[str, torch.Tensor], concerned: Sequence[Concerned]) -> Iterator[Change]:
    """Tensors that are made of several others, q, k and v, joined in another order."""
    owners: dict[tuple[str, int], list[Concerned]] = {}
    for each in concerned:
        count = len(each.sources)
        if each.key in own and 1 < count <= MAX_JOINED and "concat" in " ".join(each.ops):
            owners.setdefault((each.key.rpartition(".")[0], count), []).append(each)
    for (owner, count), joined in owners.items():
        if any(not own[each.key].dim() or own[each.key].shape[0] % count for each in joined):
            continue
        for order in islice(permutations(range(count)), 1, None):
            moved = {each.key: _reordered(own[each.key], order) for each in joined}
            names = ", ".join(f"`{joined[0].sources[at]}`" for at in order)
            yield f"`{owner or joined[0].key}` joined in the order {names}", _values(own, moved)


def _reordered(tensor: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """The equal parts of its rows in another order."""
    import torch

    parts = tensor.detach().chunk(len(order))
    return torch.cat([parts[at] for at in order])


def _rotary(module: nn.Module, own: Mapping[str, torch.Tensor]) -> Iterator[Change]:
    """The two halves of each head interleaved, or taken apart: the two layouts of rotary
    positions.
    """
    sizes = sorted(set(_head_sizes(module, own)))
    owners = sorted({key.rpartition(".")[0] for key in own})
    for size in sizes:
        for some in [*combinations(owners, 2), *((owner,) for owner in owners)]:
            for said, pattern in (
                ("interleaved", "(h two d) ... -> (h d two) ..."),
                ("in halves", "(h d two) ... -> (h two d) ..."),
            ):
                keys = [key for key in own if key.rpartition(".")[0] in some]
                if any(not own[key].dim() or own[key].shape[0] % size for key in keys):
                    continue
                named = " and ".join(f"`{owner}`" for owner in some)
                text = f"rows of {named} {said} within heads of {size} (rotary positions)"
                yield text, _values(own, _rearranged(own, keys, pattern, size))


def _rearranged(
    own: Mapping[str, torch.Tensor], keys: Sequence[str], pattern: str, size: int
) -> dict[str, torch.Tensor]:
    from einops import rearrange

    return {key: rearrange(own[key].detach(), pattern, two=2, d=size // 2) for key in keys}


def _head_sizes(module: nn.Module, own: Mapping[str, torch.Tensor]) -> Iterator[int]:
    rows = {tensor.shape[0] for tensor in own.values() if tensor.dim() > 1}
    for each in module.modules():
        for holder in (each, getattr(each, "config", None)):
            for name in HEAD_SIZES:
                if isinstance(size := getattr(holder, name, None), int) and size and not size % 2:
                    yield size
            for name in HEADS:
                heads = getattr(holder, name, None)
                if isinstance(heads, int) and heads > 0:
                    yield from (n // heads for n in rows if not n % heads and not (n // heads) % 2)


def _transposed(own: Mapping[str, torch.Tensor]) -> Iterator[Change]:
    for key, tensor in own.items():
        if tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]:
            yield f"`{key}` transposed", _values(own, {key: tensor.detach().t()})


def _ordered(own: Mapping[str, torch.Tensor], orders: Orders) -> Iterator[Change]:
    """Columns or rows in an order that the rules give other tensors."""
    for key, tensor in own.items():
        for axis in range(min(tensor.dim(), 2)):
            for moved in orders.along(tensor, axis):
                lines = "columns" if axis else "rows"
                said = f"`{key}` with its {lines} in the order that the rules give other tensors"
                yield said, _values(own, {key: moved})


def _values(
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
class _Twin:
    """A module of the second network that gets what `one` of the first does, whose counterpart is
    `other`, another one.
    """

    got: str
    one: str
    other: str


def _twins(
    pairs: Sequence[Pair], parting: Parting, floor: float, records: tuple[Recorder, Recorder]
) -> Iterator[_Twin]:
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
            yield _Twin(at.other, pair.one, pair.other)


def _exchanges(second: nn.Module, twins: Sequence[_Twin]) -> Iterator[Change]:
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
            yield said, _values(own, moved)


def _forms(state: Mapping[str, torch.Tensor]) -> dict[str, object]:
    return {key: tensor.shape for key, tensor in state.items()}


def _are_siblings(one: str, other: str) -> bool:
    return one.count(".") == other.count(".") and one != other
