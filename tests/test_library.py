"""The library's door: one function for each command, on paths, modules and state dicts; what is printed is what the command prints."""

import copy
import inspect
import pickle
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import ckpt_tool
from ckpt_tool.errors import InputError
from ckpt_tool.tensors import TORCH_NAMES
from tests.running import ckpt

DOOR = ("open", "diff", "plan", "map", "suggest", "verify", "mappings", "check", "load_into", "freeze")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    source = {"module.fc.weight": torch.randn(10, 4), "module.fc.bias": torch.randn(10), "module.old": torch.randn(3)}
    torch.save(source, "source.pth")
    torch.save({"fc.weight": torch.randn(10, 4), "fc.bias": torch.randn(10), "head.weight": torch.randn(2, 10)}, "target.pth")
    return source


RULES = {"rules": ["module.** -> **"], "drop": "module.old", "keep": ["head.*"]}
WORDS = ["-e", "module.** -> **", "--drop", "module.old", "--keep", "head.*"]


@pytest.mark.parametrize("name", DOOR)
def test_each_has_a_docstring_with_what_it_raises_and_an_example(name):
    text = inspect.getdoc(getattr(ckpt_tool, name))
    assert "Raises" in text
    assert f"ckpt_tool.{name}" in text.partition(">>>")[2]


def test_an_open_checkpoint_is_a_mapping_of_lazy_tensors(files):
    with ckpt_tool.open("source.pth") as checkpoint:
        assert repr(checkpoint) == "OpenCheckpoint('source.pth', 3 tensors, 212 B)"
        assert list(checkpoint) == list(checkpoint.keys()) == list(files)
        assert ("module.old" in checkpoint, "old" in checkpoint, len(checkpoint)) == (True, False, 3)
        weight = checkpoint["module.fc.weight"]
        assert repr(weight) == "LazyTensor('module.fc.weight', F32 10×4)"
        assert (weight.shape, weight.dtype, weight.nbytes, len(weight)) == ((10, 4), ckpt_tool.DType.F32, 160, 10)
        assert all(torch.equal(value, files[key]) for key, value in checkpoint.state_dict().items())
        assert f"{checkpoint}\n" == ckpt("show", "source.pth").out
        with pytest.raises(KeyError, match=r"'fc\.wieght'; did you mean 'module\.fc\.weight'"):
            checkpoint["fc.wieght"]
        with pytest.raises(KeyError):
            checkpoint["nothing"]


INDEXES = [0, -1, slice(2, 5), slice(None), slice(8, 99), slice(5, 2), slice(0, 9, 3), (slice(1, 3), 2), (3, slice(None, 2)), ..., (..., 0), [1, 2], ()]


@pytest.mark.parametrize("index", INDEXES, ids=str)
@pytest.mark.parametrize("name", ["source.pth", "source.safetensors"])
def test_an_index_gives_what_torch_gives(files, name, index):
    ckpt_tool.map("source.pth", None, "source.safetensors", rules="** -> **")
    with ckpt_tool.open(name) as checkpoint:
        assert torch.equal(checkpoint["module.fc.weight"][index], files["module.fc.weight"][index])


def test_a_tensor_that_is_not_read_says_how_to_read_it_and_converts_where_it_is_asked_to(files):
    with ckpt_tool.open("source.pth") as checkpoint:
        weight, wanted = checkpoint["module.fc.weight"], files["module.fc.weight"]
        for use in (lambda: weight + 1, lambda: 1 + weight, lambda: wanted - weight, lambda: weight @ weight, lambda: -weight, lambda: weight < 1, lambda: float(weight),
                    lambda: weight // 2, lambda: 2 // weight, lambda: weight % 2, lambda: divmod(weight, 2), lambda: weight & 1, lambda: 1 | weight, lambda: weight ^ 1, lambda: ~weight,
                    lambda: +weight, lambda: weight << 1, lambda: round(weight), lambda: complex(weight), lambda: f"{weight:.3f}", lambda: weight.__setitem__(0, 1),
                    lambda: weight == wanted, lambda: wanted == weight, lambda: weight != wanted, lambda: weight in [wanted], lambda: bool(weight)):  # fmt: skip
            with pytest.raises(TypeError, match=r"LazyTensor\('module.fc.weight', F32 10×4\) has no values before it is read; `checkpoint\['module.fc.weight'\].read\(\)`"):
                use()
        assert {weight: 1}[weight] == 1
        with pytest.raises(AttributeError, match=r"no attribute 'mean'; `checkpoint\['module.fc.weight'\].read\(\)` is the tensor"):
            weight.mean()
        assert not hasattr(weight, "__array__")
        assert copy.copy(weight).key == copy.deepcopy({"w": weight})["w"].key == weight.key
        assert f"{weight}" == "LazyTensor('module.fc.weight', F32 10×4)"
        assert (weight.ndim, weight.dim(), weight.numel(), weight.size(), weight.size(-1)) == (2, 2, 40, (10, 4), 4)
        assert torch.equal(torch.stack(list(weight)), wanted)
        for convert in (torch.as_tensor, torch.tensor, torch.asarray, torch.utils.dlpack.from_dlpack):
            assert torch.equal(convert(weight), wanted)
        assert torch.as_tensor(weight, dtype=torch.float64).dtype == torch.float64


