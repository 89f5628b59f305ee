"""`ckpt diff --renames`: tensors under other names, an inserted block, transposed and cast twins; what isn't sure isn't claimed."""

import json
import shlex
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from literals import catalog, pairs, rules
from running import ckpt
from safetensors.torch import save_file

from ckpt_tool.comparing import Counterpart, Values, diff_renamed
from ckpt_tool.keys import Matcher, parse
from ckpt_tool.keys.folding.pairs import pair_groups
from ckpt_tool.mapping import compile_plan, read_rule_text


def block(name, generator):
    return {
        f"{name}.attn.weight": torch.randn(16, 16, generator=generator),
        f"{name}.norm.weight": torch.ones(16),
        f"{name}.norm.bias": torch.zeros(16),
        f"{name}.mlp.weight": torch.randn(16, 8, generator=generator),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renames")
    generator = torch.Generator().manual_seed(0)
    base = {"emb.weight": torch.randn(10, 16, generator=generator)}
    for i in range(12):
        base |= block(f"layers.{i}", generator)
    base["head.weight"] = torch.randn(10, 16, generator=generator)
    longer = {key: tensor for key, tensor in base.items() if key[:7] != "layers." or int(key.split(".")[1]) < 7}
    longer |= block("layers.7", generator)
    for i in range(7, 12):
        longer |= {key.replace(f"layers.{i}.", f"layers.{i + 1}."): base[key] for key in base if key.startswith(f"layers.{i}.")}
    saved = {
        "base": base,
        "longer": longer,
        "wrapped": {"module." + key.replace("attn", "self_attention"): tensor for key, tensor in base.items()},
        "tuned": {key.replace("head", "lm_head"): tensor + 1e-3 for key, tensor in base.items()},
        "turned": {key: tensor.t().contiguous() if "mlp" in key else tensor for key, tensor in base.items()},
        "square": {key: tensor.t().contiguous() if "attn" in key else tensor for key, tensor in base.items()},
        "apart": {key: tensor for key, tensor in base.items() if "attn" not in key}
        | {f"layers.{i}.attn.{n}.weight": base[f"layers.{i}.attn.weight"].chunk(2)[n] for i in range(12) for n in range(2)},
        "cast": {"model." + key: tensor.bfloat16() for key, tensor in base.items()},
    }
    for name, tensors in saved.items():
        torch.save(tensors, folder / f"{name}.pth")
    return folder


def lines(ran):
    return [" ".join(line.split()) for line in ran.out.splitlines() if line.startswith("  ")]


def test_a_wrapper_is_shown_as_renames(folder):
    ran = ckpt("diff", "base.pth", "wrapped.pth", "--renames", cwd=folder)
    assert ran.status == 1
    assert "> layers.{0..11}.attn.weight → module.layers.{0..11}.self_attention.weight 12 0.99" in lines(ran)
    assert ran.out.splitlines()[-1] == "0 same, 50 renamed"


def test_an_inserted_block_is_shown_as_inserted(folder):
    ran = ckpt("diff", "base.pth", "longer.pth", "--values", "--renames", cwd=folder)
    assert lines(ran) == ["> layers.{7..11}.** → layers.{8..12}.** 20 0.99", "+ layers.7.** 4 1.7 kB"]
    assert ran.out.splitlines()[-1] == "30 same, 20 renamed, 4 added"


def test_without_values_equal_names_stay_together(folder):
    ran = ckpt("diff", "base.pth", "longer.pth", "--renames", cwd=folder)
    assert lines(ran) == ["+ layers.12.** 4 1.7 kB"]


def test_what_is_joined_on_one_side_comes_with_the_rule_that_takes_it_apart(folder, tmp_path):
    flags = ("--renames", "--values")
    ran = ckpt("diff", "base.pth", "apart.pth", *flags, cwd=folder)
    (rule,) = [line.split("-e ")[1].strip("'") for line in ran.out.splitlines() if line.startswith("hint: fused on one side")]
    assert ran.out.splitlines()[-1] == "38 same, 12 removed, 24 added"
    assert ckpt("map", "base.pth", "-e", rule, "-e", "** -> **", "-o", str(tmp_path / "out.pth"), cwd=folder).status == 0
    assert ckpt("diff", str(tmp_path / "out.pth"), "apart.pth", "--values", cwd=folder).status == 0
    assert json.loads(ckpt("diff", "base.pth", "apart.pth", "--json", *flags, cwd=folder).out)["regrouped"] == [rule]


def test_renamed_tensors_whose_values_differ_are_measured(folder):
    ran = ckpt("diff", "base.pth", "tuned.pth", "--values", "--renames", cwd=folder)
    assert "> head.weight → lm_head.weight 0.95, max |Δ| 1.0e-03, cosine 1.0000" in lines(ran)
    assert ran.out.splitlines()[-1] == "0 same, 1 renamed (1 with other values), 49 differ"


@pytest.mark.parametrize("names", [("", "module."), ("norm", "ln_1"), ("attn", "self_attention")])
def test_what_has_other_names_and_other_values_is_paired_and_measured(tmp_path, names):
    generator = torch.Generator().manual_seed(3)
    one = {key: value for i in range(6) for key, value in block(f"layers.{i}", generator).items()}

    def other_name(key):
        return key.replace(*names) if names[0] else names[1] + key

    other = {other_name(key): value.clone() for key, value in one.items()}
    changed = [other_name("layers.4.attn.weight"), other_name("layers.2.norm.bias")]
    for key in changed:
        other[key] += 0.1 * torch.randn(other[key].shape, generator=generator)
    torch.save(one, tmp_path / "one.pth")
    torch.save(other, tmp_path / "other.pth")
    ran = ckpt("diff", "one.pth", "other.pth", "--values", "--renames", "--json", cwd=tmp_path)
    entries = json.loads(ran.out)["entries"]
    assert {entry["b"]["key"] for entry in entries if "max_abs" in json.dumps(entry)} == set(changed)
    assert not {"only_a", "only_b"} & {entry["kind"] for entry in entries}


def test_what_is_new_and_what_is_gone_are_no_pair(tmp_path):
    generator = torch.Generator().manual_seed(4)
    one = {key: value for i in range(6) for key, value in block(f"layers.{i}", generator).items()}
    other = {f"module.{key}": value for key, value in one.items()} | {"module.adapter.gate": torch.rand(16, generator=generator)}
    torch.save(one | {"old_scale": torch.rand(16, generator=generator)}, tmp_path / "one.pth")
    torch.save(other, tmp_path / "other.pth")
    ran = ckpt("diff", "one.pth", "other.pth", "--values", "--renames", cwd=tmp_path)
    assert ran.out.splitlines()[-1] == "0 same, 24 renamed, 1 removed, 1 added"


def test_cast_twins_are_equal_after_the_cast(folder):
    ran = ckpt("diff", "base.pth", "cast.pth", "--values", "--renames", cwd=folder)
    assert lines(ran) == ["> ** → model.** 50 0.99, F32 → BF16"]
    assert ran.out.splitlines()[-1] == "0 same, 50 renamed"


def test_transposed_twins_are_told_with_the_rule_that_makes_them_equal(folder, tmp_path):
    ran = ckpt("diff", "base.pth", "turned.pth", "--values", "--renames", cwd=folder)
    assert ran.out.splitlines()[-1] == "38 same, 12 differ"
    hint = "hint: 12 tensors are equal after -e 'layers.{i}.mlp.weight -> layers.{i}.mlp.weight: transpose'"
    assert hint in ran.out.splitlines()
    rule = hint.split("'")[1]
    done = ckpt("map", "base.pth", "turned.pth", "-e", rule, "-e", "** -> **", "-o", tmp_path / "out.pth", cwd=folder)
    assert (done.status, done.err) == (0, done.err)
    assert ckpt("diff", tmp_path / "out.pth", "turned.pth", "--values", cwd=folder).status == 0


@pytest.mark.parametrize("shapes", [((), (1,)), ((1,), ()), ((), (1, 1)), ((1, 1), (1,))])
def test_a_scalar_and_a_tensor_of_one_element_are_told_with_a_rule_that_works(tmp_path, shapes):
    for name, shape in zip("ab", shapes, strict=True):
        save_file({"scale": torch.full(shape, 3.5), "w": torch.ones(3, 3)}, tmp_path / f"{name}.safetensors")
    words = ("a.safetensors", "b.safetensors")
    ran = ckpt("diff", *words, "--values", "--renames", cwd=tmp_path)
    hint = next(line for line in ran.out.splitlines() if line.startswith("hint: 1 tensor is equal after -e "))
    assert ckpt("map", *words, "-e", hint.split("'")[1], "-e", "w -> w", "-o", "out.safetensors", cwd=tmp_path).status == 0
    assert ckpt("diff", "out.safetensors", "b.safetensors", "--values", cwd=tmp_path).status == 0
    # Their shapes alone are told, too.
    ran = ckpt("plan", *words, "-e", "** -> **", cwd=tmp_path)
    assert (ran.status, "error[shape]: `scale` would get" in ran.err + ran.out) == (1, True)


def test_square_matrices_that_are_turned_are_measured_and_told(folder):
    ran = ckpt("diff", "base.pth", "square.pth", "--values", "--renames", cwd=folder)
    assert ran.out.splitlines()[-1] == "38 same, 12 differ"
    assert "hint: 12 tensors are equal after -e 'layers.{i}.attn.weight -> layers.{i}.attn.weight: transpose'" in ran.out.splitlines()
    found = json.loads(ckpt("diff", "base.pth", "square.pth", "--values", "--renames", "--json", cwd=folder).out)
    assert {(entry["kind"], entry["how"]) for entry in found["entries"]} == {("value", "transpose")}
    assert all(entry["max_abs"] > 0 for entry in found["entries"])


def test_equal_checkpoints_are_the_same(folder):
    ran = ckpt("diff", "base.pth", "base.pth", "--values", "--renames", cwd=folder)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "50 same: identical")


