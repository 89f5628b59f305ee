"""Where torch can't be imported, what needs it is skipped: a module of tests or a test that imports it, and a run that asks for arithmetic.

What the package itself imports stays as it is there: that it does without torch, or says what to install, is what such a run tests.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OF_TESTS = tuple(str(ROOT / folder) + "/" for folder in ("tests", "examples", "benchmarks", "docs"))
WITH_TORCH = {"torch", "torchvision", "timm", "transformers", "accelerate", "lightning", "pytorch_lightning"}


class SkipsItsImporter(MetaPathFinder):
    """Comes last: nobody has found the module."""

    def find_spec(self, name, path=None, target=None):
        if name in WITH_TORCH and importer().startswith(OF_TESTS):
            pytest.skip(f"{name} is not installed", allow_module_level=True)
        return


def importer() -> str:
    """The file whose import this is; that of `safetensors.torch` is its importer's."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.endswith(("safetensors/torch.py", "_bootstrap>", "_bootstrap_external>", "importlib/__init__.py")):
        frame = frame.f_back
    return frame.f_code.co_filename


def is_without_torch() -> bool:
    return importlib.util.find_spec("torch") is None


if is_without_torch():
    sys.meta_path.append(SkipsItsImporter())
