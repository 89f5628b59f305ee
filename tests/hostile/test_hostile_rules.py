"""Rules from strangers: whatever they say, they are soon read or refused, open nothing outside of their folder, and run nothing."""

import importlib
import os
import re
import sys
from math import log2

import pytest
from literals import catalog, facts, problems, rules
from running import ckpt

from ckpt_tool.errors import CkptError, InputError, RuleError, RuleFileError
from ckpt_tool.keys import Matcher, PatternError, parse
from ckpt_tool.keys.effort import Effort
from ckpt_tool.mapping import check_rules, compile_plan, find_notes, invert_rules, read_rule_files
from ckpt_tool.mapping.checking.analysis import MAX_COMPARED
from ckpt_tool.mapping.reading.rule_file import MAX_FILES

sre_parse = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
KEYS = catalog("layer1.0.weight 2", "fc.weight 2")


def steps_of(pattern: str, key: str) -> int:
    """How many steps a matcher of the classical kind takes, told by the places where its expression can be while it reads `key`."""
    expression = Matcher(parse(pattern)).expression
    return _walk(list(sre_parse.parse(expression, re.DOTALL)), key)


def _walk(parsed: list, key: str) -> int:
    """Backtracking with all its steps counted, for the few constructs that expressions of patterns are made of."""
    sre, steps = sre_parse, 0

    def match(items, at, then):
        nonlocal steps
        steps += 1
        if steps > 3_000_000:
            raise AssertionError("too many steps")
        if not items:
            return then(at)
        (op, value), rest = items[0], items[1:]
        if op is sre.SUBPATTERN:
            return match(list(value[3]) + rest, at, then)
        if op is sre.BRANCH:
            return any(match(list(branch) + rest, at, then) for branch in value[1])
        if op is sre.MAX_REPEAT:
            low, high, body = value
            ends = [at]
            while len(ends) <= min(high, len(key)) and ends[-1] < len(key) and accepts(body[0], key[ends[-1]]):
                ends.append(ends[-1] + 1)
                steps += 1
            return any(match(rest, end, then) for end in reversed(ends[low:]))
        return at < len(key) and accepts((op, value), key[at]) and match(rest, at + 1, then)

    def accepts(item, character):
        op, value = item
        if op is sre.LITERAL:
            return ord(character) == value
        if op is sre.NOT_LITERAL:
            return ord(character) != value
        if op is sre.IN:
            return any(one[0] <= ord(character) <= one[1] if kind is sre.RANGE else ord(character) == one for kind, one in value)
        return op is sre.ANY

    match(parsed, 0, lambda at: at == len(key))
    return steps


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("**.a", "a." * 50),
        ("a*.b*.c*.x", "a1.b1.c1." * 20),
        ("{x=a,aa,aaa}.**.{y=a,aa}.x", "a.aa." * 40),
        ("{n}.{m}.{k}.**.x", "1." * 100),
        ("*.*.*.*.**.*.*.*.end", "ab." * 60),
        ("a{n}b*", "a1" * 100),
        ("{n}{x=a,b}{m}{y=a,b}z", "1a1b" * 30),
    ],
)
def test_a_match_takes_few_steps_however_the_key_is_made(pattern, key):
    """Twice the key: at most four times the steps and a bit, where a hostile expression would take the square of them."""
    once, twice = steps_of(pattern, key + "!"), steps_of(pattern, key * 2 + "!")
    assert log2(twice / once) < 2.3


@pytest.mark.parametrize(
    "pattern",
    [
        "**.**", "a.**.**.b", "**.a.**", "{n}{m}", "{x=" + "a," * 9 + "b}", "*" * 2_000, "{x=a,aa,aaa,aaaa}" * 4, "a." * 6_000, "{0..99999}",
        "{0..9999}" * 3, "{" + ",".join(f"a{i}" for i in range(10_001)) + "}", "{i=0..999999}", "*." * 300 + "x",
    ],
)  # fmt: skip
def test_patterns_beyond_what_is_matched_soon_are_refused(pattern):
    with pytest.raises(PatternError):
        Matcher(parse(pattern))


