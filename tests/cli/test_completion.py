"""Completion by each shell's protocol: commands, rule files and shipped mappings, the state dicts of a file."""

import pytest
import torch
from running import ckpt, ckpt_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    torch.save({"model": {"a": torch.ones(2)}, "model_ema": {"a": torch.ones(2)}, "epoch": 1}, folder / "run.pth")
    (folder / "resnet_mine.yaml").write_text("rules: []\n")
    (folder / "resnet_notes.txt").write_text("no rules\n")
    (folder / "broken.pth").write_bytes(b"no checkpoint")
    return folder


def bash(words, folder):
    env = {"_CKPT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    return ckpt_process(cwd=folder, env=env).out.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ckpt sh", {"show"}), ("ckpt plan --by ", {"name", "position", "auto"}), ("ckpt show --format cs", {"csv"}),
        ("ckpt show run.pth#", {"run.pth#model", "run.pth#model_ema"}), ("ckpt diff run.pth#model run.pth#model_e", {"run.pth#model_ema"}),
        ("ckpt show run.p", set()), ("ckpt show broken.pth#", set()), ("ckpt show nothing.pth#", set()),
    ],
)  # fmt: skip
def test_what_bash_completes(folder, words, found):
    assert set(bash(words, folder)) == found


def test_rule_files_and_shipped_mappings(folder):
    for words in ("ckpt map --rules resnet", "ckpt check resnet"):
        found = bash(words, folder)
        assert found[0] == "resnet_mine.yaml"
        assert "resnet50_to_yolo.yaml" in found
        assert "resnet_notes.txt" not in found


def test_zsh_and_fish_complete_the_same(folder):
    asked = {"_TYPER_COMPLETE_ARGS": "ckpt show run.pth#", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    zsh = ckpt_process(cwd=folder, env={"_CKPT_COMPLETE": "complete_zsh", **asked}).out
    assert '"run.pth#model_ema"' in zsh
    fish = ckpt_process(cwd=folder, env={"_CKPT_COMPLETE": "complete_fish", **asked}).out
    assert fish.split() == ["run.pth#model", "run.pth#model_ema"]


@pytest.mark.parametrize(("shell", "text"), [("bash", "complete -o default"), ("zsh", "#compdef ckpt"), ("fish", "complete --command ckpt")])
def test_the_script_of_each_shell_is_printed(shell, text):
    ran = ckpt("--show-completion", shell)
    assert ran.status == 0
    assert text in ran.out


def test_no_shell_of_that_name():
    ran = ckpt("--show-completion", "tcsh")
    assert ran.status == 2
    assert "'bash', 'zsh', 'fish'" in ran.err


def test_the_script_is_written_where_the_shell_reads_it(tmp_path):
    ran = ckpt_process("--install-completion", "fish", env={"HOME": str(tmp_path)})
    assert ran.status == 0
    assert "complete --command ckpt" in (tmp_path / ".config/fish/completions/ckpt.fish").read_text()


@pytest.mark.parametrize("name", ["$(touch PWNED)", "`touch PWNED`", "a;touch PWNED", "a b", "a'b", 'a"b', "a&b", "a>b", "a\nb", "a\\b"])
def test_names_that_a_shell_would_run_are_not_completed(tmp_path, name):
    torch.save({name: {"a": torch.ones(2)}, "netD": {"a": torch.ones(2)}}, tmp_path / "run.pth")
    if "/" not in name:
        (tmp_path / f"r{name}.yaml").write_text("rules: []\n")
    (tmp_path / "rules.yaml").write_text("rules: []\n")
    assert bash("ckpt show run.pth#", tmp_path) == ["run.pth#netD"]
    assert [word for word in bash("ckpt check r", tmp_path) if not word.startswith("resnet")] == ["rules.yaml"]
    assert bash("ckpt check ./ru", tmp_path) == ["./rules.yaml"]
