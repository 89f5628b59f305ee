"""The state of an optimizer as it was saved, in one shape whatever form it had: torch's own with
ids, by names as `torch.distributed.checkpoint.state_dict` has it, or flat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.frozen import frozen
from ckpt_tool.ops import TensorForm

Path = tuple[str | int, ...]
Form = Literal["ids", "names", "flat"]
FormOf = Callable[[object], TensorForm | None]

STATE, GROUPS, PARAMS, NAMES = "state", "param_groups", "params", "param_names"


@frozen
class SavedSlot:
    """One entry of a parameter's state: where it is, and the form of a tensor or the value of
    anything else.
    """

    path: Path
    form: TensorForm | None
    value: object = None


@frozen
class SavedParameter:
    """A parameter as the optimizer knows it; `name` is what it was saved under, None for a number
    alone, and `group` the place of its group.
    """

    id: int | str
    name: str | None
    group: int
    slots: Mapping[str, SavedSlot]


@frozen
class SavedOptimizer:
    """All parameters in the order of their groups; `groups` have their hyper-parameters, without
    the parameters themselves, and `named_groups` are the places of those that name them.

    `label` is what messages call it; `order` are the model's parameters in its order, where
    somebody said it.
    """

    label: str
    form: Form
    parameters: tuple[SavedParameter, ...]
    groups: tuple[Mapping[str, object], ...]
    named_groups: frozenset[int] = frozenset()
    order: tuple[str, ...] = ()

    @property
    def slots(self) -> frozenset[str]:
        """The names of all slots that any parameter has."""
        return frozenset(slot for each in self.parameters for slot in each.slots)


def with_names(
    saved: SavedOptimizer, names: Sequence[str] | Sequence[Sequence[str]]
) -> SavedOptimizer:
    """The same with the keys of its parameters: in the order of their model, or, as a list for each
    group, in its own. Raises InputError for other numbers of them.
    """
    if saved.form != "ids":
        raise InputError(saved.label, "goes by names already", "leave `names` out")
    plain = [replace(each, name=None) for each in saved.parameters]
    if all(isinstance(name, str) for name in names):
        return replace(saved, parameters=tuple(plain), order=tuple(map(str, names)))
    sizes = [len(group) for group in names]
    own = [sum(each.group == place for each in plain) for place in range(len(saved.groups))]
    if sizes != own:
        fact = f"has groups of {_listed(own)} parameters, and `names` of {_listed(sizes)}"
        raise InputError(saved.label, fact, "give a list for each group")
    every = [str(name) for group in names for name in group]
    named = [replace(each, name=name) for each, name in zip(plain, every, strict=True)]
    return replace(saved, parameters=tuple(named), named_groups=frozenset())


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def read_optimizer(state_dict: object, form_of: FormOf, label: str) -> SavedOptimizer:
    """An optimizer's state dict, of plain values; `form_of` gives the form of one that is a tensor.

    Raises FormatError for what is none.
    """
    if not isinstance(state_dict, Mapping):
        raise _no_optimizer(label, f"is a {type(state_dict).__name__}")
    if STATE not in state_dict and GROUPS not in state_dict:
        if any(str(key).startswith(f"{STATE}.") for key in state_dict):
            return _read_flat(state_dict, form_of, label)
        raise _no_optimizer(label, f"has neither `{STATE}` nor `{GROUPS}`")
    state, groups = state_dict.get(STATE), state_dict.get(GROUPS)
    if not isinstance(state, Mapping) or not isinstance(groups, list | tuple):
        raise _no_optimizer(label, f"its `{STATE}` is not a dict, or its `{GROUPS}` no list")
    listed = [param for group in groups for param in _params(group, label)]
    _check_listed(listed, state, label)
    form: Form = "names" if listed and all(isinstance(each, str) for each in listed) else "ids"
    return SavedOptimizer(
        label,
        form,
        tuple(_parameters(groups, state, form, form_of, label)),
        tuple(_without_params(group) for group in groups),
        frozenset(place for place, group in enumerate(groups) if NAMES in group),
    )


def _no_optimizer(label: str, fact: str) -> FormatError:
    hint = "give what `optimizer.state_dict()` returns, of one optimizer"
    return FormatError(label, f"is not an optimizer's state: {fact}", hint)


def _params(group: object, label: str) -> Sequence[object]:
    params = group.get(PARAMS) if isinstance(group, Mapping) else None
    if not isinstance(params, list | tuple):
        raise _no_optimizer(label, f"a group of its `{GROUPS}` has no list of `{PARAMS}`")
    if any(not isinstance(each, int | str) or isinstance(each, bool) for each in params):
        raise _no_optimizer(label, f"`{PARAMS}` has what is neither a number nor a name")
    return params


def _check_listed(listed: Sequence[object], state: Mapping[object, object], label: str) -> None:
    """Raises FormatError where groups and state don't speak of the same parameters."""
    known = set(listed)
    if len(known) < len(listed):
        raise FormatError(label, f"a parameter is twice in its `{GROUPS}`")
    if stray := [key for key in state if key not in known]:
        raise FormatError(label, f"its `{STATE}` has `{stray[0]}`, which is in no group")


def _without_params(group: Mapping[str, object]) -> Mapping[str, object]:
    return {str(name): value for name, value in group.items() if name not in (PARAMS, NAMES)}


def _parameters(
    groups: Sequence[Mapping[str, object]],
    state: Mapping[object, object],
    form: Form,
    form_of: FormOf,
    label: str,
) -> list[SavedParameter]:
    found = []
    for place, group in enumerate(groups):
        params = _params(group, label)
        names = group.get(NAMES)
        has_names = isinstance(names, list | tuple) and len(names) == len(params)
        for index, param in enumerate(params):
            assert isinstance(param, int | str)
            name = str(names[index]) if has_names and isinstance(names, list | tuple) else None
            if form == "names":
                name = str(param)
            slots = read_slots(state.get(param), (STATE, param), form_of)
            found.append(SavedParameter(param, name, place, slots))
    return found


def read_slots(given: object, path: Path, form_of: FormOf) -> Mapping[str, SavedSlot]:
    """The slots of one parameter; those of a dict inside stand under their own names, as
    bitsandbytes has them (`__bnb_optimizer_quant_state__`).
    """
    slots: dict[str, SavedSlot] = {}
    for name, value in (given or {}).items() if isinstance(given, Mapping) else ():
        here = (*path, name)
        if isinstance(value, Mapping) and value and len(path) <= len((STATE, "id")):
            slots |= read_slots(value, here, form_of)
        else:
            slots[str(name)] = SavedSlot(here, form_of(value), value)
    return slots


def _read_flat(given: Mapping[object, object], form_of: FormOf, label: str) -> SavedOptimizer:
    """`state.NAME.SLOT` and `param_groups.NAME.ENTRY`: each parameter is a group of its own."""
    slots: dict[str, dict[str, SavedSlot]] = {}
    groups: dict[str, dict[str, object]] = {}
    for key, value in given.items():
        first, _, rest = str(key).partition(".")
        name, _, last = rest.rpartition(".")
        if first == STATE and name:
            slots.setdefault(name, {})[last] = SavedSlot((str(key),), form_of(value), value)
        elif first == GROUPS and name:
            groups.setdefault(name, {})[last] = value
    names = list(dict.fromkeys((*groups, *slots)))
    parameters = [
        SavedParameter(name, name, place, slots.get(name, {})) for place, name in enumerate(names)
    ]
    hyper = tuple(
        {key: value for key, value in groups.get(name, {}).items() if key != PARAMS}
        for name in names
    )
    return SavedOptimizer(label, "flat", tuple(parameters), hyper)
