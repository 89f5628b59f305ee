"""The published schema is one, and what it says of a load's report holds. Every `--json` that any test asks for is held against it, see running.py."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from running import ckpt, validate
from torch import nn

import ckpt_tool

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "schemas" / "ckpt.schema.json").read_text())


def test_it_is_a_schema_of_2020_12():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_report_of_a_load():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    report = ckpt_tool.load_into(model, nn.Linear(3, 3), rules=["** -> 0.**"], keep="1.**")
    validate(report.to_json(), ["load"])


def test_a_field_that_nobody_published_is_noticed():
    with pytest.raises(AssertionError, match="more"):
        validate('{"schema": 1, "is_clean": true, "files": [], "more": 1}', ["scan"])


@pytest.fixture
def files(tmp_path):
    torch.manual_seed(0)
    torch.save({"model": {"a.weight": torch.randn(4, 4), "b.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "a.ckpt")
    torch.save({"x.a.weight": torch.randn(4, 4), "x.b.weight": torch.full((2,), float("nan")), "c": torch.randn(9)}, tmp_path / "b.pth")
    (tmp_path / "r.yaml").write_text("rules: ['** -> x.**']\nkeep: [c]\n")
    (tmp_path / "net.py").write_text("import torch\ndef a():\n    return torch.nn.Sequential(torch.nn.Linear(2, 2))\n")
    torch.save({"0.weight": torch.randn(2, 2), "0.bias": torch.randn(2)}, tmp_path / "n.pth")
    torch.save(torch.randn(1, 2), tmp_path / "i.pt")
    return tmp_path


COMMANDS = [
    "show a.ckpt", "show b.pth --checksum", "show b.pth --health", "diff a.ckpt b.pth -v", "diff a.ckpt b.pth --renames --values", "diff b.pth b.pth -v",
    "check r.yaml", "check r.yaml a.ckpt b.pth", "check r.yaml --invert", "plan a.ckpt b.pth", "plan a.ckpt b.pth --rules r.yaml --why c",
    "plan a.ckpt b.pth --by auto --partial", "map a.ckpt b.pth", "map a.ckpt b.pth --rules r.yaml -o o.pth", "map a.ckpt -e '** -> y.**' -o out --max-shard-size 1MB --checksum",
    "verify o.pth a.ckpt b.pth --rules r.yaml", "suggest a.ckpt b.pth", "mappings", "mappings a.ckpt b.pth", "scan a.ckpt b.pth r.yaml",
    "trace n.pth n.pth --model net:a --model-b net:a --input i.pt",
]  # fmt: skip


def test_every_command(files):
    import shlex

    for command in COMMANDS:
        ran = ckpt(*shlex.split(command), *(["-o", "z.pth"] if command == "map a.ckpt b.pth" else []), "--json", cwd=files)
        assert ran.out.startswith("{"), (command, ran.err)
