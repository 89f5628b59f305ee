"""The shipped mappings: each reproduces real conversions, bit for bit, and names no single layer."""

import re

import pytest
import torch
from conftest import ROOT
from truths import FOLDER, Truth, expected, read_truth

from ckpt_tool.api import find_rules
from ckpt_tool.mapping import compile_plan, read_rule_files
from ckpt_tool.ops import run_chain

PROOFS = sorted(FOLDER.glob("*.json.gz"))


def plan_of(truth: Truth):
    rule_set = read_rule_files([find_rules(name) for name in truth.proof["rules"]])
    return compile_plan(rule_set, truth.source, truth.target, truth.proof.get("set"), truth.proof.get("config"))


@pytest.mark.parametrize("path", PROOFS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_mapping_reproduces_a_real_conversion(path):
    truth = read_truth(path)
    plan = plan_of(truth)
    assert set(plan.kept) == truth.fresh
    # A key that is tied to another may be left behind: the truth counts the tensor as used.
    assert set(plan.dropped) - truth.tied == truth.unused - truth.tied
    source = truth.source_values()
    for step in plan.steps:
        for key, value in zip(step.outputs, run_chain(step.ops, [source[each] for each in step.inputs]), strict=True):
            entry = truth.entries[key]
            if entry["op"] == "computed":
                continue
            assert torch.equal(value, expected(entry, source, tuple(truth.target[key].shape))), key


def test_dinov2_at_another_image_size_is_what_timm_makes_of_it(timm):
    """Resized positions, and the class token with its own position added: to float rounding."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    truth = read_truth(FOLDER / "timm_dinov2_reg4_resize.json.gz")
    plan, source = plan_of(truth), truth.source_values()
    found = {
        key: value
        for step in plan.steps
        for key, value in zip(step.outputs, run_chain(step.ops, [source[each] for each in step.inputs]), strict=True)
    }
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
