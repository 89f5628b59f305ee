"""Show, compare and map neural-network checkpoints. One function for each command of `ckpt`.

    with ckpt_tool.open("run.pth") as checkpoint:             # what is in it? nothing is read yet
        print(checkpoint)
    print(ckpt_tool.diff("a.pth", model, values=True))        # what differs?
    print(ckpt_tool.suggest("a.pth", model).text)             # which rules lead there?
    ckpt_tool.map("a.pth", "b.pth", "out.safetensors", rules="rules.yaml")
    report = ckpt_tool.load_into(model, "a.pth", rules=["module.** -> **"])
    report.freeze(model)                                      # exactly what was loaded

A side is a path or an address, an open checkpoint, a state dict or a module. Each function's
docstring has its arguments, what it raises, and an example that runs. CONTRIBUTING.md has the map
of the code.

Names are bound on first use, so that `import ckpt_tool` costs nothing.
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
