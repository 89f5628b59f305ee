"""Rules beyond renames: ops for some words only, keys read twice, tensors without a source, numbers that catalogs tell."""

import pytest
import torch
from literals import catalog, facts, pairs, problems, rules

from ckpt_tool.errors import RuleError
from ckpt_tool.mapping import compile_plan, invert_rules
from ckpt_tool.mapping.apply import apply_step


def values(plan, source):
    """What the plan gives, run on the source's tensors."""
    return {
        key: value
        for step in plan.steps
        for key, value in zip(step.outputs, apply_step(step, [source[each] for each in step.inputs]), strict=True)
    }


def counted(*shape, start=0):
    return torch.arange(start, start + torch.Size(shape).numel()).float().reshape(shape)


ROPE = '{rearrange: "(h p two) ... -> (h two p) ...", h: 1, two: 2}'


def test_ops_for_some_words_after_a_split(tmp_path):
    text = f"rules:\n  - a.{{i}}.qkv.* -> b.{{i}}.{{q,k,v}}.*: [{{split: 0}}, {{each: {{q: {ROPE}, k: {ROPE}}}}}]\n"
    source = {"a.0.qkv.w": counted(12, 2)}
    rule_set = rules(tmp_path, text)
    plan = compile_plan(rule_set, catalog("a.0.qkv.w 12x2"))
    found = values(plan, source)
    swapped = [0, 2, 1, 3]
    assert found["b.0.q.w"].tolist() == source["a.0.qkv.w"][:4][swapped].tolist()
    assert found["b.0.k.w"].tolist() == source["a.0.qkv.w"][4:8][swapped].tolist()
    assert found["b.0.v.w"].tolist() == source["a.0.qkv.w"][8:].tolist()
    back = compile_plan(rules(tmp_path, invert_rules(rule_set).yaml), plan.outputs, catalog("a.0.qkv.w 12x2"))
    assert torch.equal(values(back, found)["a.0.qkv.w"], source["a.0.qkv.w"])


def test_sizes_of_a_split_come_from_the_target_though_ops_follow(tmp_path):
    text = f"rules:\n  - qkv.w -> {{q,k,v}}.w: [{{split: 0}}, {{each: {{q: {ROPE}}}}}]\n"
    plan = compile_plan(rules(tmp_path, text), catalog("qkv.w 8x2"), catalog("q.w 4x2", "k.w 2x2", "v.w 2x2"))
    assert plan.outputs["k.w"].shape == (2, 2)


def test_ops_for_some_words_before_they_are_joined(tmp_path):
    text = """\
params: {dim: {dim: [0.q_bias, 0]}}
rules:
  - "{i}.{q_bias,v_bias} -> {i}.qkv.bias": [{each: {q_bias: {pad: {dim: 0, after: dim}}}}, {concat: 0}]
"""
    source = {"0.q_bias": counted(2, start=1), "0.v_bias": counted(2, start=5)}
    plan = compile_plan(rules(tmp_path, text), catalog("0.q_bias 2", "0.v_bias 2"))
    assert values(plan, source)["0.qkv.bias"].tolist() == [1, 2, 0, 0, 5, 6]


def test_ops_for_a_word_that_is_carried_over(tmp_path):
    text = "rules:\n  - 'a.{q,v}.w -> b.{x,y}.w': {each: {q: transpose}}\n"
    plan = compile_plan(rules(tmp_path, text), catalog("a.q.w 2x3", "a.v.w 2x3"))
    assert {key: info.shape for key, info in plan.outputs.items()} == {"b.x.w": (3, 2), "b.y.w": (2, 3)}


def test_ops_for_one_pattern_of_several(tmp_path):
    text = "rules:\n  - {from: [cls, pos], to: cls, ops: [{each: {pos: {slice: {dim: 1, stop: 1}}}}, sum]}\n"
    plan = compile_plan(rules(tmp_path, text), catalog("cls 1x1x4", "pos 1x5x4"))
    source = {"cls": counted(1, 1, 4), "pos": counted(1, 5, 4)}
    assert torch.equal(values(plan, source)["cls"], source["cls"] + source["pos"][:, :1])