def test_a_scalar_has_no_rows(files):
    torch.save({"s": torch.tensor(7)}, "scalar.pth")
    with ckpt_tool.open("scalar.pth") as checkpoint:
        assert (checkpoint["s"].numel(), checkpoint["s"].ndim) == (1, 0)
        for use in (list, sum):
            with pytest.raises(TypeError, match=r"iteration over a 0-d tensor, LazyTensor\('s', I64 scalar\); `checkpoint\['s'\].read\(\)` is the tensor"):
                use(checkpoint["s"])


def test_what_is_on_disk_is_saved_as_the_tensor_that_it_is(files):
    with ckpt_tool.open("source.pth") as checkpoint:
        torch.save(dict(checkpoint), "again.pth")
        assert torch.equal(pickle.loads(pickle.dumps(checkpoint["module.fc.weight"])), files["module.fc.weight"])
        kept = checkpoint["module.fc.weight"]
    again = torch.load("again.pth", weights_only=True)
    assert list(again) == list(files)
    assert all(type(again[key]) is torch.Tensor and torch.equal(again[key], files[key]) for key in files)
    with pytest.raises(InputError, match="is closed"):
        torch.save({"w": kept}, "late.pth")


def test_a_state_dict_may_hold_what_is_on_disk(files, tmp_path):
    tied = torch.randn(5, 3)
    torch.save({"weight": tied, "bias": torch.ones(5), "again": tied}, "linear.pth")
    with ckpt_tool.open("linear.pth") as checkpoint:
        model = torch.nn.Linear(3, 5)
        ckpt_tool.load_into(model, {key: value for key, value in checkpoint.items() if key != "again"})
        assert torch.equal(model.weight, tied)
        assert ckpt_tool.diff(dict(checkpoint), "linear.pth", values=True).identical
        assert ckpt_tool.diff({"bias": checkpoint["bias"], "weight": tied}, model, values=True).identical
        ckpt_tool.map(dict(checkpoint), output="mapped.pth", rules=["** -> net.**"])
    with ckpt_tool.open("mapped.pth") as made:
        assert made.catalog["net.again"].tied_to == "net.weight"
    with pytest.raises(InputError, match="is closed"):
        ckpt_tool.diff(dict(checkpoint), "linear.pth")


def test_a_dtype_equals_that_of_torch_and_no_other(files):
    with ckpt_tool.open("source.pth") as checkpoint:
        dtype = checkpoint["module.fc.weight"].dtype
    assert dtype == torch.float32
    assert torch.float32 == dtype
    assert dtype in (torch.float16, torch.float32)
    assert dtype != torch.float16
    assert dtype != ckpt_tool.DType.F16
    assert dtype != "F32"
    assert {dtype: 1}[ckpt_tool.DType.F32] == 1
    for ours, name in TORCH_NAMES.items():
        assert [one for one in ckpt_tool.DType if one == getattr(torch, name, None)] in ([ours], [])


def test_tied_weights_stay_tied_in_a_state_dict(tmp_path):
    tied = torch.ones(4, 2)
    torch.save({"emb.w": tied, "w": torch.ones(2), "lm.w": tied, "row": tied[0]}, tmp_path / "tied.pth")
    with ckpt_tool.open(tmp_path / "tied.pth") as checkpoint:
        state = checkpoint.state_dict()
    assert list(state) == ["emb.w", "w", "lm.w", "row"]
    assert state["lm.w"].data_ptr() == state["emb.w"].data_ptr()
    state["emb.w"][0] = 7
    assert state["lm.w"].tolist() == [[7, 7], [1, 1], [1, 1], [1, 1]]
    assert state["row"].tolist() == [1, 1]


