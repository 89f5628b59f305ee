"""Numbers that rules may name: where they come from, and formulas of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from literals import catalog, facts, problems, rules
from running import ckpt
from safetensors.torch import load_file, save_file

import ckpt_tool
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.mapping import check_rules
from ckpt_tool.mapping.formulas import FormulaError, parse_formula
from ckpt_tool.mapping.params import read_config, resolve_params


def resolved(folder, text, source=(), target=(), params=None, config=None):
    numbers, found = resolve_params(rules(folder, text), params or {}, config or {}, catalog(*source), catalog(*target))
    assert not found
    return numbers


def test_numbers_come_from_the_first_place_that_has_them(tmp_path):
    text = "params: {n: {from: [a.b, c], dim: [w, 1], default: 9}}\nrules: [a -> b]\n"
    assert resolved(tmp_path, text) == {"n": 9}
    assert resolved(tmp_path, text, ["w 2x7"]) == {"n": 7}
    assert resolved(tmp_path, text, ["w 2x7"], config={"c": 6}) == {"n": 6}
    assert resolved(tmp_path, text, ["w 2x7"], config={"c": 6, "a": {"b": 5}}) == {"n": 5}
    assert resolved(tmp_path, text, params={"n": 4}, config={"c": 6}) == {"n": 4}


def test_either_side_tells_sizes_and_counts(tmp_path):
    text = "params: {d: {dim: [w, 0], of: target}, n: {count: 'b.*.w'}, m: {count: 'b.*.w', of: target}}\nrules: [a -> b]\n"
    assert resolved(tmp_path, text, ["b.0.w 1", "b.1.w 1"], ["w 3", "b.0.w 1"]) == {"d": 3, "n": 2, "m": 1}


def test_names_are_looked_up_without_stripped_prefixes(tmp_path):
    text = "strip: ['module.']\nparams: {d: {dim: [w, 0]}, n: {count: 'b.*'}}\nrules: [a -> b]\n"
    assert resolved(tmp_path, text, ["module.w 3", "module.b.0 1"]) == {"d": 3, "n": 1}


def test_formulas_of_numbers_above(tmp_path):
    text = "params: {heads: 8, groups: {from: kv}, each: {value: heads / groups}, rows: {value: (each + 2) * groups}}\nrules: [a -> b]\n"
    assert resolved(tmp_path, text, config={"kv": 2}) == {"heads": 8, "groups": 2, "each": 4, "rows": 12}


def test_numbers_without_rules_are_refused_and_lead_on_where_nothing_pairs(tmp_path):
    torch.save({"a.w": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"b.v": torch.ones(3)}, tmp_path / "b.pth")
    ran = ckpt("plan", "a.pth", "a.pth", "--set", "n=1", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "error: --set: gives `n` a number, and there are no rules; leave it out\n")
    assert ckpt("plan", "a.pth", "b.pth", "--set", "n=1", cwd=tmp_path).status == 1
    with pytest.raises(InputError, match="there are no rules"):
        ckpt_tool.load_into(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).state_dict(), params={"n": 1})


def test_a_number_that_only_the_command_line_gives(tmp_path):
    text = "params: {n: ~}\nrules: [a -> b]\n"
    assert resolved(tmp_path, text, params={"n": 3}) == {"n": 3}
    (problem,) = problems(tmp_path, text, catalog("a 1"))
    assert (problem.message, problem.notes) == ("`n` has no number", ("give it by `--set n=…`",))


NAMED_IN_TESTS = "params:\n  depth: {}\nrules:\n  - h.{{i}}.w -> blocks.{{depth-1-i}}.w\n  - head.* -> fc.*\ntests:\n  {}: {}\n"


@pytest.mark.parametrize(
    ("declared", "given", "found"),
    [
        ("{from: num_hidden_layers, default: 12}", {}, []),
        ("{from: num_hidden_layers, default: 12}", {"depth": 6}, [("test", "`h.0.w` becomes `blocks.5.w`; the test wants `blocks.11.w`")]),
        ("12", {}, []),
        ("~", {"depth": 12}, []),
        ("~", {}, [("unset-param", "`depth` has no number, and `tests:` need it")]),
        ("{from: layers}", {}, [("unset-param", "`depth` has no number, and `tests:` need it")]),
        ("{dim: [h.0.w, 0]}", {}, [("unset-param", "`depth` has no number, and `tests:` need it")]),
        ("{from: layers}", {"dept": 12}, [("unknown-param", "`--set dept`: the rules declare no such parameter")]),
        ("{value: a*3}", {"a": 4}, []),
        ("{value: a*3}", {}, [("unset-param", "`depth` has no number, and `tests:` need it")]),
    ],
)
def test_name_tests_take_the_numbers_that_are_known_without_a_checkpoint(tmp_path, declared, given, found):
    text = NAMED_IN_TESTS.format(declared, "h.0.w", "blocks.11.w")
    text = text.replace("params:\n", "params:\n  a: ~\n") if "a*3" in declared else text
    assert [(each.code, each.message) for each in check_rules(rules(tmp_path, text), params=given)] == found
    (tmp_path / "r.yaml").write_text(text)
    words = [word for name, number in given.items() for word in ("--set", f"{name}={number}")]
    ran = ckpt("check", "r.yaml", *words, cwd=tmp_path)
    assert (ran.status, "internal error" in ran.err) == (bool(found), False)


@pytest.mark.parametrize(
    ("rule", "is_needed"), [("g.{i+n}.w -> h.{i}.w", True), ("g.{j=0..n-1}.w -> h.{j}.w", True), ("g.{i}.w -> h.{n}.{i}.w", True), ("k.{i+n}.w -> h.{i}.w", False)]
)
def test_a_number_is_needed_only_by_tests_of_rules_that_name_it(tmp_path, rule, is_needed):
    text = f"params: {{n: ~}}\nrules:\n  - {rule}\noptional:\n  - '** -> **'\ntests:\n  g.5.w: g.5.w\n"
    found = [each.code for each in check_rules(rules(tmp_path, text))]
    assert found == (["unset-param"] if is_needed else [])


def test_lint_of_several_keeps_its_count_where_a_number_is_missing(tmp_path):
    (tmp_path / "a.yaml").write_text(NAMED_IN_TESTS.format("~", "h.0.w", "blocks.11.w"))
    (tmp_path / "b.yaml").write_text(NAMED_IN_TESTS.format("~", "head.w", "fc.w"))
    ran = ckpt("lint", "a.yaml", "b.yaml", cwd=tmp_path)
    assert (ran.status, ran.out.strip()) == (1, "2 rule files, 1 with problems")


def test_a_number_of_a_target_that_was_not_given(tmp_path):
    text = "params: {n: {dim: [a.w, 0], of: target}}\nrules: [a.w -> a.w]\n"
    (problem,) = problems(tmp_path, text, catalog("a.w 1"))
    assert problem.notes == ("give it by `--set n=…` or a target, in which it is measured",)
    torch.save({"a.w": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "r.yaml").write_text(text)
    ran = ckpt("map", "a.pth", "-r", "r.yaml", "-o", "b.pth", cwd=tmp_path)
    assert (ran.status, "next:" in ran.err) == (1, False), ran.err
    assert ckpt("map", "a.pth", "a.pth", "-r", "r.yaml", "-o", "b.pth", cwd=tmp_path).status == 0


def test_a_formula_without_a_whole_value(tmp_path):
    text = "params: {heads: 71, groups: 8, each: {value: heads / groups}}\nrules: [a -> b]\n"
    assert facts(problems(tmp_path, text, catalog("a 1"))) == [
        ("unset-param", "1:32", "`each` has no number: `heads / groups`: 8 does not divide 71")
    ]


UNREADABLE = [
    ("params: {n: {value: m * 2}}\n", "1:21", "`n` needs `m`, which is not declared above it"),
    ("params: {n: {value: '2 ** 3'}}\n", "1:22", "`2 ** 3` is not a formula: names, whole numbers, + - * / and brackets"),
    ("params: {n: {value: __import__('os')}}\n", "1:21", "`__import__('os')` is not a formula: names, whole numbers, + - * / and brackets"),
    ("params: {n: {value: (1 + 2}}\n", "1:21", "`(1 + 2` is not a formula: names, whole numbers, + - * / and brackets"),
]


@pytest.mark.parametrize(("text", "place", "message"), UNREADABLE, ids=[row[2][:30] for row in UNREADABLE])
def test_formulas_that_cannot_be_read(tmp_path, text, place, message):
    with pytest.raises(RuleError) as caught:
        rules(tmp_path, text)
    assert facts(caught.value.problems) == [("bad-param", place, message)]


def bracketed(inner):
    return st.tuples(inner, st.sampled_from("+-*"), inner).map("({0[0]} {0[1]} {0[2]})".format)


terms = st.recursive(st.integers(0, 50).map(str), bracketed, max_leaves=8)


@given(terms, st.sampled_from("+-*"), terms)
def test_formulas_are_arithmetic(one, sign, other):
    text = f"{one} {sign} {other}"
    assert parse_formula(text).value({}) == eval(text)


def test_formulas_of_absurd_length_are_refused():
    with pytest.raises(FormulaError):
        parse_formula("+".join("1" * 200))


@pytest.mark.parametrize("name", ["folder", "folder/", "folder/model.safetensors"])
def test_a_config_lies_beside_the_file_or_in_the_folder(tmp_path, name):
    (tmp_path / "folder").mkdir()
    save_file({"w": torch.arange(8.0).reshape(4, 2)}, tmp_path / "folder" / "model.safetensors")
    (tmp_path / "folder" / "config.json").write_text('{"heads": 2}')
    (tmp_path / "rules.yaml").write_text("params: {h: {from: heads}}\nrules:\n  - w -> w: {rearrange: '(h p) c -> (p h) c', h: h}\n")
    ran = ckpt("map", name, "--rules", "rules.yaml", "-o", "out.safetensors", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [[0, 1], [4, 5], [2, 3], [6, 7]]


def test_a_config_that_says_a_number_twice_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"rope": [0.0, Infinity], "heads": 2, "heads": 4}')
    with pytest.raises(InputError, match="has the name 'heads' twice"):
        read_config(str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text('{"rope": [0.0, Infinity], "eps": 1e-05, "heads": 2}')
    assert read_config(str(tmp_path / "model.safetensors"))["heads"] == 2


@pytest.mark.parametrize("config", [{"n": 10**18}, {"n": -(10**4000)}])
def test_a_number_of_very_many_digits_is_none(tmp_path, config):
    for text in ("params: {n: {from: n}}\nrules: []\n", "params: {m: {from: n, default: 3}, n: {value: m*m*m*m}}\nrules: []\n"):
        _, found = resolve_params(rules(tmp_path, text), {}, config, catalog(), None)
        assert found[0].code == "unset-param"
        assert found[0].message.endswith("has no number: what it is given has more than 18 digits")


@pytest.mark.parametrize(
    ("ops", "number", "fact"),
    [
        ("{repeat: 0, times: n}", -5, "`repeat` -5 times; `times` is at least 1"),
        ("{repeat: 0, times: n}", 0, "`repeat` 0 times; `times` is at least 1"),
        ("{pad: 0, after: n}", -5, "`pad` by -5; `before` and `after` are at least 0"),
        ("{reshape: [n, n]}", -2, "`reshape` to -2×-2; sizes are at least 0, and one at most is -1"),
        ("{reshape: [n, n]}", -1, "`reshape` to -1×-1; sizes are at least 0, and one at most is -1"),
    ],
)
def test_what_an_op_can_not_do_with_a_number_is_known_beforehand(tmp_path, ops, number, fact):
    text = f"params: {{n: {number}}}\nrules:\n  - w -> w: {ops}\n"
    (problem,) = problems(tmp_path, text, catalog("w 4x1"))
    assert problem.message.startswith(fact)


def test_a_broken_config_does_not_matter_to_rules_without_numbers(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "r.yaml").write_text("rules:\n  - w -> v\n")
    for command in (("check", "r.yaml", "a.safetensors"), ("plan", "a.safetensors", "-r", "r.yaml")):
        assert ckpt(*command, cwd=tmp_path).status == 0


HEADS = """\
params:
  q_rows: {dim: [wq, 0]}
  kv_rows: {dim: [wk, 0]}
  heads: {from: n_heads}
  kv_heads: {from: n_kv_heads, value: heads * kv_rows / q_rows}