EACH = [
    (
        "rules:\n  - 'a.{q,k} -> b': [{each: {x: transpose}}, {concat: 0}]\n",
        ("bad-op", "2:5", "`each`: `x` is neither a word of a choice in the rule nor one of its patterns"),
    ),
    (
        "rules:\n  - 'a.{q,k} -> b': [{concat: 0}, {each: {q: transpose}}]\n",
        ("bad-op", "2:5", "`each`: `q` is a part of a tensor here; put it before the op that joins, or after the one that splits"),
    ),
    (
        "rules:\n  - 'a.{q,k} -> b': [{each: {q: transpose, 'a.{q,k}': transpose}}, {concat: 0}]\n",
        ("bad-op", "2:5", "`each`: `q` and `a.{q,k}` stand for one tensor"),
    ),
    (
        "rules:\n  - 'a.{q,k} -> b': [{each: {q: concat}}]\n",
        ("bad-op", "2:24", "`each`: `concat` can't be inside; it works on several tensors"),
    ),
    ("rules:\n  - 'a.{q,k} -> b': [{each: 3}]\n", ("bad-op", "2:24", "`each` gives ops for words, as in `{q: transpose}`")),
]


@pytest.mark.parametrize(("text", "fact"), EACH, ids=[fact[2][:40] for _, fact in EACH])
def test_each_says_what_is_wrong(tmp_path, text, fact):
    try:
        found = facts(problems(tmp_path, text, catalog("a.q 2x2", "a.k 2x2")))
    except RuleError as error:
        found = facts(error.problems)
    assert found == [(fact[0], found[0][1], fact[2])]
    assert found[0][1].startswith(fact[1].split(":")[0])


def test_also_reads_what_another_rule_takes(tmp_path):
    text = """\
rules:
  - pos -> pos: {slice: {dim: 1, start: 1}}
  - blocks.** -> blocks.**
also:
  - {from: [cls, pos], to: cls, ops: [{each: {pos: {slice: {dim: 1, stop: 1}}}}, sum]}
"""
    source = catalog("cls 1x1x4", "pos 1x5x4", "blocks.0.w 2")
    plan = compile_plan(rules(tmp_path, text), source, catalog("cls 1x1x4", "pos 1x4x4", "blocks.0.w 2"))
    assert pairs(plan) == {"pos": ("pos",), "blocks.0.w": ("blocks.0.w",), "cls": ("cls", "pos")}
    assert plan.dropped == ()
    turned = invert_rules(rules(tmp_path, text))
    assert turned.yaml is None
    assert turned.rules[-1].why == "it reads keys that other rules take"


def test_also_with_no_key_is_a_dead_rule(tmp_path):
    found = facts(problems(tmp_path, "rules:\n  - a -> b\nalso:\n  - x -> c\n", catalog("a 2")))
    assert found == [("dead-rule", "4:5", "`x` matches no key of the source")]


def test_tensors_without_a_source(tmp_path):
    text = """\
rules:
  - w.* -> w.*
  - -> blocks.{i}.scale: {init: ones}
  - -> ids: {init: arange}
"""
    target = catalog("w.a 2", "blocks.0.scale 3", "blocks.1.scale 3", "ids 1x4 I64")
    rule_set = rules(tmp_path, text)
    plan = compile_plan(rule_set, catalog("w.a 2"), target)
    found = values(plan, {"w.a": counted(2)})
    assert found["blocks.1.scale"].tolist() == [1, 1, 1]
    assert (found["ids"].tolist(), found["ids"].dtype) == ([[0, 1, 2, 3]], torch.int64)
    assert plan.counts == {"mapped": 4, "kept": 0, "dropped": 0}
    turned = invert_rules(rule_set)
    assert "drop:\n  - blocks.{i}.scale\n  - ids\n" in turned.yaml
    back = compile_plan(rules(tmp_path, turned.yaml), target, catalog("w.a 2"))
    assert back.dropped == ("blocks.0.scale", "blocks.1.scale", "ids")


