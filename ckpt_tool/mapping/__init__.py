"""Rules, names and positions into plans: YAML → RuleSet; RuleSet × Catalog × Catalog → Plan, or
every problem.
"""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.mapping.accounting.dtypes import DTypePolicy
    from ckpt_tool.mapping.by_name import plan_by_name
    from ckpt_tool.mapping.by_position import plan_by_position
    from ckpt_tool.mapping.checking.analysis import find_notes
    from ckpt_tool.mapping.checking.check import check_rules
    from ckpt_tool.mapping.compile import compile_plan
    from ckpt_tool.mapping.inverting.invert import invert_rules
    from ckpt_tool.mapping.inverting.verdicts import InvertedRule, InvertedRules
    from ckpt_tool.mapping.params import read_config
    from ckpt_tool.mapping.plan import Origin, Plan, Step
    from ckpt_tool.mapping.reading.rule_file import (
        join_rule_sets,
        read_inline_rules,
        read_rule_files,
        read_rule_text,
    )
    from ckpt_tool.mapping.rules import Rule, RuleSet

__all__ = [
    "DTypePolicy",
    "InvertedRule",
    "InvertedRules",
    "Origin",
    "Plan",
    "Rule",
    "RuleSet",
    "Step",
    "check_rules",
    "compile_plan",
    "find_notes",
    "invert_rules",
    "join_rule_sets",
    "plan_by_name",
    "plan_by_position",
    "read_config",
    "read_inline_rules",
    "read_rule_files",
    "read_rule_text",
]

__getattr__ = bind_on_use(__name__, {
    "checking.analysis": "find_notes",
    "by_name": "plan_by_name",
    "by_position": "plan_by_position",
    "checking.check": "check_rules",
    "compile": "compile_plan",
    "accounting.dtypes": "DTypePolicy",
    "inverting.invert": "invert_rules",
    "inverting.verdicts": "InvertedRule InvertedRules",
    "params": "read_config",
    "plan": "Origin Plan Step",
    "reading.rule_file": "join_rule_sets read_inline_rules read_rule_files read_rule_text",
    "rules": "Rule RuleSet",
})  # fmt: skip
