"""Show, compare and map neural-network checkpoints: the library's door, and the map of its code.

    library    one function for each command, named as the command: what scripts call
    cli        what a user types: one file per command, no decisions
    report     a value in; text or JSON out
    api        opens files and calls the packages below, in order: what both doors call
    tracing    two networks on one input → the first place where they diverge
    integrations  callbacks for other libraries' training loops
    training   load into a live module, freeze and thaw what arrived, parameter groups
    importing  other libraries' tables of conversions as rule files
    advising   what is left of both sides: what may be dropped and kept, and what may not
    engine     runs a plan: byte ranges where nothing changes, torch where ops compute
    align      two sides' names, shapes and values → pairs → the fewest rules
    optimizers plan × an optimizer's state → where each slot comes from, through which ops
    mapping    YAML → RuleSet; RuleSet × Catalog × Catalog → Plan, or every problem
    comparing  Catalog × Catalog → Diff
    examining  the values of a checkpoint → what is wrong with them
    ops        what a rule may do to tensors: shapes, inverse, run
    formats    containers as bytes: torch zip, legacy torch, safetensors, sharded index, key list
    keys       the language of key names: parse, match, render; many keys → the fewest true patterns
    torch_bridge, tensors, errors, wording, lazy

Each imports only what stands below it. Names are bound on first use, so that `import ckpt_tool`
costs nothing.
"""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ckpt_tool.api import MappingOptions
    from ckpt_tool.comparing import Diff
    from ckpt_tool.errors import CkptError, FormatError, InputError, OutputError, Problem, RuleError
    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.library.addresses import addresses
    from ckpt_tool.library.comparing import diff
    from ckpt_tool.library.health import health
    from ckpt_tool.library.loading import LoadReport, load_into
    from ckpt_tool.library.mapping import map, plan
    from ckpt_tool.library.opened import open
    from ckpt_tool.library.rules import check, mappings, suggest, verify
    from ckpt_tool.library.scanning import scan
    from ckpt_tool.library.tracing import trace
    from ckpt_tool.mapping import Plan, RuleSet, Step
    from ckpt_tool.tensors import Catalog, DType, TensorInfo
    from ckpt_tool.training import FreezeSchedule, freeze, thaw

__all__ = [
    "Catalog", "Checkpoint", "CkptError", "DType", "Diff", "FormatError", "FreezeSchedule",
    "InputError", "LoadReport", "MappingOptions", "OutputError", "Plan", "Problem", "RuleError",
    "RuleSet", "Step", "TensorInfo", "addresses", "check", "diff", "freeze", "health", "load_into",
    "map", "mappings", "open", "plan", "scan", "suggest", "thaw", "trace", "verify",
]  # fmt: skip


_named = bind_on_use(__name__, {
    "tensors": "Catalog DType TensorInfo",
    "errors": "CkptError FormatError InputError OutputError Problem RuleError",
    "formats": "Checkpoint",
    "mapping": "Plan RuleSet Step",
    "comparing": "Diff",
    "api": "MappingOptions",
    "training": "FreezeSchedule freeze thaw",
    "library.addresses": "addresses",
    "library.comparing": "diff",
    "library.health": "health",
    "library.loading": "LoadReport load_into",
    "library.mapping": "map plan",
    "library.opened": "open",
    "library.rules": "check mappings suggest verify",
    "library.scanning": "scan",
    "library.tracing": "trace",
})  # fmt: skip


def __getattr__(name: str) -> object:
    from ckpt_tool.deprecated import RENAMED, old_name

    return old_name(name) if name in RENAMED else _named(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