def test_tensors_without_a_source_or_a_target_are_spelled_out(tmp_path):
    text = "rules:\n  - a -> a\n  - -> b.{x,y}.{n=0..1}: {init: {fill: 0.5, shape: [2], dtype: BF16}}\n"
    plan = compile_plan(rules(tmp_path, text), catalog("a 2"))
    assert [key for key in plan.outputs if key != "a"] == ["b.x.0", "b.x.1", "b.y.0", "b.y.1"]
    assert values(plan, {"a": counted(2)})["b.y.1"].tolist() == [0.5, 0.5]


NO_SOURCE = [
    ("rules:\n  - -> b: transpose\n", "bad-rule", "2:5", "a rule without a source begins with `init`, as in `-> TARGET: {init: zeros}`"),
    ("rules:\n  - -> b\n", "bad-rule", "2:5", "a rule without a source begins with `init`, as in `-> TARGET: {init: zeros}`"),
    ("rules:\n  - a -> b: {init: ones}\n", "bad-rule", "2:5", "`init` makes a tensor that has no source; such a rule reads `-> TARGET: {init: zeros}`"),
    ("also:\n  - -> b: {init: ones}\n", "bad-rule", "2:5", "a rule of `also:` has a source, which other rules may take"),
    ("rules:\n  - a ->\n", "bad-rule", "2:5", "nothing is right of the arrow; list keys to leave behind under `drop:`"),
    ("rules:\n  - {from: a, to: []}\n", "bad-rule", "2:5", "`to:` names no target; what is to be left behind is listed under `drop:`"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "place", "message"), NO_SOURCE, ids=[row[3][:40] for row in NO_SOURCE])
def test_rules_without_one_side_say_what_is_wrong(tmp_path, text, code, place, message):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, text)
    assert facts(caught.value.problems) == [(code, place, message)]


def test_a_tensor_without_a_source_needs_keys_and_a_shape(tmp_path):
    text = "rules:\n  - a -> a\n  - -> b.{i}: {init: ones}\n"
    assert facts(problems(tmp_path, text, catalog("a 2"))) == [("dead-rule", "3:8", "only a target can say which keys `b.{i}` stands for")]
    assert facts(problems(tmp_path, text, catalog("a 2"), catalog("a 2"))) == [("dead-rule", "3:8", "`b.{i}` matches no key of the target")]
    text = "rules:\n  - a -> a\n  - -> b: {init: ones}\n"
    assert facts(problems(tmp_path, text, catalog("a 2"))) == [
        ("bad-op", "3:5", "`init` does not know its shape: give `shape` and `dtype`, or a target")
    ]


def test_a_value_without_a_source_collides_like_any_other(tmp_path):
    text = "rules:\n  - a -> a\n  - -> a: {init: ones}\n"
    (problem,) = problems(tmp_path, text, catalog("a 2"), catalog("a 2"))
    assert problem.message == "`a` would get two values: from `a` and from `init`"


STAGES = """\
params:
  first: {count: "stages.0.blocks.*.w", of: target}
  second: {count: "stages.1.blocks.*.w", of: target}
rules:
  - blocks.{j=0..first-1}.w -> stages.0.blocks.{j}.w
  - blocks.{first+j}.w -> stages.1.blocks.{j=0..second-1}.w
"""


