"""Pickles written anew from spans of others, against Python's own pickle."""

import argparse
import io
import pickle
from collections import Counter, OrderedDict, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckpt_tool.engine.whole.outline import Outline, OutlineFault
from ckpt_tool.engine.whole.places import entries, find
from ckpt_tool.engine.whole.removing import removal
from ckpt_tool.engine.whole.splicing import Edit, spliced
from ckpt_tool.engine.whole.state_dict import add_entries
from ckpt_tool.formats.pickle.machine import PickleMachine


class Thing:
    """An object of a class; equal ones have equal attributes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __eq__(self, other):
        return self.__dict__ == other.__dict__

    __hash__ = None


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5), st.binary(max_size=5),
    st.sampled_from([len, OrderedDict, argparse.Namespace, 3 + 4j, frozenset("ab")]),
)


@st.composite
def worlds(draw):
    """A dict with a dict `weights` in it, and beside it, before and behind, things that share objects with each other and with its values."""
    pool = [draw(LEAVES) for _ in range(draw(st.integers(1, 6)))]
    for _ in range(draw(st.integers(1, 12))):
        some = draw(st.lists(st.sampled_from(range(len(pool))), max_size=4))
        members = [pool[index] for index in some]
        kind = draw(st.sampled_from(["list", "tuple", "dict", "ordered", "thing", "namespace", "default", "long"]))
        made = {
            "list": lambda members=members: list(members), "tuple": lambda members=members: tuple(members), "dict": lambda members=members: {f"k{n}": one for n, one in enumerate(members)},
            "ordered": lambda members=members: OrderedDict((n, one) for n, one in enumerate(members)), "thing": lambda members=members: Thing(**{f"a{n}": one for n, one in enumerate(members)}),
            "namespace": lambda members=members: argparse.Namespace(inner=members), "default": lambda members=members: defaultdict(list, {"x": members}), "long": lambda members=members: members * 300,
        }[kind]()
        pool.append(made)
    choose = st.sampled_from(range(len(pool)))
    make = draw(st.sampled_from([dict, OrderedDict]))
    weights = make((f"w{n}", pool[draw(choose)]) for n in range(draw(st.integers(0, 5))))
    before = {f"b{n}": pool[draw(choose)] for n in range(draw(st.integers(0, 3)))}
    after = {f"c{n}": pool[draw(choose)] for n in range(draw(st.integers(0, 3)))}
    if draw(st.booleans()):
        after["again"] = weights
    return {**before, "weights": weights, **after}


def shape_of(value, seen=None):
    """A value with its sharing: the number of the first place where each object stands."""
    seen = {} if seen is None else seen
    if isinstance(value, int | float | complex | str | bytes | bool | type(None) | type | frozenset) or value is len:
        return (type(value).__name__, repr(value))
    if isinstance(value, tuple) and not value:
        return ("tuple",)
    if id(value) in seen:
        return ("again", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, dict):
        return (type(value).__name__, [(key, shape_of(one, seen)) for key, one in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [shape_of(one, seen) for one in value])
    return (type(value).__name__, shape_of(value.__dict__, seen))


def renamed(data, change):
    """The pickle whose `weights` have other names and another order, by the names they had."""
    outline = Outline(data)
    item = find(outline, ("weights",))
    found = {outline.value(key): value for key, value in entries(item)}

    def write(splicer):
        splicer.keep(item.start, item.made_end, is_moved=True)
        add_entries(splicer, [(new, found[old]) for old, new in change])

    return spliced(outline, [Edit(item.start, item.end, write)]).content


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(), protocol=st.integers(2, 5), data=st.data())
def test_a_dict_with_other_keys_leaves_all_else_as_it_was(world, protocol, data):
    names = data.draw(st.permutations(sorted(world["weights"])))
    change = [(name, f"new.{name}") for name in names[: data.draw(st.integers(0, len(names)))]]
    stored = pickle.dumps(world, protocol)
    was = world["weights"]
    found = pickle.loads(renamed(stored, change))
    expected = {key: type(was)((new, was[old]) for old, new in change) if value is was else value for key, value in world.items()}
    if "again" in world:
        expected["again"] = expected["weights"]
        assert found["again"] is found["weights"]
    # What is shared stays shared, but for what only a dropped member had shared with the rest.
    assert shape_of(found) == shape_of(pickle.loads(pickle.dumps(expected, protocol)))
    # Once more, from what was written.
    back = pickle.loads(renamed(renamed(stored, change), [(new, old) for old, new in change]))
    kept = {key: type(was)((old, was[old]) for old, _ in change) if value is was else value for key, value in world.items()}
    if "again" in world:
        kept["again"] = kept["weights"]
    assert shape_of(back) == shape_of(pickle.loads(pickle.dumps(kept, protocol)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(), protocol=st.integers(2, 5))
def test_an_entry_that_is_left_out_takes_nothing_with_it(world, protocol):
    outline = Outline(pickle.dumps(world, protocol))
    found = pickle.loads(spliced(outline, [removal(outline, ("weights",))]).content)
    left = {key: value for key, value in world.items() if key != "weights"}
    assert shape_of(found) == shape_of(pickle.loads(pickle.dumps(left, protocol)))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_long_pickles_of_frames_and_bytes_are_written_anew(protocol):
    text = [f"text {n}" for n in range(5000)]
    world = {"first": text[:100], "weights": {f"w{n}": (text[n], bytes(70_000)) for n in range(40)}, "text": text, "bytes": bytes(200_000)}
    new = renamed(pickle.dumps(world, protocol), [(f"w{n}", f"{n}") for n in range(39, -1, -1)])
    found = pickle.loads(new)
    assert found == {**world, "weights": {f"{n}": world["weights"][f"w{n}"] for n in range(39, -1, -1)}}
    assert pickle._Unpickler(io.BytesIO(new)).load() == found  # which checks frames
    assert PickleMachine(new).load("", "") == found
    assert found["weights"]["3"][0] is found["text"][3]


def test_text_protocols_are_written_anew():
    for protocol in (0, 1):
        world = {"weights": {"a": (1, "x"), "b": [2.5, None, True]}, "rest": Counter("aab")}
        assert pickle.loads(renamed(pickle.dumps(world, protocol), [("b", "c"), ("a", "d")])) == {"weights": {"c": [2.5, None, True], "d": (1, "x")}, "rest": Counter("aab")}


def test_what_refers_to_itself_through_a_value_that_goes_is_refused():
    inner = {}
    inner["self"] = inner
    weights = {"a": inner}
    stored = pickle.dumps({"weights": weights, "again": inner}, 2)
    assert pickle.loads(renamed(stored, [("a", "b")]))["again"]["self"]["self"] is not None
    found = pickle.loads(renamed(stored, []))
    assert found["weights"] == {}
    assert found["again"]["self"] is found["again"]
    back = {}
    back["a"] = [back]
    stored = pickle.dumps({"weights": back, "again": back["a"]}, 2)
    found = pickle.loads(renamed(stored, []))
    assert found["again"] == [found["weights"]]


@pytest.mark.parametrize("data", [b"\x80\x022.", b"N2.", b"NN.", b"(N.", b"h\x00.", b"\x82\x01.", b"a.", b"q\x00.", b"NNNN\x87."])
def test_streams_that_no_pickler_writes_are_refused(data):
    with pytest.raises(OutlineFault):
        Outline(data)
