"""A header that is read with one expression says what the strict reader says of it, or is left to the strict reader."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ckpt_tool.formats.flat_files.safetensors import (
    HeaderFault,
    _read_plain,
    _read_strictly,
    read_header,
)
from ckpt_tool.formats.flat_files.safetensors_header import read_plain
from ckpt_tool.formats.strict_json import JsonFault

SIZES = {"F32": 4, "BF16": 2, "U8": 1, "F64": 8}
NAMES = st.text(st.sampled_from('ab.0_é\\"{}[],: \n'), max_size=6)


@st.composite
def headers(draw: st.DrawFn) -> str:
    """Headers as writers write them, some with spaces, metadata or wrong numbers."""
    fields: dict[str, object] = {}
    if draw(st.booleans()):
        fields["__metadata__"] = draw(st.dictionaries(NAMES, NAMES, max_size=2))
    end = 0
    for key in draw(st.lists(NAMES, max_size=4)):
        dtype, shape = draw(st.sampled_from(sorted(SIZES))), draw(st.lists(st.integers(0, 3), max_size=3))
        size = SIZES[dtype] + draw(st.sampled_from((0, 0, 0, 0, 1)))
        for extent in shape:
            size *= extent
        fields[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    separators = draw(st.sampled_from(((",", ":"), (",", ":"), (", ", ": "))))
    return json.dumps(fields, separators=separators, ensure_ascii=draw(st.booleans())) + " " * draw(st.integers(0, 3))


PIECES = st.sampled_from([b"", b",", b"}", b"{", b'"', b"0", b"-1", b"1.0", b"true", b"[2]", b"\xff", b" ", b"\\u0041", b'"a":1,', b"\0"])


@given(headers(), st.integers(0, 400), st.integers(0, 3), PIECES)
@settings(max_examples=400, deadline=None)
def test_it_agrees_with_the_strict_reader_on_headers_whole_and_changed(header: str, at: int, length: int, piece: bytes) -> None:
    whole = header.encode()
    for raw in (whole, whole[:at] + piece + whole[at + length :]):
        try:
            plain = _read_plain(raw)
        except (HeaderFault, JsonFault):
            plain = None
        if plain is not None:
            assert plain == _read_strictly(raw)


def test_what_safetensors_writes_is_plain() -> None:
    import numpy

    raw = save({"b": numpy.zeros((2, 3), "f4"), "a.é": numpy.zeros((), "i8"), "empty": numpy.zeros((0, 2), "f2")}, {"format": "pt"})
    header = raw[8 : 8 + int.from_bytes(raw[:8], "little")]
    assert read_plain(header) is not None
    assert [info.shape for info in read_header(header).catalog.values()] == [info.shape for info in _read_strictly(header)[1][0]]


def test_a_header_that_is_not_plain_is_read_strictly() -> None:
    spaced = b'{"a": {"shape": [2], "dtype": "F32", "data_offsets": [0, 8]}}'
    assert read_plain(spaced) is None
    assert read_header(spaced).catalog["a"].shape == (2,)


def test_a_count_that_overflows_before_a_size_of_zero_is_left_to_the_strict_reader() -> None:
    assert read_plain(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}}') is None
    assert read_plain(b'{"a":{"dtype":"F32","shape":[4,0,70000],"data_offsets":[0,0]}}') is not None


def test_a_name_twice_is_never_read() -> None:
    entry = b'"a":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]}'
    assert read_plain(b"{" + entry % (0, 1) + b"," + entry % (1, 2) + b"}") is None
