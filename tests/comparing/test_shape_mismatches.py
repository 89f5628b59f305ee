"""What a diff says of tensors that don't fit, and that it helps: each hint is applied."""

import re

import pytest
import torch
from running import ckpt

from ckpt_tool.formats import open_checkpoint
from ckpt_tool.mapping.accounting.shape_mismatches import fit_for, fit_of
from ckpt_tool.tensors import Catalog, DType, TensorInfo


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A = {
    "conv1.weight": seeded(8, 3, 3, 3),
    "pos_embed": seeded(1, 17, 8, seed=1),
    "blocks.0.rel_pos_bias_table": seeded(49, 2, seed=2),
    "blocks.0.weight": seeded(8, 8, seed=3),
    "embed.weight": seeded(9, 8, seed=6),
    "fc.weight": seeded(10, 8, seed=4),
    "fc.bias": seeded(10, seed=5),
}
CASES = [
    ("classes", {"fc.weight": seeded(4, 8), "fc.bias": seeded(4)}, "another number of classes"),
    ("image size", {"pos_embed": seeded(1, 37, 8)}, "another image size"),
    ("window", {"blocks.0.rel_pos_bias_table": seeded(169, 2)}, "another window"),
    ("channels", {"conv1.weight": seeded(8, 1, 3, 3)}, "another number of input channels"),
    ("patches", {"conv1.weight": seeded(8, 3, 4, 4)}, "another patch size"),
    ("several", {"fc.weight": seeded(12, 8), "fc.bias": seeded(12), "pos_embed": seeded(1, 37, 8)},
     "another image size, another number of classes"),
    ("words", {"embed.weight": seeded(12, 8)}, "another number of words"),
    ("with new keys", {"fc.weight": seeded(4, 8), "fc.bias": seeded(4), "neck.weight": seeded(3)}, "another number of classes"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_rule_file_of_the_hint_adapts_the_shapes(tmp_path, changed, reason):
    torch.save(A, tmp_path / "a.pth")
    torch.save(A | changed, tmp_path / "b.pth")
    (hint,) = [line for line in ckpt("diff", "a.pth", "b.pth", cwd=tmp_path).out.splitlines() if line.startswith("hint:")]
    assert hint.startswith(f"hint: {reason}? a rule file that adapts a to b: {{rules: ")
    (tmp_path / "rules.yaml").write_text(hint.partition(" a to b: ")[2])
    ran = ckpt("map", "a.pth", "b.pth", "-r", "rules.yaml", "-o", "c.pth", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, ran.err)
    assert ckpt("diff", "b.pth", "c.pth", cwd=tmp_path).status == 0
    with open_checkpoint(str(tmp_path / "c.pth")) as made:
        assert torch.equal(made.read("blocks.0.weight"), (A | changed)["blocks.0.weight"])
        if "fc.weight" in changed:
            assert torch.equal(made.read("fc.weight"), changed["fc.weight"]), "old classes mean nothing here"
        if "embed.weight" in changed:
            assert torch.equal(made.read("embed.weight"), torch.cat([A["embed.weight"], changed["embed.weight"][9:]]))


def test_no_rule_file_of_equal_names_is_proposed_where_tensors_are_renamed(tmp_path):
    torch.save(A, tmp_path / "a.pth")
    changed = A | {"fc.weight": seeded(4, 8), "fc.bias": seeded(4)}
    torch.save({key.replace("blocks.", "trunk."): tensor for key, tensor in changed.items()}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--renames", cwd=tmp_path)
    assert "renamed" in ran.out.splitlines()[-1]
    assert "adapts a to b" not in ran.out


def test_a_grid_that_is_no_square_asks_for_its_sides(tmp_path):
    torch.save(A, tmp_path / "a.pth")
    torch.save(A | {"pos_embed": seeded(1, 33, 8)}, tmp_path / "b.pth")
    ran = ckpt("map", "a.pth", "b.pth", "-o", "c.pth", cwd=tmp_path)
    line = "fit: [{pos_embed: {resize_grid: {new_grid: [ROWS, COLUMNS]}}}]"
    assert f"another image size? `{line}` in a rule file adapts it; 32 patches are no square" in ran.err
    (tmp_path / "rules.yaml").write_text('rules: ["** -> **"]\n' + line.replace("ROWS, COLUMNS", "4, 8"))
    assert ckpt("map", "a.pth", "b.pth", "-r", "rules.yaml", "-o", "c.pth", cwd=tmp_path).status == 0


NO_HINT = [
    ("something that nothing adapts", {"fc.bias": seeded(4), "blocks.0.weight": seeded(3, 5, 7)}, {}),
    ("what may be renamed", {"fc.weight": seeded(4, 8), "fc.bias": seeded(4), "neck.weight": seeded(3)}, {"nick.weight": seeded(3)}),
]


@pytest.mark.parametrize(("changed", "more"), [case[1:] for case in NO_HINT], ids=[case[0] for case in NO_HINT])
def test_no_rule_file_is_proposed_where_it_would_keep_fresh_what_is_no_head(tmp_path, changed, more):
    torch.save(A | more, tmp_path / "a.pth")
    torch.save(A | changed, tmp_path / "b.pth")
    assert "rule file" not in ckpt("diff", "a.pth", "b.pth", cwd=tmp_path).out


MIDDLE = {"conv.weight": seeded(8, 3, 3, 3), "mid.weight": seeded(8, 8), "last.weight": seeded(10, 8), "last.bias": seeded(10)}


def test_a_layer_in_the_middle_is_no_head(tmp_path):
    torch.save(MIDDLE, tmp_path / "a.pth")
    for name, changed in (("middle", {"mid.weight": seeded(16, 8)}), ("last", {"last.weight": seeded(3, 8), "last.bias": seeded(3)})):
        torch.save(MIDDLE | changed, tmp_path / f"{name}.pth")
    torch.save(MIDDLE | {"mid.weight": seeded(16, 8), "last.weight": seeded(3, 8), "last.bias": seeded(3)}, tmp_path / "both.pth")
    for name, hints in (("middle", 0), ("last", 1), ("both", 0)):
        assert ckpt("diff", "a.pth", f"{name}.pth", cwd=tmp_path).out.count("classes") == hints
    for command in (("suggest", "a.pth", "both.pth"), ("map", "a.pth", "both.pth", "-o", "c.pth")):
        ran = ckpt(*command, cwd=tmp_path)
        assert '`fit: [{"last.weight": fresh}]`' in ran.out + ran.err
        assert '{"mid.weight": fresh}' not in ran.out + ran.err


@pytest.mark.parametrize("options", [["--filter", "fc.*"], ["--exclude", "{conv1,blocks.0,embed}.*"]])
def test_what_is_proposed_for_some_keys_is_right_for_the_whole_files(tmp_path, options):
    torch.save({key: value for key, value in A.items() if "." in key}, tmp_path / "a.pth")
    torch.save({key: value for key, value in A.items() if "." in key} | {"fc.weight": seeded(4, 8), "fc.bias": seeded(4)}, tmp_path / "b.pth")
    (hint,) = [line for line in ckpt("diff", "a.pth", "b.pth", *options, cwd=tmp_path).out.splitlines() if line.startswith("hint:")]
    assert hint.endswith('{rules: ["** -> **"], fit: [{"fc.*": fresh}]}')


def test_a_rule_for_some_keys_takes_none_of_the_others(tmp_path):
    state = {f"{part}.{i}.w": seeded(4, 4, seed=i + 5 * (part == "a")) for part in "ab" for i in range(4)}
    torch.save(state, tmp_path / "a.pth")
    torch.save({key: value.t().contiguous() if key[0] == "a" else value for key, value in state.items()}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", "--filter", "a.**", cwd=tmp_path)
    assert "hint: 4 tensors are equal after -e 'a.{i}.w -> a.{i}.w: transpose'" in ran.out.splitlines()


def test_a_checkpoint_that_was_loaded_in_part_is_noticed(tmp_path):
    names = [f"layer{i}.{j}.weight" for i in (1, 2, 3) for j in range(4)]
    pretrained = {name: seeded(40, 40, seed=i) for i, name in enumerate(names)}
    loaded = {name: seeded(40, 40, seed=100 + i) if name.startswith("layer3") else pretrained[name] for i, name in enumerate(names)}
    torch.save(pretrained, tmp_path / "a.pth")
    torch.save(loaded, tmp_path / "b.pth")
    out = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out
    hint = "hint: loaded in part? 8 tensors of floating-point numbers are equal, but 4 of 1,000 or more have nothing in common (|cosine| below 0.1): layer3.**"
    assert hint in out.splitlines()
    rule = f"{hint.split()[-1]} -> {hint.split()[-1]}"
    assert (
        ckpt("map", "a.pth", "b.pth", "-e", rule, "--keep", "layer{1,2}.**", "--drop", "layer{1,2}.**", "-o", "c.pth", cwd=tmp_path).status
        == 0
    )
    assert ckpt("diff", "a.pth", "c.pth", "--values", cwd=tmp_path).status == 0


def test_counters_and_norms_that_unrelated_networks_share_are_no_part_that_was_loaded(tmp_path):
    for side in (0, 1):
        state = {f"l{i}.weight": seeded(64, 64, seed=i + 10 * side) for i in range(3)}
        for i in range(3):
            state |= {f"n{i}.num_batches_tracked": torch.tensor(100), f"n{i}.index": torch.arange(4).view(2, 2), f"n{i}.weight": torch.ones(64)}
        torch.save(state, tmp_path / f"{'ab'[side]}.pth")
    assert "loaded in part" not in ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out


def test_a_fine_tuned_checkpoint_is_not_called_loaded_in_part(tmp_path):
    names = [f"layer{i}.weight" for i in range(6)]
    torch.save({name: seeded(40, 40, seed=i) for i, name in enumerate(names)}, tmp_path / "a.pth")
    tuned = {name: seeded(40, 40, seed=i) + (1e-2 * seeded(40, 40, seed=9) if i > 2 else 0) for i, name in enumerate(names)}
    torch.save(tuned, tmp_path / "b.pth")
    assert "hint" not in ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out


def test_the_problem_of_a_rule_names_the_fit(tmp_path):
    torch.save(A, tmp_path / "a.pth")
    torch.save(A | {"fc.bias": seeded(4)}, tmp_path / "b.pth")
    ran = ckpt("map", "a.pth", "b.pth", "-e", "** -> **", "-o", "c.pth", cwd=tmp_path)
    assert ran.status == 1
    note = "another number of classes? `fit: [{\"fc.bias\": fresh}]` in a rule file keeps the target's"
    assert note in ran.out + ran.err
    fit = re.search(r"`(fit: .*)`", ran.out + ran.err)[1]
    (tmp_path / "rules.yaml").write_text(f'rules: ["** -> **"]\n{fit}\n')
    assert ckpt("map", "a.pth", "b.pth", "-r", "rules.yaml", "-o", "c.pth", cwd=tmp_path).status == 0


def network(*shapes):
    return Catalog([TensorInfo(key, DType.F32, shape) for key, shape in shapes])


PATCHES = network(("vision.embeddings.patch_embedding.weight", (64, 3, 16, 16)), ("vision.embeddings.position_embedding.weight", (197, 64)))


def test_what_nothing_adapts_has_no_fit():
    assert fit_for("head.weight", (10, 8), (10, 9), PATCHES) is None
    assert fit_for("vision.embeddings.position_embedding.weight", (17, 8), (18, 8), PATCHES) is None
    assert fit_for("layer1.mix.weight", (8, 3, 3, 3), (8, 4, 3, 3), PATCHES) is None


@pytest.mark.parametrize("key", [
    "text.embeddings.position_embedding.weight", "encoder.embed_positions.weight", "wpe.weight", "pos_emb", "query_embed.weight",
    "blocks.0.attn.rel_pos_h", "positional_embedding",
])  # fmt: skip
@pytest.mark.parametrize("sizes", [(256, 1024), (77, 128), (297, 101), (25, 49), (145, 257), (1500, 3000)])
def test_tables_along_one_axis_are_no_grids_and_no_words(key, sizes):
    source, target = ((size, 64) for size in sizes)
    around = network(*((other, info.shape) for other, info in PATCHES.items()), (key, target)) if "." in key else network((key, target))
    assert fit_of(key, source, target, around) is None


def test_tables_beside_patches_are_grids():
    key = "vision.embeddings.position_embedding.weight"
    assert fit_of(key, (197, 64), (577, 64), PATCHES) == "resize_grid"
    assert fit_of(key, (197, 64), (200, 64), PATCHES) == {"resize_grid": {"prefix": 1, "new_prefix": 4}}
    assert fit_of("attn.relative_position_bias_table", (732, 12), (2212, 12), PATCHES) == {"resize_bias": {"extra": 3}}
    assert fit_of("attn.relative_position_bias_table", (169, 4), (529, 4), PATCHES) == "resize_bias"
