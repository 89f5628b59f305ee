"""torch.save's zip archives agree with torch.load, bit for bit; odd tensors are named; damage is refused."""

import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.serialization import set_crc32_options

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import Extent, open_checkpoint
from ckpt_tool.formats.placements.byte_ranges import Deflated
from ckpt_tool.formats.placements.views import View
from ckpt_tool.torch_bridge import tensor_infos
from tests.formats.oracles import assert_agrees, every_dtype, filled


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", every_dtype(), ids=str)
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_dtype_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype, is_zip: bool) -> None:
    tensors = {"matrix": filled(dtype, 3, 4), "turned": filled(dtype, 2, 3).t(), "empty": filled(dtype, 0, 2)}
    if "float4" not in str(dtype):
        tensors["scalar"] = filled(dtype)
    torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    # torch itself can't load its newer types from a legacy stream, which it does write.
    assert_agrees(tmp_path / "a.pth", torch.load(tmp_path / "a.pth") if is_zip else tensors)


PLAIN = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn]


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """A tensor with up to four views on top of each other."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    tensor = filled(draw(st.sampled_from(PLAIN)), *shape, seed=draw(st.integers(0, 99)))
    for how in draw(st.lists(st.sampled_from(["permute", "slice", "select", "expand", "conj", "neg"]), max_size=4)):
        tensor = _view(draw, tensor, how)
    return tensor


def _view(draw: st.DrawFn, tensor: torch.Tensor, how: str) -> torch.Tensor:
    if how == "expand":
        return tensor.unsqueeze(0).expand(draw(st.integers(1, 3)), *tensor.shape) if tensor.dim() < 5 else tensor
    if how == "conj":
        return tensor.conj()
    if how == "neg":
        return torch._neg_view(tensor) if tensor.dtype.itemsize > 1 and tensor.dtype != torch.int64 else tensor
    if not tensor.dim():
        return tensor
    if how == "permute":
        return tensor.permute(draw(st.permutations(range(tensor.dim()))))
    axis = draw(st.integers(0, tensor.dim() - 1))
    if how == "select" and tensor.shape[axis]:
        return tensor.select(axis, draw(st.integers(0, tensor.shape[axis] - 1)))
    return tensor[(slice(None),) * axis + (slice(draw(st.integers(0, 2)), None, draw(st.integers(1, 3))),)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=st.dictionaries(st.text(min_size=1, max_size=8), views(), max_size=4), protocol=st.integers(2, 5), is_zip=st.booleans())
def test_views_of_any_kind_read_as_torch_reads_them(tmp_path: Path, tensors: dict[str, torch.Tensor], protocol: int, is_zip: bool) -> None:
    torch.save(tensors, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert_agrees(tmp_path / "a.pth", torch.load(tmp_path / "a.pth", weights_only=False) if is_zip else tensors)


def test_tied_tensors_and_views_name_the_first_key_of_their_storage(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    torch.save({"a": weight, "b": weight, "c": weight[2:], "d": weight.clone()}, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert {key: info.shared_storage_with for key, info in checkpoint.catalog.items()} == {"a": None, "b": "a", "c": "a", "d": None}
        assert {key: info.tied_to for key, info in checkpoint.catalog.items()} == {"a": None, "b": "a", "c": None, "d": None}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.booleans()), min_size=1, max_size=8), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_tensor_under_several_names_is_told_from_other_views(tmp_path: Path, views: list[tuple[int, int, bool]], is_zip: bool) -> None:
    storage = torch.arange(20.0)
    tensors = {
        f"v{i}": storage.as_strided((2, 3), (1, 2) if turned else (3, step), offset) for i, (offset, step, turned) in enumerate(views)
    }
    torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    first: dict[object, str] = {}
    live = {info.key: info.tied_to for info in tensor_infos(tensors)}
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        for key, tensor in tensors.items():
            owner = first.setdefault((tensor.storage_offset(), tensor.stride()), key)
            assert checkpoint.catalog[key].tied_to == live[key] == (None if owner == key else owner)


def test_a_view_of_all_bytes_in_another_shape_is_not_the_same_tensor(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    torch.save({"a": weight, "b": weight.view(2, 3)}, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert checkpoint.catalog["b"].shared_storage_with == "a"
        assert checkpoint.catalog["b"].tied_to is None


def test_a_whole_storage_is_an_extent_with_the_checksum_of_the_directory(tmp_path: Path) -> None:
    torch.save({"whole": torch.arange(6.0), "part": torch.arange(6.0)[:4], "turned": torch.zeros(2, 3).t()}, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        whole, part = checkpoint.extent("whole"), checkpoint.extent("part")
        assert isinstance(whole, Extent)
        assert isinstance(part, Extent)
        assert (whole.crc32 is None, whole.length, whole.offset % 64) == (False, 24, 0)
        assert (part.crc32, part.length) == (None, 16)
        assert checkpoint.extent("turned") is None


def test_sums_that_were_not_computed_are_not_checked(tmp_path: Path) -> None:
    set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        set_crc32_options(True)
    assert_agrees(tmp_path / "a.pth", {"w": torch.ones(3)})
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert checkpoint.extent("w").crc32 is None


def rezipped(source: Path, target: Path, method: int = zipfile.ZIP_STORED, **replaced: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, replaced.get(name.split("/")[-1], old.read(name)))
    return target


def test_a_deflated_archive_is_inflated_on_reading(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(1000.0), "t": torch.arange(6.0).view(2, 3).t()}, tmp_path / "a.pth")
    rezipped(tmp_path / "a.pth", tmp_path / "b.pth", zipfile.ZIP_DEFLATED)
    assert_agrees(tmp_path / "b.pth", torch.load(tmp_path / "a.pth"))
    with open_checkpoint(str(tmp_path / "b.pth")) as checkpoint:
        placement = checkpoint.contents.placements["w"]
        assert isinstance(placement, View)
        assert isinstance(placement.storage, Deflated)


def test_big_endian_storages_are_swapped(tmp_path: Path) -> None:
    tensors = {"f": torch.arange(3.0), "c": torch.tensor([1 + 2j, 3 - 4j]), "h": torch.arange(4, dtype=torch.int16).view(2, 2).t()}
    torch.save(tensors, tmp_path / "a.pth")
    names = ["0", "1", "2"]
    swapped = {name: t.contiguous().untyped_storage() for name, t in zip(names, tensors.values(), strict=True)}
    sizes = {"0": 4, "1": 4, "2": 2}
    with zipfile.ZipFile(tmp_path / "a.pth") as old:
        raw = {name: old.read(f"a/data/{name}") for name in swapped}
    big = {name: b"".join(content[i : i + sizes[name]][::-1] for i in range(0, len(content), sizes[name])) for name, content in raw.items()}
    rezipped(tmp_path / "a.pth", tmp_path / "b.pth", byteorder=b"big", **big)
    assert_agrees(tmp_path / "b.pth", tensors)


def test_parameters_and_subclasses_are_tensors(tmp_path: Path) -> None:
    tensors = {"p": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Buffer(torch.zeros(3))}
    torch.save(tensors, tmp_path / "a.pth")
    assert_agrees(tmp_path / "a.pth", {"p": torch.ones(2), "b": torch.zeros(3)})


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_tensors_without_plain_bytes_are_extras(tmp_path: Path) -> None:
    odd = {
        "w": torch.ones(2),
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(2, 5, device="meta"),
        "quantised": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
        "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
    }
    torch.save(odd, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]
        assert {extra.path: extra.text for extra in checkpoint.extras if extra.kind == "tensor"} == {
            "sparse": "sparse (torch.sparse_coo) 3×3",
            "rows": "sparse (torch.sparse_csr) 3×3",
            "meta": "without data, float32 2×5",
            "quantised": "quantised QUInt8 4",
            "nested": "nested",
        }


def test_an_expanded_tensor_is_listed_but_not_written_out_without_bound(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(1 << 40)}, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert checkpoint.catalog["w"].shape == (1 << 40,)
        with pytest.raises(FormatError, match="values can't be listed"):
            checkpoint.raw("w")


def test_versions_are_those_of_the_state_dict(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert checkpoint.versions == {"": {"version": 1}, "0": {"version": 1}, "1": {"version": 2}}
        assert [(found.path, found.tensors, found.nbytes) for found in checkpoint.contents.state_dicts] == [("model", 7, 64)]


def test_a_plain_dict_has_no_versions(tmp_path: Path) -> None:
    torch.save(dict(torch.nn.Linear(2, 2).state_dict()), tmp_path / "a.pth")
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert checkpoint.versions == {}


def test_sorted_keys_are_not_in_module_order(tmp_path: Path) -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    torch.save(OrderedDict(sorted(state.items())), tmp_path / "sorted.pth")
    torch.save(state, tmp_path / "plain.pth")
    with open_checkpoint(str(tmp_path / "sorted.pth")) as a, open_checkpoint(str(tmp_path / "plain.pth")) as b:
        assert not a.catalog.is_ordered
        assert b.catalog.is_ordered


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        self.register_buffer("mask", torch.ones(2))
        self.attribute = torch.zeros(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.attribute


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("is_traced", [True, False])
def test_a_torchscript_file_has_the_state_dict_of_its_module(tmp_path: Path, is_traced: bool) -> None:
    module = torch.jit.trace(Net().eval(), torch.zeros(1, 2)) if is_traced else torch.jit.script(Net())
    module.save(str(tmp_path / "a.pt"))
    assert_agrees(tmp_path / "a.pt", module.state_dict())


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.98])
def test_a_download_that_broke_off_is_told_with_what_is_missing(tmp_path: Path, is_zip: bool, share: float) -> None:
    torch.save({f"layers.{i}.weight": torch.zeros(100, 1000) for i in range(20)}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match=r"is cut off: [0-9,]+ bytes of at least [0-9,]+ are missing") as raised:
        open_checkpoint(str(tmp_path / "cut.pth"))
    missing, needed = (int(number.replace(",", "")) for number in re.findall("[0-9][0-9,]*", raised.value.fact))
    assert 0.98 * len(whole) < needed <= len(whole)
    assert missing == needed - int(len(whole) * share)


def test_an_archive_that_broke_off_at_its_end_or_in_its_pickle_is_told_without_a_number(tmp_path: Path) -> None:
    torch.save({f"layers.{i}.weight": torch.zeros(3) for i in range(20)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for end in (10, 40, 700, len(whole) - 30):
        (tmp_path / "cut.pth").write_bytes(whole[:end])
        with pytest.raises(FormatError, match="is cut off: a zip archive without its directory at the end; download"):
            open_checkpoint(str(tmp_path / "cut.pth"))


def test_what_one_open_checkpoint_describes_is_not_read_again_for_one_like_it(tmp_path: Path) -> None:
    for name, value in (("a.pth", 1.0), ("b.pth", 2.0)):
        torch.save({"x": {"w": torch.full((2,), value)}, "y": {"v": torch.full((2,), value)}}, tmp_path / name)
    torch.save({"other": torch.ones(2)}, tmp_path / "c.pth")
    with open_checkpoint(tmp_path / "a.pth") as first, open_checkpoint(tmp_path / "b.pth", first) as second:
        assert second.contents.kept.root is first.contents.kept.root  # type: ignore[attr-defined]
        assert [float(one.read("x.w")[0]) for one in (first, second)] == [1.0, 2.0]
        with open_checkpoint(f"{tmp_path / 'b.pth'}#y", first) as part, open_checkpoint(tmp_path / "c.pth", first) as other:
            assert (list(part.catalog), list(other.catalog)) == (["v"], ["other"])


def test_nothing_is_remembered_beside_the_open_checkpoints(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as first, open_checkpoint(tmp_path / "a.pth") as second:
        assert second.contents.kept.root is not first.contents.kept.root  # type: ignore[attr-defined]
