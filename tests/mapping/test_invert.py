"""Inverse rules: what they say, and that they lead back."""

import json

import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from literals import catalog, rules
from running import ckpt

from ckpt_tool.errors import RuleError
from ckpt_tool.keys import Matcher, parse
from ckpt_tool.keys.write import pattern_text
from ckpt_tool.mapping import check_rules, compile_plan, invert_rules
from ckpt_tool.ops import run_chain

EXACT = [
    ("module.** -> **", ["module.a.w 2"], '"** -> module.**"'),
    ("layer{s}.{b}.conv{n}.* -> l{s}.{b}.{3*n-3}.*", ["layer1.0.conv2.w 2"], "l{s}.{b}.{3*n-3}.* -> layer{s}.{b}.conv{n}.*"),
    ("a.{i}.qkv.w -> b.{i}.{q,k,v}.w: {split: 0}", ["a.0.qkv.w 6x2"], "b.{i}.{q,k,v}.w -> a.{i}.qkv.w: {concat: 0}"),
    (
        "e.{i}.{e}.{w1,w3}.w -> g.{i}: [{concat: {dim: 0, equal: true}}, {stack: 0}]",
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
    assert (ran.status, "5 rules inverted exactly" in ran.err) == (0, True)
    assert "- l" in (tmp_path / "back.yaml").read_text()
    assert ckpt("check", tmp_path / "back.yaml").status == 0
    again = ckpt("check", "resnet50_to_yolo.yaml", "--invert", "-o", tmp_path / "back.yaml")
    assert (again.status, "exists already" in again.err) == (2, True)


def test_what_is_lost_is_said_and_nothing_is_written(tmp_path):
    (tmp_path / "r.yaml").write_text("rules:\n  - a.w -> b.w: {slice: {dim: 0, start: 1}}\n  - c -> d\n")
    ran = ckpt("check", "r.yaml", "--invert", "-o", "back.yaml", cwd=tmp_path)
    assert ran.status == 1
    assert "what `slice` leaves out is lost" in ran.err
    assert "1 rule can't be inverted; 1 can, exactly" in ran.err
    assert not (tmp_path / "back.yaml").exists()


def test_prefixes_that_were_taken_off_are_not_put_back_and_said(tmp_path):
    (tmp_path / "r.yaml").write_text("strip: [module.]\nrules: [a.w -> b.w]\n")
    ran = ckpt("check", "r.yaml", "--invert", "--json", cwd=tmp_path)
    assert json.loads(ran.out)["stripped"] == ["module."]
    assert "prefixes that `strip:` removes are not restored: module." in ckpt("check", "r.yaml", "--invert", "-o", "back.yaml", cwd=tmp_path).err


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


def test_a_number_that_only_the_command_line_gives_stays_one(tmp_path):
    text = "params: {n: ~}\nrules:\n  - h.{i}.** -> g.{i+n}.**\n"
    turned = invert_rules(rules(tmp_path, text))
    back = rules(tmp_path, turned.yaml)
    assert (turned.rules[0].verdict, check_rules(back)) == ("exact", [])
    steps = compile_plan(back, catalog("g.5.w 2"), params={"n": 2}).steps
    assert [step.outputs for step in steps] == [("h.3.w",)]
    (tmp_path / "m1.yaml").write_text(text)
    ran = ckpt("check", "m1.yaml", "--invert", "--set", "n=2", cwd=tmp_path)
    assert ran.status == 0, ran.err


GROUPED = ("rules:\n  - l.{q,k,v}.w -> l.qkv.w: {concat: 0}\n", catalog("l.q.w 8x4", "l.k.w 2x4", "l.v.w 2x4"))


def test_parts_of_unknown_sizes_go_back_by_the_target_alone(tmp_path):
    text, source = GROUPED
    turned = invert_rules(rules(tmp_path, text))
    assert turned.rules[0].text == "l.qkv.w -> l.{q,k,v}.w: {split: {dim: 0, sizes: target}}"
    assert turned.rules[0].verdict == "exact with a check"
    assert turned.rules[0].why == "the parts are of the target's sizes, so there must be one; a concrete plan knows the sizes"
    back, middle = rules(tmp_path, turned.yaml), compile_plan(rules(tmp_path, text), source).outputs
    assert dict(compile_plan(back, middle, source).outputs) == dict(source)
    for target in (None, catalog("l.q.w 8x4", "l.k.w 2x4", "l.v.w 3x4")):
        with pytest.raises(RuleError, match="`split` takes the target's sizes, and there is no target\n"):
            compile_plan(back, middle, target)


def test_a_concrete_plan_writes_the_sizes_of_parts(tmp_path):
    text, source = GROUPED
    forward = rules(tmp_path, text)
    turned = invert_rules(forward, compile_plan(forward, source))
    assert turned.rules[0].text == "l.qkv.w -> l.{q,k,v}.w: {split: {dim: 0, sizes: [8, 2, 2]}}"
    assert turned.rules[0].verdict == "exact"
    equal = catalog("l.q.w 4x4", "l.k.w 4x4", "l.v.w 4x4")
    assert invert_rules(forward, compile_plan(forward, equal)).rules[0].text == "l.qkv.w -> l.{q,k,v}.w: {split: 0}"
    layers = rules(tmp_path, "rules:\n  - l.{i}.{q,k}.w -> l.{i}.w: {concat: 0}\n")
    mixed = catalog("l.0.q.w 8x4", "l.0.k.w 2x4", "l.1.q.w 6x4", "l.1.k.w 3x4")
    turned = invert_rules(layers, compile_plan(layers, mixed))
    assert (turned.rules[0].text, turned.rules[0].verdict) == ("l.{i}.w -> l.{i}.{q,k}.w: {split: {dim: 0, sizes: target}}", "exact with a check")


def test_sizes_come_from_the_target_through_ops_that_follow(tmp_path):
    text = "rules:\n  - 'l.{q,k}.w -> l.qk.w': [transpose, {concat: 0}]\n"
    source = catalog("l.q.w 3x8", "l.k.w 3x2")
    turned = invert_rules(rules(tmp_path, text))
    back = compile_plan(rules(tmp_path, turned.yaml), compile_plan(rules(tmp_path, text), source).outputs, source)
    assert dict(back.outputs) == dict(source)


def test_sizes_in_the_middle_of_a_chain_need_a_concrete_plan(tmp_path):
    text = "rules:\n  - 'e.{i}.{a,b}.w -> g': [{stack: 0}, {concat: 0}]\n"
    source = catalog("e.0.a.w 2", "e.0.b.w 2", "e.1.a.w 2", "e.1.b.w 2")
    forward = rules(tmp_path, text)
    turned = invert_rules(forward)
    assert (turned.yaml, turned.rules[0].why) == (None, "the inverse needs the parts' sizes; an inverse of a concrete plan knows them")
    plan = compile_plan(forward, source)
    turned = invert_rules(forward, plan)
    assert turned.rules[0].verdict == "exact"
    assert dict(compile_plan(rules(tmp_path, turned.yaml), plan.outputs).outputs) == dict(source)


DOUBTS = [
    ("rules: ['a.{i} -> b.{i}', '** -> **']", ["exact with a check", "exact with a check"]),
    ("rules: ['fc.{weight,bias} -> head.{weight,bias}', '** -> **']", ["exact", "exact"]),
    ("optional: ['fc.{weight,bias} -> head.{weight,bias}', '** -> **']", ["exact with a check", "exact with a check"]),
    ("rules: ['**.{j} -> **.{j}', '* -> net.*']", ["exact with a check", "exact with a check"]),
    ("strip: [module.]\nrules: ['a.** -> b.**']", ["exact with a check"]),
    ("rules: ['a.** -> b.**', 'c.** -> d.**']", ["exact", "exact"]),
]


@pytest.mark.parametrize(("text", "verdicts"), DOUBTS, ids=[row[0][:40] for row in DOUBTS])
def test_names_that_may_lead_elsewhere_are_not_called_exact(tmp_path, text, verdicts):
    assert [each.verdict for each in invert_rules(rules(tmp_path, text)).rules] == verdicts


def test_a_rule_that_never_gets_a_key_is_left_out(tmp_path):
    text = "rules: ['{j} -> {j}']\noptional: ['{i} -> {i+1}']\n"
    source = catalog("0 2", "3 2")
    forward = rules(tmp_path, text)
    turned = invert_rules(forward)
    assert [(each.text, each.verdict) for each in turned.rules] == [('"{j} -> {j}"', "exact"), ("", "exact")]
    plan = compile_plan(forward, source)
    assert dict(compile_plan(rules(tmp_path, turned.yaml), plan.outputs).outputs) == dict(source)


def test_a_keep_that_may_match_nothing_becomes_a_drop_that_may(tmp_path):
    forward = rules(tmp_path, "rules: [a -> b]\noptional: [{keep: c}]\n")
    turned = invert_rules(forward)
    assert turned.yaml.endswith("rules:\n  - b -> a\noptional:\n  - {drop: c}\n")
    plan = compile_plan(rules(tmp_path, turned.yaml), catalog("b 2", "c 3"))
    assert [*plan.outputs] == ["a"]
    assert plan.dropped == ("c",)


def test_a_way_back_that_leads_elsewhere_is_not_written(tmp_path):
    text = "optional: ['x.* -> net.*', '* -> net.*']\n"
    forward = rules(tmp_path, text)
    turned = invert_rules(forward, compile_plan(forward, catalog("x.0 2", "w 2")))
    assert turned.yaml is None
    assert turned.rules[0].why == "`x.w` would come back, which the source never had"
    text = "rules: ['a.{i} -> b.{i}', '** -> **']\n"
    forward = rules(tmp_path, text)
    for keys, ways in ((["a.0 2", "c 2"], True), (["a.0 2", "b.1 2"], False)):
        assert (invert_rules(forward, compile_plan(forward, catalog(*keys))).yaml is not None) is ways


def test_a_prefix_that_all_keys_had_is_put_back(tmp_path):
    text = "strip: [module.]\nrules: ['a.** -> b.**']\ndrop: ['c.*']\n"
    forward = rules(tmp_path, text)
    source = catalog("module.a.w 2", "module.c.w 2")
    turned = invert_rules(forward, compile_plan(forward, source))
    assert (turned.rules[0].text, turned.rules[0].verdict, turned.stripped) == ("b.** -> module.a.**", "exact", ())
    back = compile_plan(rules(tmp_path, turned.yaml), catalog("b.w 2"), source)
    assert (back.producers.keys(), back.kept) == ({"module.a.w"}, ("module.c.w",))
    mixed = invert_rules(forward, compile_plan(forward, catalog("module.a.w 2", "a.v 2", "c.w 2")))
    assert (mixed.rules[0].text, mixed.rules[0].verdict, mixed.stripped) == ("b.** -> a.**", "lossy", ("module.",))


def test_what_only_the_target_had_is_dropped_on_the_way_back_where_that_can_be_told(tmp_path):
    text = "rules: ['a.** -> **']\nkeep: ['b.*']\n"
    forward = rules(tmp_path, text)
    assert invert_rules(forward).kept == ("b.*",)
    plan = compile_plan(forward, catalog("a.w 2"), catalog("w 2", "b.x 2"))
    turned = invert_rules(forward, plan)
    assert (turned.rules[0].verdict, turned.kept) == ("exact", ())
    assert dict(compile_plan(rules(tmp_path, turned.yaml), plan.outputs).outputs) == dict(plan.source)


def test_what_is_left_behind_is_told_as_the_keys_at_hand_or_as_the_rules_name_it(tmp_path):
    forward = rules(tmp_path, "rules: ['a.** -> **']\ndrop: ['c.*']\nrest: {source: drop}\n")
    assert invert_rules(forward).dropped == ("c.*", "**")
    plan = compile_plan(forward, catalog("a.w 2", "c.x 2", "d.0 2", "d.1 2"))
    assert invert_rules(forward, plan).dropped == ("c.x", "d.*")


def test_fitted_and_cast_tensors_are_not_called_exact(tmp_path):
    forward = rules(tmp_path, "rules: ['** -> **']\nfit: [{pos_embed: resize_grid}]\n")
    source, target = catalog("pos_embed 1x17x8", "w 2"), catalog("pos_embed 1x37x8", "w 2 F64")
    plan = compile_plan(forward, source, target, dtypes="target")
    turned = invert_rules(forward, plan)
    assert turned.rules[0].verdict == "lossy"
    forward = rules(tmp_path, "rules: ['** -> **']\n")
    plan = compile_plan(forward, catalog("w 2 F8_E4M3FNUZ"), catalog("w 2 F8_E4M3"), dtypes="target")
    turned = invert_rules(forward, plan)
    assert (turned.rules[0].text, turned.rules[0].verdict) == ('"** -> **": {cast: F8_E4M3FNUZ}', "numeric")


FIT = "rules: [e.* -> E.*, h.* -> H.*, 'n.** -> N.**']\nfit:\n  - E.weight: rows\n  - H.weight: fresh\n"


@pytest.mark.parametrize(
    ("text", "source", "target", "fit", "verdicts"),
    [
        (FIT, ["e.weight 10x4", "h.weight 3x4", "n.w 2"], ["E.weight 14x4", "H.weight 5x4", "N.w 2"], '  - {"e.weight": rows}', ["lossy", "lossy", "exact"]),
        (
            "rules: ['** -> net.**']\nfit: [net.pos: {resize_grid: {prefix: 1, new_prefix: 2, new_grid: [4, 9]}}]\nkeep: net.new\n",
            ["pos 1x17x8", "w 2"],
            ["net.pos 1x38x8", "net.w 2", "net.new 3"],
            "  - {pos: {resize_grid: {prefix: 2, grid: [4, 9], new_prefix: 1}}}",
            ["lossy"],
        ),
        ("rules: ['** -> net.**']\nfit: ['net.h*': fresh]\n", ["h1 2", "h2 3", "w 2"], ["net.h1 5", "net.h2 5", "net.w 2"], "  - net.h{1..2}", ["lossy"]),
    ],
)
def test_the_inverse_of_fits_leads_to_the_sources_shapes(tmp_path, text, source, target, fit, verdicts):
    forward = rules(tmp_path, text)
    plan = compile_plan(forward, catalog(*source), catalog(*target))
    turned = invert_rules(forward, plan)
    assert [each.verdict for each in turned.rules] == verdicts
    assert fit in turned.yaml.splitlines()
    back = compile_plan(rules(tmp_path, turned.yaml), plan.outputs, plan.source)
    assert dict(back.outputs) == dict(plan.source)
    assert set(back.kept) == set(plan.dropped)


def test_a_fit_that_has_no_way_back_has_no_inverse(tmp_path):
    forward = rules(tmp_path, "rules: ['{a,b}.w -> ab.w: {concat: 0}']\nfit: [ab.w: rows]\n")
    turned = invert_rules(forward, compile_plan(forward, catalog("a.w 2x3", "b.w 2x3"), catalog("ab.w 6x3")))
    assert (turned.yaml, turned.rules[0].verdict) == (None, "lossy")


def test_what_is_left_out_is_said(tmp_path):
    (tmp_path / "r.yaml").write_text("rules: ['a.** -> **']\ndrop: ['c.*']\nkeep: ['b.*']\n")
    ran = ckpt("check", "r.yaml", "--invert", "-o", "back.yaml", cwd=tmp_path)
    assert ran.err.splitlines()[:3] == [
        "keys that the rules drop are not restored, but kept from a target: c.*",
        "the target's own keys come along where a rule matches them: b.*",
        "1 rule inverted exactly",
    ]


def test_what_the_inverse_has_to_be_given_is_said(tmp_path):
    (tmp_path / "r.yaml").write_text("params: {n: {dim: [a.w, 0]}, m: {dim: [b.w, 0], of: target}, k: 3}\nrules: [a.w -> b.w]\n")
    ran = ckpt("check", "r.yaml", "--invert", "-o", "back.yaml", cwd=tmp_path)
    assert ran.err.splitlines()[0] == "needs a target, in which it measures n; without one: --set n=…"


CONTEXTS = ["a.H", "b.H", "H", "H.w", "net.H", "a.H.w", "x.H", "a.b.H"]
HOLES = {"**": ["q", "0.w", "a.b"], "*": ["q", "0", "net"], "{i}": ["0", "1", "2"], "{q,k}": ["q", "k"], "{t}": ["a", "b"]}


@st.composite
def rule_sets(draw):
    """Rules with a hole of one kind each, keys for them, and which of the rules are optional."""
    lines, keys = [], set()
    for _ in range(draw(st.integers(1, 3))):
        hole = draw(st.sampled_from(sorted(HOLES)))
        source, target = (draw(st.sampled_from(CONTEXTS)).replace("H", hole) for _ in range(2))
        if hole == "{i}":
            target = target.replace("{i}", draw(st.sampled_from(["{i}", "{i+1}", "{2*i}", "{3-i}"])))
        lines.append(f"{source} -> {target}")
        words = HOLES[hole] if hole == "{q,k}" else draw(st.lists(st.sampled_from(HOLES[hole]), max_size=2))
        keys |= {source.replace(hole, word) for word in words}
    return lines, draw(st.integers(0, len(lines))), sorted(keys)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(rule_sets())
def test_what_is_called_exact_leads_back(tmp_path_factory, case):
    lines, count, keys = case
    folder = tmp_path_factory.mktemp("rules")
    sections = {"rules": lines[:count], "optional": lines[count:]}
    text = "tables: {t: {a: q, b: k}}\n" + "".join(f"{name}: {json.dumps(part)}\n" for name, part in sections.items() if part)
    source = catalog(*(f"{key} 2" for key in keys))
    try:
        plan = compile_plan(forward := rules(folder, text), source)
    except RuleError:
        return
    for turned in (invert_rules(forward), invert_rules(forward, plan)):
        if turned.yaml and all(each.verdict == "exact" for each in turned.rules):
            assert dict(compile_plan(rules(folder, turned.yaml), plan.outputs).outputs) == dict(source)


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
    again = parse(pattern_text(pattern))
    assert (again.tokens, again.bounds) == (pattern.tokens, pattern.bounds)


@pytest.mark.parametrize("ops", ["[{unstack: 0}, {split: {dim: 0, sizes: [2, 2]}}]", "[{unstack: 0}, {unstack: 0}]"])
def test_parts_of_two_ops_under_one_name_are_not_turned_round_by_the_rules_alone(tmp_path, ops):
    turned = invert_rules(rules(tmp_path, f"rules:\n  - 'w -> k.{{i}}': {ops}\n"))
    assert turned.yaml is None
    assert turned.rules[0].why.endswith("share the names of the parts, which don't say how many each takes")
