"""Words of YAML and of other languages never become part of a name silently, and names that really have them can be written."""

import pytest
import torch
from literals import catalog, rules
from running import ckpt
from safetensors.torch import load_file, save_file

from ckpt_tool.errors import RuleError
from ckpt_tool.mapping import check_rules, compile_plan

STRAY = {
    "b:transpose": (":transpose", "ops go after a colon and a space"),
    "b:cast F16": (":cast", "ops go after a colon and a space"),
    "[b, 'c']": ("[", "several names are a choice"),
    "[b,c]": ("[", "several names are a choice"),
    "b.['c']": ("['", "several names are a choice"),
    "b, c": (", ", "several names are a choice"),
    "b # comment": (" #", "a comment goes after the whole rule"),
    "b=>c": ("=>", "a rule has one arrow"),
    "b;": (";", "nothing ends a rule"),
}


def problem_of(folder, rule, *sides):
    with pytest.raises(RuleError) as error:
        compile_plan(rules(folder, f'rules:\n  - "{rule}"\n'), *sides)
    return next(problem for problem in error.value.problems if problem.code == "bad-pattern")


@pytest.mark.parametrize("target", STRAY)
def test_a_stray_word_is_a_problem_at_its_place_that_says_what_to_write(tmp_path, target):
    words, instead = STRAY[target]
    problem = problem_of(tmp_path, f"a.w -> {target}", catalog("a.w 4x2"))
    assert problem.message == f"`{words}` would become a part of the name `{target}`"
    assert problem.notes[0].startswith(instead)
    assert (problem.where.line, problem.where.column) == (2, 13)
    assert [each.code for each in check_rules(rules(tmp_path, f'rules:\n  - "a.w -> {target}"\n'), catalog("a.w 4x2"))] == ["bad-pattern"]


@pytest.mark.parametrize("target", STRAY)
def test_a_name_that_really_has_it_is_written_as_the_note_says(tmp_path, target):
    save_file({"a.w": torch.ones(4, 2)}, tmp_path / "a.safetensors")
    escaped = target
    for _ in range(3):
        ran = ckpt("map", "a.safetensors", "-e", f"a.w -> {escaped}", "-o", "b.safetensors", "--force", cwd=tmp_path)
        if ran.status == 0:
            break
        note = ran.err.partition("a name that really has it is written `")[2].partition("`")[0]
        found = ran.err.partition("error[bad-pattern]: `")[2].partition("` would")[0]
        escaped = escaped.replace(found, note)
    assert (ran.status, list(load_file(tmp_path / "b.safetensors"))) == (0, [target])


@pytest.mark.parametrize("name", STRAY)
def test_keys_at_hand_that_have_it_are_no_problem(tmp_path, name):
    quoted = f'rules:\n  - "{name} -> x"\n'
    assert list(compile_plan(rules(tmp_path, quoted), catalog_of(name)).outputs) == ["x"]
    turned = f'rules:\n  - "x -> {name}"\n'
    assert list(compile_plan(rules(tmp_path, turned), catalog_of("x"), catalog_of(name)).outputs) == [name]


def catalog_of(key):
    from ckpt_tool.tensors import Catalog, DType, TensorInfo

    return Catalog([TensorInfo(key, DType.F32, (4, 2))])


def test_choices_with_commas_are_choices(tmp_path):
    plan = compile_plan(rules(tmp_path, "rules:\n  - 'a.w -> {b, c}.w: {split: 0}'\n"), catalog("a.w 4x2"))
    assert list(plan.outputs) == ["b.w", "c.w"]


COUNTS = [
    ("a.w -> b: {unstack: 0}", "4x2", "the ops give 4 tensors for 1 key"),
    ("a.w -> b: {unstack: 0}", "0x2", "the ops give 0 tensors for 1 key"),
    ("a.w -> x.{q,k,v}.w: {unstack: 0}", "0x2", None),
    ("a.w -> x.{q,k,v}.w: {unstack: 0}", "2x2", None),
    ("a.w -> x.{i}.w: {unstack: 0}", "0x2", "the ops give 0 tensors for 0 keys"),
]


@pytest.mark.parametrize(("rule", "shape", "message"), COUNTS)
def test_other_numbers_of_tensors_than_names_are_a_problem_at_the_rule(tmp_path, rule, shape, message):
    with pytest.raises(RuleError) as error:
        compile_plan(rules(tmp_path, f"rules:\n  - '{rule}'\n"), catalog(f"a.w {shape}"))
    (problem,) = error.value.problems
    assert (problem.code, problem.where.line) == ("bad-op", 2)
    assert message is None or problem.message == message


def test_one_row_for_one_name_goes_through(tmp_path):
    plan = compile_plan(rules(tmp_path, "rules:\n  - 'a.w -> b: {unstack: 0}'\n"), catalog("a.w 1x2"))
    assert plan.outputs["b"].shape == (2,)
