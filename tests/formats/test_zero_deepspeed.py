"""DeepSpeed's folders against DeepSpeed itself, where it is installed: `pip install deepspeed==0.19.8`, then `pytest -m slow` of this file."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ckpt_tool


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_weights_are_those_that_deepspeed_makes_of_them(tmp_path, monkeypatch, stage, ranks):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    pytest.importorskip("deepspeed")
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    program = Path(__file__).with_name("deepspeed_training.py")
    subprocess.run(
        [sys.executable, program, str(stage), str(ranks), tmp_path / "run"],
        check=True,
        capture_output=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        expected = get_fp32_state_dict_from_zero_checkpoint(str(tmp_path / "run"))
    with ckpt_tool.open(tmp_path / "run") as opened:
        found = opened.state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype is tensor.dtype, key
        assert torch.equal(found[key], tensor), key
