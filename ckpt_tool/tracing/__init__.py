"""Two networks on one input: do they compute the same, and where do they diverge?"""

from ckpt_tool.tracing.trace import Place, Trace, trace_models

__all__ = ["Place", "Trace", "trace_models"]