def test_an_index_outside_raises_as_torch_does(files):
    with ckpt_tool.open("source.pth") as checkpoint, pytest.raises(IndexError):
        checkpoint["module.old"][3]


def test_rows_are_read_alone(files, monkeypatch):
    from ckpt_tool.formats.files import SourceFile

    read = []
    plain = SourceFile.read_into
    with ckpt_tool.open("source.pth") as checkpoint:
        monkeypatch.setattr(SourceFile, "read_into", lambda file, into, offset: read.append(len(into)) or plain(file, into, offset))
        assert checkpoint["module.fc.weight"][2:4].shape == (2, 4)
    assert read == [2 * 4 * 4]


def test_a_box_of_a_distributed_checkpoint_is_read_alone(tmp_path, monkeypatch):
    """Whole rows and a few columns, in a folder of torch.distributed.checkpoint."""
    from ckpt_tool.formats.files import SourceFile

    weight = torch.randn(64, 512, 64)
    ckpt_tool.map({"w": weight}, None, tmp_path / "run", rules="** -> **", to="dcp")
    read = []
    plain = SourceFile.read_into
    with ckpt_tool.open(tmp_path / "run") as checkpoint:
        monkeypatch.setattr(SourceFile, "read_into", lambda file, into, offset: read.append(len(into)) or plain(file, into, offset))
        assert torch.equal(checkpoint["w"][3], weight[3])
        assert torch.equal(checkpoint["w"][-2:, 7:9, 1], weight[-2:, 7:9, 1])
    assert sum(read) < weight.nbytes / 8


def test_a_diff_prints_as_the_command_does(files):
    found = ckpt_tool.diff("source.pth", "target.pth", values=True)
    assert repr(found) == "DiffReport(3 only_a, 3 only_b)"
    said = ckpt("diff", "source.pth", "target.pth", "--values").out
    assert f"{found}\n" == said


def test_sides_may_be_in_memory(files):
    model = nn.Sequential()
    model.fc = nn.Linear(4, 10)
    same = {"fc.weight": model.fc.weight.detach().clone(), "fc.bias": model.fc.bias.detach().clone()}
    assert ckpt_tool.diff(model, same, values=True).identical
    same["fc.bias"][3] += 1
    found = ckpt_tool.diff(model, same, values=True)
    assert [(each.kind, each.key) for each in found.changes] == [("value", "fc.bias")]
    assert ckpt_tool.diff(model, same, values=True, include="fc.weight").identical
    assert ckpt_tool.diff("source.pth", files, values=True).identical


def test_the_report_of_a_load_explains_as_a_plan_does():
    model, source = nn.Linear(4, 2), {"head.weight": torch.ones(2, 4)}
    options = {"rules": ["head.** -> **"], "keep": "bias"}
    report = ckpt_tool.load_into(model, source, **options)
    for key in ("weight", "head.weight", "bias"):
        assert report.explain(key) == ckpt_tool.plan(source, model, **options).explain(key)
    with pytest.raises(ckpt_tool.InputError, match="`hd` is a key of neither side"):
        report.explain("hd")


def test_a_plan_prints_explains_applies_and_writes(files):
    plan = ckpt_tool.plan("source.pth", "target.pth", **RULES)
    assert repr(plan) == "PlanReport(2 mapped, 1 kept, 1 dropped)"
    assert f"{plan}\n" == ckpt("plan", "source.pth", "target.pth", *WORDS).out
    assert plan.explain("head.weight") == "target head.weight (F32 2×10) keeps its own value"
    with pytest.raises(ckpt_tool.InputError, match="`hd` is a key of neither side"):
        plan.explain("hd")
    made = plan.apply(files)
    assert list(made) == ["fc.weight", "fc.bias", "head.weight"]
    assert torch.equal(made["fc.bias"], files["module.fc.bias"])
    written = plan.write("out.pth")
    assert repr(ckpt_tool.scan("source.pth")) == "ScanReport(1 file, 0 would call or import something)"
    assert repr(written) == "MapReport('out.pth', 3 tensors, 2.0 kB)"
    loaded = torch.load("out.pth")
    assert all(torch.equal(loaded[key], made[key]) for key in made)
    assert ckpt_tool.verify("out.pth", "source.pth", "target.pth", **RULES)


