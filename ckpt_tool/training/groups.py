"""Parameter groups for `torch.optim`: which parameters train at which rate, as a list that prints
as a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from html import escape
from typing import TYPE_CHECKING, TypedDict

from ckpt_tool.errors import InputError
from ckpt_tool.wording import plural, visible

if TYPE_CHECKING:
    from torch import nn


class _Group(TypedDict):
    params: list[nn.Parameter]
    lr: float
    group: str


class ParameterGroup(_Group, total=False):
    """What `torch.optim` takes; `group` is `fresh` or `loaded`, `layer` a block where rates fall
    towards the input, `weight_decay` there where it was asked for.
    """

    layer: str
    weight_decay: float


class ParameterGroups(list[ParameterGroup]):
    """Parameter groups, a list of plain dicts for `torch.optim`; printed, and in a notebook, they
    are a table.
    """

    def __repr__(self) -> str:
        columns = list(zip(*_rows(self), strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in zip(*columns, strict=True)
        ]
        return "\n".join([*lines, "", self._counts()])

    def _repr_html_(self) -> str:
        first, *rows = _rows(self)
        head = "".join(f"<th>{escape(cell)}</th>" for cell in first)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        )
        return (
            f"<div><p><b>{escape(self._counts())}</b></p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )

    def _counts(self) -> str:
        parameters = [one for group in self for one in _params(group)]
        elements = sum(one.numel() for one in parameters)
        tensors = plural(len(parameters), "tensor")
        return f"{plural(len(self), 'group')}: {tensors}, {plural(elements, 'parameter')}"


def _rows(groups: Sequence[ParameterGroup]) -> Iterator[tuple[str, ...]]:
    """The cells of each line, the first those of the heading; weight decay where a group has it."""
    decays = any("weight_decay" in group for group in groups)
    yield ("group", "lr", *(["weight decay"] if decays else []), "tensors", "parameters")
    for group in groups:
        name = visible(str(group.get("layer") or group.get("group") or "-"))
        decay = [_number(group.get("weight_decay"))] if decays else []
        params = _params(group)
        elements = sum(one.numel() for one in params)
        rate = group.get("lr")
        shown = f"{rate:.2e}" if isinstance(rate, float | int) else _number(rate)
        yield (name, shown, *decay, f"{len(params):,}", f"{elements:,}")


def _number(value: object) -> str:
    """A hyper-parameter; a dash where the optimizer's own default counts."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float | int) else f"{value}"


def _params(group: ParameterGroup) -> Sequence[nn.Parameter]:
    """The parameters of a group, also of one that was added as torch takes it: a single tensor."""
    params: object = group.get("params", ())
    return params if isinstance(params, list | tuple) else [params]  # type: ignore[list-item]


def listed(
    module: nn.Module,
    by_kind: Mapping[str, list[nn.Parameter]],
    lr: float,
    loaded_lr: float | None,
) -> list[ParameterGroup]:
    """A group for the fresh parameters and one for the loaded ones, without empty ones. Raises
    InputError where a rate has no parameter, or nothing says which rate is meant.
    """
    _check_rates(type(module).__name__, by_kind, loaded_lr)
    rates = {"fresh": lr, "loaded": lr if loaded_lr is None else loaded_lr}
    return [
        {"params": params, "lr": rates[name], "group": name}
        for name, params in by_kind.items()
        if params
    ]


def split(
    module: nn.Module, group: ParameterGroup, weight_decay: float
) -> Iterator[ParameterGroup]:
    """A group in two, by which weights decay; without an empty one."""
    own = getattr(module, "no_weight_decay", None)
    named = [str(name) for name in own()] if callable(own) else []
    exempt = {
        id(one)
        for name, one in module.named_parameters()
        if name.endswith(".bias") or any(fnmatchcase(name, each) for each in named)
    }
    decaying = [one for one in group["params"] if one.ndim > 1 and id(one) not in exempt]
    known = {id(one) for one in decaying}
    others = [one for one in group["params"] if id(one) not in known]
    for params, value in ((decaying, weight_decay), (others, 0.0)):
        if params:
            yield {**group, "params": params, "weight_decay": value}


def by_layer(
    module: nn.Module, group: ParameterGroup, decay: float, layers: Sequence[str]
) -> list[ParameterGroup]:
    """The group of the loaded parameters as one for each layer that has any, from the input on."""
    from ckpt_tool.training.layers import depths

    wanted = {id(parameter) for parameter in group["params"]}
    names = {name: one for name, one in module.named_parameters() if id(one) in wanted}
    found = depths(module, names, layers)
    groups: dict[int, ParameterGroup] = {}
    for name, parameter in names.items():
        number, label = found.layers[name]
        rate = group["lr"] * found.scale(name, decay)
        fresh: ParameterGroup = {"params": [], "lr": rate, "group": "loaded", "layer": label}
        groups.setdefault(number, fresh)["params"].append(parameter)
    return [groups[number] for number in sorted(groups)]


def _check_rates(
    name: str, groups: Mapping[str, Sequence[nn.Parameter]], loaded_lr: float | None
) -> None:
    if not any(groups.values()):
        raise InputError(name, "has no trainable parameters", "unfreeze some")
    if loaded_lr is not None and not groups["loaded"]:
        fact = f"`loaded_lr={loaded_lr:g}` has no parameter: no loaded parameter is trainable"
        raise InputError(name, fact, "leave it out, or freeze less")
    if loaded_lr is None and groups["loaded"]:
        fact = f"{len(groups['loaded'])} of the loaded parameters are trainable, and have no rate"
        raise InputError(name, fact, "give `loaded_lr`, or freeze them first")
