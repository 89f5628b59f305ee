"""Inverse rules: what they say, and that they lead back."""

import json

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from literals import catalog, rules
from running import ckpt

from ckpt_tool.keys import Matcher, parse
from ckpt_tool.keys.write import write
from ckpt_tool.mapping import check_rules, compile_plan, invert_rules
from ckpt_tool.ops import run_chain

EXACT = [
    ("module.** -> **", ["module.a.w 2"], '"** -> module.**"'),
    ("layer{s}.{b}.conv{n}.* -> l{s}.{b}.{3*n-3}.*", ["layer1.0.conv2.w 2"], "l{s}.{b}.{3*n-3}.* -> layer{s}.{b}.conv{n}.*"),
    ("a.{i}.qkv.w -> b.{i}.{q,k,v}.w: {split: 0}", ["a.0.qkv.w 6x2"], "b.{i}.{q,k,v}.w -> a.{i}.qkv.w: {concat: 0}"),
    (
        "e.{i}.{e}.{w1,w3}.w -> g.{i}: [{concat: 0}, {stack: 0}]",
        ["e.0.0.w1.w 2", "e.0.0.w3.w 2"],
        "g.{i} -> e.{i}.{e}.{w1,w3}.w: [{unstack: 0}, {split: 0}]",
    ),
    ("a.w -> b.w: transpose", ["a.w 2x3"], "b.w -> a.w: transpose"),
    (
        "a.w -> b.w: {rearrange: '(h two d) c -> (two h d) c', h: 2, two: 2}",
        ["a.w 8x3"],
        'b.w -> a.w: {rearrange: "(two h d) c -> (h two d) c", h: 2, two: 2}',
    ),
    ("{r=**}.g.w -> n.{r}.w", ["x.y.g.w 2"], "n.{r=**}.w -> {r=**}.g.w"),
    ("in.{3*b+j+1}.w -> down.{b}.{j=0..1}.w", ["in.5.w 2"], "down.{b}.{j=0..1}.w -> in.{3*b+j+1}.w"),
]


@pytest.mark.parametrize(("text", "keys", "inverse"), EXACT, ids=[row[0][:30] for row in EXACT])
def test_inverse_of_a_rule_says_and_does_the_opposite(tmp_path, text, keys, inverse):
    line = text if text.startswith("module") or ": {" in text or ": [" in text or ": tr" in text else f"'{text}'"
    source = catalog(*keys)
    forward_rules = rules(tmp_path, f"rules:\n  - {line}\n")
    turned = invert_rules(forward_rules)
    assert turned.rules[0].text == inverse
    assert turned.rules[0].verdict == "exact"
    forward = compile_plan(forward_rules, source)
    backward = compile_plan(rules(tmp_path, turned.yaml), forward.outputs, source)
    assert dict(backward.outputs) == dict(source)


def test_a_rule_file_and_its_inverse_give_back_every_bit(tmp_path):
    text = """\
tables: {part: {ln_1: norm1, mlp.c_fc: mlp.fc1}}
rules:
  - h.{i}.{part}.* -> blocks.{i}.{part}.*
  - h.{i}.attn.* -> blocks.{i}.{q,k,v}.*: [{rearrange: "(n three d) ... -> (three n d) ...", n: 2, three: 3}, {split: 0}]
drop: [steps]
keep: [head.*]
"""
    source = catalog("h.0.ln_1.w 4", "h.0.mlp.c_fc.w 8x4", "h.0.attn.w 12x4", "h.0.attn.b 12", "steps -")
    target = catalog(
        "blocks.0.norm1.w 4",
        "blocks.0.mlp.fc1.w 8x4",
        *(f"blocks.0.{p}.w 4x4" for p in "qkv"),
        *(f"blocks.0.{p}.b 4" for p in "qkv"),
        "head.w 3",
    )
    forward_rules = rules(tmp_path, text)
    forward = compile_plan(forward_rules, source, target)
    turned = invert_rules(forward_rules)
    backward = compile_plan(rules(tmp_path, turned.yaml), target, source)
    assert (backward.dropped, backward.kept) == (("head.w",), ("steps",))
    values = {key: torch.randn(info.shape) for key, info in source.items()}
    middle = {
        key: value
        for step in forward.steps
        for key, value in zip(step.outputs, run_chain(step.ops, [values[k] for k in step.inputs]), strict=True)
    }
    for step in backward.steps:
        for key, value in zip(step.outputs, run_chain(step.ops, [middle[k] for k in step.inputs]), strict=True):
            assert torch.equal(value, values[key])


