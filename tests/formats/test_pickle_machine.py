"""The pickle machine gives what pickle would give for plain data, and stand-ins for everything that would run."""

import pickle
from collections import Counter, OrderedDict, defaultdict
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.pickle import descriptions
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    Global,
    ObjectDict,
    Opaque,
    SetValue,
    UnhashableKey,
)


def load(raw: bytes) -> object:
    return PickleMachine(raw).load("a.pkl", "the pickle")


def calls(raw: bytes) -> list[str]:
    machine = PickleMachine(raw)
    machine.load("a.pkl", "the pickle")
    return list(machine.calls)


SCALARS = st.none() | st.booleans() | st.integers(-(1 << 80), 1 << 80) | st.floats(allow_nan=False) | st.text() | st.binary()
KEYS = st.text() | st.integers(-(1 << 50), 1 << 50) | st.binary() | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner, inner, inner) | st.dictionaries(KEYS, inner), max_leaves=20
)


@given(value=VALUES, protocol=st.integers(0, 5))
def test_plain_data_of_every_protocol_is_read_as_pickle_reads_it(value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_shared_and_cyclic_objects_stay_shared(protocol: int) -> None:
    shared: list[object] = [1]
    cyclic: dict[str, object] = {"a": shared, "b": shared}
    cyclic["self"] = cyclic
    read = load(pickle.dumps(cyclic, protocol))
    assert isinstance(read, dict)
    assert read["a"] is read["b"]
    assert read["self"] is read


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [OrderedDict(a=1), Counter("aab"), {"a": 1}], ids=str)
def test_kinds_of_dict_are_dicts(value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


def test_a_default_dict_is_a_dict_whose_factory_is_a_name() -> None:
    assert load(pickle.dumps(defaultdict(list, {"a": [1]}))) == {"a": [1]}


@pytest.mark.parametrize("protocol", range(6))
def test_sets_are_bags(protocol: int) -> None:
    for value in ({1, "a"}, frozenset({1, "a"})):
        read = load(pickle.dumps(value, protocol))
        assert isinstance(read, SetValue)
        assert set(read.members) == value  # type: ignore[arg-type]


def test_attributes_of_an_ordered_dict_are_kept() -> None:
    value = OrderedDict(a=1)
    value._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    read = load(pickle.dumps(value, 2))
    assert isinstance(read, ObjectDict)
    assert read.attributes == {"_metadata": {"": {"version": 1}}}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(2)), np.array([1, 2], ">i4"), np.array(True)], ids=str
)
def test_arrays_of_numpy_keep_their_bytes(array: np.ndarray, protocol: int) -> None:
    read = load(pickle.dumps(array, protocol))
    assert isinstance(read, ArrayRef)
    assert (read.type_text, read.shape) == (array.dtype.str, array.shape)
    assert read.content == array.tobytes("F" if read.is_fortran else "C")


@pytest.mark.parametrize("scalar", [np.float64(0.5), np.float32(0.25), np.int64(-3), np.uint8(7), np.bool_(True)], ids=str)
def test_scalars_of_numpy_are_numbers(scalar: np.generic) -> None:
    assert load(pickle.dumps(scalar, 2)) == scalar.item()


class Remark:
    def __init__(self) -> None:
        self.text = "a"


@pytest.mark.parametrize("protocol", range(6))
def test_objects_of_classes_are_stand_ins_with_their_state(protocol: int) -> None:
    read = load(pickle.dumps(Remark(), protocol))
    assert isinstance(read, Opaque)
    assert read.type_name == f"{__name__}.Remark"
    assert read.state == {"text": "a"}


def test_what_would_have_been_called_is_named_in_order() -> None:
    assert calls(pickle.dumps([PurePosixPath("a"), Remark()])) == [f"{PurePosixPath.__module__}.PurePosixPath", f"{__name__}.Remark"]


def test_python2_texts_are_texts_where_they_are_ascii() -> None:
    assert load(b"\x80\x02]q\x00(U\x01aT\x02\x00\x00\x00\xc3\xa9e.") == ["a", b"\xc3\xa9"]


