"""`when:` blocks: rules for files that come in several layouts, chosen by what their headers say."""

from dataclasses import replace

from ckpt_tool.mapping.assign import strip_prefixes
from ckpt_tool.mapping.rules import Condition, RuleSet
from ckpt_tool.tensors import Catalog, TensorInfo


def with_blocks(rules: RuleSet, source: Catalog) -> RuleSet:
    """The rules for this source: those of all blocks whose conditions hold, before the others."""
    if not rules.blocks:
        return rules
    names = {strip_prefixes(key, rules.strip): info for key, info in source.items()}
    chosen = [block for block in rules.blocks if all(_holds(condition, names) for condition in block.conditions)]
    return replace(
        rules,
        blocks=(),
        rules=(*(rule for block in chosen for rule in block.rules), *rules.rules),
        drop=(*(selector for block in chosen for selector in block.drop), *rules.drop),
        keep=(*(selector for block in chosen for selector in block.keep), *rules.keep),
    )


def _holds(condition: Condition, names: dict[str, TensorInfo]) -> bool:
    matching = [info for name, info in names.items() if condition.matcher.match(name) is not None]
    match condition.kind:
        case "has":
            return bool(matching)
        case "lacks":
            return not matching
        case "ndim":
            return bool(matching) and all(len(info.shape) == condition.wanted for info in matching)
        case "dtype":
            return bool(matching) and all(info.dtype is condition.wanted for info in matching)
        case _:
            return bool(matching) and all(_has_shape(info, condition.wanted) for info in matching)


def _has_shape(info: TensorInfo, wanted: object) -> bool:
    """Whether each size is the wanted one; None stands for any."""
    assert isinstance(wanted, tuple)
    return len(info.shape) == len(wanted) and all(size in (None, real) for size, real in zip(wanted, info.shape, strict=True))
