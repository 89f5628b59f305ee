"""What the engine writes: torch and safetensors read it, bit for bit, in order, with ties and metadata."""

import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ckpt_tool
from ckpt_tool import DType, MappingOptions, RuleError
from ckpt_tool.api import map_checkpoint
from ckpt_tool.errors import FormatError, OutputError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import every_dtype

DTYPES = every_dtype(
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz",
    "float8_e5m2fnuz", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool", "complex64",
)  # fmt: skip
RENAME = MappingOptions(inline=("** -> new.**",))


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def random_tensor(dtype, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty((), dtype=dtype).element_size()
    count = torch.Size(shape).numel() * size
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def save(tensors, path):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def load(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(DTYPES), shapes), max_size=6),
    st.sampled_from([".pth", ".safetensors"]),
    st.sampled_from([".pth", ".safetensors"]),
)
def test_every_dtype_and_shape_survives_every_way(tmp_path, tensors, source_suffix, output_suffix):
    state = {f"t{i}.w": random_tensor(dtype, shape, i) for i, (dtype, shape) in enumerate(tensors)}
    source, output = tmp_path / f"in{source_suffix}", tmp_path / f"out{output_suffix}"
    save(state, source)
    if not state:
        return
    map_checkpoint(str(source), None, str(output), RENAME, force=True)
    mapped = load(output)
    assert set(mapped) == {f"new.{key}" for key in state}
    for key, tensor in state.items():
        other = mapped[f"new.{key}"]
        assert (other.dtype, other.shape, bits(other)) == (tensor.dtype, tensor.shape, bits(tensor))


def test_a_written_pth_is_what_torch_would_have_written(tmp_path):
    state = {"a.weight": torch.randn(3, 5), "a.bias": torch.randn(5), "n": torch.tensor(3)}
    torch.save(state, tmp_path / "in.pth")
    map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), MappingOptions(inline=("** -> **",)))
    for options in ({}, {"mmap": True}, {"weights_only": False}):
        loaded = torch.load(tmp_path / "out.pth", **{"weights_only": True, **options})
        assert list(loaded) == list(state)
        assert all(torch.equal(loaded[key], state[key]) for key in state)
    archive = zipfile.ZipFile(tmp_path / "out.pth")
    assert archive.testzip() is None
    assert {name.split("/")[0] for name in archive.namelist()} == {"out"}
    with archive.open("out/data.pkl") as pickle:
        assert pickle.read(2) == b"\x80\x02"


def test_storages_begin_at_multiples_of_64(tmp_path):
    torch.save({f"t{i}": torch.randn(i + 1) for i in range(9)}, tmp_path / "in.pth")
    map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), RENAME)
    with open_checkpoint(str(tmp_path / "out.pth")) as checkpoint:
        assert all(checkpoint.extent(key).offset % 64 == 0 for key in checkpoint.catalog)


def test_output_has_the_targets_order(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "in.pth")
    torch.save({"z": torch.zeros(1), "b": torch.zeros(3), "a": torch.zeros(2)}, tmp_path / "target.pth")
    for name in ("out.pth", "out.safetensors"):
        map_checkpoint(str(tmp_path / "in.pth"), str(tmp_path / "target.pth"), str(tmp_path / name), MappingOptions(keep="z"))
        assert list(load(tmp_path / name)) == ["z", "b", "a"]


def test_ties_are_kept_in_pth_and_told_for_safetensors(tmp_path):
    shared = torch.randn(4, 3)
    torch.save({"emb.w": shared, "head.w": shared, "part.w": shared[1:]}, tmp_path / "in.pth")
    written = map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), RENAME)
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert loaded["new.emb.w"].data_ptr() == loaded["new.head.w"].data_ptr()
    assert torch.equal(loaded["new.part.w"], shared[1:])
    assert written.ties == (("new.head.w", "new.emb.w"),)
    told = map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.safetensors"), RENAME)
    assert told.ties == written.ties
    assert torch.equal(load(tmp_path / "out.safetensors")["new.head.w"], shared)