def test_many_wide_choices_are_refused_when_they_are_too_many_in_all(tmp_path):
    text = "rules:\n" + "".join(f"  - 'a{i}.{{0..9999}} -> b{i}.{{0..9999}}'\n" for i in range(100))
    found = problems(tmp_path, text, KEYS)
    assert [problem.code for problem in found] == ["too-many-words"]
    assert found[0].where.line < 40


@pytest.mark.parametrize(
    "text",
    [
        "rules:\n  - '{i=0..9999}.{j=0..9999}.{k=0..9999} -> x.{k}'\n",
        "rules:\n  - 'fc.weight -> b{i=0..9999}.{j=0..9999}'\n",
        "rules:\n  - fc.weight -> b{i=0..9999}.{j=0..9999}.{k=0..9999}\ntests: {fc.weight: x}\n",
        "rules:\n  - 'a{100000*i+j}.{j=0..9999} -> x.{i}.{j}'\n",
        "tables: {t: {" + ",".join(f"a{i}: b{i}" for i in range(20_000)) + "}}\nrules: ['{t}.{t} -> x']\n",
        "rules: [" + "[" * 10_000,
        "a: " * 10_000,
        "rules:\n  - {from: " + "{a: " * 30 + "1" + "}" * 30 + "}\n",
        "params: {a: '" + "(" * 5_000 + "1'}\nrules: [a -> b]\n",
        "params: {a: '" + "*".join(["999999999999"] * 5_000) + "'}\nrules: ['fc.weight -> b{n=0..a}']\n",
        "rules: ['fc.weight -> b']\nexpect: {mapped: " + "9" * 5_000 + "}\n",
        "rules: !!python/object/apply:os.system ['touch marker']\n",
        "rules: &a [*a]\n",
        "\x00", "\ufeff", "---\n---\n", "? [a]\n: b\n", "\x1b[31m: 1\n", "rules: 1e999\n", "%YAML 9.9\n---\na: b\n",
    ],
)  # fmt: skip
def test_rules_that_ask_for_too_much_end_with_an_error_of_ours(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CkptError):
        compile_plan(rules(tmp_path, text), KEYS)
    assert not (tmp_path / "marker").exists()


def test_an_empty_prefix_is_taken_off_once(tmp_path):
    assert problems(tmp_path, "strip: ['']\nrules: ['** -> **']\n", KEYS) == []


def test_there_is_an_end_to_the_number_of_rules(tmp_path):
    found = problems(tmp_path, "rules:\n" + "- a -> b\n" * 20_001, KEYS)
    assert facts(found) == [("too-many-rules", "20002:3", "more than 20,000 lines in `rules:`")]


def test_numbers_of_keys_are_no_numbers_of_steps(tmp_path):
    keys = catalog("x.999999999999999999.weight 2", "x.0.weight 2")
    found = facts(problems(tmp_path, "rules:\n  - 'x.{e}.weight -> y: stack'\n", keys))
    assert [(code, message) for code, _, message in found] == [("incomplete-group", "`x.1.weight` is missing from its group")]


def test_many_rules_are_not_compared_with_each_other(tmp_path):
    made = rules(tmp_path, "rules:\n" + "".join(f"  - a{i}.** -> b{i}.**\n" for i in range(MAX_COMPARED + 1)))
    assert [note.code for note in find_notes(made)] == ["not-compared"]


def test_a_test_whose_number_would_be_negative_is_a_problem(tmp_path):
    text = "rules:\n  - layer{n}.0.weight -> x.{n-9}\ntests: {layer1.0.weight: x.1}\n"
    found = problems(tmp_path, text, catalog("layer12.0.weight 2"))
    assert ("test", "3:26", "`layer1.0.weight` becomes nothing, `{n-9}` would be -8; the test wants `x.1`") in facts(found)


def test_a_file_that_includes_another_twice_and_so_on_is_soon_over(tmp_path):
    for i in range(40):
        (tmp_path / f"r{i}.yaml").write_text(f"include: [r{i + 1}.yaml, r{i + 1}.yaml]\n")
    (tmp_path / "r40.yaml").write_text("rules: [a -> b]\n")
    with pytest.raises(RuleError, match=f"more than {MAX_FILES} files are included"):
        read_rule_files([str(tmp_path / "r0.yaml")])


