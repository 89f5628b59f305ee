"""Opens files and calls the packages below, in order: what commands and scripts both call."""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.api.checks import Checked, ShippedMapping, asked_by, check, import_mapping, invert, mappings, write_text
    from ckpt_tool.api.diffs import diff_checkpoints, diff_hints
    from ckpt_tool.api.how import DTypePolicy, How
    from ckpt_tool.api.plans import Planned, draft, load_into, map_checkpoint, open_target, planned, rename, verify, write
    from ckpt_tool.api.rule_files import find_rules, mapping_folders, read_rules, rules_schema, shipped_mappings
    from ckpt_tool.api.suggestions import suggest_rules

__all__ = [
    "Checked", "DTypePolicy", "How", "Planned", "ShippedMapping", "asked_by", "check", "diff_checkpoints", "diff_hints", "draft",
    "find_rules", "import_mapping", "invert", "load_into", "map_checkpoint", "mapping_folders", "mappings", "open_target", "planned",
    "read_rules", "rename", "rules_schema", "shipped_mappings", "suggest_rules", "verify", "write", "write_text",
]  # fmt: skip

__getattr__ = bind_on_use(__name__, {
    "checks": "Checked ShippedMapping asked_by check import_mapping invert mappings write_text",
    "diffs": "diff_checkpoints diff_hints",
    "how": "DTypePolicy How",
    "plans": "Planned draft load_into map_checkpoint open_target planned rename verify write",
    "rule_files": "find_rules mapping_folders read_rules rules_schema shipped_mappings",
    "suggestions": "suggest_rules",
})  # fmt: skip
