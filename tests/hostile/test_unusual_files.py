"""Files that are valid and that hardly anybody writes: torch and safetensors read them, and we read the same."""

import io
import json
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from ckpt_tool.api import diff_checkpoints
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_same_tensor, every_dtype, filled
from tests.hostile import seeds
from tests.hostile.broken_files import torch_file
from tests.hostile.fuzz_oracles import tensors_of
from tests.hostile.seeds import members_of

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")
FEW = settings(max_examples=60, deadline=None)
NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
SAVED_DTYPES = [dtype for dtype in every_dtype() if "float4" not in str(dtype)]


def tensors() -> st.SearchStrategy[torch.Tensor]:
    """Tensors of any dtype and up to three dimensions, empty ones and numbers too."""
    shapes = st.lists(st.integers(0, 4), max_size=3)
    return st.builds(lambda dtype, shape, seed: filled(dtype, *shape, seed=seed), st.sampled_from(SAVED_DTYPES), shapes, st.integers(0, 9))


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """A view of some storage: shifted, strided, turned, expanded, or all of these."""
    base = torch.arange(48.0).reshape(2, 4, 6)
    for _ in range(draw(st.integers(0, 4))):
        axis = draw(st.integers(-base.dim(), base.dim() - 1)) if base.dim() else 0
        match draw(st.integers(0, 5)):
            case 0 if base.dim() and base.shape[axis]:
                base = base.narrow(axis, start := draw(st.integers(0, base.shape[axis] - 1)), draw(st.integers(0, base.shape[axis] - start)))
            case 1 if base.dim():
                base = base.transpose(0, axis)
            case 2:
                base = base.unsqueeze(0).expand(draw(st.integers(1, 3)), *base.shape)
            case 3 if base.dim() and base.shape[axis]:
                base = base.select(axis, draw(st.integers(0, base.shape[axis] - 1)))
            case 4 if base.dim() and base.shape[axis]:
                base = base.unfold(axis, 1, draw(st.integers(1, 2)))
            case 5:
                base = base[..., ::2] if base.dim() else base
    return base


def trees() -> st.SearchStrategy[object]:
    """Nested containers that hold tensors and other things, as training scripts save them."""
    leaves = st.one_of(tensors(), views(), st.integers(-(1 << 70), 1 << 70), st.floats(), st.none(), st.booleans(), NAMES, st.binary(max_size=4))
    return st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4).map(OrderedDict)), max_leaves=10)  # fmt: skip


def written(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unusual") / "model.pth"


def assert_agrees_with_torch(path: Path, raw: bytes) -> None:
    """Every tensor that torch.load finds is one of ours, bit for bit, or is listed as another thing in the file; and no more."""
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = dict(tensors_of(torch.load(path, weights_only=False), ""))
    with open_checkpoint(str(path)) as checkpoint:
        inside = f"{checkpoint.contents.taken}." if checkpoint.contents.taken else ""
        for key in checkpoint.catalog:
            assert_same_tensor(checkpoint, key, theirs[inside + key])
        ours = {inside + key for key in checkpoint.catalog} | {info.key for info in checkpoint.contents.elsewhere}
        assert theirs.keys() - ours - {extra.path for extra in checkpoint.extras} == set()


@FEW
@given(st.dictionaries(NAMES.filter(lambda name: "." not in name), st.one_of(tensors(), views()), min_size=1, max_size=6), st.booleans())
def test_any_tensors_under_any_names(path: Path, state: dict[str, torch.Tensor], is_zip: bool) -> None:
    raw = torch_file(state, _use_new_zipfile_serialization=is_zip)
    path.write_bytes(raw)
    with open_checkpoint(str(path)) as checkpoint:
        assert list(checkpoint.catalog) == list(state)
        for key, tensor in state.items():
            assert_same_tensor(checkpoint, key, tensor)


@FEW
@given(trees())
def test_any_containers(path: Path, tree: object) -> None:
    with_dots = str(tree).count(".")  # a name with a dot may stand for two paths; then the reader says so
    raw = torch_file({"root": tree, "w": torch.ones(2)})
    try:
        assert_agrees_with_torch(path, raw)
    except Exception as error:
        if "stand for the same key" not in str(error) or not with_dots:
            raise


@FEW
@given(st.permutations(sorted(members_of(torch_file({"a": torch.arange(5.0), "b": torch.ones(3, dtype=torch.int8)})))), st.data())
def test_members_of_a_zip_in_any_order_stored_or_deflated_with_comments_and_wide_headers(path: Path, order: list[str], data: st.DataObject) -> None:
    state = {"a": torch.arange(5.0), "b": torch.ones(3, dtype=torch.int8)}
    members, out, root = members_of(torch_file(state)), io.BytesIO(), data.draw(st.sampled_from(["archive", "a.b", "é", "x y"]))
    with zipfile.ZipFile(out, "w") as made:
        for name in order:
            info = zipfile.ZipInfo(f"{root}/{name}")
            info.compress_type = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            info.comment, info.extra = data.draw(st.binary(max_size=3)), data.draw(st.sampled_from([b"", struct.pack("<HH", 0xCAFE, 0)]))
            with made.open(info, "w", force_zip64=data.draw(st.booleans())) as member:
                member.write(members[name])
        made.comment = data.draw(st.binary(max_size=5))
    assert_agrees_with_torch(path, out.getvalue())


@FEW
@given(st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), tensors(), max_size=5), st.data())
def test_headers_of_safetensors_in_any_order_and_dress(path: Path, state: dict[str, torch.Tensor], data: st.DataObject) -> None:
    raw = save({name: tensor for name, tensor in state.items() if tensor.dtype not in (torch.complex128, torch.complex32)})
    size = int.from_bytes(raw[:8], "little")
    entries = list(json.loads(raw[8 : 8 + size]).items())
    shuffled = [(name, dict(data.draw(st.permutations(list(entry.items()))))) for name, entry in data.draw(st.permutations(entries))]
    notes = data.draw(st.dictionaries(NAMES, NAMES, max_size=2))
    dressed = dict(shuffled) | ({"__metadata__": notes} if notes else {})
    text = json.dumps(dressed, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 0, 3]))).encode() + b" " * data.draw(st.integers(0, 9))
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    with safe_open(path, "pt") as theirs, open_checkpoint(str(path)) as checkpoint:
        assert set(checkpoint.catalog) == set(theirs.keys())
        assert dict(checkpoint.metadata) == (theirs.metadata() or {})
        for key in checkpoint.catalog:
            assert_same_tensor(checkpoint, key, theirs.get_tensor(key))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_protocol(path: Path, protocol: int, is_zip: bool) -> None:
    state = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)}
    path.write_bytes(torch_file(state, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip))
    with open_checkpoint(str(path)) as checkpoint:
        for key, tensor in state.items():
            assert_same_tensor(checkpoint, key, tensor)