def test_json_has_both_names_confidence_and_evidence(folder):
    found = json.loads(ckpt("diff", "base.pth", "longer.pth", "--values", "--renames", "--json", cwd=folder).out)
    assert found["counts"] == {"same": 30, "value": 0, "dtype": 0, "shape": 0, "only_a": 0, "only_b": 4, "renamed": 20}
    (entry,) = [entry for entry in found["entries"] if entry["a"] and entry["a"]["key"] == "layers.7.attn.weight"]
    assert entry == {
        "kind": "renamed",
        "a": {"key": "layers.7.attn.weight", "dtype": "F32", "shape": [16, 16]},
        "b": {"key": "layers.8.attn.weight", "dtype": "F32", "shape": [16, 16]},
        "confidence": 1.0,
        "evidence": "equal values",
    }


def test_verbose_lists_every_renamed_key(folder):
    ran = ckpt("diff", "base.pth", "longer.pth", "--values", "--renames", "-v", cwd=folder)
    assert "> layers.7.mlp.weight → layers.8.mlp.weight" in lines(ran)


def test_a_key_may_be_renamed_and_its_name_be_new():
    a, b = catalog("x 2", "y 3"), catalog("x 3", "z 2")
    found = diff_renamed(a, b, {"x": Counterpart("z"), "y": Counterpart("x")})
    assert [(entry.kind, entry.a and entry.a.key, entry.b and entry.b.key) for entry in found.entries] == [
        ("renamed", "x", "z"),
        ("renamed", "y", "x"),
    ]
    assert found.counts["same"] == 0


