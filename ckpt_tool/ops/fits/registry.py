"""All fits by name, and a fit from a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckpt_tool.ops.fits.fit import Fit
from ckpt_tool.ops.fits.layers import Fresh, InputChannels, ResizePatch, Rows
from ckpt_tool.ops.fits.tables import ResizeBias, ResizeGrid
from ckpt_tool.ops.op import OpError

if TYPE_CHECKING:
    pass


FITS: dict[str, type[Fit]] = {
    "resize_grid": ResizeGrid,
    "resize_bias": ResizeBias,
    "resize_patch": ResizePatch,
    "input_channels": InputChannels,
    "rows": Rows,
    "fresh": Fresh,
}
"""All fits, by the names that rules use."""


def parse_fit(argument: object) -> Fit:
    """A fit from a rule: its name, or its name with an argument. Raises OpError."""
    if not isinstance(argument, str | Mapping):
        raise OpError("a fit is a name, or a name with an argument")
    given = argument if isinstance(argument, Mapping) else {argument: None}
    name = str(next(iter(given), None))
    if len(given) != 1 or name not in FITS:
        raise OpError(f"`{name}` is not a fit; there are {', '.join(FITS)}")
    return FITS[name].parse(given[name])
