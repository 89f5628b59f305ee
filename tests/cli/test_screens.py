"""Every screen on a terminal of 80 columns: no line is longer, the last one answers; and each example of the help works."""

import fcntl
import importlib
import os
import pickle
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios

import pytest
import torch
from running import ckpt, ckpt_process
from safetensors.torch import save_file

from ckpt_tool.cli.app import COMMANDS

COLOURS = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")
GONE = re.compile(r"[^\n]*\r?\n(?:\x1b\[\?25h)?\r?\x1b\[1A\x1b\[2K")
"""A sign that there is work, when it has gone."""
PATHS = re.compile(r"\S{60,}")


def on_terminal(arguments, cwd, width=80, is_piped=False, unset=(), **env):
    """The exit status and the screen of a command on a real terminal, without colours; what it prints to stdout elsewhere, where that `is_piped`."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", **env}
    for name in ("COLUMNS", *unset):
        environment.pop(name, None)
    command = [sys.executable, "-m", "ckpt_tool", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if is_piped else follower, stderr=follower, cwd=cwd, env=environment)
    os.close(follower)
    found = b""
    while True:
        try:
            piece = os.read(leader, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not piece:
            break
        found += piece
    os.close(leader)
    lines = COLOURS.sub("", GONE.sub("", found.decode())).replace("\r\n", "\n").rstrip("\n").split("\n")
    return process.wait(), [line.rpartition("\r")[2] for line in lines]  # behind a bar that has gone


def small(state, generator):
    """The same keys with fewer numbers."""
    return {
        key: torch.randn([max(1, size // 16) for size in value.shape], generator=generator) if value.is_floating_point() else value.clone()
        for key, value in state.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, torchvision):
    """What people have: networks of one family and of two, a training checkpoint, a Lightning one, long names, a NaN."""
    from detector import Detector

    folder, generator = tmp_path_factory.mktemp("screens"), torch.Generator().manual_seed(0)
    resnet = small(torchvision.models.resnet50().state_dict(), generator)
    torch.save(resnet, folder / "resnet50.pth")
    torch.save(small(Detector().state_dict(), generator), folder / "detector.pth")
    tuned = {key: value + 0.01 if value.is_floating_point() and key.startswith("layer4") else value for key, value in resnet.items()}
    tuned |= {"fc.weight": torch.randn(3, 128, generator=generator), "fc.bias": torch.zeros(3)}
    tuned["layer4.1.bn2.weight"][3] = float("nan")
    torch.save(tuned, folder / "finetuned.pth")
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in resnet.items()}, folder / "half.pth")
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0], "name": "x" * 300}]}
    torch.save({"model": resnet, "model_ema": resnet, "optimizer": optimizer, "epoch": 3, "args": {"data": "/d" * 200}}, folder / "run.pth")
    torch.save({"state_dict": {f"model.{key}": value for key, value in resnet.items()}, "hyper_parameters": {"lr": 1}}, folder / "lit.ckpt")
    long = {f"vision_tower.a_module_with_a_long_name_{i}.another_module_with_a_long_name.weight": torch.ones(2, 3) for i in range(4)}
    save_file(long | {f"größe.{'x' * 100}.{i}": torch.ones(1) for i in range(3)}, folder / "long.safetensors")
    blocks = {f"blocks.{i}.{n}.weight": torch.randn(4, 4, generator=generator) for i in range(3) for n in ("attn.qkv", "attn.proj", "mlp.fc1")}
    torch.save(blocks, folder / "a.pth")
    torch.save({key.replace("blocks.", "encoder.layers.encoder_layer_"): value for key, value in blocks.items()}, folder / "b.pth")
    (folder / "bad.yaml").write_text("rules:\n  - conv1.* -> layer0.0.*\n  - layer{s}.{b}.conv{n}.* -> layer{s}.{b}.botleneck.{3*n-3}.*\n")
    (folder / "nets.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(4, 4))\n\n"
        "def other():\n    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())\n"
    )
    return folder


ANSWERS = {
    "show": r"\d+ (of [\d,]+ )?tensors?, .* (k|M)?B|healthy|findings?$",
    "diff": r"same|differ|removed|renamed",
    "plan": r"accounted for|not all that is kept or dropped was named|would stay fresh|source \S+|left over",
    "map": r"wrote|nothing was written",
    "suggest": r"mapped by \d+ rules?, .*(unused|of another shape)",
    "check": r"sound|problems?",
    "verify": r"says",
    "mappings": r"\d+ mappings?|no shipped mapping",
}
RULES = "resnet50_to_yolo.yaml"
SCREENS = [
    "show resnet50.pth", "show run.pth", "show lit.ckpt", "show long.safetensors", "show resnet50.pth --tree", "show resnet50.pth --tree --depth 9 -v",
    "show resnet50.pth --sort size --filter layer4.**", "show resnet50.pth -v", "show finetuned.pth --health", "show run.pth#model_ema --depth 1",
    "diff resnet50.pth detector.pth", "diff resnet50.pth detector.pth --renames", "diff resnet50.pth finetuned.pth --values --include **", "diff a.pth b.pth",
    "diff resnet50.pth half.pth --values", "diff resnet50.pth finetuned.pth --side-by-side --filter layer4.** --filter fc.*", "diff a.pth long.safetensors --side-by-side",
    "diff a.pth b.pth --renames", "diff resnet50.pth resnet50.pth", f"plan resnet50.pth detector.pth --rules {RULES}",
    "plan resnet50.pth detector.pth --by position --partial", "plan a.pth b.pth --by auto", "plan a.pth b.pth", "plan resnet50.pth finetuned.pth",
    "plan resnet50.pth detector.pth --rules bad.yaml", f"map resnet50.pth detector.pth --rules {RULES} -o out.pth --force",
    "map a.pth b.pth -o no.pth", "suggest resnet50.pth finetuned.pth", "suggest a.pth b.pth",
    f"check {RULES} resnet50.pth detector.pth", f"verify half.pth resnet50.pth detector.pth --rules {RULES}", "mappings", "mappings vit",
    "mappings resnet50.pth detector.pth", "mappings a.pth b.pth",
]  # fmt: skip


@pytest.mark.parametrize("line", SCREENS)
def test_no_line_is_longer_than_the_terminal_and_the_last_one_answers(folder, line):
    status, lines = on_terminal(line.split(), folder)
    assert status in (0, 1)
    assert not [each for each in lines if len(PATHS.sub("", each)) > 80]
    last = next(i for i in reversed(range(len(lines))) if not lines[i].startswith(("      ", "next: ")))
    closing = " ".join(lines[max(last - 1, 0) :])  # a long answer goes on below
    assert re.search(ANSWERS[line.split()[0]], closing), closing


@pytest.mark.parametrize("width", [60, 100, 160])
def test_other_widths_are_kept_too(folder, width):
    for line in ("show resnet50.pth", f"plan resnet50.pth detector.pth --rules {RULES}", "diff resnet50.pth detector.pth --side-by-side"):
        assert not [each for each in on_terminal(line.split(), folder, width)[1] if len(each) > width]


def test_what_is_said_beside_a_result_in_a_pipe_has_the_width_of_its_own_terminal(folder):
    rule = "vision_tower.a_module_with_a_long_name_{i}.** -> vision_tower.a_module_with_an_even_longer_name_{i}.**"
    line = ["map", "long.safetensors", "-e", rule, "-e", "** -> **", "-o", "piped.safetensors", "--force"]
    alone, piped = (on_terminal(line, folder, is_piped=is_piped)[1] for is_piped in (False, True))
    assert len(piped) > 5
    assert piped == alone[: len(piped)]


def test_every_next_command_works_as_it_stands_on_the_screen(folder):
    for line in ("diff a.pth b.pth", "plan a.pth b.pth", "suggest a.pth b.pth"):
        screen = "\n".join(on_terminal(line.split(), folder)[1])
        command = screen.rpartition("next: ckpt ")[2].replace("\\\n", " ")
        assert ckpt(*shlex.split(command), cwd=folder).status in (0, 1), command
        for written in (*folder.glob("mapped*"), *folder.glob("rules*.yaml")):
            written.unlink()


def test_a_terminal_of_plain_characters_gets_no_others(folder):
    for line in ("show resnet50.pth --tree", "diff resnet50.pth detector.pth --renames", "show long.safetensors"):
        lines = on_terminal(line.split(), folder, PYTHONIOENCODING="ascii")[1]
        assert all(each.isascii() and len(each) <= 80 for each in lines)


def test_a_pipe_gets_full_lines(folder):
    out = ckpt_process("plan", "a.pth", "b.pth", "--by", "auto", cwd=folder).out
    assert re.search(r"blocks\.\{i\}.* → encoder\.layers\.encoder_layer_\{i\}", out)


def test_where_rules_are_printed_on_the_terminal_nothing_is_said_twice(folder):
    save_file({"a.weight": torch.ones(2), "head.bias": torch.ones(3)}, folder / "one.safetensors")
    save_file({"a.weight": torch.ones(2), "head.bias": torch.ones(5)}, folder / "two.safetensors")
    lines = on_terminal(["suggest", "one.safetensors", "two.safetensors"], folder)[1]
    assert sum("head.bias -> head.bias" in line for line in lines) == 1


def examples():
    for name in COMMANDS:
        yield from importlib.import_module(f"ckpt_tool.cli.{COMMANDS[name].partition(':')[0]}").EXAMPLES


@pytest.fixture(scope="module")
def place(folder):
    """The folder with what examples of other commands make."""
    torch.save(torch.load(folder / "resnet50.pth"), folder / "base.pth")
    nets = {"0.weight": torch.ones(4, 4), "0.bias": torch.ones(4)}
    for name in ("a.pth", "b.pth"):
        (folder / f"old_{name}").write_bytes((folder / name).read_bytes())
        torch.save(nets, folder / name)
    torch.save(torch.ones(2, 4), folder / "x.pt")
    ckpt("map", "resnet50.pth", "-e", "** -> **", "-o", "copy.safetensors", "--force", cwd=folder)
    yield folder
    for name in ("a.pth", "b.pth"):
        (folder / name).write_bytes((folder / f"old_{name}").read_bytes())


def test_examples_of_the_help_work(place):
    for example in examples():
        program, *arguments = shlex.split(example)
        for output in (place / name for name in ("out.pth", "rules.yaml", "back.yaml", "auto.safetensors", "weights.safetensors")):
            if output.name in arguments and "verify" not in arguments:
                output.unlink(missing_ok=True)
        ran = ckpt(*arguments, cwd=place)
        assert (program, ran.status) in (("ckpt", 0), ("ckpt", 1)), f"{example}: {ran.err}"
        assert "error" not in ran.err.split("\n")[0], f"{example}: {ran.err}"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_and_ends_its_sentences(folder, name):
    lines = on_terminal([*([name] if name else []), "--help"], folder)[1]
    assert not [line for line in lines if len(line) > 80 or (line.endswith("...") and "Usage" not in line)]
    if name:
        assert f"  ckpt {name}" in "\n".join(lines[lines.index("Examples:") :])


def test_plain_signs_where_the_locale_asks_for_them(story):
    shown = {locale: "\n".join(on_terminal(["show", "resnet50.pth", "--tree"], story, LC_ALL=locale)[1]) for locale in ("C", "C.UTF-8")}
    assert shown["C"].isascii()
    assert "|- layer1" in shown["C"]
    assert "├─ layer1" in shown["C.UTF-8"]


LOCALES = ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8", "PYTHONIOENCODING")


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="Python no longer shows what it found")
@pytest.mark.parametrize(("env", "is_plain"), [
    ({}, True), ({"LANG": "C"}, True), ({"LANG": "POSIX"}, True), ({"LC_CTYPE": "C"}, True), ({"LC_CTYPE": "C", "LANG": "C.UTF-8"}, True),
    ({"LC_ALL": "C", "LC_CTYPE": "C.UTF-8"}, True), ({"LC_ALL": "", "LC_CTYPE": "", "LANG": "C"}, True),
    ({"LANG": "C.UTF-8"}, False), ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False), ({"LC_ALL": "C.UTF-8", "LANG": "C"}, False),
    ({"LANG": "xx_XX.UTF-8"}, False), ({"LANG": "C", "PYTHONUTF8": "1"}, False), ({"LC_ALL": "C", "PYTHONIOENCODING": "utf-8"}, False),
], ids=str)  # fmt: skip
def test_the_first_name_of_a_locale_that_is_set_counts(tmp_path, env, is_plain):
    torch.save({"a.w": torch.ones(2, 3)}, tmp_path / "a.pth")
    unset = [name for name in LOCALES if name not in env]
    lines = on_terminal(["show", "a.pth"], tmp_path, unset=unset, **env)[1]
    assert ("2x3" if is_plain else "2×3") in "\n".join(lines)


def test_a_pipe_gets_utf_8_whatever_the_locale_is(tmp_path):
    torch.save({"a.w": torch.ones(2, 3)}, tmp_path / "a.pth")
    assert "2×3" in ckpt("show", "a.pth", cwd=tmp_path, env={"LC_ALL": "C"}).out


def test_shapes_beside_each_other_are_whole(story):
    _, lines = on_terminal(["diff", "resnet50.pth", "detector.pth", "--side-by-side", "--renames"], story)
    shapes = [line for line in lines if "F32" in line or "×" in line]
    assert shapes
    assert "…" not in "".join(shapes)


def test_values_that_differ_are_measured_beside_each_other(tmp_path):
    one = {"a": torch.ones(4), "b": torch.ones(4)}
    torch.save(one, tmp_path / "one.pth")
    torch.save(one | {"b": torch.ones(4) * 1.5}, tmp_path / "two.pth")
    _, lines = on_terminal(["diff", "one.pth", "two.pth", "--side-by-side", "--values"], tmp_path)
    assert "  max |Δ| 5.0e-01, cosine 1.0000, 100.0% changed" in lines


class Calling:
    def __init__(self, call, *arguments):
        self.called = call, arguments

    def __reduce__(self):
        return self.called


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Keys of about 60 characters, in two networks, one with other values; and a pickle that would call much."""
    folder, root = tmp_path_factory.mktemp("wide"), "language_model_text_encoder"
    (folder / "wide_nets.py").write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.{root} = nn.ModuleDict({{'query_projection_matrix': nn.Linear(4, 4)}})\n"
        f"    def forward(self, x):\n        return self.{root}['query_projection_matrix'](x)\n"
    )
    key = f"{root}.query_projection_matrix"
    state = {f"{key}.weight": torch.arange(16.0).reshape(4, 4), f"{key}.bias": torch.ones(4)}
    torch.save(state, folder / "a.pth")
    torch.save({**state, f"{key}.weight": state[f"{key}.weight"].half()}, folder / "b.pth")
    torch.save({**state, f"{key}.weight": state[f"{key}.weight"] + 1}, folder / "c.pth")
    torch.save({**state, f"{key}.weight": torch.full((4, 4), float("nan"))}, folder / "nan.pth")
    (folder / "calls.pkl").write_bytes(pickle.dumps([Calling(call, ".") for call in (os.listdir, os.stat, os.chdir, os.remove, os.rmdir)]))
    return folder


