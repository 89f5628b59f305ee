"""The check that holds the checkout clean: a file that a test leaves fails the run, ignored by git or not, with workers or without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAVES = "from pathlib import Path\ndef test_it(tmp_path):\n    Path({name!r}).write_text('')\n"


def pytest_in(folder, *options):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "clean_tree", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path):
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm x --allow-empty"):
        (tmp_path / ".gitignore").write_text("*.pth\n__pycache__/\n.pytest_cache/\n")
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(("name", "options"), [("left.txt", ()), ("left.pth", ("-n", "1"))])
def test_a_file_that_is_left_behind_fails_the_run(checkout, name, options):
    (checkout / "test_it.py").write_text(LEAVES.format(name=name))
    ran = pytest_in(checkout, *options)
    assert ran.returncode == 1
    assert [line for line in ran.stdout.splitlines() if name in line] == [f"{'!!' if name.endswith('pth') else '??'} {name}"]


def test_a_clean_run_passes(checkout):
    (checkout / "test_it.py").write_text("def test_it():\n    pass\n")
    ran = pytest_in(checkout)
    assert (ran.returncode, "new in the checkout" in ran.stdout) == (0, False)