def test_what_is_known_to_be_equal_is_not_compared():
    asked = []

    def compare(keys):
        asked.extend(keys)
        return [Values(2, 1, 0.5, 1.0, 1.0, 1.0) for _ in keys]

    a, b = catalog("x 2", "y 2", "w 2"), catalog("p 2", "q 2", "w 2")
    found = diff_renamed(a, b, {"x": Counterpart("p", is_equal=True), "y": Counterpart("q", 0.95)}, compare)
    assert asked == ["y", "w"]
    assert [(entry.kind, entry.values is not None) for entry in found.changes] == [("renamed", False), ("renamed", True), ("value", True)]


def test_renamed_groups_are_folded_by_their_names_also_where_some_values_differ(tmp_path):
    one = {f"layers.{i}.experts.{j}.{name}.weight": torch.randn(4, size) for i in range(6) for j in range(4) for name, size in (("up", 5), ("down", 7))}
    other = {f"model.{key}": value + (number % 7 == 0) for number, (key, value) in enumerate(one.items())}
    torch.save(one, tmp_path / "one.pth")
    torch.save(other, tmp_path / "other.pth")
    ran = ckpt("diff", "one.pth", "other.pth", "--values", "--renames", cwd=tmp_path)
    (line,) = [line for line in ran.out.splitlines() if line.startswith("  > ")]
    assert line.startswith("  > layers.** → model.layers.**  48  "), line
    assert "7 with other values, max |Δ| 1.0e+00, cosine " in line
    assert ran.out.splitlines()[-1] == "0 same, 48 renamed (7 with other values)"