rules: [wq -> q, wk -> k]
"""
SIDES = ("wq 32x8", "wk 16x8")


def test_a_number_is_held_against_its_own_formula(tmp_path):
    assert resolved(tmp_path, HEADS, SIDES, config={"n_heads": 4, "n_kv_heads": 2})["kv_heads"] == 2
    assert resolved(tmp_path, HEADS, SIDES, config={"n_heads": 4})["kv_heads"] == 2
    wrong = problems(tmp_path, HEADS, catalog(*SIDES), params={"heads": 4, "kv_heads": 4})
    assert facts(wrong) == [("param-mismatch", "5:3", "`kv_heads` is 4, and `heads * kv_rows / q_rows` gives 2")]
    wrong = problems(tmp_path, HEADS, catalog(*SIDES), params={"heads": 3, "kv_heads": 1})
    assert facts(wrong) == [("param-mismatch", "5:3", "`kv_heads` is 1, but `heads * kv_rows / q_rows`: 32 does not divide 48")]


@pytest.mark.parametrize("name", ["config.json", "params.json"])
def test_the_config_beside_a_checkpoint_may_be_metas(tmp_path, name):
    (tmp_path / name).write_text('{"n_heads": 4}')
    assert read_config(str(tmp_path / "consolidated.00.pth")) == {"n_heads": 4}
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4}')
    assert read_config(str(tmp_path)) == {"num_attention_heads": 4}


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_config_of_either_side_gives_numbers(tmp_path, side):
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / side / "config.json").write_text('{"n_heads": 4}')
    save_file({"wq": torch.randn(32, 8), "wk": torch.randn(16, 8)}, tmp_path / "source/a.safetensors")
    save_file({"q": torch.randn(32, 8), "k": torch.randn(16, 8)}, tmp_path / "target/b.safetensors")
    (tmp_path / "r.yaml").write_text(HEADS)
    assert ckpt("plan", "source/a.safetensors", "target/b.safetensors", "-r", "r.yaml", cwd=tmp_path).status == 0
    (tmp_path / side / "config.json").unlink()
    assert "`heads` has no number" in ckpt("plan", "source/a.safetensors", "target/b.safetensors", "-r", "r.yaml", cwd=tmp_path).err


def test_a_number_that_follows_from_a_missing_one_is_not_asked_for(tmp_path):
    text = "params: {heads: {from: n_head}, kv_heads: {from: n_kv_head, value: heads}}\nrules: ['w -> {q,k}: {split: 0, sizes: [heads, kv_heads]}']\n"
    found = problems(tmp_path, text, catalog("w 8x2"), catalog("q 4x2", "k 4x2"))
    assert [(each.code, each.message) for each in found] == [("unset-param", "`heads` has no number")]
    assert problems(tmp_path, text, catalog("w 8x2"), catalog("q 4x2", "k 4x2"), params={"heads": 4}) == []
