"""Opens files and calls the packages below, in order: what commands and scripts both call."""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.api.checks import (
        Checked,
        asked_by,
        beside_weights,
        check,
        import_mapping,
        invert,
        write_text,
    )
    from ckpt_tool.api.diffs import Comparison, diff_checkpoints, filtered
    from ckpt_tool.api.drafting import draft
    from ckpt_tool.api.loading import load_into
    from ckpt_tool.api.next_steps.answered import (
        after_check,
        after_diff,
        after_mappings,
        after_suggestion,
    )
    from ckpt_tool.api.next_steps.commands import WayOn, shipped_of
    from ckpt_tool.api.next_steps.refused import way_on, with_next
    from ckpt_tool.api.next_steps.unverified import way_to_verify
    from ckpt_tool.api.options import (
        DTypePolicy,
        Format,
        MappingOptions,
        Method,
        dtype_policy,
        size_of,
    )
    from ckpt_tool.api.outputs import map_checkpoint, refuse_as_target, rename, verify, write
    from ckpt_tool.api.planning import Planned, plan_checkpoint
    from ckpt_tool.api.remarks.hints import diff_hints
    from ckpt_tool.api.rule_files import (
        find_rules,
        mapping_folders,
        read_rules,
        rules_schema,
        shipped_mappings,
    )
    from ckpt_tool.api.shipped import ShippedMapping, mappings
    from ckpt_tool.api.sides import files_read, open_side, open_target
    from ckpt_tool.api.suggestions import suggest_rules
    from ckpt_tool.api.whole.form import Form, expected_bytes, form_of
    from ckpt_tool.api.whole.refused import asked_again, way_on_from

__all__ = [
    "Checked", "Comparison", "DTypePolicy", "Form", "Format", "MappingOptions", "Method", "Planned",
    "ShippedMapping", "WayOn", "after_check", "after_diff", "after_mappings",
    "after_suggestion", "asked_again", "asked_by", "beside_weights", "check", "diff_checkpoints",
    "diff_hints", "draft", "dtype_policy", "expected_bytes",
    "files_read", "filtered", "find_rules", "form_of", "import_mapping", "invert", "load_into",
    "map_checkpoint", "mapping_folders", "mappings", "open_side", "open_target", "plan_checkpoint",
    "read_rules", "refuse_as_target", "rename", "rules_schema", "shipped_mappings", "shipped_of",
    "size_of", "suggest_rules", "verify", "way_on", "way_on_from", "way_to_verify", "with_next",
    "write", "write_text",
]  # fmt: skip

__getattr__ = bind_on_use(__name__, {
    "checks": "Checked asked_by beside_weights check import_mapping invert write_text",
    "diffs": "Comparison diff_checkpoints filtered",
    "remarks.hints": "diff_hints",
    "drafting": "draft",
    "options": "DTypePolicy Format MappingOptions Method dtype_policy size_of",
    "loading": "load_into",
    "next_steps.commands": "WayOn shipped_of",
    "next_steps.refused": "way_on with_next",
    "next_steps.answered": "after_check after_diff after_mappings after_suggestion",
    "next_steps.unverified": "way_to_verify",
    "planning": "Planned plan_checkpoint",
    "outputs": "map_checkpoint refuse_as_target rename verify write",
    "rule_files": "find_rules mapping_folders read_rules rules_schema shipped_mappings",
    "shipped": "ShippedMapping mappings",
    "sides": "files_read open_side open_target",
    "suggestions": "suggest_rules",
    "whole.form": "Form expected_bytes form_of",
    "whole.refused": "asked_again way_on_from",
})  # fmt: skip