ATTACKS = {
    "global": b"cos\nsystem\n(S'true'\ntR.",
    "instance": b"(S'true'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'true'\no.",
    "new object": b"\x80\x02cos\nsystem\nU\x04true\x85\x81.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "dropped result": b"(cos\nsystem\nS'true'\no0N.",
    "dict of a module": b"cos\nenviron\nS'a'\nS'b'\ns.",
}


@pytest.mark.parametrize("raw", ATTACKS.values(), ids=list(ATTACKS))
def test_calls_are_named_and_never_made(raw: bytes) -> None:
    assert len(calls(raw)) == 1
    assert calls(raw)[0] in ("os.system", "os.environ.__setitem__")


def test_a_chain_of_calls_is_named_by_its_innermost_function() -> None:
    assert calls(b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR(S'a'\ntR.") == ["builtins.getattr"]


def test_keys_whose_hash_a_file_can_choose_are_wrapped() -> None:
    read = load(pickle.dumps({(1, 2): "a", 1 << 70: "b"}))
    assert isinstance(read, dict)
    assert all(isinstance(key, UnhashableKey) for key in read)


def test_a_name_is_one_object() -> None:
    read = load(b"(cos\nsystem\ncos\nsystem\nl.")
    assert isinstance(read, list)
    assert isinstance(read[0], Global)
    assert read[0] is read[1]


BROKEN = {
    b"": "is cut off",
    b"\x80\x02": "is cut off",
    b"\x80\x63.": "is of protocol 99; 5 is the newest",
    b".": "takes from an empty stack|is cut off",
    b"N0.": "takes from an empty stack|is cut off",
    b"h\x07.": "refers to memo 7, which holds nothing",
    b"gabc\n.": "numbers its memo with what is not a number",
    b"cos\nsystem": "has a line without an end",
    b"X\xff\xff\xff\xffa.": "declares 4294967295 bytes",
    b"\x8e" + b"\xff" * 8 + b".": "declares 18446744073709551615 bytes",
    b"\x8b\xff\xff\xff\xff.": "declares -1 bytes",
    b"\x8b\x00\x00\x01\x00" + b"\x01" * 65536 + b".": "has an integer of 65536 bytes",
    b"L" + b"1" * 5000 + b"L\n.": "has an integer of 5000 digits",
    b"Ix\n.": "has an invalid integer",
    b"\x82\x01.": "has the unknown opcode 0x82",
    b"\x97.": "uses buffers from outside the file",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f.": "declares a frame longer than the file",
    b"}]N s.": "has the unknown opcode 0x20",
    b"}]Ns.": "has a list as a dict key",
    b"NN\x93.": "names a global with what is not a string",
    b"NP1\n.": "refers to something outside the pickle",
    b"cos\nsystem\nNR.": "calls something with arguments that are not a tuple",
    b"NNNs.": "sets an item of a NoneType",
    b"X\x02\x00\x00\x00\xff\xff.": "has a text that is not UTF-8",
    b"(o.": "makes an object of no class",
    b"}(Nu.": "has a key without a value",
}


@pytest.mark.parametrize(("raw", "fact"), BROKEN.items(), ids=[fact[:30] for fact in BROKEN.values()])
def test_broken_pickles_are_errors_that_say_what_is_wrong(raw: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        load(raw)


def test_a_memo_index_of_four_billion_costs_nothing() -> None:
    assert load(b"Nr\xfe\xff\xff\xff.") is None


def test_deep_nesting_needs_no_recursion() -> None:
    assert load(b"]" * 100_001 + b"a" * 100_000 + b".")


@pytest.mark.parametrize(
    ("raw", "fact"),
    [
        (b"]" * 3_000_000 + b".", "makes 2,050,000 values and 2,050,000 containers"),
        (b"N" + b"2" * 5_000_000 + b".", "makes 4,050,000 values and 0 containers"),
        (b"(" * 500_000 + b".", "containers; 4,000,000 and 2,000,000 are the most"),
        (b"N0" * 7_000_000 + b"N.", "has more than 9,000,000 opcodes"),
    ],
    ids=["containers", "values", "marks", "opcodes"],
)
def test_a_pickle_that_asks_for_too_much_is_refused_before_it_gets_it(raw: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        load(raw)


def test_what_stands_behind_the_end_of_a_description_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    real = descriptions._describe
    monkeypatch.setattr(descriptions, "_describe", lambda value, depth: (looked.append(value), real(value, depth))[1])
    wide: object = 1
    for _ in range(3):
        wide = [wide] * 20
    assert descriptions.describe(wide).startswith("[[[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, …], [1, ")
    assert len(looked) < 200
