"""What `check` says of rules alone: rules that can never get a key, and notes for what is allowed and worth a look."""

import pytest
from conftest import ROOT
from literals import catalog, facts, rules
from running import ckpt

from ckpt_tool.mapping import check_rules, find_notes, read_rule_files

PROBLEMS = [
    (
        "rules:\n  - a.{i}.{q,k}.w -> b.{i}.{q,k}\n  - a.{i}.q.w -> c.{i}\n",
        ("shadowed-rule", "3:5", "`a.{i}.q.w` can never get a key: line 2 (`a.{i}.{q,k}.w -> b.{i}.{q,k}`) takes all that it matches"),
    ),
    (
        "rules:\n  - a.{i}.w -> b.{i}\ndrop: [a.**]\n",
        ("shadowed-rule", "2:5", "`a.{i}.w` can never get a key: line 3 (`drop: a.**`) takes all that it matches"),
    ),
    (
        "rules: [x -> x]\ndrop:\n  - a.**\n  - a.b.*\n",
        ("shadowed-rule", "4:5", "`a.b.*` can never drop a key: line 3 (`a.**`) drops all that it matches"),
    ),
    (
        "rules:\n  - a.{i-3}.w -> b.{i=0..2}.w\n",
        ("dead-rule", "2:5", "`a.{i-3}.w` can never match: its numbers would be negative"),
    ),
    (
        "rules:\n  - a.** -> b.**\nwhen:\n  - has: c.w\n    rules:\n      - '** -> **'\n",
        ("shadowed-rule", "2:5", "`a.**` can never get a key: line 6 (`** -> **`) takes all that it matches"),
    ),
]


@pytest.mark.parametrize(("text", "fact"), PROBLEMS, ids=[fact[2][:40] for _, fact in PROBLEMS])
def test_rules_that_can_never_get_a_key(tmp_path, text, fact):
    assert facts(check_rules(rules(tmp_path, text))) == [fact]


NOTES = [
    (
        "rules:\n  - a.{i}.*.w -> b.{i}.*\n  - a.{i}.q.* -> c.{i}.*\n",
        ("overlap", "3:5", "`a.{i}.q.*` shares keys with line 2 (`a.{i}.*.w -> b.{i}.*`), which takes them: `a.0.q.w` is one"),
    ),
    ("rules:\n  - x.{i}.{j} -> y.{i+j}\n", ("two-to-one", "2:18", "`x.0.1` and `x.1.0` would both become `y.1`")),
    (
        "rules:\n  - a.* -> c.*\n  - b.* -> c.*\n",
        ("two-to-one", "3:12", "`c.x` can come from `b.x` and, by line 2, from `a.x`; a source with both is refused"),
    ),
    ("params: {n: 3}\nrules: [a -> b]\n", ("unused-param", "1:10", "no rule names the param `n`")),
    ("tables: {t: {a: b}}\nrules: [a -> b]\n", ("unused-table", "1:10", "no rule names the table `t`")),
]


@pytest.mark.parametrize(("text", "fact"), NOTES, ids=[fact[0] for _, fact in NOTES])
def test_what_is_allowed_and_worth_a_look(tmp_path, text, fact):
    rule_set = rules(tmp_path, text)
    assert facts(find_notes(rule_set)) == [fact]
    assert check_rules(rule_set) == []


QUIET = [
    "rules:\n  - a.b.w -> x\n  - a.** -> a.**\n",
    "rules: ['a.{3*b+j}.w -> c.{b}.{j=0..n-1}.w', 'a.{3*b}.w -> d.{b}']\nparams: {n: 3}\n",
    "tables: {t: {a: b}}\nparams: {h: 2, d: {value: h * 2}, s: {default: 1}}\nrules:\n"
    '  - x.{t}.w -> y.{t}.w: {rearrange: "(h d) ... -> (d h) ...", h: h}\n  - z.{i=0..d-1} -> z.{i}: {slice: {dim: 0, start: s}}\n',
    "rules: [a.* -> c.*]\noptional: [b.* -> c.*]\n",
    "params: {rows: 8, size: 2, heads: {value: rows / size}, h: {value: heads}}\nrules: ['a.{i=0..h-1}.w -> b.{i}.w']\n",
]


@pytest.mark.parametrize("text", QUIET)
def test_usual_rules_get_no_note(tmp_path, text):
    rule_set = rules(tmp_path, text)
    assert list(find_notes(rule_set)) == []
    assert check_rules(rule_set) == []


def test_shadowing_is_told_once_when_keys_are_given(tmp_path):
    rule_set = rules(tmp_path, "rules:\n  - a.** -> b.**\n  - a.w -> c\n")
    assert [problem.code for problem in check_rules(rule_set, catalog("a.w 2"))] == ["shadowed-rule"]


@pytest.mark.parametrize("path", sorted((ROOT / "mappings").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_rules_are_sound_by_themselves(path):
    assert check_rules(read_rule_files([str(path)])) == []


def test_notes_are_printed_and_leave_the_status_alone(tmp_path):
    (tmp_path / "rules.yaml").write_text("params: {n: 3}\nrules: [a -> b]\n")
    ran = ckpt("check", "rules.yaml", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[0]) == (0, "note[unused-param]: no rule names the param `n`")
    assert (
        ckpt("check", "rules.yaml", "--concise", cwd=tmp_path).out == "rules.yaml:1:10: note: unused-param: no rule names the param `n`\n"
    )
    assert '"notes": [' in ckpt("check", "rules.yaml", "--json", cwd=tmp_path).out
