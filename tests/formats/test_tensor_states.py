"""Whatever state a pickle gives a tensor, torch.load reads the same, or the file is refused; what torch's writers give is read."""

import inspect
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.pickle.tensor_states import DESCRIPTORS
from tests.formats.pickled_as import (
    FROM_TYPE,
    UTILS,
    As,
    from_type,
    ours,
    parameter,
    theirs,
    v2,
    with_state,
)

A, B, N = torch.arange(4.0), torch.full((4,), 66.0), torch.arange(4)
C = torch.tensor([1 + 2j, 3 + 4j])
PLACE = (B._typed_storage(), 0, (4,), (1,))

CHANGED = {
    "data of a parameter": with_state(A, {"data": B}),
    "data among slots": with_state(A, ({}, {"data": B})),
    "data of a tensor": from_type(A, {"data": B}),
    "real part": from_type(A, {"real": B}),
    "imaginary part": with_state(C, {"imag": torch.ones(2)}),
    "data of a parameter by its type": As(FROM_TYPE, (UTILS._rebuild_parameter, torch.nn.Parameter, (A, False, OrderedDict()), {"data": B})),
    "set to a tensor": v2(A, state=(B,)),
    "set to a tensor's place": v2(A, state=(B, 0, (4,), (1,))),
    "set to a storage": v2(A, state=(B._typed_storage(),)),
    "set to part of a storage": v2(A, state=(B._typed_storage(), 2, (2,))),
    "set to a place": v2(A, state=PLACE),
    "set to nothing": v2(A, state=()),
    "set by a dict": v2(A, state={}),
    "parameter set to a place": parameter(A, state=PLACE),
    "parameter's old state": parameter(A, state=(B, None, OrderedDict(), False, None)),
    "conjugate by a number": v2(C, {"conj": 1}),
    "conjugate though False": v2(C, {"conj": False}),
    "negative though False": v2(A, {"neg": False}),
    "negative by a number": v2(A, {"neg": 1}),
    "conjugate of a real one": v2(A, {"conj": True}),
    "conjugate by a text": v2(C, {"conj": "yes"}),
    "negative of a bool": v2(torch.tensor([True]), {"neg": True}),
    "gradients of integers": v2(N, gradient=True),
    "gradients of integers, as a parameter": parameter(N, True),
    "gradients by a number": v2(A, gradient=1),
    "too few arguments": As(UTILS._rebuild_tensor_v2, (A._typed_storage(), 0, (4,), (1,), False)),
    "too many arguments": As(UTILS._rebuild_tensor, (A._typed_storage(), 0, (4,), (1,), False)),
    "another class": with_state(A, {"__class__": torch.Tensor}),
    "a state of three": with_state(A, ({}, {}, {})),
    "a state that is a list": with_state(A, [1]),
    "names that are numbers": with_state(A, {1: 2}),
    "a class that is none of tensors": from_type(A, {}, torch.Size),
    "an empty tensor of another type": As(torch.FloatTensor, (), (N._typed_storage(), 0, (4,), (1,))),
    "a place twice": As(FROM_TYPE, (torch.Tensor, torch.Tensor, (A,), {"data": B})),
    "on no device": As(UTILS._rebuild_device_tensor_from_cpu_tensor, (A, torch.float32, "meta", False)),
    "a parameter of a dict": parameter({"w": 1}),
}  # fmt: skip


def saved(folder: Path, made: object) -> Path:
    torch.save({"w": made}, folder / "a.pth")
    return folder / "a.pth"


@pytest.mark.parametrize("name", CHANGED)
def test_a_state_that_would_change_a_tensor_is_refused_or_followed(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, CHANGED[name])
    assert ours(path) in (None, theirs(path))


