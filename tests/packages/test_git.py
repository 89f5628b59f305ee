"""git, hooks and annotations: `git diff` of checkpoints in a real repository, what unpickling would call, problems beside their lines."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from running import ckpt
from safetensors.torch import save_file
from shell import ROOT, Repository

import ckpt_tool

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n"


class Calls:
    def __reduce__(self):
        return os.system, ("true",)


class Settings:
    """A class of a training script."""


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{i}.{name}": torch.randn(shape, generator=generator) for i in range(3) for name, shape in (("weight", (4, 4)), ("bias", (4,)))}


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository", tmp_path / "programs")


def changed_lines(text):
    return [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize("driver", ["ckpt show --keys --digests", "ckpt textconv"])
def test_git_diff_shows_which_layers_changed(repository, driver):
    repository.git("config", "diff.ckpt.textconv", driver)
    (repository.folder / ".gitattributes").write_text("*.safetensors diff=ckpt\n")
    state = network()
    save_file(state, repository.folder / "model.safetensors")
    repository.commit()
    state["layer1.bias"] += 1
    save_file(state, repository.folder / "model.safetensors")
    lines = changed_lines(repository.git("diff"))
    assert [line.split("\t")[:3] for line in lines] == [["-layer1.bias", "F32", "4"], ["+layer1.bias", "F32", "4"]]
    assert lines[0].split("blake3:")[1] != lines[1].split("blake3:")[1]
    repository.commit()
    assert changed_lines(repository.git("log", "-p", "-1", "--format=")) == lines


def test_a_file_that_was_only_written_anew_has_no_lines_that_differ(repository):
    repository.git("config", "diff.ckpt.textconv", "ckpt textconv")
    (repository.folder / ".gitattributes").write_text("*.pth diff=ckpt\n")
    torch.save(network(), repository.folder / "model.pth")
    repository.commit()
    torch.save(network(), repository.folder / "model.pth", _use_new_zipfile_serialization=False)
    assert changed_lines(repository.git("diff")) == []


def test_git_diff_shows_what_is_no_tensor_and_what_is_beside_the_weights(repository):
    repository.git("config", "diff.ckpt.textconv", "ckpt textconv")
    (repository.folder / ".gitattributes").write_text("*.ckpt diff=ckpt\n")
    for epoch in (3, 4):
        torch.save({"model": network(), "ema": network(epoch), "epoch": epoch}, repository.folder / "run.ckpt")
        if epoch == 3:
            repository.commit()
    lines = changed_lines(repository.git("diff"))
    assert [line for line in lines if "epoch" in line] == ["-# value epoch: 3", "+# value epoch: 4"]
    assert {line[1:].split("\t")[0] for line in lines if "epoch" not in line} == {f"ema.{key}" for key in network()}


@pytest.mark.parametrize("name", ["-x.pth", "--output=x.pth", "--debug.pth", "-hybrid.pth", "--.pth"])
def test_git_diff_goes_on_where_a_name_looks_like_an_option(repository, name):
    """git gives the name itself for a new file of the work tree."""
    repository.git("config", "diff.ckpt.textconv", "ckpt textconv")
    (repository.folder / ".gitattributes").write_text("*.pth diff=ckpt\n")
    repository.commit()
    torch.save(network(), repository.folder / name)
    repository.git("add", "-A")
    assert [line.split("\t")[0] for line in changed_lines(repository.git("diff", "--cached"))] == [f"+{key}" for key in network()]
    assert "Usage" in ckpt("textconv", "--help").out
    assert ckpt("textconv").status == 2


def test_git_diff_goes_on_where_a_file_is_a_pointer_or_broken(repository):
    repository.git("config", "diff.ckpt.textconv", "ckpt textconv")
    (repository.folder / ".gitattributes").write_text("*.safetensors diff=ckpt\n")
    for digest, broken in (("a" * 64, b"no header"), ("b" * 64, b"none either")):
        (repository.folder / "lfs.safetensors").write_text(POINTER.format(digest))
        (repository.folder / "broken.safetensors").write_bytes(broken)
        if digest[0] == "a":
            repository.commit()
    lines = changed_lines(repository.git("diff"))
    assert [line for line in lines if "oid" in line] == [f"-oid sha256:{'a' * 64}", f"+oid sha256:{'b' * 64}"]
    assert sum(line.startswith(("-sha256\t", "+sha256\t")) for line in lines) == 2


def test_the_setup_of_the_docs_works(repository):
    setup = (ROOT / "docs" / "git.md").read_text().split("<!-- setup -->\n```sh\n")[1].split("```")[0]
    assert repository.run("sh", "-ec", setup).returncode == 0
    for seed in (0, 1):
        save_file(network(seed), repository.folder / "a.safetensors")
        repository.commit()
    for _ in range(2):
        assert len(changed_lines(repository.git("log", "-p", "-1", "--format=", "--", "a.safetensors"))) == 12


@pytest.fixture
def pickles(tmp_path):
    torch.save(network(), tmp_path / "plain.pth")
    torch.save({"model": network(), "hook": Calls()}, tmp_path / "calls.pth")
    (tmp_path / "numbers.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Calls()))
    (tmp_path / "two.pkl").write_bytes(pickle.dumps(1) + pickle.dumps({"a": Calls()}))
    (tmp_path / "three.pkl").write_bytes(pickle.dumps(1) + pickle.dumps(2) + b"\0 no pickle")
    (tmp_path / "lfs.pth").write_text(POINTER.format("a" * 64))
    return tmp_path


@pytest.mark.parametrize(
    ("files", "status", "last"),
    [
        ("plain.pth numbers.pkl", 0, "2 files scanned, no calls or imports"),
        ("calls.pth plain.pth", 1, "2 files scanned, 1 would call or import something"),
        ("bare.pkl", 1, "1 file scanned, 1 would call or import something"),
        ("plain.pth lfs.pth", 2, "1 file scanned, no calls or imports, 1 can't be read"),
        ("nowhere.pth", 2, "0 files scanned, 1 can't be read"),
        ("two.pkl", 1, "1 file scanned, 1 would call or import something"),
        ("three.pkl", 0, "1 file scanned, no calls or imports"),
        ("lfs.pth calls.pth nowhere.pth", 1, "1 file scanned, 1 would call or import something, 2 can't be read"),
    ],
)
def test_scan_answers_in_its_last_line_and_its_status(pickles, files, status, last):
    ran = ckpt("scan", *files.split(), cwd=pickles)
    assert (ran.status, ran.out.splitlines()[-1]) == (status, last)


def test_scan_of_a_folder_scans_the_files_below_it(pickles):
    inner = pickles / "runs" / "1"
    inner.mkdir(parents=True)
    for name, new in (("calls.pth", "model.safetensors"), ("bare.pkl", "no_suffix"), ("plain.pth", "a.pth"), ("lfs.pth", "b.pth")):
        (pickles / name).rename(inner / new)
    (inner / "config.json").write_text("{}")
    (inner / "up").symlink_to(pickles)
    (pickles / "nothing").mkdir()
    ran = ckpt("scan", "runs", "numbers.pkl", cwd=pickles)
    assert [line.partition(": ")[::2] for line in ran.out.splitlines()[:3]] == [
        ("runs/1/b.pth", "can't be read: is a git-lfs pointer: the weights themselves were not downloaded; git lfs pull"),
        ("runs/1/model.safetensors", f"unpickling it would call or import {os.system.__module__}.system"),
        ("runs/1/no_suffix", f"unpickling it would call or import {os.system.__module__}.system"),
    ]
    assert (ran.status, ran.out.splitlines()[-1]) == (1, "4 files scanned, 2 would call or import something, 1 can't be read")
    assert [Path(each.path).name for each in ckpt_tool.scan(inner).files] == ["a.pth", "b.pth", "model.safetensors", "no_suffix"]
    ran = ckpt("scan", "nothing", cwd=pickles)
    assert (ran.status, ran.out, ran.err) == (2, "", "error: nothing: is a folder without checkpoints or other pickles\n")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_scan_of_a_folder_reads_a_model_in_its_files(tmp_path):
    import torch.distributed.checkpoint as dcp

    (tmp_path / "hf").mkdir()
    save_file(network(), tmp_path / "hf" / "model-00001-of-00001.safetensors")
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(network(), "model-00001-of-00001.safetensors")}))
    torch.save({"step": Calls()}, tmp_path / "hf" / "training_args.bin")
    assert [(Path(each.path).name, len(each.calls)) for each in ckpt_tool.scan(tmp_path / "hf").files] == [("model-00001-of-00001.safetensors", 0), ("training_args.bin", 1)]
    dcp.save({"w": torch.ones(3)}, checkpoint_id=tmp_path / "dcp", no_dist=True)  # type: ignore[attr-defined]
    assert [(Path(each.path).name, each.fault) for each in ckpt_tool.scan(tmp_path / "dcp").files] == [(".metadata", None)]
    (tmp_path / "dcp" / ".metadata").unlink()
    (cut,) = ckpt_tool.scan(tmp_path / "dcp").files
    assert cut.fault.startswith("is a data file of a distributed checkpoint (DCP)")


def test_scan_names_what_would_be_called(pickles):
    ran = ckpt("scan", "calls.pth", "bare.pkl", cwd=pickles)
    assert ran.out.splitlines()[:2] == [f"{name}: unpickling it would call or import {os.system.__module__}.system" for name in ("calls.pth", "bare.pkl")]
    found = json.loads(ckpt("scan", "calls.pth", "plain.pth", "--json", cwd=pickles).out)
    assert found == {
        "schema": 1, "is_clean": False,
        "files": [{"path": "calls.pth", "calls": [f"{os.system.__module__}.system"], "fault": None}, {"path": "plain.pth", "calls": [], "fault": None}],
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("make", [lambda call: call, lambda call: (1, call), lambda call: [1] * 300 + [call], lambda call: (call, "x" * 5000)])
def test_scan_reads_pickles_of_all_protocols(tmp_path, protocol, make):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(make(Calls()), protocol))
    assert [each.calls for each in ckpt_tool.scan(tmp_path / "a.pkl").files] == [(f"{os.system.__module__}.system",)]


def test_scan_reads_calls_of_the_oldest_kind(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"(S'echo'\nios\nsystem\n.")
    assert [each.calls for each in ckpt_tool.scan(tmp_path / "a.pkl").files] == [("os.system",)]


def test_words_are_no_pickle(tmp_path):
    (tmp_path / "classes.pkl").write_text("classes\nperson\nbicycle\n")
    assert ckpt("scan", "classes.pkl", cwd=tmp_path).err == ""
    assert "is a text file, not a checkpoint" in ckpt("scan", "classes.pkl", cwd=tmp_path).out


def test_scan_in_python_prints_what_the_command_prints(pickles):
    files = [pickles / name for name in ("calls.pth", "numbers.pkl", "lfs.pth")]
    report = ckpt_tool.scan(*files)
    assert f"{report}\n" == ckpt("scan", *files).out
    assert (report.is_clean, repr(report)) == (False, "ScanReport(3 files, 1 would call or import something)")
    assert ckpt_tool.scan(files[1]).is_clean


def test_scan_is_silent_where_it_is_asked_to_be_and_nothing_is_called(pickles):
    assert ckpt("scan", "-q", "plain.pth", cwd=pickles).out == ""
    assert ckpt("scan", "-q", "calls.pth", cwd=pickles).out != ""


def test_scan_annotates_for_github(pickles):
    lines = ckpt("scan", "calls.pth", "lfs.pth", "--github", cwd=pickles).err.splitlines()
    assert lines[0] == f"::error title=ckpt%3A scan,file=calls.pth::unpickling it would call or import {os.system.__module__}.system"
    assert lines[1].startswith("::error title=ckpt%3A scan,file=lfs.pth::is a git-lfs pointer")


BAD = "rules:\n  - a.{i}.w -> b.w\n"
UNBALANCED = "::error title=ckpt%3A unbalanced,file=rules.yaml,line=2,col=7,endColumn=10::`{i}` is in the source only"


@pytest.mark.parametrize("command", ["check rules.yaml", "lint rules.yaml", "plan a.pth -r rules.yaml", "map a.pth -r rules.yaml -o b.pth"])
def test_problems_are_annotations_at_their_line(tmp_path, command):
    (tmp_path / "rules.yaml").write_text(BAD)
    torch.save(network(), tmp_path / "a.pth")
    ran = ckpt(*command.split(), "--github", cwd=tmp_path)
    assert ran.status == 1
    assert next(line for line in ran.err.splitlines() if line.startswith("::")).startswith(UNBALANCED)
    assert "::error" not in ckpt(*command.split(), cwd=tmp_path).err


def test_problems_of_a_plan_and_errors_are_annotations(tmp_path):
    (tmp_path / "rules.yaml").write_text("rules:\n  - layer{i}.* -> net.{i}.*\n")
    torch.save(network(), tmp_path / "a.pth")
    torch.save({"other": torch.ones(1)}, tmp_path / "b.pth")
    lines = [line for line in ckpt("plan", "a.pth", "b.pth", "-r", "rules.yaml", "--github", cwd=tmp_path).err.splitlines() if line.startswith("::")]
    assert lines[0].startswith("::error title=ckpt%3A unknown-target,file=rules.yaml,line=2,col=")
    assert "%0A" in lines[0]
    (tmp_path / "rules.yaml").write_text("rules: [")
    (line,) = (line for line in ckpt("check", "rules.yaml", "--github", cwd=tmp_path).err.splitlines() if line.startswith("::"))
    assert "rules.yaml" in line


def test_lint_checks_each_file_and_goes_on(tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text("rules: ['a.** -> b.**']\n")
    ran = ckpt("lint", "bad.yaml", "good.yaml", "nowhere.yaml", cwd=tmp_path)
    assert (ran.status, ran.out) == (1, "3 rule files, 2 with problems\n")
    assert ckpt("lint", "good.yaml", "nowhere.yaml", cwd=tmp_path).status == 2
    assert ckpt("lint", "good.yaml", cwd=tmp_path).out == "1 rule file checked: sound\n"


HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


@pytest.mark.parametrize(
    ("name", "is_scanned"),
    [("a.PTH", True), ("model.pth.tar", True), ("adapter_model.bin", True), ("diffusion_pytorch_model.fp16.bin", True), ("scheduler.bin", True), ("x.npy", True), ("learned_embeds.bin", True), ("text_encoder.bin", True), ("adapter.bin", True), ("best.th", True), ("run.dill", True), ("net.pt2", True), ("firmware.bin", False), ("path.py", False), ("a.safetensors", False), ("depth.txt", False)],
)
def test_the_hook_knows_pickles_by_their_names(name, is_scanned):
    assert bool(re.search(HOOKS["ckpt-no-code"]["files"], f"runs/{name}")) is is_scanned


def test_hooks_refuse_what_is_wrong_and_pass_what_is_right(repository):
    torch.save(network(), repository.folder / "good.pth")
    torch.save({"model": network(), "hook": Calls()}, repository.folder / "calls.pth")
    (repository.folder / "good.rules.yaml").write_text("rules: ['a.** -> b.**']\n")
    (repository.folder / "bad.rules.yaml").write_text(BAD)
    for hook, good, bad in (("ckpt-rules", "good.rules.yaml", "bad.rules.yaml"), ("ckpt-no-code", "good.pth", "calls.pth")):
        entry = HOOKS[hook]["entry"].split()
        assert repository.run(*entry, good).returncode == 0
        assert repository.run(*entry, good, bad).returncode == 1


def test_pre_commit_runs_the_hooks(repository):
    if not shutil.which("pre-commit"):
        pytest.skip("pre-commit is not installed")
    hooks = Repository(repository.folder.parent / "hooks", repository.folder.parent / "programs")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks.folder)
    hooks.commit()
    torch.save({"model": network(), "hook": Calls()}, repository.folder / "calls.pth")
    (repository.folder / "bad.rules.yaml").write_text(BAD)
    for is_wrong in (True, False):
        if not is_wrong:
            torch.save(network(), repository.folder / "calls.pth")
            (repository.folder / "bad.rules.yaml").write_text("rules: ['a.** -> b.**']\n")
        repository.commit()
        ran = repository.run("pre-commit", "try-repo", hooks.folder, "--all-files", PRE_COMMIT_HOME=str(repository.folder.parent / "cache"))
        assert (ran.returncode, ran.stdout.count("Failed"), ran.stdout.count("Passed")) == ((1, 2, 0) if is_wrong else (0, 0, 2)), ran.stdout


def test_textconv_never_fails_and_problems_of_yaml_have_their_line(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, said in (("missing.pth", "no such file"), ("folder", "directory")):
        ran = ckpt("textconv", name, cwd=tmp_path)
        assert (ran.status, said in ran.out.lower(), ran.err) == (0, True, "")
    (tmp_path / "r.yaml").write_text("rules:\n  - a -> b\n drop: [\n")
    ran = ckpt("lint", "--github", "r.yaml", cwd=tmp_path)
    assert re.search(r"::error title=ckpt,file=r\.yaml,line=\d+,col=\d+,endColumn=\d+::", ran.err)


def test_rules_and_page_do_not_go_to_one_file(tmp_path):
    (tmp_path / "a.txt").write_text("a.w\tF32\t2x2\n")
    (tmp_path / "b.txt").write_text("b.w\tF32\t2x2\n")
    ran = ckpt("suggest", "a.txt", "b.txt", "-o", "s.html", "--html", "./s.html", cwd=tmp_path)
    assert (ran.status, "is the file that the rules go to" in ran.err) == (2, True)
    assert not (tmp_path / "s.html").exists()
