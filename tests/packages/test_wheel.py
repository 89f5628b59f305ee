"""The wheel, built from the sdist and installed where no checkout and no torch is: what is in it, what it runs, what it says of the rest."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from datetime import datetime, timezone
from importlib.metadata import distribution
from pathlib import Path

import numpy
import pytest
from packaging.requirements import Requirement
from running import ckpt
from safetensors.numpy import save_file

from ckpt_tool import __version__
from ckpt_tool.cli.app import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
LIGHT = ROOT / "requirements-without-torch.txt"
PROGRAMS = ("ckpt", "ckpt-tool", "hf-ckpt")


def run(*command, cwd, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "_CKPT_COMPLETE")}
    return subprocess.run([*map(str, command)], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Built from the sdist alone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    made = run(*build, "-t", "sdist", cwd=ROOT)
    assert made.returncode == 0, made.stderr
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    made = run(*build, "-t", "wheel", cwd=folder / f"ckpt_tool-{__version__}")
    assert made.returncode == 0, made.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The folder of programs of an environment with the wheel and what it needs but torch."""
    folder = tmp_path_factory.mktemp("installed")
    venv.EnvBuilder(symlinks=True).create(folder)
    made = run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q", "--no-index", "--no-deps", wheel, cwd=folder)
    assert made.returncode == 0, made.stderr
    packages = next(folder.glob("lib/python*/site-packages"))
    for name in with_what_they_need(requirements()):
        for path in {path.parts[0] for path in distribution(name).files or () if path.parts[0] != ".."}:
            (packages / path).symlink_to(distribution(name).locate_file(path))
    return folder / "bin"


def requirements():
    return [Requirement(line) for line in LIGHT.read_text().splitlines() if not line.startswith("#")]


