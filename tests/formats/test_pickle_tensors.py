"""Tensors that are taken out of a pickle in one step are those that its single opcodes describe."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.fuzz_shortcuts import described, pickle_of

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
SHAPES = ((), (1,), (0, 2), (3, 300), (2, 1, 2), (1, 1, 1, 70_000), (2, 2, 1, 1, 1))


def state_dict(count: int, draw: st.DrawFn) -> dict[str, object]:
    made: dict[str, object] = {}
    for index in range(count):
        kind = draw(st.sampled_from(("plain", "plain", "plain", "view", "tied", "parameter", "number")))
        tensor = torch.zeros(draw(st.sampled_from(SHAPES)), dtype=draw(st.sampled_from(DTYPES)))
        before = [value for value in made.values() if type(value) is torch.Tensor]
        if kind == "view":
            made[f"layers.{index}.proj"] = torch.zeros(index + 4, 3)[2:].t()
        elif kind == "tied" and before:
            made[f"tied.{index}"] = draw(st.sampled_from(before))
            made[f"alias.{index}"] = draw(st.sampled_from(before)).detach()
        elif kind == "parameter":
            made[f"parameter.{index}"] = torch.nn.Parameter(torch.ones(2, 2))
        else:
            made[f"jjj.{index}.wéight"] = index if kind == "number" else tensor
    return made


@given(st.data(), st.sampled_from((2, 2, 2, 3, 4, 5)))
@settings(max_examples=40, deadline=None)
def test_steps_and_single_opcodes_agree(data: st.DataObject, protocol: int) -> None:
    whole = pickle_of(data.draw(st.composite(lambda draw: state_dict(50, draw))()), protocol)
    for raw in (whole, *(data.draw(changed(whole)) for _ in range(6))):
        assert described(raw, in_steps=True)[0] == described(raw, in_steps=False)[0]


@st.composite
def changed(draw: st.DrawFn, raw: bytes) -> bytes:
    """A few bytes written over, some of them by opcodes that ask the memo."""
    made = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw) - 8))
        piece = draw(
            st.sampled_from((b"j", b"h\x05", b"\x94", b"R", b"r", b"(", b"g300\n", b"0", b"j\x2c\x01\0\0", b"q", b"\x7f\xff", b"t", b"."))
        )
        made[at : at + len(piece)] = piece
    return bytes(made)


def test_a_plain_state_dict_is_read_in_steps() -> None:
    raw = pickle_of({f"layers.{index}.weight": torch.zeros(2, 3) for index in range(100)})
    assert described(raw, in_steps=True)[1]


def test_a_memo_that_is_asked_by_another_way_is_made_whole() -> None:
    raw = pickle_of({f"layers.{index}.weight": torch.zeros(2, 3) for index in range(100)})
    for question in (b"g600\n", b"\x94j\x58\x02\0\0"):
        asking = raw[:-2] + b"X\x01\0\0\0z" + question + raw[-2:]
        assert described(asking, in_steps=True)[0] == described(asking, in_steps=False)[0]
        assert described(asking, in_steps=True)[0] != "refused"
