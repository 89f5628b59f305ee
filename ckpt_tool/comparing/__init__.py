"""What differs between two checkpoints: keys, shapes, dtypes, and on request values."""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.comparing.catalogs import (
        READABLE,
        Diff,
        Entry,
        Kind,
        Uncompared,
        diff_catalogs,
    )
    from ckpt_tool.comparing.measure import Tolerance, Values
    from ckpt_tool.comparing.renames import Counterpart, diff_renamed
    from ckpt_tool.comparing.values import compare_all, compare_digests, compare_values

__all__ = [
    "READABLE", "Counterpart", "Diff", "Entry", "Kind", "Tolerance", "Uncompared", "Values",
    "compare_all", "compare_digests",
    "compare_values", "diff_catalogs", "diff_renamed",
]  # fmt: skip

__getattr__ = bind_on_use(__name__, {
    "catalogs": "READABLE Diff Entry Kind Uncompared diff_catalogs",
    "measure": "Tolerance Values",
    "renames": "Counterpart diff_renamed",
    "values": "compare_all compare_digests compare_values",
})  # fmt: skip
