"""Each problem of rules: one rule text, its code, line and column, the exact message."""

import re

import pytest
from conftest import ROOT
from literals import catalog, facts, problems, rules

from ckpt_tool.errors import RuleError, RuleFileError
from ckpt_tool.mapping import plan_by_name, plan_by_position
from ckpt_tool.mapping.reading.misread import NO_EXPRESSIONS
from ckpt_tool.mapping.reading.sections import SECTIONS

SOURCE = catalog("conv1.weight 4x3", "bn.weight 4", "bn.bias 4", "fc.weight 10x4")
TARGET = catalog("stem.0.weight 4x3", "stem.1.weight 4", "stem.1.bias 4", "head.weight 2x4")
SOUND = """\
rules:
  - conv1.* -> stem.0.*
  - bn.* -> stem.1.*
drop:
  - fc.*
keep:
  - head.*
"""


def found(tmp_path, old, new, text=SOUND):
    assert old in text
    return facts(problems(tmp_path, text.replace(old, new), SOURCE, TARGET))


def test_sound_rules_have_no_problems(tmp_path):
    assert problems(tmp_path, SOUND, SOURCE, TARGET) == []


def test_rule_that_matches_nothing(tmp_path):
    assert found(tmp_path, "- bn.*", "- bm.*")[0] == ("dead-rule", "3:5", "`bm.*` matches no key of the source")


def test_drop_that_matches_nothing(tmp_path):
    assert found(tmp_path, "- fc.*", "- fc.*\n  - gc.*") == [("dead-rule", "6:5", "`gc.*` drops nothing: no key of the source matches it")]


def test_keep_that_matches_nothing(tmp_path):
    assert found(tmp_path, "- head.*", "- head.*\n  - neck.*") == [
        ("dead-rule", "8:5", "`neck.*` keeps nothing: no key of the target matches it")
    ]


def test_keep_of_keys_that_all_get_values(tmp_path):
    message = "`stem.0.*` keeps nothing: all that it matches get a value or are kept by an earlier line"
    assert found(tmp_path, "- head.*", "- head.*\n  - stem.0.*") == [("dead-rule", "8:5", message)]


def test_keep_of_everything_is_no_exception(tmp_path):
    message = "`**` keeps nothing: all that it matches get a value or are kept by an earlier line"
    assert found(tmp_path, "- head.*", "- head.*\n  - '**'") == [("dead-rule", "8:6", message)]


def test_drop_of_keys_that_an_earlier_line_drops(tmp_path):
    assert found(tmp_path, "- fc.*", "- fc.*\n  - fc.weight") == [
        ("dead-rule", "6:5", "`fc.weight` drops nothing: all that it matches are dropped by an earlier line")
    ]


def test_shadowed_rule_names_the_rule_that_takes_its_keys(tmp_path):
    text = found(tmp_path, "  - bn.* -> stem.1.*\n", "  - bn.* -> stem.1.*\n  - bn.weight -> stem.1.weight\n")
    assert text == [("shadowed-rule", "4:5", "`bn.weight` gets no key: `bn.weight` is taken by line 3 (`bn.* -> stem.1.*`)")]


def test_two_sources_onto_one_target_name_both(tmp_path):
    text = SOUND.replace("drop:\n  - fc.*\n", "  - fc.* -> stem.0.*\n")
    collision = next(p for p in problems(tmp_path, text, SOURCE, TARGET) if p.code == "collision")
    assert facts([collision]) == [("collision", "4:13", "`stem.0.weight` would get two values: from `conv1.weight` and from `fc.weight`")]
    assert collision.notes == ("`conv1.weight` by line 2 (`conv1.* -> stem.0.*`)", "`fc.weight` by line 4 (`fc.* -> stem.0.*`)")


def test_source_key_that_nothing_names(tmp_path):
    assert found(tmp_path, "  - fc.*\n", "") == [
        ("unmapped-source", "1:1", "`fc.weight`: 1 key of the source is neither mapped nor dropped")
    ]


def test_target_key_that_nothing_names(tmp_path):
    assert found(tmp_path, "  - head.*\n", "") == [
        ("unmapped-target", "1:1", "`head.weight`: 1 key of the target is neither mapped nor kept")
    ]


