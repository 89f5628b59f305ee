"""`ckpt suggest` and `--by auto` as a user meets them: what is printed, written and refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from running import ckpt

from ckpt_tool import (
    MappingOptions,
    RuleError,
    load_into,
)
from ckpt_tool.api import map_checkpoint, plan_checkpoint
from ckpt_tool.formats import open_checkpoint

MISFIT = (
    "same place, another shape: head.weight -> classifier.weight, 5×8 and 3×8; another number of classes? "
    "then `drop:` and `keep:` are right\n"
)
SMALL = f"""\
# Drafted from names and shapes; a comment tells how sure each rule is. Read them before use.
rules:
  # 0.99, 8 tensors: the same name behind `layers.` and `blocks.`
  - layers.{{i}}.** -> blocks.{{i}}.**
drop:  # the target has no place for these
  - head.weight
keep:  # the source has nothing for these
  - classifier.weight
# {MISFIT}"""


def key_list(path, *lines):
    path.write_text("".join("\t".join(line.split()) + "\n" for line in lines))
    return path


def small(folder, stem, head, names=("fc1", "fc2")):
    shapes = zip(names, ("32x8", "8x32"), strict=True)
    found = [f"{stem}.{i}.{name}.weight F32 {shape}" for i, (name, shape) in [(i, each) for each in list(shapes) for i in range(2)]]
    return key_list(
        folder / f"{stem}.txt", *found, *(f"{stem}.{i}.norm.{leaf} F32 8" for i in range(2) for leaf in ("weight", "bias")), head
    )


@pytest.fixture
def pair(tmp_path):
    return small(tmp_path, "layers", "head.weight F32 5x8"), small(tmp_path, "blocks", "classifier.weight F32 3x8")


def test_rules_are_printed_with_comments(pair, tmp_path):
    ran = ckpt("suggest", *pair)
    assert ran.out == SMALL
    counts = "8 mapped by 1 rule, 1 of another shape\n"
    assert ran.err == f"{MISFIT}{counts}next: ckpt suggest {pair[0]} {pair[1]} -o rules.yaml\n"
    assert ran.status == 0


def test_the_printed_rules_are_a_rule_file_that_plans_the_same(pair, tmp_path):
    (tmp_path / "rules.yaml").write_text(ckpt("suggest", *pair).out)
    plan_checkpoint = json.loads(ckpt("plan", *pair, "--rules", "rules.yaml", "--json", cwd=tmp_path).out)
    assert plan_checkpoint["counts"] == {"mapped": 8, "kept": 1, "dropped": 1}


def test_json_is_the_contract(pair):
    found = json.loads(ckpt("suggest", *pair, "--json").out)
    assert {"schema", "source", "target", "pairs", "ambiguous", "fresh", "unused", "rules"} <= found.keys()
    assert found["schema"] == 1
    assert found["fresh"] == ["classifier.weight"]
    assert found["unused"] == ["head.weight"]
    assert found["rules"] == SMALL
    assert found["ambiguous"] == []
    assert found["misfits"] == [{"source": "head.weight", "target": "classifier.weight"}]
    assert len(found["pairs"]) == 8
    assert found["pairs"][0] == {
        "sources": ["layers.0.fc1.weight"], "targets": ["blocks.0.fc1.weight"], "ops": [], "confidence": 0.99,
        "evidence": found["pairs"][0]["evidence"],
    }  # fmt: skip


def test_rules_go_to_a_file_that_is_not_overwritten(pair, tmp_path):
    path = tmp_path / "out.yaml"
    first = ckpt("suggest", *pair, "-o", path)
    assert (first.status, first.out, path.read_text()) == (0, "", SMALL)
    path.write_text("mine")
    again = ckpt("suggest", *pair, "-o", path)
    assert again.status == 2
    assert str(path) in again.err
    assert path.read_text() == "mine"
    assert ckpt("suggest", *pair, "-o", path, "--force").status == 0
    assert path.read_text() == SMALL