def test_copy_ties_its_keys_in_pth(tmp_path):
    torch.save({"emb.w": torch.randn(4, 3)}, tmp_path / "in.pth")
    map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), MappingOptions(inline=("emb.w -> {enc,dec}.w: copy",)))
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert loaded["enc.w"].data_ptr() == loaded["dec.w"].data_ptr()


def tied(emb, head=None):
    return {"emb.w": emb, "head.w": emb if head is None else head}


@pytest.mark.parametrize("rules", [MappingOptions(inline=("** -> **: {transpose: [0, 1]}",)), MappingOptions(inline=("** -> **",), dtypes=DType.BF16)])
def test_what_is_computed_of_tied_tensors_in_one_way_is_tied(tmp_path, rules):
    torch.save(tied(torch.randn(4, 3)), tmp_path / "in.pth")
    written = map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), rules)
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert loaded["emb.w"].data_ptr() == loaded["head.w"].data_ptr()
    assert written.ties == (("head.w", "emb.w"),)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("rule", ["{a,b}.{q,k,v}: [{split: 0}, copy]", "{q,k,v}.{a,b}: [{split: 0}, copy]", "{q,k,v}.{a,b}: [copy, {split: 0}]", "{a,b}.{q,k,v}: [copy, {split: 0}]"])
def test_parts_and_copies_of_one_tensor_are_told_apart(tmp_path, rule, suffix):
    torch.save({"qkv": torch.arange(12.0).reshape(6, 2)}, tmp_path / "a.pth")
    plan = ckpt_tool.plan(tmp_path / "a.pth", rules=[f"qkv -> {rule}"])
    plan.write(tmp_path / f"b.{suffix}")
    with ckpt_tool.open(tmp_path / f"b.{suffix}") as written:
        found = written.state_dict()
    wanted = plan.apply(torch.load(tmp_path / "a.pth"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert len({tuple(value.flatten().tolist()) for value in found.values()}) in (2, 3)


def test_what_is_computed_in_two_ways_is_not_tied(tmp_path):
    torch.save(tied(torch.randn(4, 3)), tmp_path / "in.pth")
    rules = MappingOptions(inline=("emb.w -> emb.w: {transpose: [0, 1]}", "head.w -> head.w: {affine: {scale: 2}}"))
    assert map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), rules).ties == ()


@pytest.mark.parametrize("is_tied", [True, False])
def test_rows_are_tied_where_both_sides_are(tmp_path, is_tied):
    old, new, head = torch.randn(4, 3), torch.randn(6, 3), torch.randn(6, 3)
    torch.save(tied(old), tmp_path / "in.pth")
    torch.save(tied(new, None if is_tied else head), tmp_path / "target.pth")
    (tmp_path / "rows.yaml").write_text("rules: ['** -> **']\nfit: [{'**': rows}]\n")
    written = map_checkpoint(str(tmp_path / "in.pth"), str(tmp_path / "target.pth"), str(tmp_path / "out.pth"), MappingOptions(str(tmp_path / "rows.yaml")))
    assert (written.ties == (("head.w", "emb.w"),)) is is_tied
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    for key, own in tied(new, None if is_tied else head).items():
        assert torch.equal(loaded[key], torch.cat([old, own[4:]]))


def test_views_are_written_as_they_are_seen(tmp_path):
    base = torch.randn(6, 8)
    state = {"t": base.t(), "s": base[::2, 1:7:3], "e": torch.randn(1).expand(3, 2), "c": torch.randn(3, dtype=torch.complex64).conj()}
    torch.save(state, tmp_path / "in.pth")
    map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), RENAME)
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    for key, tensor in state.items():
        assert torch.equal(loaded[f"new.{key}"], tensor), key


