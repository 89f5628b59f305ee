"""Show, compare and map neural-network checkpoints: the library's door, and the map of its code.

    cli        what a user types: one file per command, no decisions report     a value in; text or
    JSON out api        opens files and calls the packages below, in order training   load into a
    live module, freeze what arrived, parameter groups engine     runs a plan: byte ranges where
    nothing changes, torch where ops compute; atomic writing mapping    YAML → RuleSet; RuleSet ×
    Catalog × Catalog → Plan, or every problem comparing  Catalog × Catalog → Diff ops        what a
    rule may do to tensors: shapes, inverse, run formats    containers as bytes: torch zip, legacy
    torch, safetensors, sharded index, key list keys       the language of key names: parse, match,
    render; many keys → the fewest true patterns torch_bridge, tensors, errors, lazy

Each imports only what stands below it. Names are bound on first use, so that `import ckpt_tool`
costs nothing.
"""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ckpt_tool.api import (
        MappingOptions,
        diff_checkpoints,
        load_into,
        map_checkpoint,
        plan_checkpoint,
    )
    from ckpt_tool.comparing import Diff
    from ckpt_tool.errors import CkptError, FormatError, InputError, OutputError, Problem, RuleError
    from ckpt_tool.formats import Checkpoint, open_checkpoint
    from ckpt_tool.mapping import Plan, RuleSet, Step
    from ckpt_tool.tensors import Catalog, DType, TensorInfo
    from ckpt_tool.training import LoadReport, freeze

__all__ = [
    "Catalog",
    "Checkpoint",
    "CkptError",
    "DType",
    "Diff",
    "FormatError",
    "InputError",
    "LoadReport",
    "MappingOptions",
    "OutputError",
    "Plan",
    "Problem",
    "RuleError",
    "RuleSet",
    "Step",
    "TensorInfo",
    "diff_checkpoints",
    "freeze",
    "load_into",
    "map_checkpoint",
    "open_checkpoint",
    "plan_checkpoint",
]  # fmt: skip


__getattr__ = bind_on_use(__name__, {
    "tensors": "Catalog DType TensorInfo",
    "errors": "CkptError FormatError InputError OutputError Problem RuleError",
    "formats": "Checkpoint open_checkpoint",
    "mapping": "Plan RuleSet Step",
    "comparing": "Diff",
    "api": "MappingOptions diff_checkpoints load_into map_checkpoint plan_checkpoint",
    "training": "LoadReport freeze",
})  # fmt: skip


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
