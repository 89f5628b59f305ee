"""Outputs that a plan calls one tensor are one: else an output file would share their bytes, and one of them would be lost."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.ops import OpError, TensorForm, infer_chain, parse_ops, run_chain
from ckpt_tool.tensors import Catalog, DType, TensorInfo

LINKS = [
    {"split": 0}, {"split": -1}, {"split": 1}, {"copy": None}, {"cast": "F64"}, "transpose", {"unary": "neg"}, {"slice": {"dim": 0, "start": 1}},
    {"concat": 0}, {"concat": -1}, {"stack": 0}, "sum",
]  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(LINKS), min_size=1, max_size=5), st.integers(1, 3), st.integers(2, 3))
def test_equal_identities_are_equal_tensors(links, inputs, parts):
    ops = tuple(op.with_parts(parts) for link in links for op in parse_ops(link))
    tensors = [torch.randn(6, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(inputs)]
    try:
        infer_chain(ops, [TensorForm(DType.F32, (6, 12))] * inputs)
        made = run_chain(ops, tensors)
    except (ValueError, IndexError, RuntimeError, OpError):
        return  # ops that don't fit each other
    source = Catalog(TensorInfo(f"i{at}", DType.F32, (6, 12)) for at in range(inputs))
    outputs = tuple(f"o{at}" for at in range(len(made)))
    plan = Plan((Step(tuple(source), outputs, ops, Origin("rule")),), (), (), source, None)
    for (one, first), (other, second) in itertools.combinations(zip(outputs, made, strict=True), 2):
        if plan.identities[one] == plan.identities[other]:
            assert torch.equal(first, second), (links, one, other)
        elif {next(iter(link)) for link in links if isinstance(link, dict)} <= {"copy", "cast"}:
            assert not torch.equal(first, second), (links, one, other)
