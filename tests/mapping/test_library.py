"""The shipped mappings: each reproduces real conversions, bit for bit, and names no single layer."""

import gzip
import json
import re

import pytest
import torch
from conftest import ROOT
from truths import FOLDER, Truth, expected, random_tensors, read_truth

from ckpt_tool.api import find_rules
from ckpt_tool.mapping import compile_plan, invert_rules, read_rule_files
from ckpt_tool.mapping.compile import may_fit
from ckpt_tool.ops import run_chain

PROOFS = sorted(FOLDER.glob("*.json.gz"))


def results(plan, source):
    """What a plan makes of tensors in memory."""
    return {
        key: value
        for step in plan.steps
        for key, value in zip(step.outputs, run_chain(step.ops, [source[each] for each in step.inputs]), strict=True)
    }


def plan_of(truth: Truth):
    rule_set = read_rule_files([find_rules(name) for name in truth.proof["rules"]])
    params, config = truth.proof.get("set", {}), truth.proof.get("config", {})
    assert may_fit(rule_set, truth.source, truth.target, params, config), "the quick look of `ckpt mappings`"
    return compile_plan(rule_set, truth.source, truth.target, params, config)


@pytest.mark.parametrize("path", PROOFS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_mapping_reproduces_a_real_conversion(path):
    truth = read_truth(path)
    plan = plan_of(truth)
    assert set(plan.kept) == truth.fresh
    # A key that is tied to another may be left behind: the truth counts the tensor as used.
    assert set(plan.dropped) - truth.tied == truth.unused - truth.tied
    source = truth.source_values()
    for key, value in results(plan, source).items():
        entry = truth.entries[key]
        if entry["op"] != "computed":
            assert torch.equal(value, expected(entry, source, tuple(truth.target[key].shape))), key


def test_dinov2_at_another_image_size_is_what_timm_makes_of_it(timm):
    """Resized positions, and the class token with its own position added: to float rounding."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    truth = read_truth(FOLDER / "timm_dinov2_reg4_resize.json.gz")
    source = truth.source_values()
    found = results(plan_of(truth), source)
    model = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=224, num_classes=0)
    wanted = checkpoint_filter_fn(dict(source), model)
    assert set(wanted) == set(found)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6, msg=key)


def mapping_files():
    return sorted((ROOT / "mappings").glob("*.yaml"))


@pytest.mark.parametrize("path", mapping_files(), ids=lambda path: path.stem)
def test_mapping_says_what_it_is_and_where_its_truth_comes_from(path):
    text = path.read_text()
    rule_set = read_rule_files([str(path)])
    assert rule_set.about
    assert text.startswith("# "), "a comment on top says where the truth comes from"
    assert rule_set.tests, "at least one test by names"
    assert rule_set.expect is None, "counts depend on the model's size"


@pytest.mark.parametrize("path", mapping_files(), ids=lambda path: path.stem)
def test_mapping_lists_no_single_layers(path):
    """A rule file stays the same for a deeper model: no rule has the number of a layer among many."""
    for rule in read_rule_files([str(path)]).rules:
        numbered = [token for side in rule.sources for token in re.findall(r"(?:^|\.)(\d+)(?=\.)", side.pattern.text)]
        assert all(int(number) < 10 for number in numbered), rule.text


def ways_back():
    """Each file that another is the way back of, with that other."""
    for path in mapping_files():
        if found := re.search(r"^# The way back of (\w+)\.yaml", path.read_text(), re.MULTILINE):
            yield found[1], path


@pytest.mark.parametrize(("name", "path"), list(ways_back()), ids=lambda value: getattr(value, "stem", value))
def test_a_way_back_is_what_check_invert_writes(name, path):
    assert path.read_text().split("\n", 2)[2] == invert_rules(read_rule_files([find_rules(name)])).yaml.split("\n", 1)[1]


RETURNS = [(path, back) for path in PROOFS for name, back in ways_back() if [f"{name}.yaml"] == json.loads(gzip.decompress(path.read_bytes()))["proof"]["rules"]]


@pytest.mark.parametrize(("path", "back"), RETURNS, ids=lambda path: path.stem)
def test_a_real_conversion_and_its_way_back_give_back_every_bit(path, back):
    truth = read_truth(path)
    source, plan = truth.source_values(), plan_of(truth)
    params, config = truth.proof.get("set"), truth.proof.get("config")
    middle = results(plan, source)
    backward = compile_plan(read_rule_files([str(back)]), plan.outputs, truth.source, params, config)
    assert all(torch.equal(value, source[key]) for key, value in results(backward, {**random_tensors(truth.target, 2), **middle}).items())
    assert set(backward.kept) == set(plan.dropped)