def test_flat_numbers_are_cut_into_stages_where_parameters_say(tmp_path):
    source = catalog(*(f"blocks.{i}.w 2" for i in range(5)))
    target = catalog(*(f"stages.0.blocks.{i}.w 2" for i in range(2)), *(f"stages.1.blocks.{i}.w 2" for i in range(3)))
    rule_set = rules(tmp_path, STAGES)
    plan = compile_plan(rule_set, source, target)
    assert pairs(plan)["stages.0.blocks.1.w"] == ("blocks.1.w",)
    assert pairs(plan)["stages.1.blocks.0.w"] == ("blocks.2.w",)
    back = compile_plan(rules(tmp_path, invert_rules(rule_set).yaml), target, source)
    assert pairs(back)["blocks.4.w"] == ("stages.1.blocks.2.w",)


def test_a_count_needs_its_side(tmp_path):
    (problem, _) = problems(tmp_path, STAGES, catalog("blocks.0.w 2"))
    assert (problem.code, problem.message) == ("unset-param", "`first` has no number")
    assert problem.notes == ("give it by `--set first=…` or a target, in which it is measured",)


def test_a_bound_that_is_no_parameter(tmp_path):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, "rules:\n  - a.{j=0..n-1} -> b.{j}\n")
    assert facts(caught.value.problems) == [("bad-pattern", "2:5", "`n` bounds a number and is declared under no `params:`")]


def test_numbers_that_a_parameter_makes_insoluble(tmp_path):
    text = "params: {n: 4}\nrules:\n  - a.{3*i+j}.w -> b.{i}.{j=0..n-1}.w\n"
    assert facts(problems(tmp_path, text, catalog("a.1.w 2"))) == [
        ("bad-param", "3:5", "`{3*i+j}` can't be worked out backwards; bound all its numbers but one, as in `{j=0..2}`")
    ]


def test_tensors_that_must_be_the_same_are_compared_at_run_time(tmp_path):
    text = "rules:\n  - '{a,b} -> c': same\n"
    (step,) = compile_plan(rules(tmp_path, text), catalog("a 2", "b 2")).steps
    assert apply_step(step, [torch.ones(2), torch.ones(2)])[0].tolist() == [1, 1]
    with pytest.raises(RuleError) as caught:
        apply_step(step, [torch.ones(2), torch.zeros(2)])
    assert facts(caught.value.problems) == [("values", "2:6", "tensors that must be the same differ: `a` and `b`")]


def test_drops_and_keeps_that_may_match_nothing(tmp_path):
    text = "rules: [a -> a]\noptional:\n  - x.* -> y.*\n  - drop: '**.steps'\n  - keep: head.*\n"
    rule_set = rules(tmp_path, text)
    assert compile_plan(rule_set, catalog("a 1"), catalog("a 1")).counts == {"mapped": 1, "kept": 0, "dropped": 0}
    plan = compile_plan(rule_set, catalog("a 1", "bn.steps -"), catalog("a 1", "head.w 2"))
    assert (plan.dropped, plan.kept) == (("bn.steps",), ("head.w",))
    back = compile_plan(rules(tmp_path, invert_rules(rule_set).yaml), plan.target, plan.source)
    assert (back.dropped, back.kept) == (("head.w",), ("bn.steps",))


def test_name_tests_of_a_block_hold_whatever_the_source_is(tmp_path):
    text = "rules: [w -> w]\nwhen:\n  - has: n\n    drop: [n]\ntests: {n: null, w: w}\n"
    assert problems(tmp_path, text, catalog("w 1")) == []


def test_name_tests_of_parted_tensors_may_name_any_part(tmp_path):
    text = "rules:\n  - e.{i} -> e.{i}.{e}.{gate,up}: [{unstack: 0}, {split: 0}]\ntests: {e.3: e.3.12.up}\n"
    assert problems(tmp_path, text, catalog("e.0 2x4")) == []
    assert [p.message for p in problems(tmp_path, text.replace("e.3.12.up}", "e.4.12.up}"), catalog("e.0 2x4"))] == [
        "`e.3` becomes `e.3.0.gate`; the test wants `e.4.12.up`"
    ]
