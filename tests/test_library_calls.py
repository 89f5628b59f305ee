"""The library as scripts call it: paths of any kind, one text for a tuple of one, and no argument that is passed over."""

import pytest
import torch
from torch import nn

import ckpt_tool
from ckpt_tool import DType, InputError, MappingOptions, RuleError
from tests.running import ckpt


@pytest.fixture
def files(tmp_path):
    torch.save({"a.weight": torch.randn(3, 2), "a.bias": torch.randn(3), "fc.weight": torch.randn(9, 3)}, tmp_path / "source.pth")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "target.pth")
    (tmp_path / "rules.yaml").write_text("rules: ['a.* -> *']\ndrop: ['fc.*']\n")
    return tmp_path


def test_paths_are_taken_wherever_texts_are(files):
    ckpt_tool.map(files / "source.pth", files / "target.pth", files / "out.pth", rules=files / "rules.yaml")
    with ckpt_tool.open(files / "out.pth") as written:
        assert list(written.catalog) == ["weight", "bias"]
    assert ckpt_tool.diff(files / "out.pth", files / "out.pth").identical
    assert len(ckpt_tool.load_into(nn.Linear(2, 3), files / "source.pth", rules=files / "rules.yaml").loaded) == 2


def test_one_text_is_a_tuple_of_one():
    how = MappingOptions(rules="r.yaml", inline="a -> b", drop="fc.*", keep=["head.*"])
    assert (how.rules, how.inline, how.drop, how.keep) == (("r.yaml",), ("a -> b",), ("fc.*",), ("head.*",))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"by": "magic"}, "`magic` is not a way of mapping; it is one of name, position, auto"),
        ({"dtypes": "brain"}, "`brain` is neither `target`, `source`, nor a floating type"),
        ({"dtypes": "int8"}, "`int8` is neither `target`, `source`, nor a floating type"),
        ({"expect": "7"}, "expect: '7' is not a number"),
        ({"expect": -1}, "expect: -1 is not a number"),
        ({"params": {"heads": 1.5}}, r"heads: 1\.5 is not a number"),
        ({"min_confidence": 7}, "7 is not between 0 and 1"),
    ],
)
def test_what_means_nothing_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        MappingOptions(**wrong)


@pytest.mark.parametrize("said", ["bfloat16", "BF16", "torch.bfloat16", torch.bfloat16, DType.BF16])
def test_a_dtype_is_taken_by_all_of_its_names(files, tmp_path, said):
    assert MappingOptions(dtypes=said).dtypes is DType.BF16
    mapped = ckpt_tool.map(files / "source.pth", None, rules="** -> net.**", output=tmp_path / "out.pth", dtypes=said)
    assert {tensor.dtype for tensor in torch.load(mapped.path).values()} == {torch.bfloat16}


def test_rules_beside_how_are_not_passed_over(files):
    source, rules = files / "source.pth", files / "rules.yaml"
    report = ckpt_tool.load_into(nn.Linear(2, 3), source, rules=rules, options=MappingOptions(expect=2))
    assert len(report.loaded) == 2
    with pytest.raises(RuleError, match="2 mapped, but 3 are expected"):
        ckpt_tool.load_into(nn.Linear(2, 3), source, rules=rules, options=MappingOptions(expect=3))
    with pytest.raises(InputError, match="rules: is given twice"):
        ckpt_tool.load_into(nn.Linear(2, 3), source, rules=rules, options=MappingOptions(inline=("** -> **",)))
    with pytest.raises(RuleError, match="2 mapped, but 1 are expected"):
        ckpt_tool.load_into(nn.Linear(2, 3), source, by="name", options=MappingOptions(expect=1))


@pytest.mark.parametrize("way", ["name", "position", "auto"])
def test_what_is_dropped_and_kept_goes_with_every_way(files, way):
    refused = ckpt("map", "source.pth", "target.pth", "--by", way, "--keep", "fc.*", "-o", "x.pth", cwd=files)
    assert (refused.status, refused.out) == (1, "")
    assert "`fc.*` keeps nothing: no key of the target matches it" in refused.err


@pytest.mark.parametrize("size", [0, -3])
def test_shards_have_a_size(files, size):
    with pytest.raises(InputError, match=r"`max_shard_size=`: -?\d is not a size for a file"):
        ckpt_tool.map(
            files / "source.pth", files / "target.pth", files / "out", rules=files / "rules.yaml", max_shard_size=size
        )
    assert not (files / "out").exists()


def test_patterns_to_freeze_are_texts():
    for wrong in ({"patterns": (["a.*"],)}, {"patterns": (), "first": 2.5}):
        with pytest.raises(ValueError, match="patterns are texts"):
            ckpt_tool.freeze(nn.Linear(2, 3), *wrong.pop("patterns"), **wrong)


def test_arrays_are_told_from_tensors():
    with pytest.raises(InputError, match="the state dict: has no tensors: `weight` is a ndarray"):
        ckpt_tool.load_into(nn.Linear(2, 3), {"weight": torch.zeros(3, 2).numpy()})


@pytest.mark.parametrize("given", [b"source.pth", 3, None])
def test_what_is_no_path_is_not_opened(given):
    with pytest.raises(InputError, match=f"path: is an? {type(given).__name__}, and a path is a text; give the file's path"):
        ckpt_tool.open(given)


@pytest.mark.parametrize("given", ["0.9", True, [0.9]])
def test_a_confidence_is_a_number(files, given):
    sides = files / "source.pth", files / "target.pth"
    for call in (lambda: ckpt_tool.suggest(*sides, min_confidence=given), lambda: ckpt_tool.plan(*sides, by="auto", min_confidence=given)):
        with pytest.raises(InputError, match=r"`min_confidence=`: .* is no number"):
            call()


def test_a_count_is_named_as_its_option_is(files):
    ran = ckpt("plan", "source.pth", "target.pth", "--expect", "-1", cwd=files)
    assert (ran.status, ran.err) == (2, "error: --expect: -1 is not a number of the kind 0, 1, 2, …\n")
    with pytest.raises(InputError, match="`expect=`: -1 is not a number"):
        ckpt_tool.plan(files / "source.pth", files / "target.pth", expect=-1)
