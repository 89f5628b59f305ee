"""The examples are stories that run."""

import subprocess
import sys

import pytest
from conftest import ROOT
from without_torch import is_without_torch

STORIES = {
    "resnet50_to_detector.py": "after 3 steps of training: 318 loaded tensors stood still, 66 fresh ones moved",
    "finetune_resnet18.py": "after 3 steps the 30 frozen tensors are what they were",
    "freeze_first_100.py": "after 3 steps the first 100 tensors are what they were, and 218 of the others have moved",
    "gradual_unfreezing.py": "resumed at epoch 2, all 122 tensors are those of the run that went through, bit for bit",
    "fsdp2_two_processes.py": "two processes and one have the same 26 tensors after 6 steps",
    "trace_conversion.py": "different: they diverge in `0`; ",
    "resume_after_rename.py": "after 10 + 20 steps all 15 tensors are those of the uninterrupted run, bit for bit",
}


@pytest.mark.skipif(is_without_torch(), reason="networks are built with torch")
@pytest.mark.parametrize("name", STORIES)
def test_example_runs_and_proves_its_claim(tmp_path, name):
    if name.startswith("fsdp2"):
        import torch

        if not hasattr(torch.cpu.Stream, "record_event"):
            pytest.skip("torch 2.6 can't run sharded modules on the CPU")
    command = [sys.executable, str(ROOT / "examples" / name), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert STORIES[name] in ran.stdout


def test_every_example_is_run():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(STORIES)