def opaque(folder):
    ours = [f"layers.{i}.attn.{name}_proj.weight F32 8x8" for i in range(2) for name in "qkvo"]
    theirs = [f"trunk.{i}.mix.{name}.weight F32 8x8" for i in range(2) for name in "abcd"]
    norms = [[f"{stem}.{i}.norm.weight F32 8" for i in range(2)] for stem in ("layers", "trunk")]
    return key_list(folder / "ours.txt", *ours, *norms[0]), key_list(folder / "theirs.txt", *theirs, *norms[1])


def test_what_nobody_could_know_is_said_with_a_hint_to_paste(tmp_path):
    ran = ckpt("suggest", *opaque(tmp_path))
    assert ran.status == 1
    hint = next(line for line in ran.err.splitlines() if line.startswith("hint: --hint "))
    source, target = hint.removeprefix("hint: --hint ").strip("'").split(" -> ")
    assert source.startswith("layers.")
    assert target.startswith("trunk.")
    assert "# ambiguous:" in ran.out


def test_hints_settle_what_is_ambiguous(tmp_path):
    said = [f"layers.0.attn.{ours}_proj.weight -> trunk.0.mix.{theirs}.weight" for ours, theirs in zip("qkvo", "abcd", strict=True)]
    # With the arrow that reports print, too.
    said = [*said[:-1], said[-1].replace("->", "→")]
    ran = ckpt("suggest", *opaque(tmp_path), *(word for hint in said for word in ("--hint", hint)))
    assert (ran.status, "ambiguous" in ran.out + ran.err) == (0, False)
    assert ran.err.startswith("10 mapped")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hint", "nope"], "--hint: `nope` is not 'SOURCE KEY -> TARGET KEY'"),
        (["--hint", "nope -> blocks.0.fc1.weight"], "--hint: `nope` is no key of the source"),
        (["--hint", "layers.0.fc1.weight -> nope"], "--hint: `nope` is no key of the target"),
        (["--min-confidence", "2"], "--min-confidence"),
    ],
)
def test_what_makes_no_sense_is_an_error_of_one_line(pair, arguments, message):
    ran = ckpt("suggest", *pair, *arguments)
    assert ran.status == 2
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_file_that_is_not_there_is_an_error(pair, tmp_path):
    assert ckpt("suggest", tmp_path / "nothing.pth", pair[1]).status == 2


def test_where_nothing_pairs_the_answer_is_no(tmp_path):
    a, b = key_list(tmp_path / "a.txt", "x.weight F32 2x3"), key_list(tmp_path / "b.txt", "y.weight F32 5x7")
    assert ckpt("suggest", a, b).status == 1
    ran = ckpt("plan", a, b, "--by", "auto")
    assert ran.status == 1
    assert "nothing aligns with a confidence of 0.9" in ran.err + ran.out


def rotary(folder):
    shapes = {"q": "8x8", "k": "4x8", "v": "4x8", "o": "8x8"}
    ours = [f"model.layers.{i}.self_attn.{name}_proj.weight F32 {shape}" for i in range(2) for name, shape in shapes.items()]
    theirs = [f"layers.{i}.attention.w{name}.weight F32 {shape}" for i in range(2) for name, shape in shapes.items()]
    head = ["tok_embeddings.weight F32 50x8"], ["model.embed_tokens.weight F32 50x8"]
    return key_list(folder / "meta.txt", *theirs, *head[0]), key_list(folder / "hf.txt", *ours, *head[1])


def drafted_json(*sides):
    return json.loads(ckpt("suggest", *sides, "--json").out)


def test_pairs_that_are_not_sure_enough_are_left_out_and_counted(tmp_path):
    sides = rotary(tmp_path)
    ran = ckpt("suggest", *sides)
    assert ran.status == 1
    assert not [line for line in ran.out.splitlines() if "wq" in line and not line.startswith("#")]
    assert "#   - layers.{i}.attention.{wq,wk}.** -> model.layers.{i}.self_attn.{q,k}_proj.**" in ran.out
    assert not [pattern for section in ("drop", "keep") for pattern in drafted_json(*sides)[section]]
    assert {each["confidence"] for each in drafted_json(*sides)["pairs"] if "wq" in each["sources"][0]} == {0.5}
    assert "4 pairs below 0.9 left out; --min-confidence says what a pair needs" in ran.err
    line = "- layers.{i}.attention.{wq,wk,wv,wo}.** -> model.layers.{i}.self_attn.{q,k,v,o}_proj.**"
    assert line in ckpt("suggest", *sides, "--min-confidence", "0.4").out