def test_metadata_is_kept(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "in.safetensors", {"format": "pt", "license": "x"})
    map_checkpoint(str(tmp_path / "in.safetensors"), None, str(tmp_path / "out.safetensors"), RENAME)
    assert safe_open(tmp_path / "out.safetensors", "pt").metadata() == {"format": "pt", "license": "x"}


def test_module_versions_follow_their_modules(tmp_path):
    old, new = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)), torch.nn.Module()
    new.stem, new.head = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)), torch.nn.BatchNorm2d(3)
    torch.save(old.state_dict(), tmp_path / "in.pth")
    torch.save(new.state_dict(), tmp_path / "target.pth")
    how = MappingOptions(inline=("** -> stem.**",), keep=("head.*",))
    map_checkpoint(str(tmp_path / "in.pth"), str(tmp_path / "target.pth"), str(tmp_path / "out.pth"), how)
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert loaded._metadata == new.state_dict()._metadata  # type: ignore[attr-defined]
    map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "alone.pth"), MappingOptions(inline=("** -> stem.**",)))
    alone = torch.load(tmp_path / "alone.pth", weights_only=True)
    assert alone._metadata == {"stem": {"version": 1}, "stem.0": {"version": 1}, "stem.1": {"version": 2}}


def test_dtype_of_the_whole_output(tmp_path):
    torch.save({"a": torch.randn(3), "n": torch.tensor(1)}, tmp_path / "in.pth")
    torch.save({"a": torch.randn(3), "n": torch.tensor(2), "h": torch.randn(2)}, tmp_path / "target.pth")
    paths = [str(tmp_path / name) for name in ("in.pth", "target.pth", "out.safetensors")]
    from ckpt_tool import DType

    map_checkpoint(*paths, MappingOptions(keep="h", dtypes=DType.BF16))  # type: ignore[call-arg]
    loaded = load(tmp_path / "out.safetensors")
    assert [t.dtype for t in loaded.values()] == [torch.bfloat16, torch.int64, torch.bfloat16]
    assert torch.equal(loaded["a"], torch.load(paths[0])["a"].bfloat16())


def test_a_dtype_is_never_changed_without_being_told(tmp_path):
    torch.save({"a": torch.randn(3).half()}, tmp_path / "in.pth")
    torch.save({"a": torch.randn(3)}, tmp_path / "target.pth")
    paths = [str(tmp_path / name) for name in ("in.pth", "target.pth", "out.pth")]
    with pytest.raises(RuleError, match="would get F16, the target has F32"):
        map_checkpoint(*paths)
    map_checkpoint(*paths, MappingOptions(dtypes="source"))  # type: ignore[call-arg]
    assert load(tmp_path / "out.pth")["a"].dtype is torch.float16
    map_checkpoint(*paths, MappingOptions(dtypes="target"), force=True)  # type: ignore[call-arg]
    assert load(tmp_path / "out.pth")["a"].dtype is torch.float32


def test_flipped_bit_in_a_source_is_noticed_where_its_checksum_would_be_lost(tmp_path):
    torch.save({"a": torch.randn(1 << 22), "b": torch.randn(1 << 20)}, tmp_path / "in.pth")
    raw = bytearray((tmp_path / "in.pth").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "in.pth").write_bytes(raw)
    with pytest.raises(FormatError, match="checksum"):
        map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.safetensors"), RENAME)
    assert not (tmp_path / "out.safetensors").exists()


def test_what_the_format_cannot_say_is_refused(tmp_path):
    torch.save({"a": torch.randn(2, dtype=torch.complex128)}, tmp_path / "in.pth")
    with pytest.raises(OutputError, match="C128, which safetensors has no name for"):
        map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.safetensors"), RENAME)
    map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "out.pth"), RENAME)
    torch.save({"a": torch.randn(2)}, tmp_path / "in.pth")
    with pytest.raises(OutputError, match="__metadata__"):
        map_checkpoint(str(tmp_path / "in.pth"), None, str(tmp_path / "x.safetensors"), MappingOptions(inline=("a -> __metadata__",)))
