"""How a draft reads: its sections, what is less sure as comments, and what is left to a person."""

from ckpt_tool.align.findings import Alignment, Ambiguous
from ckpt_tool.align.suggestion import Suggested, Suggestion

OPEN = Ambiguous(("a", "b"), ("c", "d"), "equal shapes", "a -> c")
RULE = Suggested("a.** -> b.**", 2, 0.97, "names agree")


def suggestion(ambiguous=(), **differing):
    return Suggestion(
        Alignment((), ambiguous, (), ()), (RULE,), ("x.*",), ("y.*",), None, 0.9, **differing
    )


def test_a_rule_stands_below_how_sure_it_is():
    assert "  # 0.97, 2 tensors: names agree\n  - a.** -> b.**\n" in suggestion().text


def test_what_is_dropped_and_kept_is_a_comment_where_that_is_left_to_a_person():
    assert "\ndrop:  # the target has no place for these\n  - x.*\nkeep:" in suggestion().text
    left = suggestion(doubts=("half of it",)).text
    assert "\n# drop:  # the target has no place for these\n#   - x.*\n" in left
    assert left.endswith("# undecided: half of it\n")


def test_less_sure_rules_and_open_groups_are_comments():
    text = suggestion((OPEN,), unsure_rules=(RULE,)).text
    assert "# 0.97, 2 tensors: names agree\n#   - a.** -> b.**\n" in text
    assert text.endswith("# ambiguous: 2 and 2 keys (a, b and c, d), equal shapes; --hint 'a -> c'\n")


def test_nothing_is_complete_without_a_plan():
    assert not suggestion().is_complete