def test_a_plan_is_applied_to_what_it_was_made_for_alone(files):
    plan = ckpt_tool.plan("source.pth", "target.pth", **RULES)
    with pytest.raises(ckpt_tool.InputError, match=re.escape("lacks `module.fc.bias`: it is not what was planned for")):
        plan.apply({key: value for key, value in files.items() if key != "module.fc.bias"})
    with pytest.raises(ckpt_tool.InputError, match=r"`module\.old` is of another shape or dtype"):
        plan.apply({**files, "module.old": torch.zeros(9)})
    torch.save({"fc.weight": torch.randn(10, 4)}, "target.pth")
    with pytest.raises(ckpt_tool.InputError, match=re.escape("target.pth: lacks `fc.bias`")):
        plan.write("out.pth")


def test_a_plan_that_is_none_raises_with_what_to_add(files):
    with pytest.raises(ckpt_tool.RuleError) as refused:
        ckpt_tool.plan("source.pth", "target.pth", rules="module.** -> **")
    assert refused.value.problems


def test_map_writes_from_memory(files):
    model = nn.Linear(4, 10)
    written = ckpt_tool.map(files, model, "out.safetensors", rules="module.fc.* -> *", drop="module.old", checksum=True)
    assert str(written).endswith("wrote out.safetensors: 2 tensors, 200 B") or "wrote out.safetensors: 2 tensors" in str(written)
    assert written.plan.counts == {"mapped": 2, "kept": 0, "dropped": 1}
    with ckpt_tool.open("out.safetensors") as out:
        assert torch.equal(out["bias"][...], files["module.fc.bias"])
    with pytest.raises(ckpt_tool.OutputError, match="exists"):
        ckpt_tool.map(files, model, "out.safetensors", rules="module.fc.* -> *", drop="module.old")
    ckpt_tool.map(files, model, "out.safetensors", rules="module.fc.* -> *", drop="module.old", force=True)


def test_suggest_mappings_check_and_verify_print_as_their_commands_do(files):
    found = ckpt_tool.suggest("source.pth", "target.pth")
    said = ckpt("suggest", "source.pth", "target.pth")
    assert str(found).startswith(said.out)
    assert re.fullmatch(r"SuggestReport\(\d+ rules?, 2 mapped, \d+ ambiguous\)", repr(found))
    assert f"{ckpt_tool.mappings()}\n" == ckpt("mappings").out
    assert re.fullmatch(r"MappingsReport\(\d+ mappings\)", repr(ckpt_tool.mappings()))
    checked = ckpt_tool.check("resnet50_to_yolo.yaml")
    assert f"{checked}\n" == ckpt("check", "resnet50_to_yolo.yaml").out
    assert (repr(checked), checked.is_sound) == ("CheckReport(0 problems, 0 notes)", True)
    ckpt_tool.map("source.pth", "target.pth", "out.pth", **RULES)
    proved = ckpt_tool.verify("out.pth", "source.pth", "target.pth", **RULES)
    assert f"{proved}\n" == ckpt("verify", "out.pth", "source.pth", "target.pth", *WORDS).out
    assert repr(proved) == "VerifyReport('out.pth', 0 mismatches)"
    wrong = torch.load("out.pth")
    wrong["fc.bias"][2] += 1
    torch.save(wrong, "out.pth")
    assert not ckpt_tool.verify("out.pth", "source.pth", "target.pth", **RULES)


def test_what_is_no_side_is_refused(files):
    with pytest.raises(ckpt_tool.InputError, match="a: is an int; give a path, a state dict or a module"):
        ckpt_tool.diff(7, "source.pth")
    with pytest.raises(ckpt_tool.InputError, match="b: is a list; give a path, a state dict or a module"):
        ckpt_tool.diff("source.pth", [1])
    with pytest.raises(ckpt_tool.InputError, match=r"has no tensors: `module.fc.weight` is an int"):
        ckpt_tool.diff({"module.fc.weight": 3}, "source.pth")


OLD = ["How", "planned", "open_checkpoint", "diff_checkpoints", "map_checkpoint"]