HANGING = {
    "verify b.pth a.pth a.pth": r"language_model_text_encoder\.\S+ is F16, the plan says\n  F32\n",
    "show nan.pth --health": r"  nan  language_model_text_encoder\.query_projection_matrix\.weight\n {11}16 of 16 values are NaN",
    "scan calls.pkl": r"calls\.pkl: unpickling it would call or import posix\.\w+, [^\n]*\n  posix",
    "trace a.pth c.pth --model wide_nets:Net --random-input 2x4": r"\n  tensor   language_model_text_encoder\.query_projection_matrix\.weight from\n {11}language_model",
}


@pytest.mark.parametrize("line", HANGING)
def test_what_goes_on_below_stands_below_its_own_text(wide, line):
    assert re.search(HANGING[line], "\n".join(on_terminal(line.split(), wide)[1]))


def test_long_names_that_differ_in_the_middle_are_told_apart(tmp_path):
    keys = [
        f"base_model.model.vision_tower.vision_model.encoder.transformer.layers.{i}.self_attention.attention_block.{name}_projection.default.weight"
        for i in range(2) for name in ("query", "key")
    ]  # fmt: skip
    endless = f"start.{'x' * 3000}.end"
    for number, name in enumerate(("one.pth", "two.pth")):
        torch.save({key: torch.full((2, 2), float(i + number)) for i, key in enumerate([*keys, endless])}, tmp_path / name)
    for line in ("show one.pth -v", "plan one.pth two.pth -v", "diff one.pth two.pth -v", "diff one.pth two.pth --values -v", "diff one.pth two.pth --side-by-side -v"):
        lines = on_terminal(line.split(), tmp_path)[1]
        assert max(map(len, lines)) <= 80, line
        # What stands in the left column, where there are two.
        joined = "".join(each[:38].strip() if "side" in line else each.strip() for each in lines)
        assert [key for key in keys if key not in joined] == []
        assert re.search(r"start\.x+…x+\.end", joined)
        assert len(lines) < 90
