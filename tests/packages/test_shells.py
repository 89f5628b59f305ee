"""Tab in real shells: what stands on the command line when Enter is pressed, as the program gets it; names out of files never run."""

import os
import shutil
import sys

import pytest
import torch
from shell import ROOT, environment
from test_wheel import run

pexpect = pytest.importorskip("pexpect")
HOSTILE = ["$(touch PWNED)", "`touch PWNED`", ";touch PWNED", "a\ntouch PWNED\n", "x'; touch PWNED; '", 'x"; touch PWNED; "', "a b", "(touch PWNED)"]
PROGRAM = """#!/bin/sh
test -n "$_CKPT_COMPLETE" && PYTHONPATH={root} exec {python} -m ckpt_tool "$@"
printf '%s\\0' "$@" > {log}
"""
PROMPT = "ready>"
STARTED = {
    "bash": ["--norc", "-i"],
    "zsh": ["-i"],
    "fish": ["--private", "-i"],
}
COMPLETIONS = {"bash": "bash-completion/completions/{name}", "zsh": "zsh/site-functions/_{name}", "fish": "fish/vendor_completions.d/{name}.fish"}
RC = {
    "bash": "PS1='rea''dy>'; source {script}\n",
    "zsh": "PS1='ready>'; fpath=({folder}/share/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D; unset zle_bracketed_paste\n",
    "fish": "function fish_prompt; echo -n ready'>'; end; set fish_greeting; set fish_autosuggestion_enabled 0; source {script}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shells")
    states = {"model": {"a": torch.ones(2)}, "model_ema": {"a": torch.ones(2)}, "d:e": {"a": torch.ones(2)}}
    torch.save({**states, "epoch": 1}, folder / "run.pth")
    hostile = {name: {"a": torch.ones(2)} for name in HOSTILE}
    torch.save({**hostile, "netD": {"a": torch.ones(2)}}, folder / "hostile.pth")
    torch.save(hostile, folder / "worse.pth")
    for name in ("mine.yaml", "evil$(touch PWNED).yaml"):
        (folder / name).write_text("rules: []\n")
    return folder


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The folder of what a wheel puts below `share/`."""
    made = tmp_path_factory.mktemp("scripts")
    ran = run(sys.executable, ROOT / "hatch_build.py", made / "share", cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return made


@pytest.fixture(scope="module", params=["bash ckpt", "zsh ckpt", "fish ckpt", "bash ckpt-tool", "zsh ckpt-tool"])
def typed(request, folder, scripts, tmp_path_factory):
    """Types a line and Tab into a shell, presses Enter, and gives the arguments that the program got."""
    shell, program = request.param.split()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    home = tmp_path_factory.mktemp(shell)
    log, script = home / "log", scripts / "share" / COMPLETIONS[shell].format(name=program)
    programs = environment(home / "programs", HOME=str(home), ZDOTDIR=str(home), XDG_CONFIG_HOME=str(home), XDG_DATA_HOME=str(home), TERM="dumb", LC_ALL="C.UTF-8")
    (home / "programs" / program).touch(0o755)
    (home / "programs" / program).write_text(PROGRAM.format(root=ROOT, python=sys.executable, log=log))
    rc = RC[shell].format(script=script, folder=scripts)
    (home / ".zshrc").write_text(rc)
    (home / "fish").mkdir()
    (home / "fish" / "config.fish").write_text(rc)
    process = pexpect.spawn(shell, STARTED[shell], env=programs, cwd=str(folder), encoding="utf-8", dimensions=(50, 200), timeout=60)
    if shell == "bash":
        process.sendline(rc)
    process.expect_exact(PROMPT)

    def arguments(line):
        log.unlink(missing_ok=True)
        process.send(f"{program} {line}\t\r")
        process.sendline("echo en''d")
        process.expect("end\r?\n")
        process.expect_exact(PROMPT)
        return log.read_text().split("\0")[:-1] if log.exists() else None

    yield arguments
    process.close(force=True)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sho", ["show"]),
        ("show --filt", ["show", "--filter"]),
        ("plan --by positi", ["plan", "--by", "position"]),
        ("show ru", ["show", "run.pth"]),
        ("show run.pth#model_", ["show", "run.pth#model_ema"]),
        ("diff run.pth#model run.pth#model_", ["diff", "run.pth#model", "run.pth#model_ema"]),
        ("check resnet50_to_y", ["check", "resnet50_to_yolo.yaml"]),
        ("map --rules min", ["map", "--rules", "mine.yaml"]),
    ],
)
def test_tab_completes(typed, line, found):
    assert typed(line) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("show hostile.pth#", ["show", "hostile.pth#netD"]),
        ("show worse.pth#", ["show", "worse.pth#"]),
        ("show run.pth#d", ["show", "run.pth#d:e"]),
        ("check evi", ["check", "evil$(touch PWNED).yaml"]),
    ],
)
def test_names_out_of_files_are_never_run(typed, folder, line, found):
    assert typed(line) == found
    assert not [name for name in os.listdir(folder) if name.startswith("PWNED")]
