"""Lines that are too long for a terminal go on below, and keep their indent, in colour too."""

import re
import shlex

import pytest

from ckpt_tool.report.parts.fitted import fitted

LONG = "nearest key of the source that is left over, for `layer1.0.conv1.weight`: backbone.layer1.0.conv1.weight"


def paint(text):
    return f"\x1b[34m{text}\x1b[0m"


@pytest.mark.parametrize(
    ("margin", "mark", "indent"),
    [
        ("   ", "=", 5),
        (" ", "=", 3),
        ("", "hint:", 6),
        ("", "error[dead-rule]:", 2),
        ("  ", "error:", 9 - 1 - 6 + 2),
    ],
)
def test_a_line_goes_on_below_its_first_word_in_colour_as_without(margin, mark, indent):
    plain = fitted(f"{margin}{mark} {LONG}", 60).splitlines()
    coloured = fitted(f"{margin}{paint(mark)} {LONG}", 60).splitlines()
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured] == plain
    assert plain[0].startswith(f"{margin}{mark} n")
    assert {len(line) - len(line.lstrip()) for line in plain[1:]} == {indent}
    assert max(map(len, plain)) <= 60


@pytest.mark.parametrize("margin", ["", "  "])
def test_a_line_without_a_mark_goes_on_a_bit_to_the_right(margin):
    first, *below = fitted(f"{margin}{LONG}", 60).splitlines()
    assert first.startswith(f"{margin}nearest")
    assert below
    assert all(re.match(rf"{margin}  \S", line) for line in below)


def test_a_line_of_one_colour_keeps_its_indent():
    lines = fitted(f"  {paint(LONG)}", 60).splitlines()
    assert lines[0].startswith("  \x1b[34mnearest")
    assert all(line.startswith("  ") for line in lines)


@pytest.mark.parametrize("width", [50, 60, 80])
def test_what_is_to_be_pasted_has_no_line_end_in_it(width):
    rule, file = "'module.backbone.** -> encoder.net.**'", '{rules: ["** -> **"]}'
    text = fitted(f"hint: all keys of a.pth are keys of b.pth after -e {rule}, as it's said, or by {file} and more of the same", width)
    assert rule in text
    assert '"** -> **"' in text
    assert max(map(len, text.splitlines())) <= width
    assert "\0" not in fitted(f"hint: 'a {'b ' * 60}'", width)


COMMANDS = [
    ["ckpt", "suggest", "resnet50.pth", "detector.pth", "--hint", "bn1.bias -> layer0.1.bias", "-o", "rules.yaml"],
    ["ckpt", "map", "a b.pth", "it's.pth", "-e", "a very long name.** -> another,  with two blanks and 'quotes'.**", "-e", 'a "b" \\ c -> $d', "-o", "x.pth"],
]


@pytest.mark.parametrize("width", range(40, 120, 7))
@pytest.mark.parametrize("words", COMMANDS, ids=["short", "long"])
@pytest.mark.parametrize("before", ["next: ", "hint: all 320 tensors have equal shapes, one by one: "])
def test_a_command_that_goes_on_below_is_read_back_by_a_shell(before, words, width):
    text = fitted(f"{before}{shlex.join(words)}", width)
    pasted = text[text.index("ckpt ") :].replace("\\\n", "")
    assert "\n" not in pasted
    assert shlex.split(pasted) == words
    quoted = max(len(shlex.quote(word)) for word in words)
    assert max(map(len, text.splitlines())) <= max(width, quoted + 10)


def test_a_rule_in_a_hint_is_never_broken():
    rule = f"'{'encoder.layers.0.' * 4}weight -> {'blocks.0.' * 4}weight'"
    assert rule in fitted(f"hint: --hint {rule}", 60)
