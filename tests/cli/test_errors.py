"""Bad input: one clear line on stderr that names the file, exit status 2, nothing lost."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from running import ckpt


@pytest.fixture
def folder(tmp_path):
    torch.save({"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4)}, tmp_path / "good.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "folder").mkdir()
    whole = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("import antigravity\n")
    (tmp_path / "sound.yaml").write_text("rules: [a.* -> b.*]\n")
    return tmp_path


BAD = [
    ("show missing.pth", "missing.pth: no such file"),
    ("show godo.pth", "godo.pth: no such file; did you mean good.pth?"),
    ("diff good.pth nets:build", "nets:build: no such file; only files can be shown and compared; a model that code builds is a target: `ckpt plan A nets:build`, or `ckpt_tool.diff(path, model)` in Python"),
    ("diff good.pth ./folder/../cu.pth", "./folder/../cu.pth: no such file; did you mean ./folder/../cut.pth?"),
    ("show nowhere/good.pth", "nowhere/good.pth: no such file; its folder does not exist"),
    ("show xyz://example.org/a.pth", "xyz://example.org/a.pth: nothing is known of xyz://; https://, hf:// and what fsspec knows (s3://, gs://, …) are opened"),
    ("show folder", "folder: is a folder without"),
    ("show empty.pth", "empty.pth: is empty"),
    ("show cut.pth", "cut.pth: "),
    ("show text.pth", "text.pth: is a text file"),
    ("diff good.pth missing.pth", "missing.pth: no such file"),
    ("diff good.pth cut.pth --json", "cut.pth: "),
    ("map good.pth good.pth -o folder", "folder: its name does not say the format"),
    ("map good.pth good.pth -o out.xyz", "out.xyz: its name does not say the format to write"),
    ("map good.pth good.pth -o none/out.pth", "none/out.pth: its folder does not exist"),
    ("map good.pth good.pth -o good.pth", "good.pth: is one of the inputs"),
    ("map good.pth good.pth -o good.pth --force", "good.pth: is one of the inputs"),
    ("map good.pth good.pth -o text.pth", "text.pth: exists already; `--force` replaces it"),
    ("map good.pth good.pth", "-o: no output is given"),
    ("map", "source: no source is given"),
    ("map good.pth -o out.pth", "target: no target is given"),
    ("map good.pth good.pth --rules missing.yaml -o out.pth", "missing.yaml: no such file"),
    ("map good.pth good.pth -o out.pth --dtype F33", "--dtype: `F33` is neither"),
    ("map good.pth good.pth -o out.pth --set a", "--set: `a` is not NAME=NUMBER"),
    ("map good.pth good.pth -o out.pth --set a=1", "--set: gives `a` a number, and there are no rules; leave it out"),
    ("plan good.pth -e a.*->b.* --set a=1 --set a=2", "--set: `a` is given twice: 1 and 2; give one of them"),
    ("plan good.pth good.pth --why a.weight --format csv", "--format: is for the whole plan, not for --why"),
    ("check sound.yaml -o new.yaml", "--output: is for the inverse; add --invert, or leave it out"),
    ("plan good.pth good.pth --why b.weight", "--why: `b.weight` is a key of neither side; nearest key: a.weight"),
    ("map good.pth nowhere.mod:f -o out.pth", "nowhere.mod:f: can't be imported"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_clear_line(folder, arguments, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    ran = ckpt(*arguments.split(), cwd=folder)
    assert ran.status == 2
    assert ran.err.startswith(f"error: {message}")
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_terminal_that_is_not_utf_8_gets_the_nearest_characters(folder):
    torch.save({"größe.weight": torch.randn(4, 3)}, folder / "wide.pth")
    for encoding, name, shape in (("ascii", r"gr\xf6\xdfe.weight", "4x3"), ("latin-1", "größe.weight", "4×3")):
        command = [sys.executable, "-m", "ckpt_tool", "show", "wide.pth"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True)
        assert [name, "F32", shape, "48", "B"] in [line.split() for line in ran.stdout.decode(encoding).splitlines()]


def test_key_lists_and_rules_are_utf_8_on_any_terminal(folder):
    torch.save({"größe.weight": torch.randn(4, 3)}, folder / "wide.pth")
    for command in ("show --keys wide.pth", "suggest wide.pth wide.pth"):
        assert "größe" in ckpt(*command.split(), cwd=folder, env={"PYTHONIOENCODING": "ascii"}).out


def test_unknown_option_exits_2(folder):
    ran = ckpt("diff", "--nope", "a", "b", cwd=folder)
    assert (ran.status, "--nope" in ran.err) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_output(folder):
    (folder / "folder").chmod(0o500)
    assert ckpt("map", "good.pth", "good.pth", "-o", "folder/out.pth", cwd=folder).status == 2


def test_output_in_a_place_that_takes_no_files():
    ran = ckpt("map", "/dev/null", "/dev/null", "-o", "/proc/out.pth")
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)


def test_debug_shows_the_traceback(folder):
    assert "Traceback" in ckpt("show", "missing.pth", "--debug", cwd=folder).err


def test_terminal_escapes_in_keys_are_written_out(tmp_path):
    torch.save({"a\x1b[31m.w": torch.zeros(2), "b\u202e": torch.zeros(3)}, tmp_path / "x.pth")
    for arguments in (["show"], ["show", "-v"], ["show", "--json"], ["show", "--keys"]):
        ran = ckpt(*arguments, tmp_path / "x.pth")
        assert "\x1b" not in ran.out + ran.err
        assert "\u202e" not in ran.out + ran.err
    assert "a\\x1b[31m.w" in ckpt("show", "-v", tmp_path / "x.pth").out


def test_interrupt_leaves_no_half_file(tmp_path):
    torch.save({f"w{i}": torch.randn(1 << 20) for i in range(64)}, tmp_path / "a.pth")
    command = [sys.executable, "-m", "ckpt_tool", "map", "a.pth", "a.pth", "-o", "out.safetensors"]
    for delay in (0.05, 0.2, 0.3, 0.4):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.wait()
        names = {path.name for path in tmp_path.iterdir()}
        assert names in ({"a.pth"}, {"a.pth", "out.safetensors"})
        if "out.safetensors" in names:
            assert ckpt("diff", "a.pth", "out.safetensors", "--values", cwd=tmp_path).status == 0
            (tmp_path / "out.safetensors").unlink()


def test_values_that_a_rule_forbids_are_a_problem_and_nothing_is_written(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.zeros(2)}, tmp_path / "in.pth")
    (tmp_path / "rules.yaml").write_text("rules:\n  - '{a,b} -> c': same\n")
    ran = ckpt("map", "in.pth", "--rules", "rules.yaml", "-o", "out.pth", cwd=tmp_path)
    assert (ran.status, "tensors that must be the same differ: `a` and `b`" in ran.err, "rules.yaml:2:6" in ran.err) == (1, True, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "rules.yaml"]


def test_an_interrupt_before_the_command_has_begun_leaves_no_traceback():
    program = "import ckpt_tool.__main__ as m\ndef main(): raise KeyboardInterrupt\nm.main = main\nm.run()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (130, b"")


COMMANDS = "show, diff, check, suggest, plan, map, verify, mappings, trace, lint, scan, textconv"


@pytest.mark.parametrize(
    ("line", "usage", "said"),
    [
        ("show", "show [OPTIONS] A", "missing argument 'A'"),
        ("trace", "trace [OPTIONS] A [B]", "missing argument 'A'"),
        ("diff a b --bad", "diff [OPTIONS] A B", "no such option: --bad"),
        ("nope", "[OPTIONS] COMMAND [ARGS]...", f"no such command 'nope'; the commands are {COMMANDS}"),
    ],
)
def test_a_command_line_that_is_not_understood_is_an_error_as_all_others(line, usage, said):
    ran = ckpt(*line.split())
    assert (ran.status, ran.out) == (2, "")
    as_click_says = {f"Usage: ckpt {usage}".replace(" COMMAND ", " [COMMAND] "), f"error: {said}".replace("option: --bad", "option '--bad'")}
    for at, text in ((0, f"Usage: ckpt {usage}"), (-1, f"error: {said}")):
        assert ran.err.splitlines()[at] in {text, *as_click_says}  # typer before its own click words it as click 8.5 does


@pytest.mark.parametrize("command", ["plan", "plan --json", "verify", "map -o out.pth", "map --json -o out.pth"])
def test_rules_whose_text_is_wrong_are_refused(folder, command):
    (folder / "bad.yaml").write_text('rules:\n  - "a.{x -> b"\n')
    ran = ckpt(*command.split(), "--rules", "bad.yaml", "good.pth", "good.pth", cwd=folder)
    assert (ran.status, ran.out) == (1, "")
    assert "bad.yaml:2:8" in ran.err
    assert not (folder / "out.pth").exists()
    assert ckpt("check", "bad.yaml", cwd=folder).status == 1


def test_why_names_a_misspelt_key_where_the_plan_is_refused_too(tmp_path):
    torch.save({"trunk.weight": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"body.weight": torch.ones(3)}, tmp_path / "b.pth")
    ran = ckpt("plan", "a.pth", "b.pth", "--why", "trunk.wieght", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "error: --why: `trunk.wieght` is a key of neither side; nearest key: trunk.weight\n")
    assert ckpt("plan", "a.pth", "b.pth", "--why", "trunk.weight", cwd=tmp_path).status == 1


def test_why_tells_what_becomes_of_a_key_though_the_plan_is_refused(tmp_path):
    torch.save({"a.w": torch.ones(2), "b.w": torch.ones(3), "old.w": torch.ones(7)}, tmp_path / "a.pth")
    torch.save({"a.w": torch.ones(2), "c.w": torch.ones(3), "new.w": torch.ones(5)}, tmp_path / "b.pth")
    words = ["plan", "a.pth", "b.pth", "-e", "a.* -> a.*", "-e", "b.* -> c.*", *(word for key in ("a.w", "c.w", "old.w", "new.w") for word in ("--why", key))]
    ran = ckpt(*words, cwd=tmp_path)
    assert (ran.status, "error[unmapped-source]" in ran.err, "error[unmapped-target]" in ran.err) == (1, True, True)
    assert ran.out.splitlines() == [
        "target a.w (F32 2) comes from a.w, by -e:1 `a.* -> a.*`",
        "source a.w (F32 2) goes to a.w, by -e:1 `a.* -> a.*`",
        "target c.w (F32 3) comes from b.w, by -e:2 `b.* -> c.*`",
        "source old.w (F32 7) is neither mapped nor dropped",
        "target new.w (F32 5) is neither mapped nor kept",
    ]
    assert ckpt(*words, "--drop", "old.*", "--keep", "new.*", cwd=tmp_path).out.splitlines()[3:] == [
        "source old.w (F32 7) is dropped",
        "target new.w (F32 5) keeps its own value",
    ]


RULES_GO = "`plan`, `map` and `verify` take rules with `--rules r.yaml`"
RULES_COME_FIRST = "is a checkpoint, not a rule file; `ckpt check` takes the rules first, then checkpoints; other commands take --rules"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plan a.pth r.yaml", f"error: r.yaml: is a rule file, not a checkpoint; {RULES_GO}"),
        ("plan r.yaml a.pth", f"error: r.yaml: is a rule file, not a checkpoint; {RULES_GO}"),
        ("plan a.pth config.yaml", f"error: config.yaml: is YAML, not a checkpoint; {RULES_GO.replace('r.yaml', 'config.yaml')}"),
        ("verify r.yaml a.pth a.pth -e x->y", f"error: r.yaml: is a rule file, not a checkpoint; {RULES_GO}"),
        ("check a.pth r.yaml", f"error: a.pth: {RULES_COME_FIRST}"),
        ("plan a.pth a.pth -r a.pth", f"error: a.pth: {RULES_COME_FIRST}"),
        ("map a.pth a.pth r.yaml -o x.pth", "; rules are given with `--rules r.yaml`"),
        ("map a.pth a.pth x.pth", "; the output is given with `-o x.pth`"),
    ],
)
def test_files_in_the_wrong_place_are_told_theirs(tmp_path, line, said):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "r.yaml").write_text("# mine\nrules:\n  - a -> b\n")
    (tmp_path / "config.yaml").write_text("lr: 0.1\n")
    ran = ckpt(*line.split(), cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines()[-1].endswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plan a.pth a.pth -r dett.yaml", "error: dett.yaml: no such file, and no shipped mapping has that name; did you mean det.yaml?"),
        ("plan a.pth a.pth -r sub/dett.yaml", "error: sub/dett.yaml: no such file, and no shipped mapping has that name"),
        ("plan a.pth a.pth -r resnet50_to_yol", "did you mean resnet50_to_yolo.yaml?"),
        ("show nope.pth", "error: nope.pth: no such file"),
        ("show network.pt", "error: network.pt: no such file; did you mean network.pth?"),
        ("show netwrk", "error: netwrk: no such file; did you mean network.pth?"),
        ("a.pth", "error: no such command 'a.pth'; did you mean `ckpt show a.pth`?"),
        ("det.yaml", "error: no such command 'det.yaml'; did you mean `ckpt check det.yaml`?"),
        ("map a.pth new.safetensors -e '**->**'", "error: new.safetensors: no such file; a target exists already; an output is given with `-o new.safetensors`"),
        ("map a.pth -o b.pth -e det.yaml", "= a rule file is given with `--rules det.yaml`"),
        ("show nets.py", "error: nets.py: is Python code, not a checkpoint; a model that it builds is a target: `ckpt plan A nets:FUNCTION`"),
        ("ls a.pth", f"error: no such command 'ls'; did you mean `ckpt show`? the commands are {COMMANDS}"),
        ("compare a.pth a.pth", f"error: no such command 'compare'; did you mean `ckpt diff`? the commands are {COMMANDS}"),
        ("help diff", f"error: no such command 'help'; did you mean `ckpt --help`? the commands are {COMMANDS}"),
        ("version", f"error: no such command 'version'; did you mean `ckpt --version`? the commands are {COMMANDS}"),
        ("shwo a.pth", f"error: no such command 'shwo'; did you mean `ckpt show`? the commands are {COMMANDS}"),
        ("diff a.pth a.pth --include none.**", "error: --include: `none.**` matches no key of either side"),
    ],
)
def test_what_is_not_there_is_told_what_is_alike(tmp_path, line, said):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    for name in ("out.pth", "network.pth", "network.txt", "det.yaml"):
        (tmp_path / name).write_text("")
    (tmp_path / "nets.py").write_text("import torch\n")
    ran = ckpt(*shlex.split(line), cwd=tmp_path)
    assert ran.status == (1 if "-e det.yaml" in line else 2)
    assert ran.err.splitlines()[-1].endswith(said)


def test_only_types_are_offered_that_torch_casts_to(folder):
    ran = ckpt("map", "good.pth", "-e", "** -> **", "--dtype", "F33", "-o", "out.pth", cwd=folder)
    offered = ran.err.partition("(")[2].partition(")")[0].split()
    for number, name in enumerate(offered):
        assert ckpt("map", "good.pth", "-e", "** -> **", "--dtype", name, "-o", f"out{number}.pth", cwd=folder).status == 0, name


@pytest.mark.parametrize("name", ["bfloat16", "torch.bfloat16", "bf16", "BF16"])
def test_types_go_by_the_names_of_torch_too(tmp_path, name):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    assert ckpt("map", "a.pth", "-e", "** -> **", "--dtype", name, "-o", "out.pth", cwd=tmp_path).status == 0
    assert torch.load(tmp_path / "out.pth")["a"].dtype == torch.bfloat16


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("half", torch.float16), ("fp32", torch.float32), ("float", torch.float32), ("FP64", torch.float64)])
def test_types_go_by_the_short_names_of_libraries(tmp_path, name, dtype):
    torch.save({"a": torch.ones(2).bfloat16()}, tmp_path / "a.pth")
    assert ckpt("map", "a.pth", "-e", "** -> **", "--dtype", name, "-o", "out.pth", cwd=tmp_path).status == 0
    assert torch.load(tmp_path / "out.pth")["a"].dtype == dtype
    ran = ckpt("map", "a.pth", "-e", "** -> **", "--dtype", "int64", "-o", "no.pth", cwd=tmp_path)
    assert (ran.status, "nor a floating type" in ran.err) == (2, True)


def test_only_what_may_be_a_checkpoint_is_meant_by_a_name(tmp_path):
    for name in ("np.py", "nope.yaml"):
        (tmp_path / name).touch()
    assert ckpt("show", "nope.pth", cwd=tmp_path).err.splitlines() == ["error: nope.pth: no such file"]
    (tmp_path / "nop.pth").touch()
    assert "did you mean nop.pth?" in ckpt("show", "nope.pth", cwd=tmp_path).err