def test_misspelt_target_names_the_nearest_key(tmp_path):
    first, *rest = problems(tmp_path, SOUND.replace("stem.1", "stem.l"), SOURCE, TARGET)
    assert facts([first]) == [("unknown-target", "3:13", "`stem.l.weight` is not a key of the target")]
    assert first.notes == ("nearest key: stem.1.weight", "2 keys in all")
    assert [problem.code for problem in rest] == ["unmapped-target"]


def test_a_misspelt_path_of_a_pattern_names_the_nearest_path(tmp_path):
    source = catalog("trunk_output.block1.0.weight 2", "trunk_output.block1.1.weight 2", "stem.weight 2")
    first, *_ = problems(tmp_path, "rules:\n  - trunk_outpt.block1.** -> x.**\n", source, None)
    assert facts([first]) == [("dead-rule", "2:5", "`trunk_outpt.block1.**` matches no key of the source")]
    assert first.notes == ("nearest path: trunk_output.block1",)


@pytest.mark.parametrize(("pattern", "note"), [
    ("trunk.*", "`trunk.**` matches 2 keys: `*` stands for one part of a name"),
    ("*.w", "`**.w` matches 1 key: `*` stands for one part of a name"),
    ("trunk", "`trunk.**` matches 2 keys: a name alone is not a key, and `.**` stands for all that is below it"),
])  # fmt: skip
def test_a_pattern_for_one_part_of_a_name_is_told_the_one_for_several(tmp_path, pattern, note):
    source = catalog("trunk.0.w 2", "trunk.0.b 2", "stem 2")
    first, *_ = problems(tmp_path, f"rules:\n  - '{pattern} -> x.{pattern}'\n", source, None)
    assert (first.code, first.notes) == ("dead-rule", (note,))
    first, *_ = problems(tmp_path, f"rules: ['** -> **']\ndrop: ['{pattern}']\n", source, None)
    assert (first.code, first.notes) == ("dead-rule", (note,))
    first, *_ = problems(tmp_path, f"rules: ['stem -> stem']\ndrop: ['trunk.**']\nkeep: ['{pattern}']\n", source, source)
    assert (first.code, first.notes) == ("dead-rule", (note,))


def test_wrong_shape_gives_both(tmp_path):
    text = "rules: [conv1.* -> head.*]\nrest: {source: drop, target: keep}\n"
    assert facts(problems(tmp_path, text, SOURCE, TARGET)) == [("shape", "1:20", "`head.weight` would get 4×3, the target has 2×4")]


def test_wrong_dtype_gives_both(tmp_path):
    half = catalog("a.w 2 F16")
    (problem,) = problems(tmp_path, "rules: [a.* -> b.*]", half, catalog("b.w 2"))
    assert facts([problem]) == [("dtype", "1:16", "`b.w` would get F16, the target has F32")]
    assert problems(tmp_path, "rules: [a.* -> b.*]", half, catalog("b.w 2"), dtypes="source") == []


def test_word_of_a_choice_that_stands_for_nothing(tmp_path):
    source, target = catalog("a.q.w 2", "a.k.w 2"), catalog("b.q.w 2", "b.k.w 2", "b.v.w 2")
    text = 'rules:\n  - "a.{q,k,v}.w -> b.{q,k,v}.w"\n'
    assert facts(problems(tmp_path, text, source, target)) == [
        ("dead-word", "2:8", "`v` of `{q,k,v}` matches no key of the source"),
        ("unmapped-target", "1:1", "`b.v.w`: 1 key of the target is neither mapped nor kept"),
    ]


def test_number_below_zero(tmp_path):
    text = "rules:\n  - a.{i}.w -> b.{i-1}.w\n"
    assert facts(problems(tmp_path, text, catalog("a.0.w 2"), None)) == [("bad-number", "2:16", "`{i-1}` would be -1 for `a.0.w`")]


def test_expectation_that_is_not_met(tmp_path):
    text = SOUND + "expect: {mapped: 4, kept: 1}\n"
    assert facts(problems(tmp_path, text, SOURCE, TARGET)) == [("expect", "8:9", "3 mapped, but 4 are expected")]


def test_name_tests_are_checked_without_a_checkpoint(tmp_path):
    text = SOUND + "tests:\n  conv1.weight: stem.1.weight\n  fc.weight: null\n  x.y: z\n"
    assert facts(problems(tmp_path, text, SOURCE, TARGET)) == [
        ("test", "9:17", "`conv1.weight` becomes `stem.0.weight`; the test wants `stem.1.weight`"),
        ("test", "11:8", "`x.y` is matched by no rule; the test wants `z`"),
    ]


