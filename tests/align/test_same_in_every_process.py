"""The same draft in every process: nothing depends on how Python hashes texts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
CODE = """
import sys
sys.path[:0] = {paths!r}
from judging import JOBS
from truths import read_truth
from ckpt_tool.align import suggest
for path in JOBS:
    if path.name.removesuffix(".json.gz") in {names!r}:
        truth = read_truth(path)
        found = suggest(truth.source, truth.target)
        print(path.name, found.text, found.alignment)
"""
NAMES = ("seed_resnet50_to_yolo_net", "gemma_pytorch_to_hf", "v5_deepseek_v4", "hf_bit_r50", "weight_norm_old_to_parametrized")


def drafted(seed):
    code = CODE.format(paths=[str(TESTS), str(TESTS / "align"), str(TESTS.parent)], names=NAMES)
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def first():
    pytest.importorskip("torch")
    return drafted(0)


@pytest.mark.parametrize("seed", [1, 2])
def test_drafts_are_the_same_under_every_hash_seed(first, seed):
    assert first.count("Drafted from names and shapes") == len(NAMES)
    assert drafted(seed) == first
