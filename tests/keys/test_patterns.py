"""Patterns: what they match, what they render, what is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_tool.keys import Matcher, PatternError, PatternSet, nearest, pair, parse, quote, render
from ckpt_tool.keys.match import MAX_TOGETHER
from ckpt_tool.keys.quoting import quote_word
from ckpt_tool.keys.write import pattern_text

MATCHES = [
    ("a.b", "a.b", {}),
    ("conv1.*", "conv1.weight", {"*0": "weight"}),
    ("bn*.x", "bn12.x", {"*0": "12"}),
    ("a.**", "a.b.c", {"**": "b.c"}),
    ("**", "", {"**": ""}),
    ("**.weight", "a.b.weight", {"**": "a.b"}),
    ("{r=**}.weight", "a.b.weight", {"r": "a.b"}),
    ("layer{s}.{b}.conv{n}.*", "layer1.0.conv3.weight", {"s": 1, "b": 0, "n": 3, "*0": "weight"}),
    ("n.{2*s}.x", "n.6.x", {"s": 3}),
    ("n.{2*s+1}.x", "n.7.x", {"s": 3}),
    ("n.{11-i}", "n.4", {"i": 7}),
    ("{i}.{i}", "3.3", {"i": 3}),
    ("a.{q,k,v}.w", "a.k.w", {"{0}": 1}),
    ("a.{1..4}.w", "a.3.w", {"{0}": 2}),
    ("a.{0,3..5}.w", "a.4.w", {"{0}": 2}),
    ("m.{p=gate,up}.w", "m.up.w", {"p": 1}),
    ("a.{attention.wv,attention.wo}.w", "a.attention.wo.w", {"{0}": 1}),
    ("a.{mlp,mlp.fc1}.**", "a.mlp.fc1.w", {"{0}": 1, "**": "w"}),
    ("{b}.{j=0..1}", "4.1", {"b": 4, "j": 1}),
    (r"a\*b\{c\}", "a*b{c}", {}),
    (r"a\x0ab\u200b\U000e0041", "a\nb\u200b\U000e0041", {}),
    (r"\\x0a\x4\u12\U11000000", r"\x0ax4u12U11000000", {}),
    (r"{a\x2cb,c}", "a,b", {"{0}": 0}),
    ("{3*b+j+1}.{j=0..1}", "8.1", {"b": 2, "j": 1}),
]

MISSES = [
    ("a.b", "a.b.c"),
    ("conv1.*", "conv1.a.b"),
    ("conv1.*", "conv1."),
    ("a.**", "a"),
    ("layer{s}", "layer01"),
    ("layer{s}", "layer"),
    ("layer{s}", "layer١"),
    ("n.{2*s}", "n.5"),
    ("n.{i+3}", "n.2"),
    ("{i}.{i}", "3.4"),
    ("a.{q,k}.w", "a.v.w"),
    ("{j=0..1}", "2"),
]

REFUSED = [
    ("a.{b", 2, "`{` is not closed"),
    ("a}", 1, "`}` without `{`; write `\\}` for the character"),
    ("a.{b{c}}", 4, "a placeholder inside a placeholder"),
    ("**.**", 3, "`**` may appear only once in a pattern"),
    ("x**", 1, "`**` matches whole names: put dots around it"),
    ("{i}{j}", 0, "a number followed by a digit or another placeholder can be read in two ways"),
    ("layer{i}2", 5, "a number followed by a digit or another placeholder can be read in two ways"),
    ("*{i}", 0, "two placeholders between the same dots can be read in two ways"),
    ("a*b*c", 3, "two placeholders between the same dots can be read in two ways"),
    ("{,a}", 0, "an empty word in a choice"),
    ("{q,q}", 0, "`q` is twice in one choice"),
    ("{q*,k}", 0, "`*` inside a choice"),
    ("{a.b}", 0, "`{a.b}` is neither a number, nor a choice (`{q,k,v}`), nor a table that is declared"),
    ("a\\", 1, "a `\\` at the end has nothing to escape"),
    ("{0..99999}", 0, "`0..99999` has more than 10,000 words"),
    ("{j=5..1}", 0, "`5..1` bounds nothing"),
    ("{p=a,b}.{p=a,b}", 0, "`p` names two placeholders"),
]


@pytest.mark.parametrize(("text", "key", "binding"), MATCHES)
def test_pattern_matches_and_renders_back(text, key, binding):
    pattern = parse(text)
    assert Matcher(pattern).match(key) == binding
    assert render(pattern, binding) == key


@pytest.mark.parametrize(("text", "key"), MISSES)
def test_pattern_does_not_match(text, key):
    assert Matcher(parse(text)).match(key) is None


@pytest.mark.parametrize(("text", "start", "message"), REFUSED)
def test_pattern_is_refused_with_a_place(text, start, message):
    with pytest.raises(PatternError) as caught:
        parse(text)
    assert (caught.value.start, caught.value.message) == (start, message)


QUOTED = [
    ('"a.w"', 0), ("a.w'", 3), ("`a.*`", 0), ("“a”", 0), ('a.{"q","k"}', 2), ("a.{q,k'}", 2), ('a\\\\"', 3),
]  # fmt: skip


@pytest.mark.parametrize(("text", "start"), QUOTED, ids=str)
def test_quotation_marks_around_a_pattern_or_a_word_are_refused(text, start):
    with pytest.raises(PatternError, match=r"the quotation mark `.` would become a part of the name") as caught:
        parse(text)
    assert caught.value.start == start
    assert "quotation marks around the whole rule" in caught.value.hint


@pytest.mark.parametrize(("text", "key"), [('\\"a\\"', '"a"'), ("params['w']", "params['w']"), ('a.\\"', 'a."'), ('{\\"q\\",k}.w', '"q".w')])
def test_quotation_marks_that_are_escaped_or_inside_stand_for_themselves(text, key):
    assert Matcher(parse(text)).match(key) is not None


HINTS = [
    ("{,a}", "write two rules, one with the word and one without"),
    ("{q,q}", "several keys become one by an op that joins, as in `{q,k}.w -> qk.w: {concat: 0}`, and are taken once each"),
    ("{n/2}.w", "numbers are only multiplied and added: `{2*n}` on the other side, and `{n}` here"),
]


@pytest.mark.parametrize(("text", "hint"), HINTS)
def test_the_way_out_is_named(text, hint):
    with pytest.raises(PatternError) as caught:
        parse(text)
    assert caught.value.hint == hint


def test_number_that_cannot_be_worked_out_backwards_is_refused():
    with pytest.raises(PatternError, match="can't be worked out backwards"):
        Matcher(parse("{3*b+j}"))
    with pytest.raises(PatternError, match="can't be worked out backwards"):
        Matcher(parse("{2*b+j}.{j=0..2}.x".replace(".{j=0..2}", "")), {"j": range(3)})


def test_bounds_of_the_other_side_solve_a_number():
    matcher = Matcher(parse("input.{3*b+j+1}"), {"j": range(2)})
    assert matcher.match("input.5") == {"b": 1, "j": 1}
    assert matcher.match("input.3") is None


def test_a_table_gives_the_row():
    assert Matcher(parse("h.{block}.w", {"block": ("ln_1", "mlp.c_fc")})).match("h.mlp.c_fc.w") == {"block": 1}


def test_the_first_of_several_patterns_takes_a_key():
    patterns = PatternSet([Matcher(parse(text)) for text in ("a.{2*i}", "a.*", "a.**")])
    assert patterns.first("a.4") == (0, {"i": 2})
    assert patterns.first("a.5") == (1, {"*0": "5"})
    assert patterns.first("a.b.c") == (2, {"**": "b.c"})
    assert patterns.first("b") is None
    assert patterns.all("a.4") == [0, 1, 2]


def test_choices_whose_words_begin_alike_do_not_explode():
    with pytest.raises(PatternError, match="too many choices"):
        parse("x".join(["{a,aa}"] * 40) + "b")


def test_a_long_key_is_matched_in_linear_time():
    matcher = Matcher(parse("**.{a,aa}.*b.{n}"))
    assert matcher.match("a." * 5000 + "c") is None


key_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(key_texts | st.text(st.sampled_from(list("a.*{}\\x0u2U \t\n\u200b\u202e\u3164\ud800\U000e0041->→'"))))
def test_quoted_key_matches_itself_alone(key):
    pattern = parse(quote(key))
    assert pattern.text.isprintable()
    assert pattern.holes == ()
    assert Matcher(pattern).match(key) == {}
    assert Matcher(pattern).match(key + "x") is None


texts = st.text(st.sampled_from("ab1.*{}\\->,:= \t\n\u3000") | st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@given(st.lists(texts, min_size=2, max_size=4, unique=True), st.sampled_from(["", "p="]))
def test_words_of_a_choice_may_be_any_text(words, name):
    pattern = parse(f"a.{{{name}{','.join(map(quote_word, words))}}}.b")
    assert [hole.words for hole in pattern.holes] == [tuple(words)]
    assert parse(pattern_text(pattern)).holes == pattern.holes


def test_marks_of_a_choice_are_escaped_one_by_one():
    assert parse(r"{a\\,b}").holes[0].words == ("a\\", "b")
    assert parse(r"{a\=b, c\ }").holes[0].words == ("a=b", "c ")
    assert parse(r"{1..1}").holes[0].words == parse(pattern_text(parse("{1..1}"))).holes[0].words == ("1",)


names = st.sampled_from(["a", "conv", "bn", "q", "k", "w1"])
holes = st.sampled_from(["*", "{i}", "{j}", "{2*i+1}", "{q,k,v}", "{1..4}", "a", "conv{n}", "bn{n}"])


@given(st.lists(holes, min_size=1, max_size=5), st.lists(st.sampled_from(["q", "3", "12", "conv2", "bn7", "x", "0"]), max_size=6))
def test_rendering_a_match_gives_the_key(parts, names):
    pattern, key = parse(".".join(parts)), ".".join(names)
    binding = Matcher(pattern).match(key)
    if binding is not None:
        assert render(pattern, binding) == key


@given(
    st.lists(st.lists(holes, min_size=1, max_size=3).map(".".join), min_size=1, max_size=8),
    st.lists(st.sampled_from(["q", "3", "a", "conv2", "bn7", "x", "0"]), max_size=4).map(".".join),
)
def test_few_and_many_patterns_take_a_key_alike(texts, key):
    """Many patterns are found by what they begin with; few are one regular expression."""
    matchers = []
    for text in texts:
        with suppress(PatternError):
            matchers.append(Matcher(parse(text)))
    many = [*matchers, *(Matcher(parse(f"other.{i}.{'x' * (i % 7)}")) for i in range(MAX_TOGETHER))]
    expected = next(((i, binding) for i, each in enumerate(matchers) if (binding := each.match(key)) is not None), None)
    assert PatternSet(matchers).first(key) == PatternSet(many).first(key) == expected


PAIRINGS = [
    ("a.*.{i}", "b.{i}.*", (), ()),
    ("a.{q,k,v}.*", "b.{x,y,z}.*", (), ()),
    ("a.{i}.qkv.*", "b.{i}.{q,k,v}.*", (), ("{0}→",)),
    ("e.{i}.{e}.{w1,w3}.w", "e.{i}.g", ("e", "{0}"), ()),
    ("x.{p=a,b}", "y.{p=c,d}", (), ()),
    ("{r=**}.{p=a,b}.w", "x.{p}.{r}", (), ()),
]


@pytest.mark.parametrize(("source", "target", "source_only", "target_only"), PAIRINGS)
def test_holes_pair_across_the_arrow(source, target, source_only, target_only):
    pairing = pair(parse(source), parse(target))
    assert (pairing.source_only, pairing.target_only) == (source_only, target_only)


def test_choices_of_different_length_are_refused():
    with pytest.raises(PatternError, match="a choice of 2 words can't be paired with one of 3"):
        pair(parse("{q,k,v}"), parse("{a,b}"))


def test_choices_that_pair_in_two_ways_must_be_named():
    with pytest.raises(PatternError, match="several ways"):
        pair(parse("{q,k}"), parse("{a,b}.{c,d}"))


def test_nearest_key():
    keys = ["layer1.0.bottleneck.0.weight", "layer1.0.shortcut.0.weight", "conv_end.weight"]
    assert nearest("layer1.0.botleneck.0.weight", keys) == "layer1.0.bottleneck.0.weight"
    assert nearest("zzz", keys) is None


def test_endless_keys_are_not_compared_letter_by_letter():
    assert nearest("a" * 3000 + "b", ["a" * 3000 + "c"]) is None
