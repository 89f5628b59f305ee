"""`ckpt_tool.load_into`: a checkpoint into a live model, and the report of it that prints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ckpt_tool.api import DTypePolicy, MappingOptions, Method, dtype_policy
from ckpt_tool.api.loading import load_into as loaded_into
from ckpt_tool.api.options import stated
from ckpt_tool.deprecated import with_old_arguments
from ckpt_tool.errors import InputError
from ckpt_tool.library.words import speaks_python
from ckpt_tool.report.load import counts_line, load_json, load_text
from ckpt_tool.report.parts.json_text import to_json
from ckpt_tool.training import LoadReport as Loaded

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.api.sides import Given
    from ckpt_tool.training.memory.handed import Loader


@dataclass(frozen=True, repr=False)
class LoadReport(Loaded):
    """What became of every key: `loaded` and `fresh` are the model's keys, `dropped` the source's;
    `changed` are those loaded whose values the model's own load hooks changed, `parameters` all
    keys of each parameter, in the model's order. `report.plan` has where each tensor came from.

    `print()` shows them folded into patterns, with the notes and the counts; a notebook with every
    key below its pattern.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 2))
    >>> source = {"weight": torch.ones(10, 4), "bias": torch.ones(10)}
    >>> report = ckpt_tool.load_into(model, source, rules="** -> 0.**", keep="1.*")
    >>> report.loaded, report.fresh
    (('0.weight', '0.bias'), ('1.weight', '1.bias'))
    >>> print(report)
    loaded   0.*  2
    fresh    1.*  2
    <BLANKLINE>
    2 loaded, 2 kept fresh, 0 dropped
    """

    def __str__(self) -> str:
        return load_text(self)

    def _repr_html_(self) -> str:
        from ckpt_tool.report.notebook.reprs import load_html

        return load_html(self, counts_line(self))

    @speaks_python
    def explain(self, key: str) -> str:
        """Where the tensor of one key came from, or went to, and by which rule. Raises InputError
        for a key of neither side.

        >>> import ckpt_tool, torch
        >>> model, source = torch.nn.Linear(4, 2), {"head.weight": torch.ones(2, 4)}
        >>> report = ckpt_tool.load_into(model, source, rules="head.** -> **", keep="bias")
        >>> print(report.explain("bias"))
        target bias (F32 2) keeps its own value
        """
        from ckpt_tool.library.mapping import explained

        return explained(self.plan, key)

    def to_json(self) -> str:
        """All of it as one line of JSON, with each step as `ckpt plan --json` has it."""
        return to_json(load_json(self))


@with_old_arguments
@speaks_python
def load_into(
    model: nn.Module,
    source: Given,
    *,
    rules: str | os.PathLike[str] | Sequence[str] | None = None,
    by: Method | None = None,
    drop: str | Sequence[str] | None = None,
    keep: str | Sequence[str] | None = None,
    partial: bool = False,
    expect: int | None = None,
    dtypes: DTypePolicy | str | None = None,
    params: Mapping[str, int] | None = None,
    min_confidence: float | None = None,
    health: bool = False,
    assign: bool = False,
    loader: Loader | None = None,
    options: MappingOptions | None = None,
) -> LoadReport:
    """Loads a checkpoint, a state dict or another module into a live model, and reports what was
    loaded, kept fresh (with its initial values) and dropped.

    Every key is loaded, or named as kept or dropped; else there is an error. By name, a head for
    another number of classes stays fresh by itself, if nothing else is left. The model may be
    wrapped in DataParallel, DistributedDataParallel or torch.compile; its inner module's keys
    count.

    Args:
        model: The module that is filled.
        source: A path or an address, an open checkpoint, a state dict or another module.
        rules: Rule files or names of shipped mappings, or rules of the form `SOURCE -> TARGET`.
        by: Without rules, how keys are paired: by "name" (the default), "position" or "auto".
        drop: Patterns of source keys that are not used.
        keep: Patterns of the model's keys that keep their values.
        partial: Whether other keys may be dropped and kept without being named.
        expect: How many keys are loaded, exactly; the others may be dropped and kept.
        dtypes: What to do where dtypes differ; "target" casts to the model's. An error by default.
        params: Numbers of the rules' parameters.
        min_confidence: The confidence that `by="auto"` needs for a pair.
        health: Whether to read the source's values first, as `ckpt_tool.health` does, and to raise
            FormatError where something is wrong with them.
        assign: Whether to map tensors that nothing changes from the file, and to read them when
            they are used. The file must then stay as it is.
        loader: What reads instead: called with the keys that are needed, it yields pairs of key and
            tensor, in any order and on any device (straight into an accelerator, for example).
        options: All of `MappingOptions` as one value.

    Raises RuleError with every problem before anything is loaded; its `next` are keyword arguments
    with which the call succeeds, if some are known. Raises InputError for a source or a model that
    can't be used.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 2))
    >>> backbone = {"weight": torch.ones(10, 4), "bias": torch.ones(10)}
    >>> report = ckpt_tool.load_into(model, backbone, rules="** -> 0.**", keep="1.*")
    >>> report
    LoadReport(2 loaded, 2 kept fresh, 0 dropped)
    >>> report.freeze(model)
    Frozen(2 parameters, 0 modules)
    """
    given = MappingOptions(
        rules=rules or (),  # type: ignore[arg-type]
        drop=drop or (),  # type: ignore[arg-type]
        keep=keep or (),  # type: ignore[arg-type]
        by=by,
        params=params or {},
        dtypes=dtype_policy(dtypes or "strict"),
        expect=expect,
        min_confidence=min_confidence,
        partial=partial,
    )
    options = _joined(options or MappingOptions(), given)
    found = loaded_into(model, source, options, health, assign, loader)
    return LoadReport(**{each.name: getattr(found, each.name) for each in fields(Loaded)})


def _joined(options: MappingOptions, more: MappingOptions) -> MappingOptions:
    """The same with what was given beside it. Raises InputError where the two say
    different things.
    """
    source, target = stated(options), stated(more)
    for name in source.keys() & target.keys():
        if source[name] != target[name]:
            raise InputError(name, "is given twice, by itself and in `options`")
    return MappingOptions(**{**source, **target})  # type: ignore[arg-type]
