"""`ckpt_tool.trace`: what `ckpt trace` says, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ckpt_tool.api import Method
from ckpt_tool.api.tracing.traces import plan_between
from ckpt_tool.api.tracing.traces import trace as traced
from ckpt_tool.errors import InputError
from ckpt_tool.library.notebook import PrintedInNotebooks
from ckpt_tool.library.options import options_from
from ckpt_tool.library.words import speaks_python
from ckpt_tool.mapping import Plan
from ckpt_tool.report.trace import answer_line, trace_text
from ckpt_tool.tracing import Trace

if TYPE_CHECKING:
    from torch import nn

    from ckpt_tool.training import LoadReport


@dataclass(frozen=True, repr=False)
class TraceReport(PrintedInNotebooks, Trace):
    """What became of two networks on one input; `print()` shows it as `ckpt trace` does.

    `is_same` is the answer, `place` where they diverge, `rows` all calls that were compared, `kept`
    the outputs that were asked for: `kept[0]["layer3.0"]` are those of the first network.
    """

    def __str__(self) -> str:
        return trace_text(self)

    def __repr__(self) -> str:
        return f"TraceReport({answer_line(self)})"


@speaks_python
def trace(
    model_a: nn.Module,
    model_b: nn.Module,
    inputs: object,
    plan: Plan | LoadReport | None = None,
    *,
    rules: str | os.PathLike[str] | Sequence[str] = (),
    by: Method | None = None,
    drop: str | Sequence[str] = (),
    keep_fresh: str | Sequence[str] = (),
    partial: bool = False,
    params: Mapping[str, int] | None = None,
    inputs_b: object = None,
    keep: str | Sequence[str] = (),
    train: bool = False,
    seed: int = 0,
) -> TraceReport:
    """Runs two networks on one input and finds the first place, in order of execution, where their
    outputs diverge.

    `plan` says which tensors of `model_b` correspond to which of `model_a`: a plan, or the report
    of `load_into(model_b, model_a, …)`; without it, one is made from `rules`, `by`, `drop`,
    `keep_fresh` (patterns of `model_b`'s keys that get nothing) and so on, as for `plan`.
    `inputs` is a tensor, a tuple of arguments or a dict of named ones; `inputs_b` what the second
    network takes, where that is something else. Both run in eval mode unless `train`, from the same
    random `seed`, without gradients, and are as before afterwards. `keep` are patterns of modules
    whose outputs are kept in full.

    Raises RuleError where the keys can't be mapped, InputError for a network that fails on its
    input.

    >>> import ckpt_tool, torch
    >>> from torch import nn
    >>> a = nn.Sequential(nn.Linear(4, 10), nn.LayerNorm(10, eps=1e-5), nn.Linear(10, 2))
    >>> b = nn.Sequential(nn.Linear(4, 10), nn.LayerNorm(10, eps=1e-2), nn.Linear(10, 2))
    >>> report = ckpt_tool.load_into(b, a)
    >>> found = ckpt_tool.trace(a, b, torch.ones(3, 4), report)
    >>> found
    TraceReport(different: they diverge in `1`; `eps` = 1e-05 (it is 0.01) makes the outputs agree)
    >>> found.place.findings
    ('verified: `eps` = 1e-05 (it is 0.01) makes the outputs agree',)
    """
    given = plan if plan is None or isinstance(plan, Plan) else plan.plan
    options = options_from(rules, drop, keep_fresh, by, partial, None, "target", params, None)
    if given is None:
        given = plan_between(model_a, model_b, options)
    elif rules or by or drop or keep_fresh or partial or params:
        raise InputError("plan", "is given, and rules to make one too", "give one of them")
    patterns = [keep] if isinstance(keep, str) else list(keep)
    found = traced(model_a, model_b, inputs, given, inputs_b, patterns, train, seed)
    return TraceReport(**{each.name: getattr(found, each.name) for each in fields(Trace)})