class Weights(nn.Parameter):
    """A subclass of Parameter."""


class Kind(torch.Tensor):
    """A subclass of Tensor."""


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_tensor_is_said_to_be_there(path: Path) -> None:
    """Quantised, sparse and nested tensors, those without data: told by name, never dropped without a word."""
    odd = {
        "coo": torch.eye(3).to_sparse(), "csr": torch.eye(3).to_sparse_csr(), "csc": torch.eye(3).to_sparse_csc(), "bsr": torch.eye(4).to_sparse_bsr((2, 2)),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "meta": torch.ones(3, device="meta"),
        "by channel": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }  # fmt: skip
    path.write_bytes(torch_file({"w": torch.ones(2), **odd}))
    with open_checkpoint(str(path)) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]
        assert {extra.path for extra in checkpoint.extras if extra.kind == "tensor"} == set(odd)


def test_parameters_and_subclasses_with_attributes(path: Path) -> None:
    weight = Weights(torch.arange(4.0))
    weight.note = "kept"  # type: ignore[attr-defined]
    state = {"parameter": nn.Parameter(torch.ones(2)), "subclass": torch.arange(3.0).as_subclass(Kind), "buffer": nn.Buffer(torch.ones(1)), "with state": weight}
    path.write_bytes(torch_file(state))
    with open_checkpoint(str(path)) as checkpoint:
        for key, tensor in state.items():
            assert_same_tensor(checkpoint, key, tensor.detach().as_subclass(torch.Tensor))


def test_conjugated_and_negated_views(path: Path) -> None:
    values = torch.view_as_complex(torch.arange(8.0).reshape(4, 2))
    assert_agrees_with_torch(path, torch_file({"conj": values.conj(), "turned": values.conj().reshape(2, 2).t()}))
    assert_agrees_with_torch(path, torch_file({"imaginary": values.conj().imag}))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float64, torch.complex64, torch.bool, torch.bfloat16], ids=str)
def test_big_endian_files_are_swapped(path: Path, dtype: torch.dtype) -> None:
    tensor = filled(dtype, 3)
    size = dtype.itemsize // (2 if dtype.is_complex else 1)
    raw = bytes(tensor.view(torch.uint8).tolist())
    members = members_of(torch_file({"w": tensor}))
    swapped = b"".join(raw[at : at + size][::-1] for at in range(0, len(raw), size))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in {**members, "byteorder": b"big", "data/0": swapped}.items():
            made.writestr(f"archive/{name}", content)
    assert_agrees_with_torch(path, out.getvalue())


@pytest.mark.parametrize("kind", ["safetensors", "torch_zip", "torchscript", "legacy", "tars", "arrays", "gguf"])
@pytest.mark.filterwarnings("ignore")
def test_a_file_is_read_the_same_when_one_like_it_was_read_before(tmp_path: Path, kind: str) -> None:
    """What is remembered of one file must be right for the next."""
    for number, raw in enumerate(getattr(seeds, kind)()):
        contents, earlier = [], None
        for name in ("first", "second", "third"):
            (tmp_path / f"{name}-{number}").write_bytes(raw)
            with open_checkpoint(str(tmp_path / f"{name}-{number}"), earlier) as checkpoint:
                earlier = checkpoint
                values = {key: bytes(checkpoint.raw(key)) for key in checkpoint.catalog}
                contents.append((list(checkpoint.catalog.items()), values, checkpoint.extras, checkpoint.metadata))
        assert contents[0] == contents[1] == contents[2]


def test_two_checkpoints_of_one_torchscript_program_are_the_same(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(seeds.torchscript()[0])
    result = diff_checkpoints(str(tmp_path / "a.pt"), str(tmp_path / "b.pt"))
    assert result.identical
    assert result.counts["same"] > 0
