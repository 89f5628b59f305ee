"""Errors of the library name arguments, never options of the command line."""

import re
import traceback

import pytest
import torch

import ckpt_tool
from ckpt_tool.library.words import in_python

A, B = {"a": torch.ones(2), "old": torch.ones(3)}, {"a": torch.ones(2)}
CALLS = [
    lambda: ckpt_tool.plan(A, B), lambda: ckpt_tool.plan(B, {"a": torch.ones(2).half()}), lambda: ckpt_tool.plan(B, B, rules=["b -> c"]),
    lambda: ckpt_tool.plan(B, B, drop="q.*"), lambda: ckpt_tool.plan(B, None), lambda: ckpt_tool.plan(B, B, rules=["a => a"]),
    lambda: ckpt_tool.load_into(torch.nn.Linear(2, 2), {"w": torch.ones(2, 2)}), lambda: ckpt_tool.diff(B, B, rtol=1e-3),
    lambda: ckpt_tool.suggest(B, B, min_confidence=3), lambda: ckpt_tool.suggest(B, B, hints=["x"]), lambda: ckpt_tool.plan(B, B, rules=["a -> a"], by="name"),
    lambda: ckpt_tool.diff(A, B, include="zz"), lambda: ckpt_tool.plan({"a": torch.ones(2), "b": torch.ones(2)}, {"d": torch.ones(2)}, by="position"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_an_error_of_a_call_names_no_option(number):
    with pytest.raises(ckpt_tool.CkptError) as raised:
        CALLS[number]()
    assert not re.search(r"(?<![\w-])--?[a-z]", str(raised.value)), str(raised.value)
    assert "During handling" not in "".join(traceback.format_exception(raised.value))


def test_an_error_in_ones_own_code_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "failing_nets.py").write_text("def build():\n    raise ValueError('no config')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ckpt_tool.InputError) as raised:
        ckpt_tool.plan(B, "failing_nets:build")
    assert "ValueError: no config\n\nThe above exception was the direct cause" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("take rules with `--rules r.yaml`", 'take rules with `rules="r.yaml"`'), ("`--dtype target` casts", '`dtypes="target"` casts'), ("say `--set heads=…`", 'say `params={"heads": …}`'), ("--keep", "`keep=`"), ("`--optimizer-order MODEL` gives", "`optimizer_order=` gives"),
        ("-e:2:1", "rules:2:1"), ("a well-kept name-e x--drop", "a well-kept name-e x--drop"), ("`-e '** -> **'` maps", '`rules=["** -> **"]` maps'),
    ],
)  # fmt: skip
def test_options_become_arguments(text, said):
    assert in_python(text) == said
