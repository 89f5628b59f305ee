"""Several processes of torchrun write one output: the same files as one process alone, and nothing at all when one of them dies."""

import filecmp
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

RUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
DIES = """
import os, sys
from ckpt_tool.engine import team
from ckpt_tool.engine.folders import shards
point, rank = sys.argv.pop(1), os.environ["RANK"]
own_file, own_exchange = shards.new_file, team.Team.exchange
count = 0
def die(*given, **named):
    os.kill(os.getpid(), 9)
def exchange(self, *given, **named):
    global count
    count += 1
    return die() if point == f"exchange {count} of {rank}" else own_exchange(self, *given, **named)
team.Team.exchange = exchange
if point == f"file of {rank}":
    shards.new_file = die
if point == f"index of {rank}":
    shards.write_last = die
from ckpt_tool.__main__ import run
run()
"""


def torchrun(count: int, *words: object, module: bool = True) -> subprocess.CompletedProcess[str]:
    start = ["-m", "ckpt_tool"] if module else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*RUN, str(count), *start, *map(str, words)], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    state = {f"layer.{at}.weight": torch.randn(100 + at, 100, generator=generator) for at in range(12)}
    save_file(state, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_shards_are_divided_and_the_same(source, tmp_path):
    words = ["map", source, "-e", "layer.** -> blocks.**", "--max-shard-size", "100kB", "--checksum"]
    alone = subprocess.run([sys.executable, "-m", "ckpt_tool", *map(str, words), "-o", tmp_path / "one"], capture_output=True, text=True, check=True)
    run = torchrun(3, *words, "-o", tmp_path / "three")
    assert run.returncode == 0, run.stderr
    assert run.stdout == alone.stdout.replace(str(tmp_path / "one"), str(tmp_path / "three"))
    names = sorted(os.listdir(tmp_path / "one"))
    assert sorted(os.listdir(tmp_path / "three")) == names
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "three", names, shallow=False) == (names, [], [])
    index = json.loads((tmp_path / "three" / "model.safetensors.index.json").read_text())
    loaded = load_file(tmp_path / "three" / index["weight_map"]["blocks.11.weight"])
    assert torch.equal(loaded["blocks.11.weight"], load_file(source)["layer.11.weight"])


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_one_file_and_distributed_checkpoints(source, tmp_path):
    run = torchrun(2, "map", source, "-e", "** -> **", "-o", tmp_path / "b.safetensors", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["output"]["tensors"] == 12
    run = torchrun(2, "map", source, "-e", "** -> **", "-o", tmp_path / "dcp", "--to", "dcp", "--max-shard-size", "200kB")
    assert run.returncode == 0, run.stderr
    state = {key: torch.empty_like(value) for key, value in load_file(source).items()}
    dcp.load(state, checkpoint_id=tmp_path / "dcp")  # type: ignore[attr-defined]
    assert all(torch.equal(state[key], value) for key, value in load_file(source).items())


POINTS = ["file of 0", "file of 1", "exchange 1 of 1", "exchange 2 of 1", "exchange 2 of 0", "index of 0"]


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_dies_leaves_nothing_that_looks_complete(source, tmp_path, point):
    (tmp_path / "run.py").write_text(DIES)
    words = ["map", source, "-e", "** -> **", "--max-shard-size", "100kB", "-o", tmp_path / "out"]
    run = torchrun(2, tmp_path / "run.py", point, *words, module=False)
    assert run.returncode != 0
    assert "SIGKILL" in run.stderr or "-9" in run.stderr, run.stderr
    assert not (tmp_path / "out").exists()
    assert sorted(name for name in os.listdir(tmp_path) if not name.startswith(".")) == ["a.safetensors", "run.py"]


def test_what_one_process_can_not_do_no_process_does(source, tmp_path):
    (tmp_path / "out").write_text("a file")
    run = torchrun(2, "map", source, "-e", "** -> **", "--max-shard-size", "100kB", "-o", tmp_path / "out")
    assert run.returncode != 0
    assert run.stderr.count("not a directory") == 1
    assert (tmp_path / "out").read_text() == "a file"
    assert torchrun(2, "map", source, "-e", "** -> x.**", "--in-place").stderr.count("for one process") == 1
    assert torchrun(2, "map", tmp_path / "nothing.pth", "-e", "** -> x.**", "-o", tmp_path / "o").stderr.count("no such file") == 1


OWN_FILES = """
import os, sys
os.chdir(os.environ["RANK"])
from ckpt_tool.__main__ import run
run()
"""


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_processes_with_other_files_of_one_name_write_nothing(tmp_path, suffix):
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        state = {f"w{at}": torch.full((50, 50), float(rank)) for at in range(6)}
        (torch.save if suffix == "pth" else save_file)(state, tmp_path / str(rank) / f"a.{suffix}")
    (tmp_path / "run.py").write_text(OWN_FILES)
    words = ["map", f"a.{suffix}", "-e", "** -> **", "--max-shard-size", "20kB", "-o", tmp_path / "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*RUN, "2", "run.py", *map(str, words)], capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert "their sources or rules differ" in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_systems_errors_of_any_process_are_reported_in_words_once(source, tmp_path, rank):
    limited = f"""
import os, resource
if os.environ["RANK"] == {rank!r}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from ckpt_tool.__main__ import run
run()
"""
    (tmp_path / "run.py").write_text(limited)
    run = torchrun(2, tmp_path / "run.py", "map", source, "-e", "** -> x.**", "--max-shard-size", "100kB", "-o", tmp_path / "out", module=False)
    assert run.returncode != 0
    assert "more than a file may have here" in run.stderr
    assert "internal error" not in run.stderr
    assert len(re.findall("^error: ", run.stderr, re.MULTILINE)) == 1, run.stderr
    assert not (tmp_path / "out").exists()
