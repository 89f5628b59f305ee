"""Lossy adaptations to the target's shape: another image size, patch size, number of input
channels, classes or tokens.

They are kept apart from the ops, which report what they lose.
"""

from ckpt_tool.ops.fits.fit import Fit
from ckpt_tool.ops.fits.layers import Fresh
from ckpt_tool.ops.fits.registry import FITS, parse_fit
from ckpt_tool.ops.fits.tables import ResizeGrid

__all__ = ["FITS", "Fit", "Fresh", "ResizeGrid", "parse_fit"]