HARMLESS = {
    "a parameter with attributes": with_state(A, {"tag": 1, "names_of_axes": ["a"]}),
    "a parameter with slots": with_state(A, (None, {"tag": 1})),
    "a tensor with attributes": from_type(A, {"tag": 1}),
    "a parameter by its type": from_type(A, {"tag": 1}, torch.nn.Parameter),
    "flags of torch 0.3": As(torch.nn.Parameter, (A,), (True, False, OrderedDict())),
    "a parameter of a parameter": parameter(parameter(A)),
    "an empty parameter": As(torch.nn.Parameter, ()),
    "a tensor of torch 0.3": As(torch.FloatTensor, (), PLACE),
    "an empty tensor of torch 0.3": As(torch.FloatTensor, ()),
    "conjugate and negative": v2(C, {"conj": True, "neg": True}),
    "no bits": v2(A, {}),
    "from another device": As(UTILS._rebuild_device_tensor_from_cpu_tensor, (A, torch.float32, "cpu", False)),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_writers_of_torch_give_a_tensor_is_read_as_torch_reads_it(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, HARMLESS[name])
    assert theirs(path) is not None
    assert ours(path) == theirs(path)


def test_attributes_that_are_not_read_are_told(tmp_path: Path) -> None:
    with open_checkpoint(saved(tmp_path, HARMLESS["a parameter with attributes"])) as checkpoint:
        assert [extra.text for extra in checkpoint.extras] == ["tensors have Python attributes, which are not read: `tag`, `names_of_axes`"]


def test_a_state_given_to_a_parameter_does_not_change_the_tensor_it_was_made_of(tmp_path: Path) -> None:
    torch.save({"w": A, "p": parameter(A, state=(False, False, OrderedDict()))}, tmp_path / "a.pth")
    assert ours(tmp_path / "a.pth") == theirs(tmp_path / "a.pth") == A.numpy().tobytes()
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert checkpoint.catalog["p"].tied_to == "w"


def test_every_attribute_of_a_tensor_that_is_assigned_to_is_known() -> None:
    names = {name for name in dir(torch.nn.Parameter) if inspect.isdatadescriptor(inspect.getattr_static(torch.nn.Parameter, name))}
    assert {name for name in names if not name.startswith("__")} <= DESCRIPTORS


@pytest.mark.parametrize("place", ["meta", "cp9", "cpu:x", "", "cuda:-1", "\x1b"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_storage_on_no_known_device_is_refused(tmp_path: Path, place: str, is_zip: bool) -> None:
    path = with_location(tmp_path, place, is_zip)
    with pytest.raises(FormatError, match="has a storage on the device"):
        open_checkpoint(path)


@pytest.mark.parametrize("place", ["cuda:0", "cuda:15", "mps", "npu:3", "privateuseone:0", "xla:1"])
def test_a_storage_of_another_device_is_read(tmp_path: Path, place: str) -> None:
    assert ours(with_location(tmp_path, place, True)) == A.numpy().tobytes()


def with_location(folder: Path, place: str, is_zip: bool) -> Path:
    torch.save({"w": A}, folder / "a.pth", _use_new_zipfile_serialization=is_zip)
    cpu, other = b"X\x03\0\0\0cpu", b"X" + bytes([len(place)]) + b"\0\0\0" + place.encode()
    if not is_zip:
        (folder / "b.pth").write_bytes((folder / "a.pth").read_bytes().replace(cpu, other))
        return folder / "b.pth"
    with zipfile.ZipFile(folder / "a.pth") as old, zipfile.ZipFile(folder / "b.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(cpu, other) if name.endswith("data.pkl") else old.read(name))
    return folder / "b.pth"


NAMES = st.sampled_from([*sorted(DESCRIPTORS)[:12], "data", "real", "imag", "grad", "tag", "__class__", "tolist", "x"])
PIECES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 5), st.just("cpu"), st.just(()), st.just((4,)), st.just((1,)), st.just((2, 2)), st.just([4]),
    st.just(B), st.just(N), st.just(C), st.just(B._typed_storage()), st.just(OrderedDict()),
)  # fmt: skip
STATES = st.one_of(
    PIECES, st.lists(PIECES, max_size=6).map(tuple), st.dictionaries(NAMES, PIECES, max_size=2),
    st.tuples(st.dictionaries(NAMES, PIECES, max_size=1), st.dictionaries(NAMES, PIECES, max_size=1)),
)  # fmt: skip
BITS = st.dictionaries(st.sampled_from(["conj", "neg", "x"]), st.sampled_from([True, False, 1, 0, None, "y"]), max_size=2)


@st.composite
def tensors(draw: st.DrawFn) -> object:
    """A tensor as any of torch's functions makes it, a few deep, each with any state."""
    made: object = draw(st.sampled_from([A, N, C]))
    for _ in range(draw(st.integers(1, 2))):
        state = draw(st.none() | STATES)
        kind = draw(st.sampled_from(["v2", "parameter", "with_state", "from_type", "class", "empty"]))
        plain = made if isinstance(made, torch.Tensor) else draw(st.sampled_from([A, C]))
        if kind == "v2":
            made = v2(plain, *draw(st.just(()) | BITS.map(lambda bits: (bits,))), state=state)
        elif kind == "from_type":
            made = from_type(plain, state, draw(st.sampled_from([torch.Tensor, torch.nn.Parameter])))
        elif kind == "empty":
            made = As(draw(st.sampled_from([torch.Tensor, torch.FloatTensor, torch.LongTensor])), (), *(() if state is None else (state,)))
        elif kind == "class":
            made = As(torch.nn.Parameter, (made, draw(PIECES)), *(() if state is None else (state,)))
        else:
            made = with_state(made, state) if kind == "with_state" else parameter(made, draw(st.booleans()), state)
    return made


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=tensors(), is_zip=st.booleans())
def test_any_state_of_any_tensor_is_read_as_torch_reads_it_or_refused(tmp_path: Path, made: object, is_zip: bool) -> None:
    torch.save({"w": made}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert ours(tmp_path / "a.pth") in (None, theirs(tmp_path / "a.pth"))
