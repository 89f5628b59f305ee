"""Drafts that the planner refuses in part give up that part, and rules that differ in one part of each side become one."""

from test_alignment import catalog

from ckpt_tool.align import Pair, suggest
from ckpt_tool.align.drafting.checked import Setting, checked_draft
from ckpt_tool.align.drafting.merging import merge_choices
from ckpt_tool.align.findings import Aligned, Alignment
from ckpt_tool.align.suggest import suggest_for
from ckpt_tool.ops import parse_ops


def rename(source, target):
    return Pair(((source,),), ((target,),))


SOURCE = catalog(*(f"a.{i}.w 4x4" for i in range(4)), "odd.w 3x3")
TARGET = catalog(*(f"b.{i}.w 4x4" for i in range(4)), "one.w 4x4")
GOOD = [rename(f"a.{i}.w", f"b.{i}.w") for i in range(4)]
BAD = rename("odd.w", "one.w")


def test_a_pair_that_the_planner_refuses_is_given_up_alone():
    found = checked_draft([*GOOD, BAD], Setting(SOURCE, TARGET))
    assert [pair for pair, _ in found.refused] == [BAD]
    assert {step.outputs for step in found.plan.steps} == {(f"b.{i}.w",) for i in range(4)}


def test_a_refused_pair_is_no_longer_sure_and_stands_in_no_section():
    aligned = Alignment(tuple(Aligned(pair, 0.99, "so it is") for pair in [*GOOD, BAD]), (), (), ())
    found = suggest_for(aligned, SOURCE, TARGET, 0.9, "target")
    assert not found.is_complete
    assert [each.pair for each in found.unsure] == [BAD]
    assert "its rule is refused" in found.unsure[0].evidence
    assert found.drop == found.keep == ()


def test_rules_for_paths_that_would_take_what_is_not_sure_are_drafted_leaf_by_leaf():
    source = catalog(*(f"m.{i}.{leaf} {shape}" for i in range(5) for leaf, shape in (("a", "2"), ("b", "3"), ("left", "4"))))
    pairs = [rename(f"m.{i}.{leaf}", f"n.{i}.{leaf}") for i in range(5) for leaf in "ab"]
    found = checked_draft(pairs, Setting(source, catalog(*(f"n.{i}.{leaf} {size}" for i in range(5) for leaf, size in (("a", 2), ("b", 3))))))
    assert found.lines == ("m.{i}.{a,b} -> n.{i}.{a,b}",)


def test_a_draft_that_cannot_be_said_at_all_is_no_error():
    twice = [Pair((("x.w",),), ((f"y{i}.w",),), parse_ops({"slice": {"dim": 0, "start": 0, "stop": 2}})) for i in range(2)]
    found = checked_draft(twice, Setting(catalog("x.w 4x4"), catalog("y0.w 2x4", "y1.w 2x4")))
    assert len(found.refused) + (len(found.plan.steps) if found.plan else 0) == 2


def test_words_of_a_choice_may_hold_other_marks_on_each_side():
    words = ("to_q", "to_k", "to_out_0")
    found = merge_choices([(f"a_{i}_{word}.down.**", f"b.{i}.{word.replace('_0', '.0')}.A.**") for i in ("{i}",) for word in words])
    assert found == [("a_{i}_to_{q,k,out_0}.down.**", "b.{i}.to_{q,k,out.0}.A.**")]


def test_a_mark_that_all_words_begin_with_stays():
    assert merge_choices([("_conv_stem.**", "conv_stem.**"), ("_conv_head.**", "conv_head.**")]) == [
        ("_conv_{stem,head}.**", "conv_{stem,head}.**")
    ]


def test_two_choices_stand_side_by_side():
    pairs = [(f"a.{x}.{y}.**", f"b.{x}.{z}.**") for x in "qkv" for y, z in (("down", "A"), ("up", "B"))]
    assert merge_choices(pairs) == [("a.{q,k,v}.{down,up}.**", "b.{q,k,v}.{A,B}.**")]


def test_choices_in_another_order_are_not_merged():
    pairs = [(f"{x}.{y}.w", f"{y}.{x}.w") for x in "ab" for y in "cd"]
    assert len(merge_choices(pairs)) > 1


def test_blocks_that_are_counted_through_take_few_rules():
    sizes = (1, 2, 3)
    blocks = [(stage, block) for stage, count in enumerate(sizes) for block in range(count)]
    ours = catalog(
        *(f"_blocks.{n}._{name}_conv.weight {8 + s}x{9 + b}" for n, (s, b) in enumerate(blocks) for name in ("expand", "project"))
    )
    theirs = catalog(*(f"blocks.{s}.{b}.conv_{name}.weight {8 + s}x{9 + b}" for s, b in blocks for name in ("expand", "project")))
    found = suggest(ours, theirs)
    assert len(found.rules) <= 4


def test_what_is_not_sure_in_the_middle_leaves_patterns_around_it():
    keys = [f"layer{i}.{j}.{name}.weight" for i in range(3) for j in range(3) for name in ("conv1", "conv2", "norm")]
    every = catalog(*(f"{key} 4x4" for key in keys))
    odd = {"layer1.0.conv1.weight", "layer1.2.conv2.weight"}
    found = checked_draft([rename(key, key) for key in keys if key not in odd], Setting(every, every))
    assert found.lines == (
        "layer{0,2}.** -> layer{0,2}.**",
        "layer1.0.conv2.weight -> layer1.0.conv2.weight",
        "layer1.{0,2}.norm.weight -> layer1.{0,2}.norm.weight",
        "layer1.1.** -> layer1.1.**",
        "layer1.2.conv1.weight -> layer1.2.conv1.weight",
    )
    assert found.refused == ()
