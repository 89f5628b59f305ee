"""What holds of whatever is shown or said, for any input; and the keys that fuzzed rules are compiled for."""

from ckpt_tool.errors import CkptError, RuleError
from ckpt_tool.report.parts.problems import error_text
from ckpt_tool.report.parts.style import safe
from ckpt_tool.tensors import Catalog, DType, TensorInfo


class Misread(Exception):
    """We and the reference both read a file, and differ."""


def check_shown(text: str) -> None:
    assert all(safe(line) == line for line in text.split("\n")), "a control character would reach the terminal"


def check_error(error: CkptError) -> None:
    text = error_text(error)
    check_shown(text)
    assert isinstance(error, RuleError) or "\n" not in text, "an error of several lines"
    assert isinstance(error, RuleError) or len(text) < 2000, "an error that is too long"


CATALOG = Catalog(
    TensorInfo(key, DType.F32, (4, 4))
    for key in ("layer1.0.conv1.weight", "layer1.0.bn1.weight", "fc.weight", "fc.bias", "blocks.0.attn.qkv.weight", "module.x", "a1.2", "x.q.w", "é")
)  # fmt: skip
