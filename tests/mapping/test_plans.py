"""Plans: what rules, names and positions make of two catalogs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from literals import catalog, pairs, rules, tensor

from ckpt_tool.errors import RuleError, Tally
from ckpt_tool.keys import quote
from ckpt_tool.keys.relations import prefix_rule
from ckpt_tool.mapping import (
    compile_plan,
    plan_by_name,
    plan_by_position,
    read_inline_rules,
    read_rule_files,
)
from ckpt_tool.mapping.accounting.account import A_PART, NOTHING_NAMED
from ckpt_tool.tensors import Catalog, DType, UnreadableTensor


def inline(*texts, **options):
    return read_inline_rules(texts, **options)


def test_a_swap_is_two_rules():
    both = catalog("a.w 2", "b.w 2")
    assert pairs(compile_plan(inline("a.* -> b.*", "b.* -> a.*"), both, both)) == {"b.w": ("a.w",), "a.w": ("b.w",)}


def test_rules_never_see_each_others_output():
    plan = compile_plan(inline("a -> b", "b -> c"), catalog("a 1", "b 1"), catalog("b 1", "c 1"))
    assert pairs(plan) == {"b": ("a",), "c": ("b",)}


def test_numbers_choices_tables_and_rests(tmp_path):
    text = """\
tables: {block: {ln_1: norm1, mlp.c_fc: mlp.fc1}}
rules:
  - h.{i}.{block}.* -> blocks.{i+1}.{block}.*
  - "{r=**}.attn.{q,k}.w -> enc.{r}.self.{query,key}.w"
  - input.{3*b+j+1}.** -> down.{b}.res.{j=0..1}.**
  - layer{1..2}.x -> stage{0..1}.x
"""
    source = catalog("h.0.ln_1.w 2", "h.3.mlp.c_fc.b 2", "m.n.attn.q.w 2", "m.n.attn.k.w 2", "input.5.a.b 2", "layer1.x 1", "layer2.x 1")
    assert pairs(compile_plan(rules(tmp_path, text), source)) == {
        "blocks.1.norm1.w": ("h.0.ln_1.w",),
        "blocks.4.mlp.fc1.b": ("h.3.mlp.c_fc.b",),
        "enc.m.n.self.query.w": ("m.n.attn.q.w",),
        "enc.m.n.self.key.w": ("m.n.attn.k.w",),
        "down.1.res.1.a.b": ("input.5.a.b",),
        "stage0.x": ("layer1.x",),
        "stage1.x": ("layer2.x",),
    }


def test_copy_gives_one_tensor_several_keys(tmp_path):
    text = "rules:\n  - emb.w -> {enc,dec}.w: copy\n"
    plan = compile_plan(rules(tmp_path, text), catalog("emb.w 2x3"), catalog("enc.w 2x3", "dec.w 2x3"))
    assert pairs(plan) == {"enc.w": ("emb.w",), "dec.w": ("emb.w",)}
    assert len(plan.steps) == 1
    long = "rules:\n  - {from: emb.w, to: [enc.w, dec.w], ops: copy}\n"
    assert pairs(compile_plan(rules(tmp_path, long), catalog("emb.w 2x3"))) == pairs(plan)


def test_optional_rules_may_match_nothing(tmp_path):
    text = "rules: [a.* -> b.*]\noptional: [x.* -> y.*]\n"
    assert pairs(compile_plan(rules(tmp_path, text), catalog("a.w 2"))) == {"b.w": ("a.w",)}
    assert pairs(compile_plan(rules(tmp_path, text), catalog("a.w 2", "x.w 2"))) == {"b.w": ("a.w",), "y.w": ("x.w",)}


def test_rest_is_looseness_written_down(tmp_path):
    text = "rules: [a.* -> b.*]\nrest: {source: drop, target: keep}\n"
    plan = compile_plan(rules(tmp_path, text), catalog("a.w 2", "c.w 2"), catalog("b.w 2", "d.w 2"))
    assert (plan.dropped, plan.kept) == (("c.w",), ("d.w",))


def test_parameters_stand_in_names(tmp_path):
    text = "params: {n: {dim: [size, 0]}}\nrules: ['a.{i} -> b.{n-1-i}', size -> size]\n"
    plan = compile_plan(rules(tmp_path, text), catalog("a.0 1", "a.1 1", "size 2"))
    assert pairs(plan) == {"b.1": ("a.0",), "b.0": ("a.1",), "size": ("size",)}


def test_included_rules_come_after_those_that_include_them(tmp_path):
    (tmp_path / "common.yaml").write_text("rules: [a.* -> b.*]\ndrop: [z]\n")
    plan = compile_plan(rules(tmp_path, "include: [common.yaml]\nrules: [a.w -> c.w]\n"), catalog("a.w 1", "a.b 1", "z 1"))
    assert pairs(plan) == {"c.w": ("a.w",), "b.b": ("a.b",)}


WHEN = """\
rules: [a.* -> b.*]
when:
  - {has: old.*, rules: [old.* -> new.*]}
  - {lacks: old.*, drop: [extra]}
  - {dtype: [a.w, F16], rules: [a.w -> half.w]}
  - {shape: [a.w, [~, 3]], ndim: [a.w, 2], rules: [a.w -> wide.w]}