def test_what_drop_takes_is_no_rule_s_and_the_way_out_is_named(tmp_path):
    text = 'rules: [head.w -> head.w, "** -> **"]\ndrop: ["head.*"]\nkeep: ["head.*"]\n'
    found = problems(tmp_path, text, catalog("a.w 2", "head.w 2"), catalog("a.w 2", "head.w 2"))
    assert facts(found)[:1] == [("shadowed-rule", "1:9", "`head.w` gets no key: `head.w` is taken by `drop:`")]
    assert found[0].notes == ("`drop:` comes before all rules: narrow its pattern, or leave this rule out",)


def test_wrapper_prefix_is_named_but_never_stripped_silently(tmp_path):
    wrapped = catalog("module.a.w 2", "module.b.w 2")
    first = problems(tmp_path, "rules: [a.* -> a.*, b.* -> b.*]", wrapped)[0]
    assert first.notes == ('every key of the source begins with `module.`: add `strip: ["module."]`',)
    assert problems(tmp_path, 'rules: [a.* -> a.*, b.* -> b.*]\nstrip: ["module."]', wrapped) == []
    by_prefix = problems(tmp_path, "rules: [module.a.* -> a.*, b.* -> b.*]", wrapped)[0]
    assert by_prefix.notes == ("every key of the source begins with `module.`: begin it with `module.`, as other rules do",)
    assert problems(tmp_path, "rules: [module.a.v -> a.v, module.b.* -> b.*]", wrapped)[0].notes == ("nearest key: module.a.w",)


def test_the_nearest_path_of_a_misspelt_rule_has_the_wrapper_s_prefix(tmp_path):
    wrapped = catalog("module.stem.w 2", "module.body.w 2")
    assert problems(tmp_path, "rules: [stme.* -> a.*, module.body.* -> b.*]", wrapped)[0].notes == ("nearest path: module.stem",)


def test_parameter_without_a_number(tmp_path):
    text = "params:\n  depth: {from: num_layers, dim: [x.w, 3]}\nrules:\n  - a.{i}.w -> b.{depth-i}.w\n"
    (problem,) = problems(tmp_path, text, catalog("a.1.w 2"), None)
    assert facts([problem]) == [("unset-param", "2:3", "`depth` has no number")]
    notes = "give it by `--set depth=…` or `num_layers` in a config.json or params.json beside the source"
    assert problem.notes == (notes, "`x.w` is not a key of the source")
    assert problems(tmp_path, text, catalog("a.1.w 2"), None, params={"depth": 5}) == []
    assert problems(tmp_path, text, catalog("a.1.w 2"), None, config={"num_layers": 5}) == []
    (unknown,) = problems(tmp_path, text, catalog("a.1.w 2"), None, params={"depth": 5, "dept": 1})
    assert (unknown.code, unknown.notes) == ("unknown-param", ("did you mean `depth`?",))


