"""Every example in a docstring is run, with torch where it needs torch, in a folder of its own."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest
from without_torch import is_without_torch

import ckpt_tool

PACKAGE = Path(__file__).parent.parent / "ckpt_tool"


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


WITH_EXAMPLES = sorted(module_of(path) for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.skipif(is_without_torch(), reason="examples make their files with torch")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert not failed
    assert tried


def test_every_public_name_has_an_example():
    assert [name for name in ckpt_tool.__all__ if ">>> " not in (inspect.getdoc(getattr(ckpt_tool, name)) or "")] == []


def test_no_module_shadows_a_public_name():
    """`import ckpt_tool.NAME` would put a module in the place of the function."""
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules & set(ckpt_tool.__all__) == set()


@pytest.mark.skipif(is_without_torch(), reason="examples make their files with torch")
@pytest.mark.parametrize("page", ["python.md"])
def test_the_examples_of_the_docs_are_true(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed, tried = doctest.testfile(str(PACKAGE.parent / "docs" / page), module_relative=False, optionflags=options, encoding="utf-8")
    assert not failed
    assert tried
