"""The checkout stays as it is while tests run: files that are new in it fail the run, whatever .gitignore says of them."""

import os
import subprocess

import pytest

CACHES = ("__pycache__/", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", ".venv/", ".nox/")
BEFORE: pytest.StashKey[set[str]] = pytest.StashKey()
LEFT: pytest.StashKey[list[str]] = pytest.StashKey()


def files_beside_git(root) -> set[str]:
    """What git has not, a line each as `git status` prints it; where everything is set up anew, in CI, what was changed too."""
    command = ["git", "status", "--porcelain", "--ignored", "--untracked-files=all"]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    kinds = ("??", "!!", " M", " D") if os.environ.get("CI") else ("??", "!!")
    return {line for line in ran.stdout.splitlines() if line[:2] in kinds and not any(f"/{cache}" in f"/{line[3:]}" for cache in CACHES)}


def is_checked(config) -> bool:
    """In the process that starts the workers, and where there is a checkout."""
    return not hasattr(config, "workerinput") and (config.rootpath / ".git").exists() and not config.getoption("--update-golden", False)


def pytest_sessionstart(session) -> None:
    if is_checked(session.config):
        session.config.stash[BEFORE] = files_beside_git(session.config.rootpath)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session) -> None:
    if BEFORE in session.config.stash:
        left = sorted(files_beside_git(session.config.rootpath) - session.config.stash[BEFORE])
        session.config.stash[LEFT] = left
        if left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    if left := terminalreporter.config.stash.get(LEFT, []):
        terminalreporter.section("new in the checkout since the tests began: a test wrote outside of tmp_path")
        for line in left:
            terminalreporter.line(line)
