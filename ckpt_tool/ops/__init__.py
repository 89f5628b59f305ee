"""What a rule may do to tensors: each op knows its result's shape without data, what undoes it, and
how to run.
"""

from ckpt_tool.ops.casts import Cast, losses
from ckpt_tool.ops.chain import (
    OPS,
    Each,
    infer_chain,
    invert_chain,
    ops_argument,
    parse_ops,
    run_chain,
    run_step,
    weakest,
)
from ckpt_tool.ops.combining import Split
from ckpt_tool.ops.copies import Copy
from ckpt_tool.ops.init import Init
from ckpt_tool.ops.op import Inverse, Labels, Op, OpError, TensorForm

__all__ = [
    "OPS",
    "Cast",
    "Copy",
    "Each",
    "Init",
    "Inverse",
    "Labels",
    "Op",
    "OpError",
    "Split",
    "TensorForm",
    "infer_chain",
    "invert_chain",
    "losses",
    "ops_argument",
    "parse_ops",
    "run_chain",
    "run_step",
    "weakest",
]  # fmt: skip