MALFORMED = [
    (
        "when: [{rules: [a -> b]}]\n",
        "bad-when",
        "1:8",
        "a block of `when:` has a condition: `has:`, `lacks:`, `ndim:`, `shape:` or `dtype:`",
    ),
    ("when: [{has: a, hass: b}]\n", "bad-when", "1:17", "`hass` is not a condition; there are `has:`, `lacks:`, `ndim:`, `shape:`, `dtype:`"),
    ("when: [{has: a, ndim: [a, x]}]\n", "bad-when", "1:27", "`ndim:` of a key is a number"),
    ("when: [{has: a, shape: a}]\n", "bad-when", "1:24", "`shape:` takes a key and what it must be"),
    ("rules:\n  - a.{b.c -> d\n", "bad-pattern", "2:7", "`{` is not closed"),
    ("rules:\n  - a.* -> b.{q}}\n", "bad-pattern", "2:17", "`}` without `{`; write `\\}` for the character"),
    ("rules:\n  - a.*\n", "bad-rule", "2:5", "a rule reads `SOURCE -> TARGET`, with one arrow"),
    ("rules:\n  - 'a.*: ['\n", "bad-rule", "2:6", "a rule reads `SOURCE -> TARGET`, with one arrow"),
    ("rules:\n  - 'a.{q,5..3} -> b'\n", "bad-pattern", "2:8", "`5..3` has no number: the smaller one comes first"),
    ("rules:\n  - 'a{j=0..2} -> b{j=x,y}'\n", "unbalanced", "2:20", "`j` is a number in the source and a choice in the target"),
    ("rules:\n  - 'a.{i=x,y} -> b.{i+1}'\n", "unbalanced", "2:21", "`i` is a choice in the source and a number in the target"),
    ("rules:\n  - a -> b -> c\n", "bad-rule", "2:5", "a rule reads `SOURCE -> TARGET`, with one arrow"),
    ("rules:\n  - a.*.w -> b.w\n", "unbalanced", "2:7", "`*` is in the source only; what it matches has no place on the other side"),
    (
        "rules:\n  - a.{i}.w -> b.w\n",
        "unbalanced",
        "2:7",
        "`{i}` is in the source only; it must be collected by an op (`concat`, `stack`) or be on both sides",
    ),
    (
        "rules:\n  - a.w -> b.{i}.w\n",
        "unbalanced",
        "2:14",
        "`{i}` is in the target only; it must be produced by an op (`split`, `unstack`, `copy`) or be on both sides",
    ),
    ("rules:\n  - 'a.{q,k} -> b.{x,y,z}'\n", "unbalanced", "2:19", "a choice of 3 words can't be paired with one of 2 (`q`, …)"),
    ("rulez: []\n", "unknown-section", "1:1", "`rulez` is not a section of a rule file"),
    ("rules: {a: b}\n", "bad-section", "1:8", "`rules:` is a list"),
    ("rules:\n  - [a, b]\n", "bad-rule", "2:5", "a rule reads `SOURCE -> TARGET` or `SOURCE -> TARGET: OPS`"),
    ("rest: {source: keep}\n", "bad-rest", "1:16", "`rest:` says `source: drop` or `target: keep`, nothing else"),
    ("expect: {mapped: many}\n", "bad-expect", "1:10", "`expect:` takes numbers from 0 on for `mapped`, `kept` and `dropped`"),
    ("expect: {mapped: -1}\n", "bad-expect", "1:10", "`expect:` takes numbers from 0 on for `mapped`, `kept` and `dropped`"),
    ("tables: {t: {a: x, b: x}}\n", "bad-table", "1:23", "`x` stands for `a` and for `b`; a table is one-to-one"),
    (
        "params: {n: {of: x}}\n",
        "bad-param",
        "1:10",
        "`n` is a number, or has `from:` (a key of config.json), `dim: [KEY, 0]`, `count: PATTERN`, `value: FORMULA` or `default:`",
    ),
    ("drop: [{q: k}]\n", "bad-section", "1:8", "`drop:` is a list of texts"),
    ("include: [../x.yaml]\n", "bad-include", "1:11", "`../x.yaml` leaves the folder of the rule file"),
    ("include: [none.yaml]\n", "bad-include", "1:11", "`none.yaml`: no such file"),
    ("include: [rules.yaml]\n", "include-cycle", "1:11", "`rules.yaml` includes itself"),
    ("- a -> b\n", "no-rules", "1:1", "a rule file is a YAML mapping of sections, as `rules:`"),
]


@pytest.mark.parametrize(("text", "code", "place", "message"), MALFORMED)
def test_malformed_rules_say_where_and_what(tmp_path, text, code, place, message):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, text)
    assert facts(caught.value.problems) == [(code, place, message)]


def test_all_problems_of_a_file_are_listed_at_once(tmp_path):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, "rulez: []\nrules:\n  - a.{b -> c\n  - a\n")
    assert [problem.code for problem in caught.value.problems] == ["unknown-section", "bad-pattern", "bad-rule"]


NOT_YAML = [
    ("rules:\n  - *x -> y\n", "2:5", "an alias is not allowed in a rule file"),
    ("rules: &x []\n", "1:8", "an anchor is not allowed in a rule file"),
    ("rules: !!python/object:os.system x\n", "1:8", "the tag `tag:yaml.org,2002:python/object:os.system` is not allowed in a rule file"),
    ("rules: []\nrules: []\n", "2:1", "`rules` is twice in one mapping"),
    ("a: {<<: b}\n", "1:5", "a merge key is not allowed in a rule file"),
    ("a: 1\n---\nb: 2\n", "2:1", "a second document is not allowed in a rule file"),
    ("? [a]\n: b\n", "1:3", "a key that is not a string"),
    ("[" * 30, "1:22", "more than 20 levels is not allowed in a rule file"),
    ("a: [\n", "2:1", "is no YAML: did not find expected node content"),
]


