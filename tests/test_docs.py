"""What README and docs show is true: the rule files of docs/rules.md work, the commands of the README exist."""

import re
from pathlib import Path

import pytest
from literals import catalog, pairs, rules

from ckpt_tool.mapping import compile_plan

ROOT = Path(__file__).parent.parent
TEXTS = "".join((ROOT / "docs" / name).read_text() for name in ("rules.md", "cookbook.md"))
EXAMPLES = dict(re.findall(r"```yaml\n# example: (\w+)\n(.*?)```", TEXTS, re.DOTALL))

CASES = {
    "prefix": (
        ["module.backbone.a.w 2", "module.head.w 2"],
        ["encoder.a.w 2", "decoder.w 2"],
        {"encoder.a.w": ("module.backbone.a.w",)},
    ),
    "layers": (
        ["patch_embed.proj.bias 4", "blocks.3.norm1.bias 4", "blocks.3.norm2.bias 4", "blocks.3.mlp.fc1.bias 4", "blocks.3.mlp.fc2.bias 4"],
        None,
        {
            "encoder.layer.3.layernorm_before.bias": ("blocks.3.norm1.bias",),
            "encoder.layer.3.layernorm_after.bias": ("blocks.3.norm2.bias",),
            "encoder.layer.3.mlp.0.bias": ("blocks.3.mlp.fc1.bias",),
            "encoder.layer.3.mlp.2.bias": ("blocks.3.mlp.fc2.bias",),
            "embeddings.projection.bias": ("patch_embed.proj.bias",),
        },
    ),
    "ops": (
        [
            "blocks.0.qkv.bias 6",
            "h.0.c_attn.weight 3x4",
            "wq.weight 8x2",
            *(f"experts.{e}.{w}.weight 2x3" for e in (0, 1) for w in ("w1", "w3")),
        ],
        None,
        {
            **{f"layer.0.{part}.bias": ("blocks.0.qkv.bias",) for part in "qkv"},
            "h.0.proj.weight": ("h.0.c_attn.weight",),
            "q_proj.weight": ("wq.weight",),
            "experts.gate_up_proj": tuple(f"experts.{e}.{w}.weight" for e in (0, 1) for w in ("w1", "w3")),
        },
    ),
    "each": (
        ["blocks.0.wqkv.weight 12x2", "attn.q_bias 4", "attn.v_bias 4"],
        None,
        {**{f"layers.0.{part}_proj.weight": ("blocks.0.wqkv.weight",) for part in "qkv"}, "attn.qkv.bias": ("attn.q_bias", "attn.v_bias")},
    ),
    "init": (
        ["w 2"],
        ["w 2", "blocks.0.scale 3", "blocks.1.scale 3", "position_ids 1x8 I64"],
        {"w": ("w",), "blocks.0.scale": (), "blocks.1.scale": (), "position_ids": ()},
    ),
    "also": (
        ["cls_token 1x1x4", "pos_embed 1x5x4"],
        ["cls_token 1x1x4", "pos_embed 1x4x4"],
        {"pos_embed": ("pos_embed",), "cls_token": ("cls_token", "pos_embed")},
    ),
    "stages": (
        ["blocks.0.w 2", "blocks.1.w 2", "blocks.2.w 2"],
        ["stages.0.blocks.0.w 2", "stages.1.blocks.0.w 2", "stages.1.blocks.1.w 2"],
        {"stages.0.blocks.0.w": ("blocks.0.w",), "stages.1.blocks.0.w": ("blocks.1.w",), "stages.1.blocks.1.w": ("blocks.2.w",)},
    ),
    "strip": (["module._orig_mod.a.w 2"], ["a.w 2"], {"a.w": ("module._orig_mod.a.w",)}),
    "classes": (["fc.weight 1000x4", "layer1.w 2"], ["fc.weight 10x4", "layer1.w 2"], {"layer1.w": ("layer1.w",)}),
    "image": (
        ["pos_embed 1x197x4", "a.relative_position_bias_table 169x3", "patch_embed.proj.weight 4x3x16x16"],
        ["pos_embed 1x577x4", "a.relative_position_bias_table 529x3", "patch_embed.proj.weight 4x3x14x14"],
        {key: (key,) for key in ("pos_embed", "a.relative_position_bias_table", "patch_embed.proj.weight")},
    ),
    "vit": (
        ["pos_embed 1x197x4", "head.weight 1000x4", "head.bias 1000", "norm.weight 4"],
        ["pos_embed 1x577x4", "head.weight 10x4", "head.bias 10", "norm.weight 4"],
        {key: (key,) for key in ("pos_embed", "norm.weight")},
    ),
    "own": (
        ["cls_token 1x1x4", "pos_embed 1x197x4", "blocks.0.norm1.weight 4", "head.weight 1000x4", "head.bias 1000"],
        ["cls 1x1x4", "pos 1x577x4", "encoder.0.ln1.weight 4", "classifier.weight 10x4", "classifier.bias 10"],
        {"cls": ("cls_token",), "pos": ("pos_embed",), "encoder.0.ln1.weight": ("blocks.0.norm1.weight",)},
    ),
    "qkv": (
        ["blocks.0.attn.qkv.bias 6", "blocks.0.attn.proj.bias 2"],
        None,
        {
            **{f"layer.0.attention.{part}.bias": ("blocks.0.attn.qkv.bias",) for part in ("query", "key", "value")},
            "layer.0.attention.dense.bias": ("blocks.0.attn.proj.bias",),
        },
    ),
    "heads": (["h.0.query_key_value.weight 12x4"], None, {f"h.0.{part}_proj.weight": ("h.0.query_key_value.weight",) for part in "qkv"}),
    "rotary": (
        ["layers.0.wq.weight 8x4", "layers.0.wk.weight 4x4", "layers.0.wv.weight 4x4"],
        None,
        {f"layers.0.{part}_proj.weight": (f"layers.0.w{part}.weight",) for part in "qkv"},
    ),
    "experts": (
        [f"layers.0.mlp.experts.{e}.{part}_proj.weight 2x2" for e in (0, 1) for part in ("gate", "up", "down")] + ["layers.0.norm 2"],
        None,
        {
            "layers.0.mlp.experts.gate_up_proj": tuple(f"layers.0.mlp.experts.{e}.{part}_proj.weight" for e in (0, 1) for part in ("gate", "up")),
            "layers.0.mlp.experts.down_proj": tuple(f"layers.0.mlp.experts.{e}.down_proj.weight" for e in (0, 1)),
            "layers.0.norm": ("layers.0.norm",),
        },
    ),
    "tied": (
        ["embed.weight 8x2", "layers.0.w 2"],
        ["embed.weight 8x2", "lm_head.weight 8x2", "layers.0.w 2"],
        {"embed.weight": ("embed.weight",), "lm_head.weight": ("embed.weight",), "layers.0.w": ("layers.0.w",)},
    ),
    "towers": (
        ["visual.a.w 2"],
        ["left.a.w 2", "right.a.w 2", "fusion.w 3"],
        {"left.a.w": ("visual.a.w",), "right.a.w": ("visual.a.w",)},
    ),
    "old": (
        ["a.LayerNorm.gamma 2", "a.LayerNorm.beta 2", "a.position_ids 1x4 I64", "b.w 2"],
        ["a.LayerNorm.weight 2", "a.LayerNorm.bias 2", "b.w 2"],
        {"a.LayerNorm.weight": ("a.LayerNorm.gamma",), "a.LayerNorm.bias": ("a.LayerNorm.beta",), "b.w": ("b.w",)},
    ),
    "layouts": (
        ["body.x 2", "fc.w 3", "patch.weight 4x3x1x1"],
        ["net.x 2", "classifier.w 3", "patch.linear.weight 4x3"],
        {"net.x": ("body.x",), "classifier.w": ("fc.w",), "patch.linear.weight": ("patch.weight",)},
    ),
    "fit": (
        ["head.weight 1000x4", "pos_embed 1x197x4", "patch_embed.weight 4x3x16x16", "aux.w 3"],
        ["head.weight 10x4", "pos_embed 1x577x4", "patch_embed.weight 4x1x16x16", "aux.w 4"],
        {key: (key,) for key in ("head.weight", "pos_embed", "patch_embed.weight")},
    ),
    "oblong": (["pos_embed 1x197x4"], ["pos_embed 1x393x4"], {"pos_embed": ("pos_embed",)}),
    "copy": (["shared.weight 2"], None, {"encoder.embed.weight": ("shared.weight",), "decoder.embed.weight": ("shared.weight",)}),
    "swap": (["left.a 2", "right.a 2"], ["left.a 2", "right.a 2"], {"right.a": ("left.a",), "left.a": ("right.a",)}),
    "tables": (
        ["h.0.ln_1.w 2", "h.2.mlp.c_proj.w 2", "layer_scale 3"],
        None,
        {"blocks.2.norm1.w": ("h.0.ln_1.w",), "blocks.0.mlp.fc2.w": ("h.2.mlp.c_proj.w",), "scale": ("layer_scale",)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_example_of_the_rule_docs_does_what_it_says(tmp_path, name):
    source, target, expected = CASES[name]
    params = {number: 2 for number in ("heads", "kv_heads") if f"{number}:" in EXAMPLES[name]}
    plan = compile_plan(rules(tmp_path, EXAMPLES[name]), catalog(*source), catalog(*target) if target else None, params)
    assert pairs(plan) == expected


def test_every_example_is_tried():
    assert set(EXAMPLES) == {*CASES, "job"}


def test_the_whole_job_of_the_rule_docs_runs(story, tmp_path):
    import shutil

    from running import ckpt

    for name in ("resnet50.pth", "detector.pth"):
        shutil.copy(story / name, tmp_path)
    (tmp_path / "job.yaml").write_text(EXAMPLES["job"])
    assert ckpt("map", "--rules", "job.yaml", cwd=tmp_path).status == 0


def test_the_rules_of_the_readme_are_those_of_the_story(story, tmp_path):
    from running import ckpt

    (tmp_path / "rules.yaml").write_text(re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1])
    ran = ckpt("check", tmp_path / "rules.yaml", "resnet50.pth", "detector.pth", cwd=story)
    assert (ran.status, "5 rules, 0 tests: sound" in ran.out) == (0, True)


def picture(name, command):
    """What a text shows under `$ command`."""
    text = (ROOT / name).read_text()
    return re.search(rf"```\n\$ {re.escape(command)}\n(.*?)```", text, re.DOTALL)[1]


def test_the_draft_of_docs_align_is_what_is_printed(tmp_path):
    from running import ckpt

    for stem, file, head in (("layers", "small", "head.weight F32 5x8"), ("blocks", "other", "classifier.weight F32 3x8")):
        parts = ("fc1.weight F32 32x8", "fc2.weight F32 8x32", "norm.weight F32 8", "norm.bias F32 8")
        lines = [*(f"{stem}.{i}.{part}" for i in range(2) for part in parts), head]
        (tmp_path / f"{file}.txt").write_text("".join("\t".join(line.split()) + "\n" for line in lines))
    ran = ckpt("suggest", "small.txt", "other.txt", cwd=tmp_path)
    assert ran.out == picture("docs/align.md", "ckpt suggest small.txt other.txt")


def test_the_hint_of_docs_align_settles_a_matrix_in_all_blocks():
    from ckpt_tool.align import align

    hint = picture("docs/align.md", "ckpt suggest ours.txt theirs.txt --hint 'layers.0.attn.q_proj.weight -> trunk.0.mix.a.weight'")
    assert hint == ""
    ours = catalog(*(f"layers.{i}.attn.{name}_proj.weight 8x8" for i in range(3) for name in "qkvo"))
    theirs = catalog(*(f"trunk.{i}.mix.{name}.weight 8x8" for i in range(3) for name in "abcd"))
    found = align(ours, theirs, [("layers.0.attn.q_proj.weight", "trunk.0.mix.a.weight")]).at_least(0.9)
    assert {pair.targets: pair.sources for pair in found} == {
        ((f"trunk.{i}.mix.a.weight",),): ((f"layers.{i}.attn.q_proj.weight",),) for i in range(3)
    }


@pytest.mark.parametrize("name", ["diff", "problem", "plan", "suggest"])
def test_the_pictures_show_what_is_printed(story, tmp_path, name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "pictures")
    from terminal import draw

    for file in ("resnet50.pth", "detector.pth"):
        (tmp_path / file).symlink_to(story / file)
    assert draw(name, tmp_path) == (ROOT / "docs" / "pictures" / f"{name}.svg").read_text()
    assert f"pictures/{name}.svg" in (ROOT / "docs" / "resnet50.md").read_text()


def test_commands_and_options_that_the_readme_names_exist():
    from running import ckpt

    readme = (ROOT / "README.md").read_text()
    for command in sorted(set(re.findall(r"`?ckpt (\w+) ", readme))):
        usage = ckpt(command, "--help")
        assert usage.status == 0, command
    options = "".join(ckpt(command, "--help").out for command in ("map", "diff", "show", "plan", "check", "mappings", "suggest", "trace", "verify"))
    options += "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    names = ("align", "checkpoints", "compare", "cookbook", "rules", "trace", "training")
    texts = readme + "".join((ROOT / "docs" / f"{name}.md").read_text() for name in names)
    texts = re.sub(r"```\npython3.*?```|`(sha256sum|python benchmarks|torchrun)[^`]*`", "", texts, flags=re.DOTALL)
    for option in sorted(set(re.findall(r"(?<![-\w])--[a-z][a-z-]*", texts))):
        assert option in options, option


def test_the_package_names_no_private_place():
    for path in ROOT.glob("**/*.md"):
        if ".venv" not in path.parts:
            assert not re.search(r"(?<![\w.])/(work|root|home)/", path.read_text()), path
