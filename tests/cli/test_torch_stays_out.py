"""What only looks, plans or renames never imports torch (or numpy)."""

import json
import subprocess
import sys

import pytest
import torch

PROBE = """
import sys
sys.argv = ["ckpt", *sys.argv[1:]]
from ckpt_tool.__main__ import main
try:
    main()
except SystemExit as end:
    loaded = sorted({"torch", "numpy", "einops", "rich"} & set(sys.modules))
    print("loaded:", loaded, end.code, file=sys.stderr)
"""

COMMANDS = [
    ("show resnet50.pth", 0),
    ("show resnet50.pth --json", 0),
    ("diff resnet50.pth detector.pth", 1),
    ("diff resnet50.pth resnet50.pth --values", 0),
    ("diff resnet50.pth resnet50.pth --values --renames", 0),
    ("suggest resnet50.pth detector.pth -o {out}/rules.yaml", 0),
    ("check resnet50_to_yolo.yaml resnet50.pth detector.pth", 0),
    ("plan --rules resnet50_to_yolo.yaml", 0),
    ("plan resnet50.pth detector.pth --by position --partial", 0),
    ("suggest resnet50.pth detector.pth --quiet", 0),
    ("plan resnet50.pth detector.pth --by auto --partial", 0),
    ("map resnet50.pth detector.pth --by auto --expect 318 -o {out}/a.pth", 0),
    ("map --rules resnet50_to_yolo.yaml -o {out}/a.pth", 0),
    ("map --rules resnet50_to_yolo.yaml -o {out}/a.safetensors", 0),
    ("map resnet50.pth detector.pth --by position --expect 318 -o {out}/a.pth", 0),
]


def run(arguments, cwd):
    return subprocess.run([sys.executable, "-c", PROBE, *arguments.split()], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("arguments", "status"), COMMANDS)
def test_torch_stays_out(story, tmp_path, arguments, status):
    ran = run(arguments.format(out=tmp_path), story)
    assert ran.stderr.splitlines()[-1] == f"loaded: [] {status}"


TRYING = [
    ("map resnet50.pth detector.pth -o {out}/a.pth", 1),
    ("diff resnet50.pth detector.pth --renames", 1),
    ("suggest resnet50.pth detector.pth", 0),
]


@pytest.mark.parametrize(("arguments", "status"), TRYING)
def test_torch_stays_out_of_what_is_tried_for_a_way_on(story, tmp_path, arguments, status):
    ran = run(arguments.format(out=tmp_path), story)
    assert ran.stderr.splitlines()[-1] == f"loaded: ['einops'] {status}"  # which reads the patterns of the shipped mappings
    assert ran.stderr.splitlines()[-2].startswith("next: ckpt map resnet50.pth detector.pth ")


def test_values_that_differ_are_measured_without_torch(tmp_path):
    import torch

    for name, value in (("a", 0.0), ("b", 1.0)):
        torch.save({"x": torch.full((3,), value), "y": torch.full((3,), value).bfloat16()}, tmp_path / f"{name}.pth")
    assert run("diff a.pth b.pth --values", tmp_path).stderr.splitlines()[-1] == "loaded: ['numpy'] 1"


