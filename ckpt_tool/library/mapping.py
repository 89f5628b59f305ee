"""`ckpt_tool.plan` and `ckpt_tool.map`: what `ckpt plan` says and `ckpt map` does, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from ckpt_tool.api import (
    DTypePolicy,
    Format,
    MappingOptions,
    Method,
    Planned,
    form_of,
    open_side,
    plan_checkpoint,
    size_of,
    with_next,
    write,
)
from ckpt_tool.engine import Written
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.library.notebook import PrintedInNotebooks
from ckpt_tool.library.options import options_from
from ckpt_tool.library.words import in_python, speaks_python
from ckpt_tool.mapping import Plan
from ckpt_tool.report.map import written_text
from ckpt_tool.report.parts.style import size_text
from ckpt_tool.report.plan import PlanNames, plan_names, plan_text, unknown_key, why_text
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    import os

    import torch
    from torch import nn

    from ckpt_tool.api.sides import Given
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.optimizers.saved import Form
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.training.optimizers.state import Given as GivenOptimizer
    from ckpt_tool.training.optimizers.state import OptimizerState


def explained(plan: Plan, key: str) -> str:
    """Why one key of either side goes where it goes. Raises InputError for a key of neither."""
    lines = why_text(plan, key)
    if not lines:
        raise unknown_key(plan.source, plan.target, key, "explain")
    return in_python("\n".join(lines))


@dataclass(frozen=True, slots=True, repr=False)
class MapReport(PrintedInNotebooks, Written):
    """The checkpoint that was written; `print()` shows it as `ckpt map` does. `plan` says what
    became of every key.
    """

    plan: Plan = field(kw_only=True)
    text: str = field(kw_only=True)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return (
            f"MapReport({self.path!r}, {plural(self.tensors, 'tensor')}, {size_text(self.nbytes)})"
        )


@dataclass(frozen=True, repr=False)
class PlanReport(Plan):
    """What becomes of every key of both sides; `print()` shows it as `ckpt plan` does.

    `steps`, `dropped` and `kept` account for every key once, `counts` sums them up; `apply` and
    `write` do what it says.
    """

    sides: tuple[Given | None, Given | None] = field(default=(None, None), kw_only=True)
    options: MappingOptions = field(default_factory=MappingOptions, kw_only=True)
    names: PlanNames = field(default_factory=lambda: PlanNames("source", None), kw_only=True)

    def __str__(self) -> str:
        return plan_text(self, self.names)

    def _repr_html_(self) -> str:
        from ckpt_tool.report.notebook.reprs import plan_html

        return plan_html(self, self.names.unnamed)

    def __repr__(self) -> str:
        return f"PlanReport({', '.join(f'{count} {kind}' for kind, count in self.counts.items())})"

    @speaks_python
    def explain(self, key: str) -> str:
        """Why one key of either side goes where it goes. Raises InputError for a key of neither.

        >>> import ckpt_tool, torch
        >>> plan = ckpt_tool.plan({"net.weight": torch.ones(2)}, rules="net.** -> **")
        >>> print(plan.explain("net.weight"))
        source net.weight (F32 2) goes to weight, by rules:1 `net.** -> **`
        """
        return explained(self, key)

    @speaks_python
    def apply(self, source: Given) -> dict[str, torch.Tensor]:
        """The target's state dict, made of a source's: mapped tensors from it, kept ones from the
        target, in the target's order and each in memory of its own. The source may be a state dict,
        a module, a path or an open checkpoint.

        Raises InputError where it is not the source that was planned for: a key, a shape or a dtype
        is another.

        >>> import ckpt_tool, torch
        >>> source = {"net.weight": torch.ones(2)}
        >>> ckpt_tool.plan(source, rules="net.** -> **").apply(source)
        {'weight': tensor([1., 1.])}
        """
        from ckpt_tool.engine import output_tensors

        with open_side(source) as opened, self._opened_target() as target:
            _check_same(self.source, opened.catalog, opened.path)
            if target is not None and self.target is not None:
                _check_same(self.target, target.catalog, target.path)
            return output_tensors(self, opened, target)

    @speaks_python
    def optimizer_state(
        self,
        given: GivenOptimizer,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        fresh: Sequence[str] = (),
        names: Sequence[str] | Sequence[Sequence[str]] | None = None,
        form: Form | None = None,
    ) -> OptimizerState:
        """The state of the source's optimizer, moved as its parameters are: what
        `LoadReport.optimizer_state` gives, with the same arguments, and without a model that is
        loaded.

        Raises RuleError with every parameter whose state has no exact way, InputError where it is
        not certain which parameter is which.
        """
        from ckpt_tool.training.optimizers.state import optimizer_state

        return optimizer_state(self, given, model, optimizer, fresh, names, form)

    @contextmanager
    def _opened_target(self) -> Iterator[TensorSource | None]:
        if self.target is None:
            yield None
            return
        with plan_checkpoint(*self.sides, self.options) as planned:
            yield planned.target

    @speaks_python
    def write(
        self,
        output: str | os.PathLike[str],
        *,
        force: bool = False,
        checksum: bool = False,
        max_shard_size: int | str | None = None,
        to: Format | None = None,
        whole: bool = False,
        only_weights: bool = False,
        also: str | Sequence[str] = (),
        fresh_optimizer: str | Sequence[str] = (),
        optimizer_order: Given | None = None,
    ) -> MapReport:
        """Writes what it says, complete or not at all: a file, or with `max_shard_size` (bytes, or
        `"5GB"`) a folder of safetensors files and an index; `to="dcp"` a folder for
        torch.distributed.checkpoint.

        `force` replaces what is there, `checksum` asks for the SHA-256 of what is written; `whole`,
        `only_weights`, `also`, `fresh_optimizer` and `optimizer_order` are those of `map`. Raises
        OutputError for what can't be written, InputError where a side is no longer what was
        planned for.

        >>> import ckpt_tool, torch
        >>> plan = ckpt_tool.plan({"net.weight": torch.ones(2)}, rules="net.** -> **")
        >>> plan.write("out.safetensors")
        MapReport('out.safetensors', 1 tensor, ... B)
        """
        form = form_of(whole, only_weights, also, fresh_optimizer, optimizer_order)
        size = size_of(max_shard_size)
        with plan_checkpoint(*self.sides, self.options) as planned:
            _check_same(self.source, planned.source.catalog, planned.source.path)
            _check_target(self, planned)
            written = write(planned, output, force, checksum, size, to=to, form=form)
            return _reported(written, planned)


@speaks_python
def plan(
    source: Given | None,
    target: Given | None = None,
    *,
    rules: str | os.PathLike[str] | Sequence[str] = (),
    by: Method | None = None,
    drop: str | Sequence[str] = (),
    keep: str | Sequence[str] = (),
    partial: bool = False,
    expect: int | None = None,
    dtypes: DTypePolicy | str = "strict",
    params: Mapping[str, int] | None = None,
    min_confidence: float | None = None,
) -> PlanReport:
    """Says what becomes of every key of both sides, and writes nothing.

    `source` and `target` are paths, open checkpoints, state dicts or modules; either may be left
    to the rule file. `rules` are rule files, shipped mappings, or rules `SOURCE -> TARGET`; without
    them, keys pair `by` name (the default), position or alignment (`auto`). `drop` and `keep` are
    patterns of source keys to leave behind and of target keys that keep their values; every other
    key is mapped, or there is an error, unless `partial` says that the rest may stay, or `expect`
    how many are mapped, exactly. `dtypes` says what happens where dtypes differ: `strict` (a
    problem), `target` (casts to the target's), `source` (leaves them), or the dtype that all floats
    become, as `torch.bfloat16`, its name or a `ckpt_tool.DType`. `params` are the numbers that
    rules name, `min_confidence` (0 to 1, default 0.9) is what a pair by alignment needs.

    Raises RuleError with every problem, whose `next` are keyword arguments with which the call
    succeeds, if some are known; InputError, FormatError.

    >>> import ckpt_tool, torch
    >>> source = {"module.weight": torch.ones(10, 4), "module.bias": torch.ones(10)}
    >>> plan = ckpt_tool.plan(source, torch.nn.Linear(4, 10), rules=["module.** -> **"])
    >>> plan
    PlanReport(2 mapped, 0 kept, 0 dropped)
    >>> print(plan.explain("weight"))
    target weight (F32 10×4) comes from module.weight, by rules:1 `module.** -> **`
    >>> sorted(plan.apply(source))
    ['bias', 'weight']
    """
    options = options_from(rules, drop, keep, by, partial, expect, dtypes, params, min_confidence)
    with plan_checkpoint(source, target, options) as planned:
        names = plan_names(*planned.labels, planned.rules, by, options.rest_stays)
        made = _checked(planned, options)
        plain = {each.name: getattr(made, each.name) for each in fields(Plan)}
        return PlanReport(**plain, sides=(source, target), options=options, names=names)


@speaks_python
def map(
    source: Given | None = None,
    target: Given | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    rules: str | os.PathLike[str] | Sequence[str] = (),
    by: Method | None = None,
    drop: str | Sequence[str] = (),
    keep: str | Sequence[str] = (),
    partial: bool = False,
    expect: int | None = None,
    dtypes: DTypePolicy | str = "strict",
    params: Mapping[str, int] | None = None,
    min_confidence: float | None = None,
    force: bool = False,
    checksum: bool = False,
    max_shard_size: int | str | None = None,
    to: Format | None = None,
    whole: bool = False,
    only_weights: bool = False,
    also: str | Sequence[str] = (),
    fresh_optimizer: str | Sequence[str] = (),
    optimizer_order: Given | None = None,
) -> MapReport:
    """Maps a source onto a target's keys and writes the result, complete or not at all.

    The arguments of the mapping are those of `plan`. `output` ends in .safetensors, .pth, .pt,
    .bin, .ckpt or .pkl, or `to` gives the format. With `max_shard_size` (bytes, or `"5GB"`) it is a
    folder; with "dcp", one that torch.distributed.checkpoint loads. A rule file may name the
    source, the target and the output. `force` replaces an existing output, `checksum` asks for the
    SHA-256 of the new one.

    Without a target, or with a training checkpoint as the target, a training checkpoint is written
    as a whole: the weights mapped, everything else unchanged. `whole` asks for that with any
    target, `only_weights` for the bare state dict. `also` names other copies of the weights in the
    source (`#ema`), which are mapped in the same way. Optimizers follow the plan, except for
    parameters that match `fresh_optimizer`, which begin without a state. `optimizer_order` is the
    source's model, or anything with its keys in the model's order, if the source's are sorted.

    Costs one pass over the bytes that move; torch is imported only where ops compute. Raises
    RuleError as `plan` does, and OutputError for what can't be written.

    >>> import ckpt_tool, torch
    >>> source = {"module.weight": torch.ones(10, 4), "module.bias": torch.ones(10)}
    >>> report = ckpt_tool.map(source, torch.nn.Linear(4, 10), "out.pth", rules="module.** -> **")
    >>> print(report)
    wrote out.pth: 2 tensors, 1.8 kB
    >>> torch.load("out.pth")["weight"].sum()
    tensor(40.)
    """
    options = options_from(rules, drop, keep, by, partial, expect, dtypes, params, min_confidence)
    form = form_of(whole, only_weights, also, fresh_optimizer, optimizer_order)
    size = size_of(max_shard_size)
    with plan_checkpoint(source, target, options) as planned:
        _checked(planned, options)
        written = write(planned, output, force, checksum, size, to=to, form=form)
        return _reported(written, planned)


def _checked(planned: Planned, options: MappingOptions) -> Plan:
    """The plan. Raises RuleError with what is known of a way on."""
    if planned.plan is None:
        error = RuleError(planned.problems, planned.tally)
        raise with_next(error, planned.source, planned.target, options)
    return planned.plan


def _reported(written: Written, planned: Planned) -> MapReport:
    text = written_text(written, *planned.left_behind, planned.layouts)
    plain = {each.name: getattr(written, each.name) for each in fields(Written)}
    return MapReport(**plain, plan=planned.checked(), text=text)


def _check_target(plan: Plan, planned: Planned) -> None:
    if planned.target is not None and plan.target is not None:
        _check_same(plan.target, planned.target.catalog, planned.target.path)


def _check_same(planned: Catalog, found: Catalog, path: str) -> None:
    """Raises InputError where a side is not what was planned for."""
    missing = next((key for key in planned if key not in found), None)
    added = next((key for key in found if key not in planned), None)
    if missing is not None or added is not None:
        fact = f"lacks `{missing}`" if missing is not None else f"has `{added}`"
        raise InputError(path, f"{fact}: it is not what was planned for", "plan again")
    for key, info in planned.items():
        if (info.dtype, info.shape) != (found[key].dtype, found[key].shape):
            fact = f"`{key}` is of another shape or dtype than was planned for"
            raise InputError(path, fact, "plan again")
