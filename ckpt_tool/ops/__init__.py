"""What a rule may do to tensors: each op knows its result's shape without data, what undoes it, and
how to run.
"""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.ops.casts import Cast, can_cast, losses
    from ckpt_tool.ops.chain import (
        OPS,
        Each,
        invert_chain,
        ops_argument,
        parse_ops,
        run_chain,
        run_step,
        weakest,
    )
    from ckpt_tool.ops.combining import Split
    from ckpt_tool.ops.copies import Copy
    from ckpt_tool.ops.fits.fit import Fit
    from ckpt_tool.ops.init import Init
    from ckpt_tool.ops.op import Inverse, Labels, Op, OpError, TensorForm, infer_chain

__all__ = [
    "OPS",
    "Cast",
    "Copy",
    "Each",
    "Fit",
    "Init",
    "Inverse",
    "Labels",
    "Op",
    "OpError",
    "Split",
    "TensorForm",
    "can_cast",
    "infer_chain",
    "invert_chain",
    "losses",
    "ops_argument",
    "parse_ops",
    "run_chain",
    "run_step",
    "weakest",
]  # fmt: skip

__getattr__ = bind_on_use(__name__, {
    "casts": "Cast can_cast losses",
    "chain": "OPS Each invert_chain ops_argument parse_ops run_chain run_step weakest",
    "combining": "Split",
    "copies": "Copy",
    "fits.fit": "Fit",
    "init": "Init",
    "op": "Inverse Labels Op OpError TensorForm infer_chain",
})  # fmt: skip