@pytest.mark.parametrize(
    "name", ["../secret.yaml", "/etc/hostname", "a/../../secret.yaml", "link.yaml", "folder/secret.yaml", "pipe.yaml", "a\0b"]
)
def test_includes_stay_in_their_folder(tmp_path, name):
    folder = tmp_path / "rules"
    folder.mkdir()
    (tmp_path / "secret.yaml").write_text("rules: [a -> b]\n")
    (folder / "link.yaml").symlink_to("../secret.yaml")
    (folder / "folder").symlink_to("..")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "rules.yaml").write_text('include: ["' + name.replace("\0", "\\0") + '"]\n')
    with pytest.raises(RuleError) as caught:
        read_rule_files([str(folder / "rules.yaml")])
    assert [problem.code for problem in caught.value.problems] == ["bad-include"]


def test_a_folder_of_links_may_include_its_links(tmp_path):
    for folder in ("store", "links"):
        (tmp_path / folder).mkdir()
    (tmp_path / "store" / "a.yaml").write_text("include: [b.yaml]\n")
    (tmp_path / "store" / "b.yaml").write_text("rules: [a -> b]\n")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "store" / name)
    assert len(read_rule_files([str(tmp_path / "links" / "a.yaml")]).rules) == 1


def test_what_is_no_rule_file_is_told_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").touch()
    os.truncate(tmp_path / "large.yaml", 1 << 36)
    (tmp_path / "bytes.yaml").write_bytes(b"rules: \xff\n")
    for name, fact in (("pipe", "is a pipe"), ("large", "is not a rule file: it has 68,719,476,736 bytes"), ("bytes", "is not text: byte 7")):
        with pytest.raises(InputError, match=fact):
            read_rule_files([str(tmp_path / f"{name}.yaml")])
    with pytest.raises(InputError, match="is a device"):
        read_rule_files(["/dev/zero"])


def test_a_rule_file_names_no_code(tmp_path):
    (tmp_path / "evil.py").write_text("open('marker', 'w')\n")
    (tmp_path / "a.txt").write_text("a\tF32\t2\n")
    (tmp_path / "rules.yaml").write_text("target: evil:make\nsource: a.txt\nrules: [a -> b]\n")
    for command in ("plan", "map", "check"):
        ran = ckpt(command, *(["rules.yaml", "a.txt"] if command == "check" else ["--rules", "rules.yaml"]), cwd=tmp_path)
        assert command == "check" or ran.status == 2
        assert command == "check" or "names code for its target, `evil:make`, and a rule file runs nothing" in ran.err
    assert not (tmp_path / "marker").exists()


def test_deep_and_large_yaml_is_refused_with_its_place(tmp_path):
    with pytest.raises(RuleFileError, match=r"rules.yaml:1:.*more than 20 levels"):
        rules(tmp_path, "rules: " + "[" * 30 + "]" * 30)
    with pytest.raises(RuleFileError, match="more than 200,000 nodes"):
        rules(tmp_path, "rules: [" + "a," * 300_000 + "]")


def test_rules_whose_comparison_would_not_end_are_not_compared(tmp_path, monkeypatch):
    lines = (f"a.*.{{q{i}x,k,v}}{{i}}.*b{i % 7}.{{n}}.*.**.*.z -> b.*.{{q{i}x,k,v}}{{i}}.*b{i % 7}.{{n}}.*.**.*.z" for i in range(100))
    made = rules(tmp_path, "rules:\n" + "".join(f"  - {line}\n" for line in lines))
    effort = Effort(100_000)
    assert check_rules(made, effort=effort) == []
    assert [note.code for note in find_notes(made, effort)] == ["not-compared"]
    monkeypatch.setattr("ckpt_tool.mapping.inverting.invert.Effort", lambda: Effort(100_000))
    with pytest.raises(RuleError, match="to order these rules for the way back takes too long"):
        invert_rules(made)


def test_only_so_many_rules_without_a_key_are_explained(tmp_path):
    text = "rules:\n  - fc.* -> fc.*\n  - layer1.** -> layer1.**\n" + "".join(f"  - layer1.0.weights{i} -> a{i}\n" for i in range(300))
    found = problems(tmp_path, text, KEYS)
    assert [problem.code for problem in found] == ["dead-rule"] * 300
    assert [bool(problem.notes) for problem in found] == [True] * 100 + [False] * 200