@pytest.mark.parametrize(("text", "place", "fact"), NOT_YAML)
def test_what_is_no_plain_yaml_is_refused(tmp_path, text, place, fact):
    with pytest.raises(RuleFileError) as caught:
        rules(tmp_path, text)
    assert caught.value.path == f"{tmp_path}/rules.yaml:{place}"
    assert caught.value.fact == fact


def test_yaml_texts_stay_texts(tmp_path):
    found = rules(tmp_path, "tables: {t: {no: off, 0777: 1:30}}\nrules: ['a.{t} -> b.{t}']\n")
    assert found.tables == {"t": {"no": "off", "0777": "1:30"}}


UNREADABLE = [
    ("rules:\n  - {from: [[a]], to: b}\n", "bad-rule", "2:12", "`from:` and `to:` are patterns or lists of patterns"),
    ("rules:\n  - {from: a, too: b}\n", "bad-rule", "2:15", "the long form of a rule has `from:`, `to:` and `ops:`"),
    ("rules:\n  - {from: [a, b], to: c}\n", "unbalanced", "2:5", "several patterns on one side need `ops:` that join or split the tensors"),
    ("tables: {t: {a: [b]}}\n", "bad-table", "1:17", "a table gives one text for each text"),
    ("tables: {a-b: {a: b}}\n", "bad-table", "1:10", "a table has a name of letters and digits, and at least one row"),
    ("tables: {t: {}}\n", "bad-table", "1:10", "a table has a name of letters and digits, and at least one row"),
    ("tables: [a]\n", "bad-section", "1:9", "`tables:` is a mapping"),
    ("tables: {t: a}\n", "bad-section", "1:13", "a table of `tables:` is a mapping"),
    ("when:\n  - rules: [a -> b]\n", "bad-when", "2:5", "a block of `when:` has a condition: `has:`, `lacks:`, `ndim:`, `shape:` or `dtype:`"),
    ("when:\n  - ndim: [a, x]\n", "bad-when", "2:15", "`ndim:` of a key is a number"),
    ("when:\n  - ndim: a\n", "bad-when", "2:11", "`ndim:` takes a key and what it must be"),
    ("when:\n  - has: [a, b]\n", "bad-when", "2:10", "`has:` takes a key"),
    ("when:\n  - hat: a\n", "bad-when", "2:5", "`hat` is not a condition; there are `has:`, `lacks:`, `ndim:`, `shape:`, `dtype:`"),
    ("when:\n  - shape: [a, 3]\n", "bad-when", "2:16", "`shape:` of a key is a list of sizes, `~` for any"),
    ("when:\n  - dtype: [a, F33]\n", "bad-when", "2:16", "`dtype:` of a key is a dtype such as BF16"),
    ("source: [a]\n", "bad-section", "1:9", "`source:` is a text"),
    ("expect: 3\n", "bad-section", "1:9", "`expect:` is a mapping"),
    ("fit: [a]\n", "bad-section", "1:7", "a line of `fit:` is a mapping"),
    ("fit: {a: stretch}\n", "bad-op", "1:10", "`stretch` is not a fit; there are resize_grid, resize_bias, resize_patch, input_channels, rows, fresh"),
    ("rules:\n  - a -> b: {split: {dim: x}}\n", "bad-op", "2:13", "`split`: `dim` is a whole number, not 'x'"),
    ("rules:\n  - a -> b: {rearrange: 'a b -> b'}\n", "bad-op", "2:13", "`a` is on one side of `a b -> b` only"),
    ("optional:\n  - drop: 'a{'\n", "bad-pattern", "2:13", "`{` is not closed"),
]


@pytest.mark.parametrize(("text", "code", "place", "message"), UNREADABLE, ids=[row[3][:50] for row in UNREADABLE])
def test_what_cannot_be_understood_says_where_and_what(tmp_path, text, code, place, message):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, text)
    assert facts(caught.value.problems) == [(code, place, message)]


