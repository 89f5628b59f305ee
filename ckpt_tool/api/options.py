"""How tensors are to be mapped: everything that a command line can say about it, as one value."""

import os
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Literal, get_args

from ckpt_tool.errors import InputError
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import DType

Method = Literal["name", "position", "auto"]
Format = Literal["safetensors", "torch", "dcp"]

ARROWS = (" -> ", " → ")
"""What stands in a rule, and in no name of a file."""

Policy = Literal["strict", "target", "source"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
DTypePolicy = Policy | DType
"""What happens where dtypes differ: see `ckpt_tool.mapping.accounting.dtypes`."""


@frozen
class MappingOptions:
    """How tensors are mapped: by rule files and inline rules, or `by` name, position or alignment.

    `rules` names files, or shipped mappings; texts of the form `SOURCE -> TARGET` among them are
    rules themselves, as in `inline`. `drop` and `keep` are patterns of source keys to leave behind
    and of target keys that keep their values; every other key must be mapped, unless `partial` says
    that the rest may stay, or `expect` how many target tensors are mapped, exactly. `params` are
    the numbers of parameters (`--set`); `dtypes` says what happens where dtypes differ;
    `min_confidence` (0 to 1) is what pairs by alignment need. A text or a path stands for a tuple
    of one. Raises InputError for what means nothing.

    >>> import ckpt_tool, torch
    >>> options = ckpt_tool.MappingOptions(rules="net.** -> **", drop="old.*")
    >>> model = torch.nn.Linear(2, 2)
    >>> source = {"net.weight": torch.ones(2, 2), "net.bias": torch.ones(2), "old.x": torch.ones(1)}
    >>> ckpt_tool.load_into(model, source, options=options)
    LoadReport(2 loaded, 0 kept fresh, 1 dropped)
    """

    rules: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    by: Method | None = None
    params: Mapping[str, int] = field(default_factory=dict)
    dtypes: DTypePolicy = "strict"
    force_order: bool = False
    expect: int | None = None
    min_confidence: float | None = None
    partial: bool = False

    @property
    def rest_stays(self) -> bool:
        """Whether keys that nothing names are dropped and kept."""
        return self.partial or self.expect is not None

    def __post_init__(self) -> None:
        for name in ("rules", "inline", "drop", "keep"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        if written := tuple(text for text in self.rules if any(arrow in text for arrow in ARROWS)):
            object.__setattr__(
                self, "rules", tuple(text for text in self.rules if text not in written)
            )
            object.__setattr__(self, "inline", (*written, *self.inline))
        _check_method(self.by)
        object.__setattr__(self, "dtypes", dtype_policy(self.dtypes))
        for name, number in {"--expect": self.expect, **self.params}.items():
            _check_number(name, number)
        check_confidence(self.min_confidence)


SHORT = {
    "fp64": "float64",
    "double": "float64",
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
}
"""Names of floating types that libraries use, and torch's for them."""


def _check_method(by: object) -> None:
    if by is not None and by not in get_args(Method):
        hint = f"it is one of {', '.join(get_args(Method))}"
        raise InputError("by", f"`{by}` is not a way of mapping", hint)


def dtype_policy(given: object) -> DTypePolicy:
    """What is said of dtypes, read: a policy, a DType, or the name of a floating type, by torch's
    name or safetensors'. Raises InputError for anything else.
    """
    if isinstance(given, DType):
        return given
    text = str(given).lower().removeprefix("torch.")
    for policy in POLICIES:
        if text == policy:
            return policy
    from ckpt_tool.ops import OpError
    from ckpt_tool.ops.casts import can_cast, dtype_named

    try:
        found = dtype_named(SHORT.get(text, text), "--dtype")
    except OpError:
        found = None
    if found is None or not found.is_floating:
        floats = (dtype for dtype in DType if dtype.is_floating and can_cast(dtype))
        names = " ".join(dtype.value for dtype in floats)
        fact = f"`{given}` is neither `target`, `source`, nor a floating type ({names})"
        raise InputError("--dtype", fact, "other names are bfloat16, fp16, half and such")
    return found


def _check_number(name: str, number: object) -> None:
    if number is not None and (type(number) is not int or number < 0):
        raise InputError(name, f"{number!r} is not a number of the kind 0, 1, 2, …")


def _texts(name: str, given: object) -> tuple[str, ...]:
    """Texts and paths as a tuple, also where one stands alone. Raises InputError for
    anything else.
    """
    if given is None:
        return ()
    each = given if isinstance(given, list | tuple | set | frozenset) else (given,)
    if not all(isinstance(one, str | os.PathLike) for one in each):
        raise InputError(name, f"{given!r:.60} is neither a string nor a list of strings")
    return tuple(os.fspath(one) for one in each)


def check_confidence(given: float | None) -> None:
    """Raises InputError for what is no confidence."""
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InputError("--min-confidence", f"{given!r:.60} is no number", "give 0.9, for example")
    if not 0 <= given <= 1:
        raise InputError("--min-confidence", f"{given:g} is not between 0 and 1")


UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
MIN_PLAIN_SIZE = 1000
"""Bytes that a text says without a unit: fewer were meant with one."""


def size_of(given: int | str | None) -> int | None:
    """Bytes of `5GB` or `512MiB`, or as they are; None for nothing. Raises InputError."""
    if given is None or type(given) is int:
        return given
    text = given if isinstance(given, str) else ""
    digits = text.rstrip("BbKkMmGgTtIi ")
    unit = UNITS.get(text[len(digits) :].strip().upper())
    if not digits.isdecimal() or len(digits) > 18 or unit is None or not int(digits):
        hint = "give 5GB, 500MB or 512MiB"
        raise InputError("--max-shard-size", f"`{given}` is not a size", hint)
    if digits == text.strip() and int(digits) < MIN_PLAIN_SIZE:
        fact = f"`{given}` is a size of {digits} bytes"
        raise InputError("--max-shard-size", fact, f"give a unit: {digits}GB, or {digits}B")
    return int(digits) * unit


def stated(options: MappingOptions) -> dict[str, object]:
    """What of it is not the default, by name; rules all together."""
    found = {one.name: getattr(options, one.name) for one in fields(options)}
    found["rules"] = (*found.pop("rules"), *found.pop("inline"))
    plain = MappingOptions()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items() if value != getattr(plain, name)
    }  # fmt: skip
