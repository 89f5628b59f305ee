"""Real conversions by names and shapes alone: how much is found, that it is right, and that the drafted rules say exactly that."""

import statistics

import pytest
from judging import HELD_OUT, JOBS, TUNED, Judge, confidences
from truths import read_truth

from ckpt_tool.align import MIN_CONFIDENCE, align, suggest
from ckpt_tool.mapping import compile_plan, read_rule_files, read_rule_text
from ckpt_tool.tensors import Catalog, DType, TensorInfo

MAPPINGS = TUNED[0].parent.parent.parent / "mappings"


@pytest.fixture(scope="module")
def drafted():
    """For each job its truth, and what is suggested for it."""
    found = {}
    for path in JOBS:
        truth = read_truth(path)
        found[path] = truth, suggest(truth.source, truth.target)
    return found


def scores(drafted, paths):
    return [Judge(truth).score(found.alignment.at_least(MIN_CONFIDENCE)) for truth, found in (drafted[path] for path in paths)]


def test_the_jobs_it_was_made_on(drafted):
    found = scores(drafted, TUNED)
    assert statistics.fmean(score.recall for score in found) >= 0.985
    assert statistics.fmean(score.precision for score in found) >= 0.999


def test_jobs_that_were_kept_aside(drafted):
    found = scores(drafted, HELD_OUT)
    assert statistics.fmean(score.recall for score in found) >= 0.97
    assert statistics.fmean(score.precision for score in found) >= 0.995


def test_ninety_nine_of_a_hundred_sure_pairs_are_right(drafted):
    found = [each for truth, made in drafted.values() for each in confidences(made.alignment.pairs, Judge(truth))]
    sure = [is_right for confidence, is_right in found if confidence >= MIN_CONFIDENCE]
    assert len(sure) > 14_000
    assert sum(sure) / len(sure) >= 0.99


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_the_rules_say_exactly_the_pairs(drafted, path):
    truth, found = drafted[path]
    wanted = {
        frozenset(key for slot in pair.targets for key in slot): {key for slot in pair.sources for key in slot}
        for pair in found.alignment.at_least(MIN_CONFIDENCE)
    }
    # What is not sure is in no section: the rest stays where it is, for this test.
    text = f"{found.text}rest: {{source: drop, target: keep}}\n"
    plan = compile_plan(read_rule_text(text, "drafted"), truth.source, truth.target, dtypes="target")
    assert {frozenset(step.outputs): set(step.inputs) for step in plan.steps} == wanted


def test_the_rules_are_as_few_as_those_written_by_hand(drafted):
    ratios = []
    for truth, found in drafted.values():
        by_hand = read_rule_files([str(MAPPINGS / name) for name in truth.proof["rules"]])
        ratios.append(len(found.rules) / len(by_hand.rules))
    assert statistics.median(ratios) <= 1.5


def layers(count, names, stem):
    shapes = {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8), "n1": (8,), "n2": (8,), "gate": (12, 8), "up": (12, 8), "down": (8, 12)}
    keys = [(f"{stem}.{i}.{names[part]}.weight", shape) for i in range(count) for part, shape in shapes.items()]
    return Catalog([TensorInfo(key, DType.F32, shape) for key, shape in keys])


LLAMA = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "n1": "input_layernorm",
    "n2": "post_attention_layernorm", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
OTHER = {
    "q": "attn.wq", "k": "attn.wk", "v": "attn.wv", "o": "attn.wo", "n1": "attn_norm", "n2": "ffn_norm", "gate": "ffn.w1", "up": "ffn.w3",
    "down": "ffn.w2",
}  # fmt: skip


def test_rules_drafted_from_two_layers_are_right_for_twenty_four():
    small = suggest(layers(2, LLAMA, "model.layers"), layers(2, OTHER, "blocks"))
    assert small.is_complete
    large = layers(24, LLAMA, "model.layers"), layers(24, OTHER, "blocks")
    plan = compile_plan(read_rule_text(small.text, "drafted"), *large)
    assert {step.outputs: step.inputs for step in plan.steps} == {(b,): (a,) for a, b in zip(*large, strict=True)}
    assert [(pair.sources, pair.targets) for pair in align(*large).at_least(MIN_CONFIDENCE)] == [
        (((a,),), ((b,),)) for a, b in zip(*large, strict=True)
    ]