def test_groups_and_numbers_that_do_not_come_out(tmp_path):
    source = catalog("l.0.q 4", "l.0.k 4", "l.1.q 4", "e.0.w 2", "e.2.w 2", "a.5 2")
    text = "rules:\n  - 'l.{i}.{q,k} -> m.{i}': {concat: 0}\n  - e.{e}.w -> e.w: {stack: 0}\n  - a.{i} -> b.{i-9}\n"
    assert facts(problems(tmp_path, text, source)) == [
        ("incomplete-group", "2:6", "`l.1.k` is missing from its group"),
        ("incomplete-group", "3:5", "`e.1.w` is missing from its group"),
        ("bad-number", "4:14", "`{i-9}` would be -4 for `a.5`"),
    ]


def test_a_rule_in_quotes_may_hold_its_ops(tmp_path):
    assert problems(tmp_path, "rules: ['a.{q,k} -> b: {concat: 0}']\n", catalog("a.q 4", "a.k 4")) == []


NO_PAIRS = [
    (plan_by_name, catalog("a 2"), catalog("b 2"), "nothing-pairs", "no key has the same name and shape on both sides"),
    (plan_by_position, catalog("a 2"), catalog("b 3"), "nothing-pairs", "the first keys disagree: `a` has 2, `b` has 3"),
    (plan_by_position, catalog("a 2", is_ordered=False), catalog("b 2"), "unordered", "the keys of the source are sorted, so their positions mean nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("way", "source", "target", "code", "message"), NO_PAIRS, ids=[row[3] for row in NO_PAIRS])
def test_other_ways_of_pairing_say_why_nothing_pairs(way, source, target, code, message):
    with pytest.raises(RuleError) as caught:
        way(source, target)
    assert facts(caught.value.problems) == [(code, "", message)]


NAMED = [
    ("rules:\n  - a.w => b.w\n", "write `a.w -> b.w`"),
    ("rules:\n  - a.w => b.w: transpose\n", "write `a.w -> b.w: transpose`"),
    ("rules: [a.w => b.w: transpose]\n", "write `a.w -> b.w: transpose`"),
    ("rules:\n  - a.w => b.w: {split: 0}\n", "write `a.w -> b.w: {split: 0}`"),
    ("rules:\n  - a.w > b.w: [transpose, {cast: F16}]\n", "write `a.w -> b.w: [transpose, {cast: F16}]`"),
    ("rules:\n  - 'a.w=>b.w: {split: 0}'\n", "write `a.w -> b.w: {split: 0}`"),
    ("rules:\n  - a.w = b.w:\n", "write `a.w -> b.w`"),
    ("rules:\n  - a.w: b.w\n", "write `a.w -> b.w`"),
    ("rules: {a.w: b.w}\n", "write `- a.w -> b.w`"),
    ("rules:\n  - a.w = b.w\n", "write `a.w -> b.w`"),
    ("rules:\n  - s/a/b/\n", "a rule is not a substitution but has both names, as in `model.** -> **`; " + NO_EXPRESSIONS),
    ("rules:\n  - '^model[.]'\n", NO_EXPRESSIONS),
    ("rules:\n  - 'model.(.*) -> x.**'\n", NO_EXPRESSIONS),
    ('rules:\n  - mlp.w -> "experts.{e=0..3}.w": copy\n', "leave it out, or put quotation marks around the whole rule; `\\\"` is the character itself"),
    ("tables: {t: {a: x, b: x}}\n", "write two rules where a file has one of them; both become one by an op that joins, as in `{a,b} -> c: {concat: 0}`"),
    ("dorp: [a]\n", f"the sections are {', '.join((*SECTIONS, 'include'))}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "way"), NAMED)
def test_what_is_misread_is_told_with_the_way_to_write_it(tmp_path, text, way):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, text)
    assert way in caught.value.problems[0].notes


def test_a_regular_expression_that_matches_no_key_is_called_one(tmp_path):
    (problem, *_) = problems(tmp_path, "rules: ['layers.[0-9].w -> x.w']", catalog("layers.0.w 2"))
    assert (problem.code, problem.notes) == ("dead-rule", (NO_EXPRESSIONS,))


def test_parts_without_a_count_name_the_bounds(tmp_path):
    (problem,) = problems(tmp_path, "rules: ['w -> {i}.w: {split: 0}']", catalog("w 4x2"))
    assert problem.notes == ("for `w`", "give `sizes`, or bounds to the number, as in `{i=0..2}`")


@pytest.mark.parametrize(
    ("text", "place"), [("- \"a.w\" -> \"b.w\"", "2:11"), ("- 'a.w' -> b.w", "2:11")]
)
def test_a_side_in_quotes_is_no_yaml_and_told_so(tmp_path, text, place):
    with pytest.raises(RuleFileError) as caught:
        rules(tmp_path, f"rules:\n  {text}\n")
    assert caught.value.path.endswith(place)
    assert caught.value.hint == "quotation marks go around the whole rule: `'SOURCE -> TARGET'`"


def test_the_arrow_of_reports_is_read_back(tmp_path):
    found = rules(tmp_path, "rules:\n  - module.** → net.**\n  - 'q → {a,b}.q': copy\n  - 'k  →  x: transpose'\n  - a\\→b -> c\n")
    assert [(rule.sources[0].pattern.text, rule.targets[0].pattern.text) for rule in found.rules] == [
        ("module.**", "net.**"), ("q", "{a,b}.q"), ("k", "x"), ("a\\→b", "c"),
    ]  # fmt: skip
    assert found.rules[0].targets[0].where.column == 17
    assert found.rules[3].matchers[0].match("a→b") is not None


def test_a_text_is_a_list_of_one_and_rules_need_no_dashes(tmp_path):
    plain = rules(tmp_path, "rules:\n  - a.** -> b.**\n  - 'q.w -> k.w': transpose\ndrop: [c.*]\nkeep: [d.*]\nstrip: [module.]\n")
    short = rules(tmp_path, "rules:\n  a.** -> b.**:\n  q.w -> k.w: transpose\ndrop: c.*\nkeep: d.*\nstrip: module.\n")
    for one, other in zip(plain.rules, short.rules, strict=True):
        assert (one.text, one.ops) == (other.text, other.ops)
    assert [[str(each.pattern) for each in part] for part in (short.drop, short.keep)] == [["c.*"], ["d.*"]]
    assert short.strip == ("module.",)
    assert len(rules(tmp_path, "rules: a -> b\n").rules) == 1
    assert len(rules(tmp_path, "rules: {from: [a, b], to: c, ops: {concat: 0}}\n").rules) == 1


def test_every_code_of_a_problem_has_a_test():
    package, tests = ROOT / "ckpt_tool", ROOT / "tests"
    code = re.compile(r"""(?:Problem\(|\.add\()\s*"([a-z-]+)\"""")
    codes = {found for path in package.rglob("*.py") for found in code.findall(path.read_text())}
    texts = "".join(path.read_text() for path in tests.rglob("*.py"))
    assert not {each for each in codes if f'"{each}"' not in texts}


def test_the_docs_list_every_code_of_a_problem():
    code = re.compile(r"""(?:Problem\(|_Fault\(|reading\.add\(|self\.add\()\s*"([a-z-]+)\"""")
    codes = {found for path in (ROOT / "ckpt_tool").rglob("*.py") for found in code.findall(path.read_text())}
    codes |= {"unmapped-source", "unmapped-target", "unused-param", "unused-table"}  # written with the side, and the kind
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", (ROOT / "docs" / "problems.md").read_text(), re.MULTILINE)
    listed = [each for row in rows for each in re.findall(r"[a-z-]+", row)]
    assert sorted(listed) == sorted(codes)


def test_a_tab_is_named_as_one(tmp_path) -> None:
    with pytest.raises(RuleFileError, match=r"rules\.yaml:2:1: is no YAML: .*; indent with spaces: YAML has no tabs"):
        rules(tmp_path, "rules:\n\t- a -> b\n")


@pytest.mark.parametrize(("rule", "marked"), [('"c -> d: nope"', "nope"), ("'c -> d: {split: zz}'", "{"), ("c -> d: nope", "nope")])
def test_a_fault_in_the_ops_of_a_quoted_rule_is_marked_in_the_file(tmp_path, rule, marked):
    with pytest.raises(RuleError) as refused:
        rules(tmp_path, f"rules:\n  - a -> b\n  - {rule}\n")
    [problem] = refused.value.problems
    where = problem.where
    assert (where.file, where.line) == (str(tmp_path / "rules.yaml"), 3)
    assert where.text[where.column - 1 :].startswith(marked)


def test_what_is_no_yaml_in_a_quoted_rule_has_its_place(tmp_path) -> None:
    with pytest.raises(RuleFileError, match=r"rules\.yaml:2:26: is no YAML"):
        rules(tmp_path, "rules:\n  - 'e -> f: {split: [1, }'\n")