@pytest.mark.parametrize("values", [[], ["--values"]])
@pytest.mark.parametrize("pattern", ["head.*", "lm_head.*"])
def test_a_filter_keeps_what_a_key_is_paired_with_on_the_other_side(folder, pattern, values):
    ran = ckpt("diff", "base.pth", "tuned.pth", "--renames", *values, "--filter", pattern, "--json", cwd=folder)
    [entry] = json.loads(ran.out)["entries"]
    assert (entry["kind"], entry["a"]["key"], entry["b"]["key"]) == ("renamed", "head.weight", "lm_head.weight")


BLOCK = [f"conv{i}.weight" for i in (1, 2, 3)] + [f"bn{i}.{name}" for i in (1, 2, 3) for name in ("weight", "bias")]


@pytest.mark.parametrize(
    ("moved", "others", "told"),
    [
        ({f"layer4.2.{key}": f"top.block.{key}" for key in BLOCK}, ["layer4.1.w"], ["layer4.2.** → top.block.**"]),
        ({f"enc.body.{key}": f"x.{key}" for key in BLOCK}, ["w"], ["enc.body.** → x.**"]),
        ({f"enc.{key}": f"x.y.{key}" for key in ("w", "b")}, ["enc.v"], ["enc.{w,b} → x.y.{w,b}"]),
        ({f"layers.{i}.{key}": f"top.{i + 1}.x.{key}" for i in range(3) for key in BLOCK}, ["layers.3.w"], ["layers.{0..2}.** → top.{1..3}.x.**"]),
        ({f"layers.{i}.{key}": f"top.b{i}.{key}" for i in range(3) for key in BLOCK}, ["w"], ["layers.{0..2}.** → top.b{0..2}.**"]),
        ({key: f"net.{key}" for key in BLOCK}, [], ["** → net.**"]),
        ({f"m.{key}": key for key in BLOCK}, [], ["m.** → **"]),
        ({f"l{i}_old": f"l{i}_new" for i in range(6)}, [], ["l{0..5}_old → l{0..5}_new"]),
        ({f"net.l{i}.a": f"net.l{i + 1}.b" for i in range(3)}, [], ["net.l{0..2}.a → net.l{1..3}.b"]),
    ],
)
def test_both_patterns_of_what_was_renamed_are_a_rule(tmp_path, moved, others, told):
    groups = pair_groups(moved, {}, [*moved, *others], [*moved.values(), *others])
    assert [f"{group.a} → {group.b}" for group in groups] == told
    source = catalog(*(f"{key} 2" for key in moved))
    plan = compile_plan(rules(tmp_path, f"rules: [{', '.join(json.dumps(line) for line in told)}]\n".replace("\\u2192", "->")), source)
    assert pairs(plan) == {other: (key,) for key, other in moved.items()}