@pytest.fixture
def files(tmp_path):
    ours = {f"layers.{i}.fc.weight": torch.full((4, 3), float(i)) for i in range(3)}
    theirs = {f"model.blocks.{i}.fc.weight": torch.zeros(4, 3) for i in range(3)} | {"head.weight": torch.ones(2, 4)}
    torch.save(ours, tmp_path / "a.pth")
    torch.save(theirs, tmp_path / "b.pth")
    return str(tmp_path / "a.pth"), str(tmp_path / "b.pth"), str(tmp_path / "out.pth")


def test_map_by_auto_writes_what_aligns_and_keeps_what_was_named(files):
    refused = ckpt("map", files[0], files[1], "--by", "auto", "-o", files[2])
    assert refused.status == 1
    assert "`head.weight`: 1 key of the target is neither mapped nor kept" in refused.err
    assert not Path(files[2]).exists()
    ran = ckpt("map", files[0], files[1], "--by", "auto", "--keep", "head.*", "-o", files[2], "--json")
    assert ran.status == 0, ran.err
    found = torch.load(files[2])
    assert [found[f"model.blocks.{i}.fc.weight"][0, 0].item() for i in range(3)] == [0.0, 1.0, 2.0]
    assert found["head.weight"].eq(1).all()
    steps = json.loads(ran.out)["steps"]
    assert {step["origin"]["by"] for step in steps} == {"auto"}


def test_the_library_does_the_same(files):
    with plan_checkpoint(files[0], files[1], MappingOptions(by="auto", partial=True)) as work:
        assert work.plan.counts == {"mapped": 3, "kept": 1, "dropped": 0}
    with pytest.raises(RuleError) as refused:
        map_checkpoint(*files, MappingOptions(by="auto", min_confidence=0.95))  # type: ignore[call-arg]
    assert refused.value.next == {"by": "auto", "min_confidence": 0.95, "keep": ["head.weight"]}
    map_checkpoint(*files, MappingOptions(**refused.value.next))  # type: ignore[call-arg]
    with open_checkpoint(files[2]) as written:
        assert len(written.catalog) == 4


def halves(which, rename="enc."):
    """A network, and a copy of which some tensors are halves, under other names."""
    torch.manual_seed(0)
    whole = {f"enc.{i}.{n}.weight": torch.randn(8, 8) for i in range(4) for n in ("q", "up")} | {"head.weight": torch.randn(10, 8)}
    return whole, {key.replace("enc.", rename): value.half() if which in key else value for key, value in whole.items()}


@pytest.mark.parametrize("which", ["q", ""])
@pytest.mark.parametrize("rename", ["enc.", "trunk.layer."])
@pytest.mark.parametrize("more", [[], ["--partial"]])
def test_a_type_alone_leaves_no_pair_of_an_alignment_fresh(tmp_path, which, rename, more):
    whole, other = halves(which, rename)
    torch.save(whole, tmp_path / "a.pth")
    torch.save(other, tmp_path / "b.pth")
    words = ["map", "a.pth", "b.pth", "--by", "auto"]
    ran = ckpt(*words, *more, "-o", "out.pth", cwd=tmp_path)
    assert (ran.status, (tmp_path / "out.pth").exists()) == (1, False)
    codes = [line.partition(":")[0] for line in ran.err.splitlines() if line.startswith("error")]
    assert codes == ["error[dtype]"]
    assert ran.err.rstrip().splitlines()[-1] == " ".join(["next: ckpt", *words, "--dtype target", *more, "-o out.pth"])
    assert ckpt(*words, "--dtype", "target", *more, "-o", "out.pth", cwd=tmp_path).status == 0
    assert all(torch.equal(value, other[key]) for key, value in torch.load(tmp_path / "out.pth").items())


