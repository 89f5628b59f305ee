"""Rules that are written for keys, whatever these hold, are read back as rules for these keys."""

from hypothesis import assume, given
from hypothesis import strategies as st

from ckpt_tool.keys import quote
from ckpt_tool.mapping.reading.rule_file import read_inline_rules, read_rule_text
from ckpt_tool.mapping.reading.writing import rule_line, scalar
from ckpt_tool.ops import parse_ops

MARKS = "ab01.*{}\\->,:=#'\"[]|&!%@`~?/ \t\n\r\0\x85\u2028\u3000\u202e\ufeff\x7f\x1b"
keys = st.text(st.sampled_from(MARKS) | st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
ops = st.sampled_from([(), parse_ops("transpose"), parse_ops({"split": 0}), parse_ops([{"slice": {"dim": 0, "start": 1}}, "transpose"])])


@given(keys, keys, ops)
def test_a_rule_for_two_keys(a: str, b: str, chain) -> None:
    line = rule_line([quote(a)], [quote(b)], chain)
    (rule,) = read_rule_text(f"rules:\n  - {line}\n", "rules.yaml").rules
    assert rule.ops == chain
    assert [matcher.match(a) for matcher in rule.matchers] == [{}]
    assert [side.pattern for side in rule.targets] == [read_rule_text(f"keep:\n  - {scalar(quote(b))}\n", "keep.yaml").keep[0].pattern]


@given(keys, keys)
def test_a_rule_on_the_command_line(a: str, b: str) -> None:
    assume(": " not in b)  # which begins ops there
    assert read_inline_rules([f"{quote(a)} -> {quote(b)}"]).rules[0].matchers[0].match(a) == {}