def test_without_torch_values_and_renames_are_compared_as_far_as_bytes_go(tmp_path):
    """As the action does, which installs none."""
    a = {f"layer{i}.weight": torch.randn(8, 6, generator=torch.Generator().manual_seed(i)) for i in range(4)}
    b = {f"net.{key}": value.clone() for key, value in a.items()}
    b["net.layer1.weight"] += 1
    b["net.layer2.weight"] = b["net.layer2.weight"].bfloat16()
    b["net.layer3.weight"] = b["net.layer3.weight"].t().contiguous()
    for name, state in (("a", a), ("b", b)):
        torch.save(state, tmp_path / f"{name}.pth")
    without = PROBE.replace("import sys\n", "import sys\nsys.modules['torch'] = None\n", 1)
    command = [sys.executable, "-c", without, "diff", "a.pth", "b.pth", "--values", "--renames", "--json"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    answer = json.loads(ran.stdout)
    assert ran.stderr.splitlines()[-1].endswith(" 1")
    assert [(each["kind"], each["b"]["key"], each.get("how"), "evidence" in each and "equal values" in each["evidence"]) for each in answer["entries"]] == [
        ("renamed", "net.layer0.weight", None, True), ("renamed", "net.layer1.weight", None, False),
        ("renamed", "net.layer2.weight", None, False), ("renamed", "net.layer3.weight", "transpose", False),
    ]  # fmt: skip
    assert "the values differ" not in ran.stdout
    told = subprocess.run(command[:-1], cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert "note: torch is not installed: what was cast, transposed, split or joined is not found by its values" in told.splitlines()


def test_the_probe_would_notice_torch(story, tmp_path):
    ran = run(f"map resnet50.pth detector.pth --by position --partial --dtype BF16 -o {tmp_path}/a.pth", story)
    assert "'torch'" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("rules", [("-e", "** -> net.**"), ("-e", "0.** -> stem.**", "--drop", "1.**"), ("-e", "** -> net.**", "--in-place")])
def test_torch_stays_out_of_training_checkpoints(tmp_path, rules):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "run.ckpt")
    output = () if "--in-place" in rules else ("-o", "new.ckpt")
    command = [sys.executable, "-c", PROBE, "map", "run.ckpt", *rules, *output]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == "loaded: [] 0"


def test_a_head_for_another_number_of_classes_costs_no_search(tmp_path):
    """Neither an alignment nor the shipped mappings could leave less fresh."""
    for name, classes in (("a", 10), ("b", 3)):
        torch.save({"body.weight": torch.ones(4, 4), "fc.weight": torch.ones(classes, 4), "fc.bias": torch.ones(classes)}, tmp_path / f"{name}.pth")
    probe = PROBE.replace('"torch", "numpy", "einops", "rich"', '"yaml", "ckpt_tool.align"')
    ran = subprocess.run([sys.executable, "-c", probe, "diff", "a.pth", "b.pth"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines() == ["next: ckpt map a.pth b.pth -o mapped.pth", "loaded: [] 1"]


def test_the_version_is_printed_without_the_command_line():
    ran = subprocess.run([sys.executable, "-X", "importtime", "-m", "ckpt_tool", "--version"], capture_output=True, text=True, check=True)
    assert "typer" not in ran.stderr
    assert "ckpt_tool.cli" not in ran.stderr


def test_a_command_imports_no_other(tmp_path):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "a.pth")
    probe = PROBE.replace('{"torch", "numpy", "einops", "rich"} & set(sys.modules)', '{name for name in sys.modules if name.startswith(("ckpt_tool.mapping", "ckpt_tool.ops", "ckpt_tool.cli."))}')
    ran = subprocess.run([sys.executable, "-c", probe, "show", "a.pth"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not [name for name in ("map", "plan", "diff", "suggest") if f"'ckpt_tool.cli.{name}'" in ran.stderr]
    assert "ckpt_tool.ops.casts" not in ran.stderr


def test_a_diff_of_other_names_imports_no_op(tmp_path):
    """The way to map them is tried, and only copies: the classes of all ops cost a sixth of the command."""
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"net.a.weight": torch.ones(2)}, tmp_path / "b.pth")
    probe = PROBE.replace('{"torch", "numpy", "einops", "rich"} & set(sys.modules)', '{name for name in sys.modules if name.startswith("ckpt_tool.ops.")}')
    ran = subprocess.run([sys.executable, "-c", probe, "diff", "a.pth", "b.pth"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines() == ["next: ckpt map a.pth b.pth -o mapped.pth", "loaded: ['ckpt_tool.ops.op'] 1"]


LACKING = """
import sys; sys.modules["torch"] = None
import ckpt_tool
class Model: pass
opened = ckpt_tool.open("a.safetensors")
for call in (
    lambda: ckpt_tool.load_into(Model(), "a.safetensors"), lambda: ckpt_tool.freeze(Model(), "**"), lambda: ckpt_tool.thaw(Model(), "**"),
    lambda: ckpt_tool.FreezeSchedule({0: "**"}).apply(Model(), 0), lambda: opened["a.weight"][:1], lambda: opened["a.weight"].read(),
    lambda: opened.state_dict(), lambda: ckpt_tool.diff("a.safetensors", {"a.weight": 1}),
    lambda: ckpt_tool.map("a.safetensors", None, "b.safetensors", rules="** -> **: {cast: F16}"),
    lambda: ckpt_tool.plan("a.safetensors", "a.safetensors").apply({}),
):
    try:
        call()
    except ckpt_tool.InputError as error:
        print(error)
"""


def test_calls_that_need_torch_say_what_to_install(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a.weight": __import__("numpy").ones((2, 2), "f4")}, tmp_path / "a.safetensors")
    ran = subprocess.run([sys.executable, "-c", LACKING], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["torch: is not installed, and this needs it for tensor arithmetic; pip install torch"] * 10, ran.stderr