def with_what_they_need(found):
    names = set()
    left = list(found)
    while left:
        one = left.pop()
        if one.name not in names and (one.marker is None or one.marker.evaluate({"extra": ""})):
            names.add(one.name)
            left += map(Requirement, distribution(one.name).requires or ())
    return names


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of one network, seeded; written without torch, so that Pythons that have none run this too."""
    generator = numpy.random.default_rng(0)
    state = {f"layer{i}.{name}": generator.standard_normal(shape, "f4") for i in range(3) for name, shape in (("weight", (4, 4)), ("bias", (4,)))}
    for name, tensors in (("a", state), ("b", {f"net.{key}": value + 1 for key, value in state.items()})):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        assert ckpt("map", f"{name}.safetensors", "-e", "** -> **", "-o", f"{name}.pth", "-q", cwd=tmp_path).status == 0
    return tmp_path


def test_the_list_without_torch_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [str(each) for each in requirements()]
    assert listed == [str(Requirement(each)) for each in project["dependencies"] if Requirement(each).name != "torch"]


FOR_USERS = {"safetensors"}
"""What is installed for those who use our files in Python, and not imported by the package."""


def test_each_package_that_is_required_is_imported_somewhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {{"pyyaml": "yaml"}.get(name, name) for name in (Requirement(each).name for each in project["dependencies"])}
    nodes = [node for path in (ROOT / "ckpt_tool").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    assert required - imported == FOR_USERS


def test_a_wheel_has_mappings_schema_types_pages_and_completions(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = f"ckpt_tool-{__version__}.data/data/share"
    assert {f"ckpt_tool/mappings/{path.name}" for path in (ROOT / "mappings").iterdir()} <= names
    in_git = subprocess.run(["git", "ls-files", "ckpt_tool"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert {"ckpt_tool/py.typed", "ckpt_tool/mappings/rules.schema.json", *in_git} <= names
    assert {f"{data}/man/man1/ckpt.1", f"{data}/man/man1/ckpt-diff.1", f"{data}/bash-completion/completions/ckpt-tool"} <= names
    assert {f"{data}/zsh/site-functions/_ckpt", f"{data}/fish/vendor_completions.d/ckpt.fish"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_runs_outside_of_the_checkout(installed, tmp_path, program):
    ran = run(installed / program, "--version", cwd=tmp_path)
    assert (ran.stdout, ran.returncode) == (f"ckpt {__version__}\n", 0)


def test_versions_are_listed_without_importing_anything(installed, tmp_path):
    ran = run(installed / "ckpt", "--version", "-v", cwd=tmp_path)
    lines = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert (lines["ckpt"], lines["torch"]) == (__version__, "not installed")
    assert lines["numpy"] == distribution("numpy").version


WITHOUT_TORCH = [
    ("show a.pth", 0),
    ("show a.pth --keys --digests", 0),
    ("show a.pth --health", 0),
    ("diff a.pth b.pth", 1),
    ("diff a.pth b.pth --renames", 1),
    ("diff a.pth a.pth --values", 0),
    ("suggest a.pth b.pth -o rules.yaml", 0),
    ("check resnet50_to_yolo.yaml", 0),
    ("mappings", 0),
    ("plan a.pth b.pth", 0),
    ("map a.pth -e '** -> net.**' -o c.safetensors", 0),
    ("map a.pth -e '** -> net.**' -o sharded --max-shard-size 1MB", 0),
    ("show a.pth --html a.html", 0),
    ("lint rules.yaml", 0),
    ("scan a.pth b.pth", 0),
    ("textconv a.pth", 0),
    ("map a.pth -e '** -> net.**' -o d.pth", 0),
    ("verify d.pth a.pth -e '** -> net.**'", 0),
]


def test_what_needs_no_arithmetic_runs_without_torch(installed, folder):
    for arguments, status in WITHOUT_TORCH:
        ran = run("sh", "-c", f'"$0" {arguments}', installed / "ckpt", cwd=folder)
        assert ran.returncode == status, f"{arguments}: {ran.stderr}"
        assert "Traceback" not in ran.stderr
    ran = run(installed / "python", "-c", "import ckpt_tool as c; print(len(c.open('a.pth')), c.diff('a.pth', 'a.pth').identical, c.plan('a.pth', 'b.pth').counts)", cwd=folder)
    assert ran.stdout.split(maxsplit=2)[:2] == ["6", "True"], ran.stderr


@pytest.mark.parametrize("arguments", ["map a.pth a.pth --dtype BF16 -o c.pth", "map a.pth -e '** -> **: {affine: {scale: 2}}' -o c.pth"])
def test_what_needs_torch_says_in_one_line_what_to_install(installed, folder, arguments):
    ran = run("sh", "-c", f'"$0" {arguments}', installed / "ckpt", cwd=folder)
    assert (ran.stderr, ran.returncode) == ("error: torch: is not installed, and this needs it for tensor arithmetic; pip install torch\n", 2)
    assert not (folder / "c.pth").exists()


def test_an_install_without_torch_is_below_100_mb(installed):
    """Of files as they are installed, without what Python compiles of them."""
    packages = next(installed.parent.glob("lib/python*/site-packages"))
    files = (path for top in packages.iterdir() for path in ([top] if top.is_file() else top.resolve().rglob("*")))
    assert sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc") < 100e6


def test_man_pages_are_well_formed(installed):
    if not (groff := shutil.which("groff")):
        pytest.skip("groff is not installed")
    pages = sorted((installed.parent / "share/man/man1").glob("ckpt*.1"))
    assert {page.stem for page in pages} == {"ckpt", *(f"ckpt-{name}" for name in COMMANDS)}
    for page in pages:
        ran = run(groff, "-man", "-ww", "-Tutf8", "-K", "utf8", page, cwd=page.parent)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "OPTIONS" in ran.stdout


@pytest.mark.parametrize("program", ["ckpt", "ckpt-tool"])
def test_bash_completes_from_the_installed_file(installed, tmp_path, program):
    completions = installed.parent / "share/bash-completion/completions" / program
    script = f'source {completions}; COMP_WORDS=({program} sh); COMP_CWORD=1; _ckpt_completion {program}; echo "${{COMPREPLY[@]}}"; complete -p {program}'
    ran = run("bash", "-c", script, cwd=tmp_path, PATH=f"{installed}:{os.environ['PATH']}")
    assert ran.stdout.splitlines() == ["show", f"complete -o default -F _ckpt_completion {program}"]


def test_the_command_line_of_the_hub_runs_it_as_an_extension(installed, tmp_path):
    hf = shutil.which("hf", path=Path(sys.executable).parent)
    if not hf or run(hf, "extensions", "--help", cwd=tmp_path).returncode:
        pytest.skip("the hub's command line has no extensions")
    # What `hf extensions install OWNER/hf-ckpt` leaves, but for its own environment.
    place = tmp_path / ".local/share/hf/extensions/hf-ckpt"
    place.mkdir(parents=True)
    manifest = {
        "owner": "somebody", "repo": "hf-ckpt", "repo_id": "somebody/hf-ckpt", "short_name": "ckpt",
        "executable_path": str(installed / "hf-ckpt"), "type": "python", "installed_at": datetime.now(timezone.utc).isoformat(),
    }  # fmt: skip
    (place / "manifest.json").write_text(json.dumps(manifest))
    ran = run(hf, "ckpt", "--version", cwd=tmp_path, HOME=str(tmp_path), HF_HUB_OFFLINE="1", HF_HUB_DISABLE_UPDATE_CHECK="1")
    assert ran.stdout.splitlines()[-1] == f"ckpt {__version__}", ran.stderr
