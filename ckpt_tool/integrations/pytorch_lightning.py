"""A callback for `pytorch_lightning`.

from ckpt_tool.integrations.pytorch_lightning import FreezeCallback

trainer = Trainer(callbacks=[FreezeCallback(ckpt_tool.FreezeSchedule({0: "head.**", 3: "**"}))])
"""

from __future__ import annotations

from pytorch_lightning import Callback

from ckpt_tool.integrations.lightning_loop import FollowingLightning


class FreezeCallback(FollowingLightning, Callback):  # type: ignore[misc]
    __doc__ = FollowingLightning.__doc__