def test_a_type_is_said_beside_what_an_alignment_leaves(tmp_path):
    whole, other = halves("")
    torch.save({**whole, "extra.weight": torch.ones(5, 5)}, tmp_path / "a.pth")
    torch.save(other, tmp_path / "b.pth")
    ran = ckpt("plan", "a.pth", "b.pth", "--by", "auto", "--json", cwd=tmp_path)
    assert [problem["code"] for problem in json.loads(ran.out)["problems"]] == ["dtype", "unmapped-source"]


def test_load_into_by_auto(files):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.ModuleDict({"fc": torch.nn.Linear(3, 4, bias=False)}) for _ in range(3))

    net = Net()
    load_into(net, files[0], by="auto")
    assert [block["fc"].weight[0, 0].item() for block in net.blocks] == [0.0, 1.0, 2.0]


def own_names(key):
    for word, other in (("blocks.", "encoder.layer."), ("attn.qkv", "attention.qkv"), ("head.", "classifier."), ("pos_embed", "position_embeddings")):
        key = key.replace(word, other)
    return f"vit.{key}"


def other_names(key):
    words = (
        ("blocks.", "transformer."), ("attn.qkv", "attention.to_qkv"), ("attn.proj", "attention.to_out"), ("norm1", "norm_attn"), ("norm2", "norm_mlp"),
        ("mlp.fc1", "ff.up"), ("mlp.fc2", "ff.down"), ("head.", "fc."), ("pos_embed", "positions"), ("patch_embed.proj", "patchify"), ("cls_token", "class_token"),
    )  # fmt: skip
    for word, other in words:
        key = key.replace(word, other)
    return key


