"""What explains that two networks diverge: each change is tried on the second network's own module,
with the first one's inputs, and said only where it makes the outputs agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, combinations, islice, permutations
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Parting
from ckpt_tool.tracing.exact import Found, distance_in
from ckpt_tool.tracing.explaining.activations import unlike_functions, unlike_modules
from ckpt_tool.tracing.explaining.exchanges import (
    Change,
    exchanged,
    exchanged_beside,
    reassigned,
    twins_of,
    values_of,
)
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.pairs import Pair
from ckpt_tool.tracing.recording import Recorder, Setting, copied, quiet
from ckpt_tool.tracing.weights import Concerned

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.mapping.plan import Plan

MAX_TRIES = 200
MAX_JOINED = 4
SIMPLE = (int, float, str, bool, tuple, type(None))
ACTIVATIONS = {1: "relu", 2: "gelu"}
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
    twins = list(twins_of(pairs, parting, floor, records))
    first = one.get_submodule(parting.row.one)
    second = other.get_submodule(parting.row.other)
    unlike = unlike_modules(first, second, parting, found, setting)
    trial = _Trial(second, found, floor, setting, orders if parting.row.other else NO_ORDERS)
    changes = chain(
        exchanged(other, twins),
        exchanged_beside(other, parting, pairs, records[1]),
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
    shown = (_shown(*each) for each in _unlike(first, second))
    differing = [f"`{name}` is {a} and {b}" for name, a, b in shown]
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
        self._expected = found.calls[0].output
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
            apart = distance_in(self._expected, given, self._orders)
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
    yield from reassigned(own)
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

        shown, *both = _shown(name, value, current)
        yield f"`{shown}` = {both[0]} (it is {both[1]})", change


def _shown(name: str, *values: object) -> tuple[str, ...]:
    """An attribute and its values as whoever made the module gave them: of an encoder layer, torch
    keeps a number for its activation.
    """
    owner, dot, attribute = name.rpartition(".")
    if attribute == "activation_relu_or_gelu":
        named = (ACTIVATIONS.get(each) if isinstance(each, int) else None for each in values)
        return f"{owner}{dot}activation", *(repr(each or "another") for each in named)
    return name, *map(repr, values)


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
            yield f"`{owner or joined[0].key}` joined in the order {names}", values_of(own, moved)


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
                yield text, values_of(own, _rearranged(own, keys, pattern, size))


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
            yield f"`{key}` transposed", values_of(own, {key: tensor.detach().t()})


def _ordered(own: Mapping[str, torch.Tensor], orders: Orders) -> Iterator[Change]:
    """Columns or rows in an order that the rules give other tensors."""
    for key, tensor in own.items():
        for axis in range(min(tensor.dim(), 2)):
            for moved in orders.along(tensor, axis):
                lines = "columns" if axis else "rows"
                said = f"`{key}` with its {lines} in the order that the rules give other tensors"
                yield said, values_of(own, {key: moved})
