"""The site is built without a warning, and its generated pages are current."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def test_the_page_of_commands_is_what_the_help_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from commands import text

    pinned = re.search(r"^typer==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    if Version(version("typer")) < Version(pinned):
        pytest.skip(f"typer before {pinned} writes arguments in another way")
    assert (ROOT / "docs" / "commands.md").read_text() == text(), "run: python docs/commands.py"


def test_the_page_of_shipped_mappings_has_all_of_them(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from shipped_mappings import text

    page = (ROOT / "docs" / "mappings.md").read_text()
    assert page == text(), "run: python docs/shipped_mappings.py"
    assert page.count(".yaml` |") == len(list((ROOT / "mappings").glob("*.yaml")))


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": "", "NO_MKDOCS_2_WARNING": "1"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert all(f'id="ckpt_tool.{name}"' in api for name in ("open", "diff", "plan", "load_into", "FreezeSchedule", "RuleError"))
    assert 'href="https://github.com/OWNER/ckpt_tool/blob/main/examples/finetune_resnet18.py"' in (tmp_path / "site" / "training" / "index.html").read_text()
