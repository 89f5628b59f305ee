"""A short run of each fuzz target, always the same, and everything that longer runs found."""

from pathlib import Path
from random import Random

import pytest

from tests.hostile.fuzz import inputs, try_input
from tests.hostile.fuzz_targets import TARGETS
from tests.hostile.seeds import archive, records, with_pickle
from tests.hostile.variants_zip import build, with_entry

INPUTS = 150
FOUND = {
    "the class of a storage that can't be hashed": ("zip", with_pickle(b"\x80\x02(X\x07\0\0\0storage}X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ.")),
    "the class of a storage whose hash takes for ever": (
        "zip", with_pickle(b"\x80\x02(X\x07\0\0\0storageK\x01" + b"2\x86" * 200 + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ."),
    ),
    "a state of an array in too many parts": ("pickle", b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01K\x01K\x01K\x01K\x01tb."),
    "a shape that can be split in many ways": (
        "arrays", b"\x93NUMPY\x01\0v\0{'descr': '<U2', 'fortran_order': False, 'shape': (" + b"9" * 40 + b"),se,  }" + b" " * 30,
    ),
    "an integer with two signs": ("pickle", b"I--5\n."),
    "an octal escape of too much": ("pickle", b"S'\\777'\n."),
    "a fit that is a list": ("rules", b"rules: ['** -> **']\nfit:\n fit:\n  - pos_embed: resize_grid\n"),
    "a key with a direction mark in drafted rules": ("catalogs", "\u202ea\tF32\t4x2\n\n----\nb\tF32\t4x2\n".encode()),
    "a key with a colon in drafted rules": ("catalogs", b'"a: x\\n"\tF32\t4x2\n\n----\n"a: x\\n"\tF32\t4x2\n'),
    "a name where others have numbers that says so": (
        "catalogs", b"\n".join(b"l.%s.q\tF32\t8x8" % name for name in (b"0", b"1", b"2")) + b"\n\n----\n" +
        b"\n".join(b"l.%s.q\tF32\t8x8" % name for name in (b"0", b"1", b"#")) + b"\n",
    ),
    "a number that chooses a word": ("patterns", b"?na{i=.,3}{j=0..2} ->i+jna{i=.,3}- {j=0.,2}"),
    "a choice of no words": ("patterns", b"{ 5..3}"),
    "half of a surrogate pair": ("catalogs", b'"\\ud800"\tF32\t4x2\n\n----\n"\\ud800"\tF32\t4x2\n'),
    "names of attributes that are objects with such names": ("pickle", b"\x80\x02cx\ny\n)\x81q\0}(" + b"h\0" * 40 + b"ub."),
    "a set in objects as names of their attributes": ("pickle", b"\x80\x02\x8fcx\ny\n)\x81q\0}(" + b"h\0" * 6 + b"ub.0"),
    "a storage that is marked as a folder, for which torch gives memory as it finds it": (
        "member-oracle", build(with_entry("data/0", central={"external": 0xFFFF0000 | 0x10})),
    ),
    "an axis that is a number": ("rules", b"rules:\n - a -> b: {rearrange: '(h 9) d -> h d', h: 2}\n"),
    "ops of a very long rule that are no YAML": ("rules", b"rules: ['" + b"a" * 4000 + b" -> b: [']"),
    "a test whose number would be negative": ("rules", b"rules: ['layer{n}.0.** -> x.{n-9}.**']\ntests: {layer1.0.w: x.1.w}\n"),
    "a very long name in a pickle without tensors": ("pickle", b"\x80\x02c" + b"x" * 40 + b"\x01" * 2000 + b"\ny\n)R."),
    "a state of a tensor that is its own": ("states", with_pickle(b"\x80\x02}X\x01\0\0\0wctorch\nTensor\n)Rq\x01h\x01\x85bs.")),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_changed_inputs_break_no_promise(tmp_path: Path, name: str) -> None:
    """Nothing but errors of ours, in time; safetensors and torch.load read what we read, bit for bit."""
    made = inputs(TARGETS[name], Random(1))
    for _ in range(INPUTS // 3 if name == "rules" else INPUTS):
        raw = next(made)
        error = try_input(TARGETS[name], raw, tmp_path)
        if error is not None:
            (tmp_path / "finding").write_bytes(raw)
            raise AssertionError(f"fuzz.py {name} --replay {tmp_path}/finding") from error


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.filterwarnings("ignore")
def test_what_was_found_once_stays_mended(tmp_path: Path, name: str) -> None:
    target, raw = FOUND[name]
    assert try_input(TARGETS[target], raw, tmp_path) is None


def test_the_fuzzer_finds_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpt_tool.formats.torch_files import zip_archive

    monkeypatch.setattr(zip_archive, "read_archive", lambda *_: {}["a fault"])
    error = try_input(TARGETS["zip"], archive(records()), tmp_path)
    assert isinstance(error, KeyError)
