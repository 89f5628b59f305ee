"""What `--version` prints: our version, and with `-v` those of what the answers depend on."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from ckpt_tool import __version__

PACKAGES = (
    "torch", "numpy", "safetensors", "einops", "pyyaml", "typer", "rich", "blake3", "isal",
    "jinja2", "tabulate",
    "huggingface_hub", "fsspec", "transformers",
)  # fmt: skip


def versions_text(verbose: bool) -> str:
    """Our version; with `verbose` a line for the interpreter, the platform and each package, none
    of which is imported.
    """
    ours = f"ckpt {__version__}"
    if not verbose:
        return ours
    python = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    lines = {"python": python, "platform": platform.platform()}
    lines |= {name: _version_of(name) for name in PACKAGES}
    width = max(map(len, lines))
    return "\n".join([ours, *(f"{name:{width}}  {text}" for name, text in lines.items())])


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