"""
CHOSEN = [
    (["a.w 2", "old.x 1"], {"b.w", "new.x"}, 0),
    (["a.w 2", "extra 1"], {"b.w"}, 1),
    (["a.w 2 F16", "a.b 2", "extra 1"], {"half.w", "b.b"}, 1),
    (["a.w 5x3", "a.b 2", "extra 1"], {"wide.w", "b.b"}, 1),
]


@pytest.mark.parametrize(("keys", "outputs", "dropped"), CHOSEN)
def test_blocks_count_where_their_conditions_hold(tmp_path, keys, outputs, dropped):
    plan = compile_plan(rules(tmp_path, WHEN), catalog(*keys))
    assert (set(plan.outputs), len(plan.dropped)) == (outputs, dropped)


def test_several_rule_files_are_one_set(tmp_path):
    for name, rule in (("one", "a.w -> c.w"), ("two", "a.* -> b.*")):
        (tmp_path / f"{name}.yaml").write_text(f"rules: [{rule}]\n")
    rule_set = read_rule_files([str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml")])
    assert pairs(compile_plan(rule_set, catalog("a.w 1", "a.b 1"))) == {"c.w": ("a.w",), "b.b": ("a.b",)}


def test_by_name_other_classes_stay_fresh_and_are_told():
    source, target = catalog("a.w 2", "fc.weight 10x2", "fc.bias 10"), catalog("a.w 2", "fc.weight 3x2", "fc.bias 3")
    plan = plan_by_name(source, target)
    assert pairs(plan) == {"a.w": ("a.w",)}
    assert plan.dropped == plan.kept == ("fc.weight", "fc.bias")
    assert plan.notes == (
        "`fc.weight`: 10×2 in the source, 3×2 in the target; stays fresh",
        "`fc.bias`: 10 in the source, 3 in the target; stays fresh",
    )


BODY = ("body.weight 4x4", "body.bias 4")
NO_HEADS = [
    (["emb.weight 9x4"], ["emb.weight 8x4"]),  # no bias, and no name of a classifier
    (["lm_head.weight 9x4", "lm_head.bias 9"], ["lm_head.weight 8x4", "lm_head.bias 8"]),
    (["embed_tokens.weight 9x4", "head.weight 9x4"], ["embed_tokens.weight 8x4", "head.weight 8x4"]),
    (["fc.weight 9x4"], ["fc.weight 9x5"]),
    (["fc.weight 9x4", "fc.bias 9"], ["fc.weight 8x4", "fc.bias 7"]),
    (["norm.weight 9", "norm.bias 9"], ["norm.weight 8", "norm.bias 8"]),
    (["fc.weight 9x4", "fc.bias 9"], ["fc.weight 8x4", "fc.bias 8", "neck.weight 3x3"]),
    (["fc.weight 9x4", "fc.bias 9", "aux.weight 3x3"], ["fc.weight 8x4", "fc.bias 8"]),
]


@pytest.mark.parametrize(("source", "target"), NO_HEADS)
def test_by_name_what_is_no_head_for_other_classes_must_be_named(source, target):
    sides = catalog(*BODY, *source), catalog(*BODY, *target)
    with pytest.raises(RuleError) as caught:
        plan_by_name(*sides)
    left, fresh = len(source), len(target)
    assert {problem.code for problem in caught.value.problems} == {"unmapped-source", "unmapped-target"}
    assert (caught.value.tally.mapped, caught.value.tally.left, caught.value.tally.fresh) == (2, left, fresh)
    patterns = ([each.split()[0] for each in side] for side in (source, target))
    plan = plan_by_name(*sides, named=read_inline_rules((), *patterns))
    assert plan.counts == {"mapped": 2, "kept": fresh, "dropped": left}


def test_by_name_what_was_named_takes_no_part():
    sides = catalog("a.w 2", "b.w 3"), catalog("a.w 2", "b.w 3")
    named = read_inline_rules((), ["b.*"], ["b.*"])
    plan = plan_by_name(*sides, named=named)
    assert (pairs(plan), plan.dropped, plan.kept) == ({"a.w": ("a.w",)}, ("b.w",), ("b.w",))
    with pytest.raises(RuleError, match=r"`b.w`: 1 key of the target is neither mapped nor kept"):
        plan_by_name(*sides, named=read_inline_rules((), ["b.*"]))
    with pytest.raises(RuleError, match=r"`c.\*` drops nothing: no key of the source matches it"):
        plan_by_name(*sides, named=read_inline_rules((), ["c.*"]))


def test_the_tally_counts_the_numbers_that_would_stay_fresh():
    with pytest.raises(RuleError) as caught:
        plan_by_name(catalog("a.w 10x10", "x 1"), catalog("a.w 10x10", "b.w 30x10"))
    assert caught.value.tally == Tally(1, 1, 1, 300, 400)
    assert str(caught.value.tally) == "1 mapped; 1 of 2 target keys would stay fresh (75.0 % of the target's elements); 1 source key left over"
    with pytest.raises(RuleError) as caught:
        plan_by_name(catalog("a.w 10x10", "x 1"), catalog("a.w 10x10", "b.w 30x10", "c.w 1"), named=read_inline_rules((), [], ["c.*"]))
    assert str(caught.value.tally).startswith("1 mapped; 1 of 3 target keys would stay fresh (74.8 % of the target's elements)")


def test_by_name_leaves_a_wrappers_prefix_out_and_says_so():
    plan = plan_by_name(catalog("module.a.w 2", "module.b.w 2"), catalog("a.w 2", "b.w 2"))
    assert pairs(plan) == {"a.w": ("module.a.w",), "b.w": ("module.b.w",)}
    assert plan.notes == ("every key of the source begins with `module.` (DataParallel or DistributedDataParallel); paired without it",)
    assert pairs(plan_by_name(catalog("a.w 2"), catalog("_orig_mod.module.a.w 2"))) == {"_orig_mod.module.a.w": ("a.w",)}


PREFIXES = [
    (["model.net.a.w 2", "model.net.b.w 3"], ["a.w 2", "b.w 3"], {"a.w": "model.net.a.w", "b.w": "model.net.b.w"},
     "every key of the source begins with `model.net.`; paired without it"),
    (["a.w 2", "b.w 3"], ["net.a.w 2", "net.b.w 3"], {"net.a.w": "a.w", "net.b.w": "b.w"},
     "every key of the target begins with `net.`; paired without it"),
    (["module.net.a.w 2", "module.net.b.w 3"], ["_orig_mod.a.w 2", "_orig_mod.b.w 3"],
     {"_orig_mod.a.w": "module.net.a.w", "_orig_mod.b.w": "module.net.b.w"}, "every key of the source begins with `net.`; paired without it"),
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["model.", "module."])
def test_what_is_dropped_counts_among_the_keys_of_a_prefix(prefix):
    source = catalog(f"{prefix}a.w 2", f"{prefix}b.w 3", f"{prefix}old 3", "criterion.weight 5")
    plan = plan_by_name(source, catalog("a.w 2", "b.w 3"), named=read_inline_rules((), ["criterion.*", f"{prefix}old"]))
    assert pairs(plan) == {"a.w": (f"{prefix}a.w",), "b.w": (f"{prefix}b.w",)}
    assert plan.notes[0].startswith(f"3 of 4 keys of the source begin with `{prefix}`")


@pytest.mark.parametrize(("source", "target", "wanted", "note"), PREFIXES)
def test_by_name_sees_through_one_prefix_and_says_so(source, target, wanted, note):
    plan = plan_by_name(catalog(*source), catalog(*target))
    assert pairs(plan) == {key: (name,) for key, name in wanted.items()}
    assert plan.notes[-1] == note


def test_by_name_of_two_prefixes_none_is_guessed():
    source = catalog("q.a.w 2", "q.b.w 3", "k.a.w 2", "k.b.w 3")
    with pytest.raises(RuleError, match="no key has the same name and shape on both sides"):
        plan_by_name(source, catalog("a.w 2", "b.w 3"))
    # Another prefix is clear once the other one is dropped by name.
    assert len(plan_by_name(source, catalog("a.w 2", "b.w 3"), named=read_inline_rules((), ["k.**"])).steps) == 2


def test_by_name_keys_outside_of_the_prefix_are_left():
    source, target = catalog("net.a.w 2", "net.b.w 3", "steps 1"), catalog("a.w 2", "b.w 3")
    with pytest.raises(RuleError, match="`steps`: 1 key of the source is neither mapped nor dropped"):
        plan_by_name(source, target)
    plan = plan_by_name(source, target, named=A_PART)
    assert plan.notes == ("2 of 3 keys of the source begin with `net.`; paired without it",)


def test_by_name_with_nothing_in_common_shows_the_rule_that_would_help():
    with pytest.raises(RuleError) as caught:
        plan_by_name(catalog("x.a.w 2", "x.b.w 3"), catalog("y.a.w 2", "y.b.w 3"))
    assert caught.value.problems[0].notes == ("-e 'x.** -> y.**' pairs 2 keys",)
    assert prefix_rule(catalog("x.a.w 2", "x.b.w 3"), catalog("y.a.w 2", "y.b.w 3")) == ("x.** -> y.**", 2)


TWINS = catalog("teacher.a.w 2", "teacher.b.w 3", "student.a.w 2", "student.b.w 3", "step 1")


@pytest.mark.parametrize(
    ("source", "target", "note"),
    [
        (TWINS, catalog("a.w 2", "b.w 3"), "-e 'student.** -> **' pairs 2 keys; so does -e 'teacher.** -> **'"),
        (catalog("a.w 2", "b.w 3"), TWINS, "-e '** -> student.**' pairs 2 keys; so does -e '** -> teacher.**'"),
        (TWINS, catalog("net.a.w 2", "net.b.w 3"), "-e 'student.** -> net.**' pairs 2 keys; so does -e 'teacher.** -> net.**'"),
    ],
)
def test_by_name_names_every_prefix_that_would_help_as_much(source, target, note):
    with pytest.raises(RuleError) as caught:
        plan_by_name(source, target)
    assert caught.value.problems[0].notes == (note,)


UNREADABLE = UnreadableTensor("b.w", "quantised", (3,))


def test_what_cant_be_read_is_a_key_like_others():
    source = Catalog([tensor("a.w 2")], unreadable=[UNREADABLE])
    with pytest.raises(RuleError, match=r"`b.w` of the source can't be read, though the target has a place for it: 1 quantised") as caught:
        plan_by_name(source, catalog("a.w 2", "b.w 3"), named=A_PART)
    assert [problem.code for problem in caught.value.problems] == ["unreadable"]
    with pytest.raises(RuleError, match=r"`b.w`: 1 key of the source is neither mapped nor dropped"):
        plan_by_name(source, catalog("a.w 2"))
    for plan in (
        plan_by_name(source, catalog("a.w 2"), named=read_inline_rules((), ["b.*"])),
        plan_by_name(source, catalog("a.w 2"), named=A_PART),
        compile_plan(inline("a.* -> a.*", drop=["b.*"]), source),
    ):
        assert plan.dropped == ("b.w",)
    with pytest.raises(RuleError, match=r"`b.w` of the source can't be read"):
        compile_plan(inline("** -> **"), source)
    with pytest.raises(RuleError, match=r"`b.w` of the source can't be read"):
        compile_plan(replace(inline("a.* -> a.*"), rest_source="drop", rest_target="keep"), source, catalog("a.w 2", "b.w 3"))


def test_what_cant_be_read_of_the_target_cant_be_kept():
    target = Catalog([tensor("a.w 2")], unreadable=[UNREADABLE])
    for named in (NOTHING_NAMED, A_PART):
        with pytest.raises(RuleError, match=r"`b.w` of the target can't be read, and the output would lack it: 1 quantised"):
            plan_by_name(catalog("a.w 2"), target, named=named)


def test_by_name_refuses_another_dtype():
    with pytest.raises(RuleError) as caught:
        plan_by_name(catalog("a.w 2 F16"), catalog("a.w 2"))
    assert caught.value.problems[0].code == "dtype"
    plan = plan_by_name(catalog("a.w 2 F16"), catalog("a.w 2"), "target")
    assert plan.outputs["a.w"].dtype.value == "F32"


def test_by_position_stops_at_the_first_disagreement_and_says_where():
    sides = catalog("a 2", "b 3", "c 4", "d 5"), catalog("x 2", "y 3", "z 9", "u 5")
    with pytest.raises(RuleError) as caught:
        plan_by_position(*sides)
    assert [problem.message for problem in caught.value.problems] == [
        "2 keys of the source are neither mapped nor dropped", "2 keys of the target are neither mapped nor kept",
    ]  # fmt: skip
    assert caught.value.problems[1].notes[-1] == "stopped after 2: `c` has 4, `z` has 9"
    for named in (A_PART, read_inline_rules((), ["c", "d"], ["z", "u"])):
        plan = plan_by_position(*sides, named=named)
        assert pairs(plan) == {"x": ("a",), "y": ("b",)}
        assert (plan.dropped, plan.kept) == (("c", "d"), ("z", "u"))
    assert pairs(plan_by_position(*sides, named=read_inline_rules((), ["c"], ["z"]))) == {"x": ("a",), "y": ("b",), "u": ("d",)}


def test_by_position_refuses_sorted_keys():
    unordered = catalog("a 2", "b 3", is_ordered=False)
    with pytest.raises(RuleError, match="the keys of the source are sorted"):
        plan_by_position(unordered, catalog("x 2", "y 3"))
    assert pairs(plan_by_position(unordered, catalog("x 2", "y 3"), force_order=True)) == {"x": ("a",), "y": ("b",)}


def test_by_position_with_nothing_in_common():
    with pytest.raises(RuleError, match="the first keys disagree: `a` has 2, `x` has 3"):
        plan_by_position(catalog("a 2"), catalog("x 3"))


key_sets = st.lists(st.text("ab.*{}01", min_size=1, max_size=6), unique=True, min_size=1, max_size=8)


@given(key_sets, st.randoms())
def test_any_renaming_written_out_in_full_is_carried_out_exactly(keys, random):
    targets = keys[:]
    random.shuffle(targets)
    texts = [f"{quote(key)} -> {quote(target)}" for key, target in zip(keys, targets, strict=True)]
    both = catalog(*(f"{key} 2" for key in keys if key.strip()))
    assert pairs(compile_plan(inline(*texts), both, both)) == {target: (key,) for key, target in zip(keys, targets, strict=True)}


def test_casts_say_what_they_lose(tmp_path):
    text = "rules:\n  - a.* -> a.*: {cast: BF16}\n  - 'b.{q,k} -> b.{q,k}': {each: {q: {cast: F64}}}\n  - c -> c\n"
    source = catalog("a.w 2", "a.b 2", "b.q 2", "b.k 2", "c 2")
    assert compile_plan(rules(tmp_path, text), source).notes == (
        "2 tensors are cast: F32 to BF16 keeps 8 of 24 significand bits",
        "1 tensor is cast: F32 to F64 keeps every number, but may give a NaN other bits",
    )
    notes = compile_plan(inline("** -> **"), catalog("a 2", "n 2 I64"), None, dtypes=DType.F16).notes
    assert notes == ("1 tensor is cast: F32 to F16 keeps 11 of 24 significand bits and overflows above 65504",)


def test_types_that_nothing_is_cast_to_are_a_problem_whatever_asks_for_them(tmp_path):
    both, odd = catalog("a 2x4"), catalog("a 2x4 F4")
    for source, target, dtypes in ((both, None, DType.F4), (odd, None, DType.BF16), (both, odd, "target"), (odd, both, "target")):
        with pytest.raises(RuleError) as raised:
            compile_plan(inline("a -> a"), source, target, dtypes=dtypes)
        assert [problem.code for problem in raised.value.problems] == ["dtype"]
