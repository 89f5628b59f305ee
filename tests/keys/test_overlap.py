"""What two patterns have in common: a key that is given is matched by both, and one that covers another misses none of its keys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tool.keys import Matcher, parse, render
from ckpt_tool.keys.overlap import can_match, common_key, covers
from ckpt_tool.keys.pattern import Choice, Number, PatternError


def matcher(text):
    return Matcher(parse(text))


COMMON = [
    ("a.*", "a.b", "a.b"),
    ("a.**", "**.b", "a.b"),
    ("n.{2*s}.x", "n.{2*s+1}.x", None),
    ("n.{2*s}.x", "n.{3*s+1}.x", "n.4.x"),
    ("{i}.{i}", "{j}.4", "4.4"),
    ("a.{q,k}.w", "a.{k,v}.*", "a.k.w"),
    ("a*.b", "ab*.b", "abx.b"),
    ("{i}a{i}a*", "1a{i}a*", "1a1ax"),
    ("a.b", "a.c", None),
    ("**", "", ""),
    ("layer{1..4}.x", "layer{s}.x", "layer1.x"),
]


@pytest.mark.parametrize(("one", "other", "key"), COMMON)
def test_a_key_that_both_match(one, other, key):
    assert common_key(matcher(one), matcher(other)) == key
    assert (common_key(matcher(other), matcher(one)) is None) is (key is None)


COVERS = [
    ("**", "a.{i}.*"), ("a.*", "a.b"), ("a.{i}", "a.{j=0..3}"), ("a.*", "a.{i}"), ("a.*", "a.{2*s+1}"), ("n.{2*s}.**", "n.{2*s}.{b}.w"),
    ("n.{i}.x", "n.{3*i+j}.x"), ("a.{q,k,v}", "a.{k,q}"), ("a.**", "a.{r=**}.w"), ("a*.b", "ab*.b"), ("a.{i}.*", "a.{i}.{i}"),
]  # fmt: skip


@pytest.mark.parametrize(("wide", "narrow"), [row for row in COVERS if row[1] != "n.{3*i+j}.x"])
def test_what_covers_another(wide, narrow):
    assert covers(matcher(wide), matcher(narrow))
    assert not covers(matcher(narrow), matcher(wide))


@pytest.mark.parametrize(
    ("one", "other"),
    [("a.{2*s}", "a.{i}"), ("a.*", "a.**"), ("a.{i}.{i}", "a.{i}.{j}"), ("{r=**}.c.*", "{r=**}.w"), ("a.{i}", "a.{j=0..3}x")],
)
def test_what_does_not_cover_another(one, other):
    assert not covers(matcher(one), matcher(other))


def test_numbers_that_are_never_there():
    assert not can_match(Matcher(parse("a.{i-5}"), {"i": range(3)}))
    assert can_match(Matcher(parse("a.{i-5}"), {"i": range(9)}))
    assert can_match(matcher("a.{11-i}"))


parts = st.sampled_from(["a", "b", ".", ".", "*", "{i}", "{j}", "{2*s}", "{q,k}", "**", "1"])
texts = st.lists(parts, min_size=1, max_size=6).map("".join)


def keys_of(pattern):
    """Some keys that a pattern matches."""
    for number in (0, 1, 2, 7):
        for word in ("a", "1", "x.b" if "**" in pattern.text else "q"):
            binding = {}
            for token in pattern.holes:
                if isinstance(token, Number):
                    binding |= dict.fromkeys(token.affine.names, number)
                elif isinstance(token, Choice):
                    binding[token.id] = number % len(token.words)
                else:
                    binding[token.id] = word if token.id == "**" else word.split(".")[0]
            yield render(pattern, binding)


@settings(max_examples=300, deadline=None)
@given(texts, texts)
def test_covering_and_sharing_agree_with_matching(first, second):
    try:
        one, other = matcher(first), matcher(second)
    except PatternError:
        return
    key = common_key(one, other)
    if key is not None:
        assert one.match(key) is not None
        assert other.match(key) is not None
    shared = [each for each in keys_of(other.pattern) if other.match(each) is not None and one.match(each) is not None]
    if shared:
        assert key is not None, shared[0]
    if covers(one, other):
        assert all(one.match(each) is not None for each in keys_of(other.pattern) if other.match(each) is not None)