@pytest.mark.parametrize(
    ("name", "more", "rename"),
    [
        ("vit_tiny_patch16_224", {}, other_names),
        ("vit_tiny_patch16_224", {}, str),
        ("vit_tiny_patch16_224", {}, lambda key: key.replace("head.", "classifier.")),
        ("vit_tiny_patch16_224", {}, own_names),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, own_names),
        ("swin_tiny_patch4_window7_224", {"window_size": 12}, str),
    ],
)
def test_what_another_image_size_needs_stands_ready_in_the_draft(timm, tmp_path, name, more, rename):
    small = timm.create_model(name, depth=2) if "vit" in name else timm.create_model(name)
    large = timm.create_model(name, num_classes=10, img_size=384, **({"depth": 2} if "vit" in name else {}), **more)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    torch.save({rename(key): value for key, value in large.state_dict().items()}, tmp_path / "large.pth")
    ran = ckpt("suggest", "small.pth", "large.pth", "-o", "r.yaml", cwd=tmp_path)
    assert (ran.status, "hint: some lines of r.yaml are comments: uncomment those that are right\n" in ran.err) == (1, True)
    draft = (tmp_path / "r.yaml").read_text()
    waiting = [number for number, line in enumerate(draft.splitlines(), 1) if re.match("# (drop:|keep:|fit:|  - )", line)]
    for words in (("plan", "small.pth", "large.pth", "-r", "r.yaml"), ("check", "r.yaml", "small.pth", "large.pth")):
        ran = ckpt(*words, cwd=tmp_path)
        assert (ran.status, "next:" in ran.err) == (1, False), ran.err
        (named,) = re.findall("hint: r.yaml leaves this to you: of its comments, uncomment what is right: lines ([0-9, -]+)", ran.err)
        spans = [list(map(int, span.split("-"))) for span in named.strip().split(", ")]
        assert [number for span in spans for number in range(span[0], span[-1] + 1)] == waiting
    (tmp_path / "ready.yaml").write_text(re.sub(r"(?m)^# (drop:|keep:|fit:|  - )", r"\1", draft))
    ran = ckpt("plan", "small.pth", "large.pth", "-r", "ready.yaml", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[-1].startswith(f"{len(large.state_dict()) - 2} mapped, 2 kept, "), ran.out


VIT = ["cls_token F32 1x1x8", "patch.weight F32 8x3x4x4", *(f"blocks.{i}.{name} F32 8x8" for i in range(3) for name in ("q.weight", "o.weight"))]
OWN = ["class_token F32 1x1x8", "patch.weight F32 8x3x4x4", *(f"layers.{i}.{name} F32 8x8" for i in range(3) for name in ("q.weight", "o.weight"))]


@pytest.fixture
def vits(tmp_path):
    key_list(tmp_path / "a.txt", *VIT, "pos_embed F32 1x17x8", "head.weight F32 9x8", "head.bias F32 9")
    key_list(tmp_path / "b.txt", *OWN, "grid F32 1x26x8", "fc.weight F32 4x8", "fc.bias F32 4")
    return tmp_path


def test_a_hint_for_another_shape_makes_the_rule_stand_ready(vits):
    """`grid` is a table of positions by no name: only a person knows."""
    ready = "#   - pos_embed -> grid\n"
    assert ready not in ckpt("suggest", "a.txt", "b.txt", cwd=vits).out
    ran = ckpt("suggest", "a.txt", "b.txt", "--hint", "pos_embed -> grid", cwd=vits)
    assert ready in ran.out
    assert "# fit:  # another image size\n#   - grid: resize_grid\n" in ran.out


@pytest.mark.parametrize(
    ("hint", "why"),
    [
        ("head.bias -> class_token", "`class_token` is made of `cls_token`"),
        ("pos_embed -> grid", "they are 1×17×8 and 1×26×8, and need a `fit:`"),
        ("pos_embed -> fc.bias", "they are 1×17×8 and 4, and no `fit:` adapts the one to the other"),
        ("cls_token -> fc.bias", "`cls_token` makes `class_token`"),
    ],
)
def test_a_hint_that_is_not_followed_is_said(vits, hint, why):
    ran = ckpt("suggest", "a.txt", "b.txt", "--hint", hint, cwd=vits)
    assert (ran.status, f"undecided: --hint '{hint}' isn't followed: {why}\n" in ran.err) == (1, True), ran.err


def test_the_head_under_another_name_is_named(vits):
    lines = ckpt("suggest", "a.txt", "b.txt", cwd=vits).err.splitlines()
    assert "same place, another shape: head.weight -> fc.weight, 9×8 and 4×8; another number of classes? then `drop:` and `keep:` are right" in lines


def test_a_rule_of_ones_own_to_another_grid_gets_the_hint(vits):
    (vits / "r.yaml").write_text("rules:\n  - pos_embed -> grid\n")
    ran = ckpt("plan", "a.txt", "b.txt", "-r", "r.yaml", "--partial", cwd=vits)
    assert " = another image size? `fit: [{grid: resize_grid}]` in a rule file adapts it\n" in ran.err


def test_what_is_not_sure_is_counted(tmp_path):
    for name, key in (("a", "layers.{}.sub.{}.w"), ("b", "blk.{}.s.{}.weight")):
        torch.save({key.format(i, j): torch.ones(2, 2) for i in range(3) for j in range(2)}, tmp_path / f"{name}.pth")
    ran = ckpt("suggest", "a.pth", "b.pth", cwd=tmp_path)
    assert "0 mapped by 0 rules, 6 not sure\n" in ran.err


def test_what_has_another_shape_is_counted_alike_in_every_line(tmp_path):
    def network(width):
        body = {f"blocks.{i}.{name}.weight": torch.zeros(width, width) for i in range(4) for name in ("q", "k")}
        extra = {f"{name}.weight": torch.zeros(width, at + 1) for at, name in enumerate("abcdefghijk")}
        return body | extra | {"head.fc.weight": torch.zeros(10, width), "head.fc.bias": torch.zeros(10)}

    torch.save(network(8), tmp_path / "a.pth")
    torch.save(network(12), tmp_path / "b.pth")
    ran = ckpt("suggest", "a.pth", "b.pth", "-o", "r.yaml", cwd=tmp_path)
    lines = ran.err.splitlines()
    assert "undecided: only 1 of 2 keys of `head.fc` in the source are used" in lines
    assert next(line for line in lines if line.startswith("1 mapped")) == "1 mapped by 1 rule, 20 of another shape"
    assert any(line.endswith("has another shape in the source, and 19 more") for line in lines)
    assert sum(line.startswith("same place, another shape: ") for line in lines) == 13
    assert not any("more line" in line for line in lines)
    report = json.loads(ckpt("suggest", "a.pth", "b.pth", "--json", cwd=tmp_path).out)
    assert {"source": "head.fc.weight", "target": "head.fc.weight"} in report["misfits"]
    assert len(report["misfits"]) == 20


def test_a_share_is_never_all_where_something_is_mapped(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pth")
    torch.save({"w": torch.zeros(2), "v": torch.zeros(100, 1000)}, tmp_path / "b.pth")
    assert "(more than 99.9 % of the target's elements)" in ckpt("plan", "a.pth", "b.pth", cwd=tmp_path).err


def test_what_may_belong_together_is_neither_dropped_nor_kept(tmp_path):
    a, b = {}, {}
    for i in range(4):
        for name, shape in (("ln.weight", (16,)), ("ln.bias", (16,)), ("out.weight", (16, 16)), ("fc.weight", (64, 16))):
            a[f"h.{i}.{name}"] = b[f"h.{i}.{name}"] = torch.zeros(shape)
        a |= {f"h.{i}.attn.c_attn.weight": torch.zeros(8, 96), f"h.{i}.old.weight": torch.zeros(7, 16), f"h.{i}.attn.c_attn.bias": torch.zeros(40)}
        b |= {f"h.{i}.attn.{name}.weight": torch.zeros(16, 16) for name in "qkv"} | {f"h.{i}.new.weight": torch.zeros(5, 16)}
    torch.save(a, tmp_path / "a.pth")
    torch.save(b, tmp_path / "b.pth")
    ran = ckpt("suggest", "a.pth", "b.pth", "-o", "r.yaml", cwd=tmp_path)
    draft = (tmp_path / "r.yaml").read_text()
    assert "#   - h.{0..3}.old.weight\n" in draft
    assert "#   - h.{0..3}.new.weight\n" in draft
    assert not [line for line in draft.splitlines() if "attn" in line and "undecided" not in line]
    together = "undecided: `h.{0..3}.attn.**` and `h.{0..3}.attn.**` may belong together, so neither `drop:` nor `keep:` has them"
    assert together in ran.err.splitlines()
    (tmp_path / "r.yaml").write_text(draft.replace("\n# drop", "\ndrop").replace("\n# keep", "\nkeep").replace("\n#   -", "\n  -"))
    ran = ckpt("plan", "a.pth", "b.pth", "--rules", "r.yaml", cwd=tmp_path)
    assert ran.status == 1
    assert "`h.0.attn.c_attn.weight` is not a key of the target" in ran.err


def test_what_is_ambiguous_or_may_belong_to_another_size_is_neither_dropped_nor_kept(tmp_path):
    def network(blocks, stem, channels, names):
        made = {f"{stem}.weight": torch.zeros(8, channels, 4, 4), f"{stem}.bias": torch.zeros(8)}
        for i in range(3):
            made |= {f"{blocks}.{i}.{name}.weight": torch.zeros(shape) for name, shape in zip(names, ((8,), (24, 8), (8, 24)), strict=True)}
        return made

    torch.save(network("blocks", "patch_embed.proj", 3, ("norm", "fc1", "fc2")) | {"old.x": torch.zeros(5)}, tmp_path / "a.pth")
    torch.save(network("layers", "stem.conv", 4, ("ln", "up", "down")) | {"new.y": torch.zeros(6)}, tmp_path / "b.pth")
    draft = ckpt("suggest", "a.pth", "b.pth", cwd=tmp_path).out
    assert "#   - old.x\n" in draft
    assert "#   - new.y\n" in draft
    assert not re.search(r"(?m)^#   - .*(patch_embed|stem|\*\*$)", draft), draft
    assert "`patch_embed.proj.weight` in another size may be `stem.conv.weight`" in draft