def test_groups_are_folded_as_far_as_both_sides_allow():
    """Swin in timm and torchvision: one side keeps a buffer in each block that the other hasn't."""
    names = ["attn.table", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"]
    moved = {f"layers.0.blocks.{i}.{name}": f"features.1.{i}.{name}" for i in range(3) for name in names}
    others = [f"features.1.{i}.attn.index" for i in range(3)]
    groups = pair_groups(moved, {}, moved, [*moved.values(), *others])
    assert [f"{group.a} → {group.b}" for group in groups] == [
        "layers.0.blocks.{0..2}.attn.table → features.1.{0..2}.attn.table",
        "layers.0.blocks.{0..2}.attn.{qkv,proj}.* → features.1.{0..2}.attn.{qkv,proj}.*",
    ]


NAMES = st.lists(st.sampled_from(["a", "b", "w", "0", "1", "2", "n1", "n2"]), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(NAMES, NAMES, min_size=1, max_size=24), st.sets(NAMES, max_size=6), st.sets(NAMES, max_size=6))
def test_each_pattern_of_a_group_matches_its_keys_and_no_others(moved, more_a, more_b):
    moved = {key: other for other, key in {other: key for key, other in moved.items()}.items()}
    all_a, all_b = {*moved, *more_a}, {*moved.values(), *more_b}
    groups = pair_groups(moved, {}, all_a, all_b)
    assert sorted(key for group in groups for key in group.keys) == sorted(moved)
    for group in groups:
        assert {key for key in all_a if Matcher(parse(group.a)).match(key) is not None} == set(group.keys)
        if group.a != group.b:
            rule = read_rule_text(f"rules: [{json.dumps(f'{group.a} -> {group.b}')}]\n", "folded")
            made = compile_plan(rule, catalog(*(f"{key} 2" for key in group.keys)))
            assert pairs(made) == {moved[key]: (key,) for key in group.keys}
            assert {key for key in all_b if Matcher(parse(group.b)).match(key) is not None} == {moved[key] for key in group.keys}


@pytest.mark.parametrize(
    ("turned", "told"),
    [
        (["layers.7.attn.weight"], "1 tensor is equal after -e 'layers.7.attn.weight -> layers.7.attn.weight: transpose'"),
        (
            ["layers.7.attn.weight", "layers.8.attn.weight"],
            "2 tensors are equal after -e 'layers.{7..8}.attn.weight -> layers.{7..8}.attn.weight: transpose'",
        ),
        (
            ["layers.2.attn.weight", "emb.weight"],
            "2 tensors are equal after -e 'emb.weight -> emb.weight: transpose' -e 'layers.2.attn.weight -> layers.2.attn.weight: transpose'",
        ),
    ],
)
def test_the_rule_that_makes_tensors_equal_takes_no_others(folder, tmp_path, turned, told):
    state = torch.load(folder / "base.pth")
    torch.save({key: value.t().contiguous() if key in turned else value for key, value in state.items()}, tmp_path / "b.pth")
    ran = ckpt("diff", folder / "base.pth", "b.pth", "--values", "--renames", cwd=tmp_path)
    assert [line for line in ran.out.splitlines() if line.startswith("hint: ")] == [f"hint: {told}"]
    options = shlex.split(told.partition("after ")[2])
    done = ckpt("map", folder / "base.pth", "b.pth", *options, "-e", "** -> **", "-o", "out.pth", cwd=tmp_path)
    assert (done.status, done.err) == (0, done.err)
    assert ckpt("diff", "out.pth", "b.pth", "--values", cwd=tmp_path).status == 0


def test_tensors_that_no_few_patterns_name_are_named_without_a_rule(folder, tmp_path):
    state = torch.load(folder / "base.pth")
    names = ["emb.weight", "head.weight", *(f"x{i}.y{i}.{'abcdef'[i]}" for i in range(6))]
    state |= {name: torch.randn(6, 6) for name in names[2:]}
    torch.save(state, tmp_path / "a.pth")
    torch.save({key: value.t().contiguous() if key in names else value for key, value in state.items()}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", cwd=tmp_path)
    (hint,) = [line for line in ran.out.splitlines() if line.startswith("hint: ")]
    assert hint.startswith("hint: 8 tensors are equal after `transpose`: emb.weight, ")
    assert hint.endswith(" more")


def test_another_dtype_under_the_same_name_is_compared_with_renames_too(folder, tmp_path):
    state = torch.load(folder / "base.pth")
    torch.save({key.replace("layers.3", "top"): value.half() if key == "emb.weight" else value for key, value in state.items()}, tmp_path / "b.pth")
    found = [ckpt("diff", folder / "base.pth", "b.pth", "--values", *more, cwd=tmp_path).out.splitlines() for more in ((), ("--renames",))]
    assert found[0][3:5] == found[1][3:5]
    assert found[1][4].endswith("equal after a cast to F16")


def test_lines_of_a_filtered_diff_are_rules_for_the_whole_files(tmp_path):
    torch.manual_seed(0)
    source, target = {}, {}
    for i in range(3):
        for name in ("weight", "bias"):
            source[f"blk.{i}.q.{name}"] = value = torch.randn(4, 4) if name == "weight" else torch.randn(4)
            target[f"layers.{i}.query.{name}"] = value + 0.01
        source[f"blk.{i}.q.lora.down"] = value = torch.randn(4, 2)
        target[f"adapters.{i}.query.d"] = value.clone()
    torch.save(source, tmp_path / "f.pth")
    torch.save(target, tmp_path / "g.pth")
    for some in ([], ["--filter", "blk.*.q.*"]):
        assert "> blk.{0..2}.q.{weight,bias} → layers.{0..2}.query.{weight,bias}" in ckpt("diff", "f.pth", "g.pth", "--values", "--renames", *some, cwd=tmp_path).out


def test_a_cast_is_one_in_both_directions(tmp_path):
    state = {f"enc.{i}.{n}.weight": torch.randn(8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4) for n in ("q", "up")}
    torch.save(state, tmp_path / "a.pth")
    torch.save({key.replace("enc.", "trunk.layer."): tensor.half() for key, tensor in state.items()}, tmp_path / "b.pth")
    for sides in (("a.pth", "b.pth"), ("b.pth", "a.pth")):
        lines = ckpt("diff", *sides, "--values", "--renames", cwd=tmp_path).out.splitlines()
        assert "0 same, 8 renamed" in lines, "none has other values"
    assert any(line.endswith("equal after a cast to F16") for line in lines)


def test_the_way_on_keeps_that_values_are_compared(tmp_path):
    a = {f"l.{i}.w": torch.randn(8, 8) for i in range(3)}
    torch.save(a, tmp_path / "a.pth")
    torch.save({key: tensor + 1 for key, tensor in a.items()} | {"l.3.w": torch.randn(8, 8)}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", cwd=tmp_path)
    assert ran.err.splitlines()[-1] == "next: ckpt suggest a.pth b.pth --values"


@pytest.mark.parametrize("options", [["--values"], [], ["--include", "**"]])
def test_names_that_can_not_be_aligned_are_compared_as_they_are(tmp_path, options):
    names = ["".join(letters) for letters in product("abcdefghijklm", repeat=4)][:5000]
    for file, first, add in (("a.safetensors", "x", 0.0), ("b.safetensors", "y", 1.0)):
        tensors = {f"{first}{name}.w": torch.tensor([add + i]) for i, name in enumerate(names)}
        save_file({**tensors, "kept.w": torch.tensor([add])}, tmp_path / file)
    ran = ckpt("diff", "a.safetensors", "b.safetensors", "--renames", *options, cwd=tmp_path)
    assert ran.status == 1
    assert "note: renames were not looked for: the source and the target have more than 250,000 pairs of modules with the same shapes" in ran.out
    assert f"{'0 same, 1 differs' if '--values' in options else '1 same'}, 5,000 removed, 5,000 added" in ran.out.replace("1 differ,", "1 differs,")
    ran = ckpt("suggest", "a.safetensors", "b.safetensors", cwd=tmp_path)
    assert (ran.status, ran.err.rpartition("; ")[2]) == (2, "write rules, or try `--by position` of `ckpt plan`\n")


def counted(counts, seed, constant=0.0):
    """Layers with counters of batches, and vectors that are the same number everywhere."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for i, count in enumerate(counts):
        found |= {f"l{i}.conv.weight": torch.randn(8, 8, generator=generator), f"l{i}.bn.weight": torch.randn(8, generator=generator)}
        found |= {f"l{i}.bn.num_batches_tracked": torch.tensor(count), f"l{i}.bn.bias": torch.full((8,), constant + count), f"l{i}.scale": torch.tensor(float(count))}
    return found


def test_counters_and_constants_are_not_renamed_for_their_values(tmp_path):
    torch.save(counted([10, 20, 30, 40], 0), tmp_path / "a.pth")
    torch.save(counted([20, 30, 40, 50], 1), tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", cwd=tmp_path)
    assert "0 same, 20 differ" in ran.out.splitlines()


def test_counters_move_with_their_modules(tmp_path):
    one = counted([10, 20, 30, 40], 0)
    moved = {f"l{(int(key[1]) + 1) % 4}{key[2:]}": tensor for key, tensor in one.items()}
    torch.save(one, tmp_path / "a.pth")
    torch.save(moved, tmp_path / "b.pth")
    found = json.loads(ckpt("diff", "a.pth", "b.pth", "--values", "--renames", "--json", "-v", cwd=tmp_path).out)
    renamed = {entry["a"]["key"] for entry in found["entries"] if entry["kind"] == "renamed"}
    assert renamed == {key for key in one if not key.endswith("scale")}


def test_averaged_weights_are_renamed_as_the_weights_are(tmp_path):
    body = {f"body.{i}.{name}": torch.randn(4, 4) for i in range(3) for name in ("weight", "bias")} | {"head.weight": torch.randn(3, 4)}
    ema = {key: tensor * 0.5 for key, tensor in body.items()}
    new = lambda state: {key.replace("body.", "trunk.").replace("head.", "cls."): tensor for key, tensor in state.items()}  # noqa: E731
    torch.save({"model": body, "ema": {"shadow": ema}, "epoch": 3}, tmp_path / "a.pth")
    torch.save({"model": new(body), "ema": {"shadow": new(ema)}, "epoch": 3}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", cwd=tmp_path)
    assert "  > ema.shadow.body.** → ema.shadow.trunk.**" in ran.out
    assert "0 same, 7 renamed; 7 renamed outside the state dict" in ran.out.splitlines()
    torch.save({"model": new(body), "ema": {"shadow": new({**ema, "body.1.bias": body["body.1.bias"]})}, "epoch": 3}, tmp_path / "c.pth")
    ran = ckpt("diff", "a.pth", "c.pth", "--values", "--renames", cwd=tmp_path)
    assert any("1 with other values" in line and line.endswith("worst: ema.shadow.body.1.bias") for line in lines(ran))
    assert ckpt("diff", "a.pth", "b.pth", "--renames", cwd=tmp_path).out.count("renamed outside the state dict") == 1
