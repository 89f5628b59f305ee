"""Whether ops make of the source's tensors exactly the target's: the planner's own plan of the
pair, run on its tensors.
"""

from __future__ import annotations

from ckpt_tool.align.by_values.fingerprints import DigestedTensors, read_as
from ckpt_tool.align.drafting.draft import draft_rules
from ckpt_tool.align.pairs import Pair
from ckpt_tool.errors import RuleError
from ckpt_tool.mapping import compile_plan, read_rule_text
from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.tensors import Catalog, TensorInfo


def is_proved(pair: Pair, source: DigestedTensors, target: DigestedTensors) -> bool:
    """Whether each target tensor results bit for bit. Costs reading them all."""
    from ckpt_tool.torch_bridge import to_bytes

    inputs = Catalog(
        TensorInfo(key, source.catalog[key].dtype, source.catalog[key].shape)
        for slot in pair.sources
        for key in slot
    )
    outputs = Catalog(target.catalog[key] for slot in pair.targets for key in slot)
    text = "rules:\n" + "".join(f"  - {line}\n" for line in draft_rules([pair], inputs))
    try:
        rules = read_rule_text(text, "drafted")
        (step,) = compile_plan(rules, inputs, outputs, dtypes="target").steps
        results = apply_step(step, [read_as(source, key, inputs[key].dtype) for key in step.inputs])
    except (RuleError, ValueError):
        return False
    return all(
        bytes(to_bytes(result)) == b"".join(target.chunks(key))
        and tuple(result.shape) == outputs[key].shape
        for key, result in zip(step.outputs, results, strict=True)
    )
