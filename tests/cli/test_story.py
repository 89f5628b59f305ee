"""The main job: ResNet-50 (320 keys) into a detector (384 keys), in every way that a user may type it."""

import json
import shlex
import shutil

import pytest
import torch
from detector import Detector
from running import ckpt
from safetensors.torch import load_file

JOB = """\
source: resnet50.pth
target: detector.pth
output: by_job.safetensors
rules:
  - conv1.* -> layer0.0.*
  - bn1.* -> layer0.1.*
  - layer{s}.{b}.conv{n}.* -> layer{s}.{b}.bottleneck.{3*n-3}.*
  - layer{s}.{b}.bn{n}.* -> layer{s}.{b}.bottleneck.{3*n-2}.*
  - layer{s}.{b}.downsample.** -> layer{s}.{b}.shortcut.**
drop: ["fc.*"]
keep: ["layer5.**", "conv_end.*", "bn_end.*"]
expect: {mapped: 318, kept: 66, dropped: 2}
"""


@pytest.fixture
def folder(story, tmp_path):
    for name in ("resnet50.pth", "detector.pth"):
        shutil.copy(story / name, tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def prove(folder, name):
    source, target = (torch.load(folder / each, weights_only=True) for each in ("resnet50.pth", "detector.pth"))
    mapped = load_file(folder / name) if name.endswith(".safetensors") else torch.load(folder / name, weights_only=True)
    assert list(mapped) == list(target)
    for value, tensor in zip(source.values(), list(mapped.values())[:318], strict=False):
        assert torch.equal(value, tensor)
    for key in list(mapped)[318:]:
        assert torch.equal(mapped[key], target[key])
    Detector().load_state_dict(mapped, strict=True)


WAYS = [
    ("map resnet50.pth detector.pth --rules resnet50_to_yolo.yaml -o c.pth", "c.pth"),
    ("map resnet50.pth detector.pth --rules resnet50_to_yolo -o c.safetensors", "c.safetensors"),
    ("map resnet50.pth detector.pth --by position --expect 318 -o c.pth", "c.pth"),
    ("map --rules job.yaml", "by_job.safetensors"),
    ("map --rules resnet50_to_yolo.yaml", "detector_pretrained.pth"),
]


@pytest.mark.parametrize(("arguments", "output"), WAYS)
def test_each_way_gives_318_and_66_tensors_bit_for_bit(folder, arguments, output):
    ran = ckpt(*arguments.split(), cwd=folder)
    assert ran.status == 0, ran.err
    assert "318 mapped, 66 kept, 2 dropped" in ran.err
    assert ran.out.splitlines()[-1].startswith(f"wrote {output}: 384 tensors")
    prove(folder, output)


def test_a_job_in_another_folder_means_its_paths_from_there(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert ckpt("map", "-r", folder / "job.yaml", cwd=elsewhere).status == 0
    prove(folder, "by_job.safetensors")


def test_diff_says_320_against_384(story):
    ran = ckpt("diff", "resnet50.pth", "detector.pth", cwd=story)
    assert ran.status == 1
    lines = ran.out.splitlines()
    assert lines[0].split() == ["---", "resnet50.pth", "320", "tensors", "102.4", "MB"]
    assert lines[1].split() == ["+++", "detector.pth", "384", "tensors", "107.1", "MB"]


def test_what_was_written_differs_from_the_target_in_values_alone(folder):
    ckpt("map", "resnet50.pth", "detector.pth", "--by", "position", "--partial", "-o", "c.pth", cwd=folder)
    ran = ckpt("diff", "detector.pth", "c.pth", "--values", "--json", cwd=folder)
    counts = json.loads(ran.out)["counts"]
    assert (ran.status, counts["same"], counts["value"], counts["only_a"], counts["only_b"]) == (1, 66, 318, 0, 0)


def test_plan_says_why(story):
    ran = ckpt("plan", "--rules", "resnet50_to_yolo.yaml", "--why", "layer1.0.bottleneck.6.weight", "--why", "fc.bias", cwd=story)
    first, second = ran.out.splitlines()
    assert first.startswith("target layer1.0.bottleneck.6.weight (F32 256×64×1×1) comes from layer1.0.conv3.weight, by ")
    assert first.endswith("resnet50_to_yolo.yaml:13 `layer{s}.{b}.conv{n}.* -> layer{s}.{b}.bottleneck.{3*n-3}.*`")
    assert second == "source fc.bias (F32 1000) is dropped"


def test_plan_as_json_lists_each_step(story):
    report = json.loads(ckpt("plan", "--rules", "resnet50_to_yolo.yaml", "--json", cwd=story).out)
    assert report["schema"] == 1
    assert report["counts"] == {"mapped": 318, "kept": 66, "dropped": 2}
    assert report["steps"][0]["inputs"] == ["conv1.weight"]
    assert report["steps"][0]["origin"]["by"] == "rule"
    assert report["steps"][0]["origin"]["line"] == 11


def test_a_hurried_map_is_refused_and_says_what_to_type(folder):
    """No name is equal: nothing is written, and the command that is proposed does the whole job."""
    ran = ckpt("map", "resnet50.pth", "detector.pth", "-o", "c.pth", cwd=folder)
    assert (ran.status, ran.out) == (1, "")
    assert not (folder / "c.pth").exists()
    assert "0 mapped; 384 of 384 target keys would stay fresh (100.0 % of the target's elements)" in ran.err
    way = ran.err.splitlines()[-1].removeprefix("next: ")
    assert way == "ckpt map resnet50.pth detector.pth --rules resnet50_to_yolo.yaml -o c.pth"
    assert ckpt(*shlex.split(way)[1:], cwd=folder).status == 0
    prove(folder, "c.pth")
    report = json.loads(ckpt("plan", "resnet50.pth", "detector.pth", "--by", "name", "--json", cwd=folder).out)
    assert report["next"] == "ckpt plan resnet50.pth detector.pth --rules resnet50_to_yolo.yaml"
    assert report["tally"] == {"mapped": 0, "fresh": 384, "left": 320, "fresh_elements": 26_786_424, "elements": 26_786_424}


def test_a_wrong_count_is_refused_and_nothing_is_written(folder):
    ran = ckpt("map", "resnet50.pth", "detector.pth", "--by", "position", "--expect", "300", "-o", "c.pth", cwd=folder)
    assert ran.status == 1
    assert "318 mapped, but 300 are expected" in ran.err
    assert not (folder / "c.pth").exists()


def test_misspelt_rules_write_nothing_and_name_the_nearest_key(folder):
    (folder / "job.yaml").write_text(JOB.replace("bottleneck.{3*n-3}", "botleneck.{3*n-3}"))
    ran = ckpt("map", "--rules", "job.yaml", cwd=folder)
    assert ran.status == 1
    assert "--> job.yaml:7:31" in ran.err
    assert "nearest key: layer1.0.bottleneck.0.weight" in ran.err
    assert not (folder / "by_job.safetensors").exists()


def test_key_lists_stand_in_for_checkpoints(story, tmp_path):
    for name in ("resnet50", "detector"):
        (tmp_path / f"{name}.txt").write_text(ckpt("show", "--keys", story / f"{name}.pth").out)
    ran = ckpt("plan", "resnet50.txt", "detector.txt", "-r", "resnet50_to_yolo.yaml", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1][:33]) == (0, "318 mapped, 66 kept, 2 dropped; e")
    piped = ckpt("diff", "-", "resnet50.txt", cwd=tmp_path, stdin=(tmp_path / "resnet50.txt").read_text())
    assert piped.status == 0
    refused = ckpt("map", "resnet50.txt", "detector.txt", "-r", "resnet50_to_yolo.yaml", "-o", "x.pth", cwd=tmp_path)
    assert (refused.status, "is a key list" in refused.err) == (2, True)


def test_check_of_the_shipped_mapping(story):
    assert ckpt("check", "resnet50_to_yolo.yaml").status == 0
    assert ckpt("check", "resnet50_to_yolo.yaml", "resnet50.pth", "detector.pth", cwd=story).status == 0
    assert ckpt("check", "resnet50_to_yolo.yaml", "detector.pth", cwd=story).status == 1


def test_target_may_be_a_factory_that_builds_the_model(folder):
    ran = ckpt(
        "map", "resnet50.pth", "detector:Detector", "-r", "resnet50_to_yolo.yaml", "-o", "c.pth", cwd=folder,
        env={"PYTHONPATH": str(__import__("conftest").ROOT / "examples")},
    )  # fmt: skip
    assert ran.status == 0, ran.err
    mapped = torch.load(folder / "c.pth", weights_only=True)
    assert len(mapped) == 384
    assert torch.equal(mapped["layer0.0.weight"], torch.load(folder / "resnet50.pth", weights_only=True)["conv1.weight"])


def test_a_shipped_mapping_that_is_used_instead_of_the_draft_is_called_so(folder):
    lines = ckpt("suggest", "resnet50.pth", "detector.pth", cwd=folder).err.splitlines()
    assert lines[-2] == "hint: resnet50_to_yolo.yaml is a shipped mapping that fits this pair: no draft needed"
    assert lines[-1] == "next: ckpt map resnet50.pth detector.pth --rules resnet50_to_yolo.yaml -o mapped.pth"
