"""Code of the user's own that fails, a factory or the network it builds, is reported as theirs, with its line; never as an error of ours."""

import pytest
import torch
from running import ckpt

FACTORIES = """\
import json
from torch import nn

def divides(): return 1 / 0
def parses(): json.loads("{")
def ends(): raise SystemExit(0)
def wants(size): pass
def loads(): nn.Linear(2, 2).load_state_dict({"a": 1})
def number(): return 5
size = 5
model = nn.Linear(2, 2)

class Stateless(nn.Linear):
    def __init__(self): super().__init__(2, 2)
    def state_dict(self, *_, **__): raise ValueError("no state")

class Fails(nn.Linear):
    def __init__(self): super().__init__(2, 2)
    def forward(self, x): return self.nowhere(x)
"""
OTHERS = {"half": "x = 1 +\n", "lacks": "\nimport nowhere_at_all\n", "ends": "import sys; sys.exit(0)\n", "typo": "print(oops)\n"}
SAID = [
    ("nets:divides", "raised ZeroDivisionError at nets.py:4: division by zero; --debug shows its traceback"),
    ("nets:parses", "raised JSONDecodeError at nets.py:5: Expecting property name"),
    ("nets:ends", "raised SystemExit at nets.py:6: 0"),
    ("nets:wants", "raised TypeError: wants() missing 1 required positional argument: 'size'"),
    ("nets:loads", "raised RuntimeError at nets.py:8: Error(s) in loading state_dict for Linear: Missing key(s) in state_dict"),
    ("nets:number", "returned a int, not an nn.Module"),
    ("nets:size", "is an int, not a function"),
    ("nets:numbr", "can't be imported: module 'nets' has no attribute 'numbr'; did you mean nets:number?"),
    ("nets.py:number", "can't be imported: No module named 'nets.py'; 'nets' is not a package; did you mean nets:number?"),
    ("nest:number", "can't be imported: No module named 'nest'; did you mean nets:number?"),
    ("nets.number", "no such file; did you mean nets:number?"),
    ("./nets.py:number", "no such file; did you mean nets:number?"),
    ("nets:Stateless", "raised ValueError at nets.py:15: no state"),
    ("half:f", "raised SyntaxError at half.py:1: invalid syntax"),
    ("lacks:f", "can't be imported: No module named 'nowhere_at_all' (at lacks.py:2); --debug shows its traceback"),
    ("ends:f", "raised SystemExit at ends.py:1: 0"),
    ("typo:f", "raised NameError at typo.py:1: name 'oops' is not defined"),
    ("torch.nn:Linear", "raised TypeError: Linear.__init__() missing 2 required"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, folder / "a.pth")
    for name, text in {"nets": FACTORIES, **OTHERS}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.mark.parametrize(("factory", "said"), SAID)
def test_a_factory_that_fails_is_named_with_its_line(folder, factory, said):
    ran = ckpt("map", "a.pth", factory, "-o", "out.pth", cwd=folder)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {factory}: {said}")
    assert len(ran.err.splitlines()) == 1
    assert not (folder / "out.pth").exists()


def test_debug_shows_the_traceback(folder):
    ran = ckpt("map", "a.pth", "nets:divides", "-o", "out.pth", "--debug", cwd=folder)
    assert (ran.status, ran.err.splitlines()[-1]) == (2, "error: nets:divides: raised ZeroDivisionError at nets.py:4: division by zero")
    assert "\nZeroDivisionError: division by zero\n" in ran.err


def test_networks_of_a_trace(folder):
    words = "trace", "a.pth", "a.pth", "--random-input", "1x2", "--model"
    ran = ckpt(*words, "nets:divides", cwd=folder)
    assert (ran.status, ran.err.startswith("error: nets:divides: raised ZeroDivisionError at nets.py:4")) == (2, True)
    ran = ckpt(*words, "nets:Fails", cwd=folder)
    assert (ran.status, "can't be run on this input: AttributeError at nets.py:19: 'Fails' object has no attribute" in ran.err) == (2, True)


def test_a_model_that_is_there_already_is_the_model(folder):
    torch.save({"weight": torch.zeros(2, 2), "bias": torch.ones(2)}, folder / "b.pth")
    ran = ckpt("map", "a.pth", "nets:model", "-o", "out.pth", cwd=folder)
    assert ran.status == 0, ran.err
    assert torch.load(folder / "out.pth")["weight"].tolist() == [[1, 1], [1, 1]]
    ran = ckpt("trace", "a.pth", "b.pth", "--random-input", "1x2", "--model", "nets:model", cwd=folder)
    assert (ran.status, "different" in ran.out) == (1, True), ran.err
    (folder / "out.pth").unlink()
