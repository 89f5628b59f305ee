"""The optimizers that are known: how a state dict shows which one wrote it, and what each of its
slots is.

Slots and hyper-parameters are those of torch.optim (torch 2.0 to 2.13), transformers' Adafactor,
Lion as its authors, lion-pytorch and timm have it, DeepSpeed's and apex' Adam, and bitsandbytes
0.50.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from enum import Enum

from ckpt_tool.frozen import frozen


class Role(Enum):
    """What a slot holds: a number for each element of the parameter, one value for all of them, the
    means of squares over the rows or columns of its last two dimensions, a value for each block of
    elements, or the size of the whole parameter.
    """

    ELEMENTWISE = "a number for each element"
    SHARED = "one value for the whole parameter"
    ROWS = "means over rows"
    COLUMNS = "means over columns"
    BLOCKS = "a value for each block of elements"
    WHOLE = "a size of the whole parameter"


@frozen
class Slot:
    """One entry of a parameter's state.

    `is_odd` says that it changes its sign with the parameter, None that it isn't known. `start` is
    what the optimizer begins with in each element: a number, or the hyper-parameter that holds it;
    None where it can't be told. `of_values` says that it follows the parameter's values, not its
    gradients.
    """

    role: Role = Role.ELEMENTWISE
    is_odd: bool | None = False
    start: float | str | None = 0.0
    of_values: bool = False


@frozen
class Kind:
    """One optimizer: hyper-parameters that its groups must have and may have, and its slots.

    `whole` says why the elements of a parameter can't be told apart; empty for optimizers that
    treat each element by itself. `takes_new` lists hyper-parameters that must be 0 (or missing) so
    that elements which begin with `Slot.start` are updated as in a parameter of their own; None
    where they never are, because the number of steps corrects the bias of all.
    """

    name: str
    needs: frozenset[str]
    may_have: frozenset[str]
    slots: Mapping[str, Slot]
    whole: str = ""
    takes_new: tuple[str, ...] | None = None
    classes: frozenset[str] = field(default=frozenset())


@frozen
class UnknownKind:
    """An optimizer that is not known, and why."""

    why: str


_STEP = {"step": Slot(Role.SHARED)}
_FIRST = Slot(is_odd=True)
_SECOND = Slot()
_SWITCHES = frozenset((
    "lr", "weight_decay", "maximize", "foreach", "capturable", "differentiable", "fused",
    "decoupled_weight_decay",
))  # fmt: skip
LABELS = frozenset((
    "params", "param_names", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum",
    "swa_lr", "lr_scale", "lr_mult", "lr_scale_factor",
))  # fmt: skip
"""Entries of a group that schedulers and training scripts add, and no optimizer reads but by way of
the learning rate.
"""


def _kind(
    name: str,
    needs: str,
    slots: Mapping[str, Slot],
    may_have: str = "",
    whole: str = "",
    takes_new: tuple[str, ...] | None = None,
    classes: str = "",
    switches: frozenset[str] = _SWITCHES,
) -> Kind:
    required = frozenset(needs.split())
    return Kind(
        name,
        required,
        switches | required | frozenset(may_have.split()),
        slots,
        whole,
        takes_new,
        frozenset((classes or f"torch.{name}").split()),
    )


KINDS = (
    _kind(
        "SGD",
        "momentum dampening nesterov",
        {"momentum_buffer": _FIRST},
        takes_new=("dampening",),
    ),
    _kind(
        "Adam",
        "betas eps amsgrad",
        {**_STEP, "exp_avg": _FIRST, "exp_avg_sq": _SECOND, "max_exp_avg_sq": _SECOND},
        classes="torch.Adam torch.AdamW",
    ),
    _kind(
        "Adam",
        "betas eps bias_correction",
        {**_STEP, "exp_avg": _FIRST, "exp_avg_sq": _SECOND},
        may_have="step amsgrad adam_w_mode",
        classes="deepspeed.FusedAdam deepspeed.DeepSpeedCPUAdam apex.FusedAdam",
    ),
    _kind(
        "AdamW",
        "betas eps correct_bias",
        {**_STEP, "exp_avg": _FIRST, "exp_avg_sq": _SECOND},
        classes="transformers.AdamW",
    ),
    _kind("Adamax", "betas eps", {**_STEP, "exp_avg": _FIRST, "exp_inf": _SECOND}),
    _kind(
        "NAdam",
        "betas eps momentum_decay",
        {**_STEP, "mu_product": Slot(Role.SHARED), "exp_avg": _FIRST, "exp_avg_sq": _SECOND},
    ),
    _kind(
        "RAdam",
        "betas eps decoupled_weight_decay",
        {**_STEP, "exp_avg": _FIRST, "exp_avg_sq": _SECOND},
    ),
    _kind(
        "SparseAdam",
        "betas eps maximize",
        {**_STEP, "exp_avg": _FIRST, "exp_avg_sq": _SECOND},
        may_have="lr",
        switches=frozenset(),
    ),
    _kind(
        "RMSprop",
        "alpha eps centered momentum",
        {**_STEP, "square_avg": _SECOND, "momentum_buffer": _FIRST, "grad_avg": _FIRST},
        takes_new=(),
    ),
    _kind(
        "Adagrad",
        "lr_decay eps initial_accumulator_value",
        {**_STEP, "sum": Slot(start="initial_accumulator_value")},
        takes_new=("lr_decay",),
    ),
    _kind(
        "Adadelta",
        "rho eps",
        {**_STEP, "square_avg": _SECOND, "acc_delta": _SECOND},
        takes_new=(),
    ),
    _kind(
        "Rprop",
        "etas step_sizes",
        {**_STEP, "prev": _FIRST, "step_size": Slot(start=None)},
    ),
    _kind(
        "ASGD",
        "lambd alpha t0",
        {
            **_STEP,
            "eta": Slot(Role.SHARED),
            "mu": Slot(Role.SHARED),
            "ax": Slot(is_odd=True, start=None, of_values=True),
        },
    ),
    _kind(
        "Lion",
        "betas",
        {**_STEP, "exp_avg": _FIRST},
        may_have="corrected_weight_decay max_lr_snapshot",
        takes_new=(),
        classes="lion_pytorch.Lion",
    ),
    _kind(
        "Adafactor",
        "beta2_decay d eps",
        {
            **_STEP,
            "variance": _SECOND,
            "row_var": Slot(Role.ROWS),
            "col_var": Slot(Role.COLUMNS),
        },
        whole="Adafactor scales the update by the RMS of the whole parameter",
    ),
    _kind(
        "Adafactor",
        "decay_rate clip_threshold scale_parameter",
        {
            **_STEP,
            "exp_avg": _FIRST,
            "exp_avg_sq": _SECOND,
            "exp_avg_sq_row": Slot(Role.ROWS),
            "exp_avg_sq_col": Slot(Role.COLUMNS),
            "RMS": Slot(Role.SHARED),
        },
        may_have="eps beta1 relative_step warmup_init",
        whole="Adafactor scales the update by the RMS of the whole parameter",
        classes="transformers.Adafactor",
    ),
    _kind(
        "Muon",
        "momentum ns_steps",
        {"momentum_buffer": _FIRST},
        may_have="nesterov ns_coefficients eps adjust_lr_fn",
        whole="Muon makes the update of a whole matrix orthogonal",
    ),
    _kind(
        "bitsandbytes' optimizer",
        "betas eps weight_decay",
        {
            **_STEP,
            "state1": Slot(is_odd=None, start=None),
            "state2": Slot(is_odd=None, start=None),
            "qmap1": Slot(Role.SHARED),
            "qmap2": Slot(Role.SHARED),
            "absmax1": Slot(Role.BLOCKS),
            "absmax2": Slot(Role.BLOCKS),
            "unorm_vec": Slot(Role.WHOLE),
        },
        may_have="lr alpha t_alpha t_beta3",
        classes="bitsandbytes.Optimizer8bit",
        switches=frozenset(),
    ),
)
"""The known optimizers. Where the hyper-parameters of two would do, the slots decide."""


def recognise(
    groups: Collection[Mapping[str, object]], slots: Collection[str]
) -> Kind | UnknownKind:
    """The optimizer whose groups and slots these are.

    Every hyper-parameter must be one of that optimizer, since others (a trust ratio, say) may
    change what an update is.
    """
    held = frozenset(slots)
    names = {
        name for group in groups for name, value in group.items() if not _is_label(name, value)
    }
    if not names:
        return UnknownKind("it has no hyper-parameters, which would show it")
    near = [kind for kind in KINDS if kind.needs <= names and held <= kind.slots.keys()]
    fitting = [kind for kind in near if names <= kind.may_have]
    if fitting:
        # Of several, the one that asks for most: Adam has all that SparseAdam has.
        return max(fitting, key=lambda kind: (len(kind.needs), len(held) / len(kind.slots)))
    if near:
        stray = min(names - near[0].may_have)
        return UnknownKind(f"`{stray}` is not a hyper-parameter of {near[0].name}")
    listed = ", ".join(f"`{slot}`" for slot in sorted(held)) or "no slots"
    return UnknownKind(f"no known optimizer has {listed} with these hyper-parameters")


def kind_of_class(package: str, name: str, recognised: Kind | UnknownKind) -> Kind | UnknownKind:
    """The optimizer whose `step` the class `name` of a package has; of an unknown package, the one
    that is `recognised` by its groups and slots, where the class has its very name, too.
    """
    for kind in KINDS:
        if f"{package}.{name}" in kind.classes:
            return kind
    classes = recognised.classes if isinstance(recognised, Kind) else frozenset()
    if any(each.rpartition(".")[2] == name for each in classes):
        return recognised
    return UnknownKind(f"{name} is not a known optimizer")


def _is_label(name: str, value: object) -> bool:
    """Whether an entry of a group is for people and schedulers, and not for the update; as timm's
    `caution` where it is off: else it scales by the whole of a parameter.
    """
    if name == "caution":
        return value is False
    return name in LABELS or (isinstance(value, str) and name != "adjust_lr_fn")
