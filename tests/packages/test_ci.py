"""What CI and releases are told: sessions that exist, the Pythons that the package names, notes out of the changelog."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
NOXFILE = (ROOT / "noxfile.py").read_text()
PYTHONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


def jobs():
    return yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"]


def test_pythons_of_the_package_are_those_of_nox_and_ci():
    assert f"PYTHONS = {PYTHONS}".replace("'", '"') in NOXFILE
    assert jobs()["tests"]["strategy"]["matrix"]["python"] == PYTHONS


def test_sessions_of_ci_exist():
    sessions = set(re.findall(r"^def (\w+)\(session", NOXFILE, re.MULTILINE))
    every = jobs()
    named = [session.split()[0] for session in every["checks"]["strategy"]["matrix"]["session"]]
    named += [each["session"] for each in every["versions"]["strategy"]["matrix"]["include"]]
    named += ["tests", "without_torch"]
    assert set(named) == sessions


def test_forms_and_workflows_are_yaml():
    paths = [*GITHUB.rglob("*.yml")]
    assert len(paths) >= 5
    for path in paths:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path


CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-12-01)\n\n- new things\n\n### Changed\n\n- more\n\n## 0.1.0\n\n- first\n"


def test_the_notes_of_a_release_are_its_section(monkeypatch):
    monkeypatch.syspath_prepend(GITHUB)
    from release_notes import notes

    assert notes("0.2.0", CHANGELOG) == "- new things\n\n### Changed\n\n- more"
    assert notes("0.1.0", CHANGELOG) == "- first"
    for missing in ("0.3.0", "Unreleased"):
        with pytest.raises(SystemExit, match="it has Unreleased"):
            notes(missing, CHANGELOG)


def test_a_release_of_another_version_than_the_package_is_refused():
    ran = subprocess.run([sys.executable, GITHUB / "release_notes.py", "99.0"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "the package is not 99.0: see `__version__` in ckpt_tool/__init__.py\n")