@pytest.mark.parametrize("name", OLD)
def test_old_names_work_and_say_the_new_one(name):
    with pytest.warns(DeprecationWarning, match=rf"`ckpt_tool\.{name}` is called `ckpt_tool\.\w+`") as warned:
        assert callable(getattr(ckpt_tool, name))
    assert warned[0].filename == __file__
    assert name not in ckpt_tool.__all__


def test_old_arguments_work_and_say_the_new_ones(files):
    with pytest.warns(DeprecationWarning, match="called `ckpt_tool.MappingOptions`"):
        old = ckpt_tool.How
    with pytest.warns(DeprecationWarning, match="`settings` is called `params`"):
        how = old(settings={"heads": 3}, inline="module.fc.* -> *", drop="module.old")
    assert how.params == {"heads": 3}
    with pytest.warns(DeprecationWarning, match="`how` is called `options`"):
        report = ckpt_tool.load_into(nn.Linear(4, 10), "source.pth", how=ckpt_tool.MappingOptions(inline="module.fc.* -> *", drop="module.old"))  # type: ignore[call-arg]
    assert len(report.loaded) == 2
    info = ckpt_tool.TensorInfo("b", ckpt_tool.DType.F32, (2,), "a", "a")
    with pytest.warns(DeprecationWarning, match="`same_as` is called `tied_to`"):
        assert info.same_as == "a"
    with pytest.warns(DeprecationWarning, match="`shares` is called `shared_storage_with`"):
        assert info.shares == "a"


def test_the_door_costs_nothing_until_it_is_opened(files):
    code = "import sys, ckpt_tool; ckpt_tool.open('source.pth').keys(); print({'torch', 'ckpt_tool.align', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_what_is_suggested_goes_on_into_plan_and_map(files):
    found = ckpt_tool.suggest("source.pth", "target.pth")
    plan = ckpt_tool.plan("source.pth", "target.pth", **found.next)
    assert plan.counts == {"mapped": 2, "kept": 1, "dropped": 1}
    source = {"conv1.weight": torch.randn(4, 3), "bn1.weight": torch.randn(5), "bn1.bias": torch.randn(5)}
    target = {"stem.0.weight": torch.randn(4, 3), "stem.1.weight": torch.randn(5), "stem.1.bias": torch.randn(5)}
    drafted = ckpt_tool.suggest(source, target)
    assert ckpt_tool.plan(source, target, **drafted.next).counts["mapped"] == 3  # a choice is quoted in YAML, and not here


def test_a_plan_is_applied_to_a_path_too(files):
    plan = ckpt_tool.plan("source.pth", "target.pth", **RULES)
    assert torch.equal(plan.apply("source.pth")["fc.bias"], files["module.fc.bias"])


def test_what_is_closed_is_not_read_unseen(files):
    checkpoint = ckpt_tool.open("source.pth")
    weight = checkpoint["module.fc.weight"]
    checkpoint.close()
    for read in (weight.read, lambda: weight[:2], checkpoint.state_dict):
        with pytest.raises(ckpt_tool.InputError, match=re.escape("source.pth: is closed; open it again")):
            read()
    assert list(checkpoint) == list(files)


def test_what_is_no_text_is_refused_by_name(files):
    for wrong in (3, b"x", torch.ones(2), {1: 2}, [3]):
        for name in ("rules", "drop", "keep"):
            with pytest.raises(ckpt_tool.InputError, match=f"{name}: .* is neither a string nor a list of strings"):
                ckpt_tool.plan("source.pth", "target.pth", **{name: wrong})
    with pytest.raises(ckpt_tool.InputError, match="rules: are missing"):
        ckpt_tool.check([])


def test_a_draft_says_whether_it_is_all_that_is_needed():
    generator = torch.Generator().manual_seed(0)
    one = {f"layers.{i}.weight": torch.randn(4, 4, generator=generator) for i in range(4)}
    whole = ckpt_tool.suggest(one, {key.replace("layers", "blocks"): value for key, value in one.items()})
    assert whole.is_complete
    assert "undecided" not in repr(whole)
    other = {key.replace("layers", "blocks"): value for key, value in one.items()} | {"pos_embed": torch.ones(1, 7, 4)}
    part = ckpt_tool.suggest(one | {"pos_embed": torch.ones(1, 5, 4)}, other)
    assert not part.is_complete
    assert "undecided" in repr(part)
