"""`when:` blocks: rules for files of several layouts, chosen by what their headers say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from ckpt_tool.mapping.assign import names_for_patterns
from ckpt_tool.mapping.rules import Block, Condition, RuleSet
from ckpt_tool.tensors import Catalog, TensorInfo


def with_blocks(rules: RuleSet, source: Catalog) -> RuleSet:
    """The rules for this source: those of all blocks whose conditions hold, before the others."""
    if not rules.blocks:
        return rules
    chosen = _chosen(rules.blocks, names_for_patterns(source, rules.strip))
    return replace(
        rules,
        blocks=(),
        rules=(*chain.from_iterable(block.rules for block in chosen), *rules.rules),
        drop=(*chain.from_iterable(block.drop for block in chosen), *rules.drop),
        keep=(*chain.from_iterable(block.keep for block in chosen), *rules.keep),
    )


def _chosen(blocks: Sequence[Block], names: Mapping[str, TensorInfo]) -> list[Block]:
    """The blocks of which all conditions hold."""
    return [block for block in blocks if all(_holds(each, names) for each in block.conditions)]


def _holds(condition: Condition, names: Mapping[str, TensorInfo]) -> bool:
    matching = (info for name, info in names.items() if condition.matcher.match(name) is not None)
    first = next(matching, None)
    if first is None or condition.kind in ("has", "lacks"):
        return (first is None) is (condition.kind == "lacks")
    return all(_is_as_wanted(info, condition) for info in chain([first], matching))


def _is_as_wanted(info: TensorInfo, condition: Condition) -> bool:
    match condition.kind:
        case "ndim":
            return len(info.shape) == condition.wanted
        case "dtype":
            return info.dtype is condition.wanted
        case _:
            return _has_shape(info, condition.wanted)


def _has_shape(info: TensorInfo, wanted: object) -> bool:
    """Whether each size is the wanted one; None stands for any."""
    assert isinstance(wanted, tuple)
    return len(info.shape) == len(wanted) and all(
        size in (None, real) for size, real in zip(wanted, info.shape, strict=True)
    )