def test_the_shipped_story_turns_round(tmp_path):
    ran = ckpt("check", "resnet50_to_yolo.yaml", "--invert", "-o", tmp_path / "back.yaml")
    assert (ran.status, "5 rules turned round exactly" in ran.err) == (0, True)
    assert "- l" in (tmp_path / "back.yaml").read_text()
    assert ckpt("check", tmp_path / "back.yaml").status == 0
    again = ckpt("check", "resnet50_to_yolo.yaml", "--invert", "-o", tmp_path / "back.yaml")
    assert (again.status, "exists already" in again.err) == (2, True)


def test_what_is_lost_is_said_and_nothing_is_written(tmp_path):
    (tmp_path / "r.yaml").write_text("rules:\n  - a.w -> b.w: {slice: {dim: 0, start: 1}}\n  - c -> d\n")
    ran = ckpt("check", "r.yaml", "--invert", "-o", "back.yaml", cwd=tmp_path)
    assert ran.status == 1
    assert "what `slice` leaves out is lost" in ran.err
    assert "1 rule can't be turned round; 1 could, exactly" in ran.err
    assert not (tmp_path / "back.yaml").exists()


def test_prefixes_that_were_taken_off_are_not_put_back_and_said(tmp_path):
    (tmp_path / "r.yaml").write_text("strip: [module.]\nrules: [a.w -> b.w]\n")
    ran = ckpt("check", "r.yaml", "--invert", "--json", cwd=tmp_path)
    assert json.loads(ran.out)["stripped"] == ["module."]
    assert "what `strip:` takes off is not put back: module." in ckpt("check", "r.yaml", "--invert", "-o", "back.yaml", cwd=tmp_path).err


def test_a_concrete_plan_knows_sizes_that_the_rule_does_not(tmp_path):
    text = "rules:\n  - a.w -> b.w: {reshape: [-1]}\n"
    assert invert_rules(rules(tmp_path, text)).yaml is None
    plan = compile_plan(rules(tmp_path, text), catalog("a.w 2x3"))
    assert invert_rules(rules(tmp_path, text), plan).rules[0].text == "b.w -> a.w: {reshape: [2, 3]}"


def test_copies_must_be_equal_on_the_way_back(tmp_path):
    turned = invert_rules(rules(tmp_path, "rules:\n  - 'e.w -> {a,b}.w': copy\n"))
    assert (turned.rules[0].text, turned.rules[0].verdict) == ('"{a,b}.w -> e.w": same', "exact with a check")


@pytest.mark.parametrize("path", sorted((ROOT / "mappings").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_inverse_of_a_shipped_mapping_is_sound(path, tmp_path):
    from ckpt_tool.mapping import read_rule_files

    turned = invert_rules(read_rule_files([str(path)]))
    if turned.yaml:
        assert check_rules(rules(tmp_path, turned.yaml)) == []
    else:
        assert any(each.why for each in turned.rules if each.text is None)


texts = st.lists(
    st.sampled_from(["a", "*", "{i}", "{2*i+1}", "{j=0..3}", "{q,k}", "{p=x,y}", "b{n}", r"\*", "{0..2}"]), min_size=1, max_size=5
)


@given(texts)
def test_a_pattern_that_is_written_out_is_the_same_pattern(parts):
    from ckpt_tool.keys import PatternError

    try:
        pattern = parse(".".join(parts))
        Matcher(pattern)
    except PatternError:
        return
    again = parse(write(pattern))
    assert (again.tokens, again.bounds) == (pattern.tokens, pattern.bounds)
