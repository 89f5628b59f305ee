"""Everything that must pass, on every Python: `nox -l` lists it, `nox -s tests-3.13` runs one part.

What a session needs is installed in an environment of its own; on Linux `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` spares
the torch with CUDA.
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests-3.11", "without_torch-3.11", "wheel"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
PINNED = ("-c", "constraints.txt")


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """The rules of ruff, and its format for the package."""
    session.install(*PINNED, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check", "ckpt_tool")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """Types of the package and of the tests; `-- --platform darwin ckpt_tool` checks the package for macOS."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, with the versions of constraints.txt where these exist for this Python."""
    is_pinned = session.python in ("3.10", "3.11", "3.12", "3.13")
    session.install(*(PINNED if is_pinned else ()), "-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """All tests with the lowest versions that pyproject.toml allows, those of the tests included."""
    if session.venv_backend != "uv":
        session.error("only uv installs the lowest versions: pip install uv")
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """All tests with the newest versions of everything, previews of torch aside."""
    session.install("--upgrade", "-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python=PYTHONS)
def without_torch(session: nox.Session) -> None:
    """What needs no tensor arithmetic, in an environment without torch."""
    session.install("-r", "requirements-without-torch.txt", "pip", "safetensors>=0.8", "pytest", "pytest-xdist", "hypothesis", "jsonschema", "hatchling", "tomli", "ml_dtypes")
    session.install("--no-deps", ".")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)  # what needs torch is skipped
    session.chdir(session.create_tmp())
    session.run("ckpt", "--version", "-v")
    session.run("python", "-c", MAKE_FILE)
    for line in ("show a.safetensors", "diff a.safetensors a.safetensors --values", "map a.safetensors -e '** -> net.**' -o b.pth -f"):
        session.run("sh", "-c", f"ckpt {line}", external=True)
    session.run("ckpt", "map", "a.safetensors", "a.safetensors", "--dtype", "BF16", "-o", "c.pth", success_codes=[2])


MAKE_FILE = "from safetensors.numpy import save_file; import numpy; save_file({'a.weight': numpy.ones((2, 3), 'f4')}, 'a.safetensors')"


@nox.session(python="3.11")
def wheel(session: nox.Session) -> None:
    """The sdist, the wheel from it, and what both say of themselves; they are left in dist/."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *(str(path) for path in Path("dist").iterdir()))


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The documentation's snippets, run."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("pytest", "tests/test_docs.py", "tests/test_cookbook.py", "tests/test_compare_docs.py", "tests/test_doctests.py", *session.posargs)
