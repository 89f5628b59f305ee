"""What a rule may do to tensors: each op knows its result's shape without data, what undoes it, and how to run."""

from ckpt_tool.ops.chain import OPS, infer_chain, invert_chain, ops_argument, parse_ops, run_chain, run_step
from ckpt_tool.ops.op import Form, Inverse, Op, OpError

__all__ = ["OPS", "Form", "Inverse", "Op", "OpError", "infer_chain", "invert_chain", "ops_argument", "parse_ops", "run_chain", "run_step"]
