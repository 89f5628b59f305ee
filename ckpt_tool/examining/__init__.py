"""Whether weights are healthy: what one pass over their values finds, and what their files and
their config.json contradict.
"""

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.health import Health, examine, examine_path

__all__ = ["Finding", "Health", "examine", "examine_path"]
