"""Imports run downwards only, and packages on one line don't know each other."""

import ast
import re
import subprocess
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest

LAYERS = """
cli | library
report
api
tracing | integrations
training | importing | advising
engine | align
optimizers
mapping | comparing | examining
ops | formats | keys
torch_bridge
regions | watching
tensors
errors | wording | deprecated
"""

PACKAGE = Path(__file__).parent.parent / "ckpt_tool"
RANKS = {name.strip(): rank for rank, line in enumerate(LAYERS.split("\n")) for name in line.split("|") if name.strip()}


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ckpt_tool":
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ckpt_tool.")]


@pytest.mark.parametrize("path", [p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in RANKS], ids=str)
def test_imports_run_downwards(path):
    home = path.relative_to(PACKAGE).with_suffix("").parts[0]
    above = [part for part in imported_parts(path) if part in RANKS and part != home and RANKS[part] <= RANKS[home]]
    assert not above, f"{path.relative_to(PACKAGE)} imports {above}"


@pytest.mark.parametrize("name", ["ckpt_tool", "ckpt_tool.api", "ckpt_tool.engine", "ckpt_tool.mapping"])
def test_packages_that_bind_names_on_use_offer_all_that_they_list(name):
    package = import_module(name)
    assert [each for each in package.__all__ if not hasattr(package, each)] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_files_hold_one_idea():
    long = {str(p.relative_to(PACKAGE)): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 350}
    assert not long


def test_folders_are_looked_over_at_once():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not {str(folder): n for folder in folders if (n := len(list(folder.glob("*.py")))) > 14}


def public_functions(tree):
    """Functions and methods without a leading underscore that stand in no function and no private class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                yield node
        elif not isinstance(node, ast.ClassDef) or not node.name.startswith("_"):
            yield from public_functions(node)


def test_public_functions_say_what_they_give():
    found = [(path, each) for path in PACKAGE.rglob("*.py") for each in public_functions(ast.parse(path.read_text()))]
    without = [f"{path.relative_to(PACKAGE)}:{each.lineno} {each.name}" for path, each in found if not ast.get_docstring(each)]
    assert len(without) <= 0.02 * len(found), "\n".join(without)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported_modules(path):
    """The modules of the package that a file imports anywhere: at the top, in functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield from (full if (full := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def test_files_import_no_circle():
    imported = {name: set(imported_modules(path)) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


PACKAGES = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rooms_of_a_package_import_no_circle(package):
    """Its sub-packages; modules beside them count as modules of their own."""
    rooms = {name: set() for name in PACKAGES if name.rpartition(".")[0] == package}
    for room, (name, path) in product(rooms, MODULES.items()):
        if f"{name}.".startswith(f"{room}."):
            imported = set(imported_modules(path))
            rooms[room] |= {other for other in rooms if other != room and any(f"{each}.".startswith(f"{other}.") for each in imported)}
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_tests_name_every_module_of_align():
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.rglob("*.py"))
    modules = {name for name, path in MODULES.items() if name.startswith("ckpt_tool.align.") and path.name != "__init__.py"}
    assert {name for name in modules if not re.search(rf"{re.escape(name)}\b(?!\.)", tests)} == set()


ROOT_FILES = {
    ".gitignore", ".pre-commit-hooks.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "action.yml", "constraints.txt", "hatch_build.py",
    "mkdocs.yml", "noxfile.py", "pyproject.toml", "requirements-without-torch.txt",
}  # fmt: skip
MAX_BYTES = 1 << 20


def test_the_repository_holds_what_it_should_and_nothing_large():
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("no git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name for name in tracked if "/" not in name} == ROOT_FILES
    assert [name for name in tracked if (root / name).exists() and (root / name).stat().st_size > MAX_BYTES] == []


def test_files_that_contributing_names_exist():
    root = PACKAGE.parent
    text = (root / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.(?:py|yaml|json))?)`", text))
    missing = [name for name in named if not ((root / name).exists() or (PACKAGE / name).exists())]
    assert not missing
