"""From a hurried `ckpt map a b -o c`, what `next:` says leads to the right file where there is one, and never to a wrong one."""

import json
import shlex

import pytest
import torch
from hurried import SITUATIONS
from running import ckpt

import ckpt_tool

MOST = 3
"""Commands that are followed."""


def proposed(ran):
    """The command on the last line of what was said."""
    lines = ran.err.strip().splitlines()
    return lines[-1].removeprefix("next: ckpt ") if lines and lines[-1].startswith("next: ckpt ") else None


def followed(folder):
    """The commands from a hurried map on, with their exit statuses, and whether each says that the source has no more."""
    command, done = "map a.pth b.pth -o c.pth", []
    for _ in range(MOST + 1):
        ran = ckpt(*shlex.split(command), cwd=folder)
        done.append((command, ran.status, "hint: no key of the source is left over" in ran.err))
        command = proposed(ran)
        if ran.status == 0 or command is None:
            break
    return done


def is_right(file, truth):
    found = torch.load(file)
    return found.keys() == truth.keys() and all(
        found[key].dtype == value.dtype and torch.equal(found[key], value) for key, value in truth.items()
    )


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_next_says_leads_home(name, torchvision, timm, tmp_path):
    source, target, truths = SITUATIONS[name](torchvision, timm)
    torch.save(source, tmp_path / "a.pth")
    torch.save(target, tmp_path / "b.pth")
    done = followed(tmp_path)
    file = tmp_path / "c.pth"
    if truths:
        assert done[-1][1] == 0, done
        assert any(is_right(file, truth) for truth in truths), done
    else:
        assert not file.exists(), done
        assert len(done) > 1 or done[0][2], "a refusal says how to go on"


@pytest.fixture
def networks(tmp_path):
    """A file of two equal networks, one of them alone, and one below a prefix beside a head."""
    one, other = ({"0.weight": torch.full((2, 3), value), "0.bias": torch.full((2,), value)} for value in (1.0, 2.0))
    torch.save({"generator": one, "discriminator": other}, tmp_path / "gan.pth")
    torch.save(other, tmp_path / "one.pth")
    torch.save({**{f"net.{key}": value for key, value in one.items()}, "head.weight": torch.ones(5, 7)}, tmp_path / "below.pth")
    return tmp_path


def plan_checkpoint(folder, *arguments):
    ran = ckpt("plan", *arguments, "--json", cwd=folder)
    return ran.status, json.loads(ran.out)


def test_equally_likely_networks_are_never_guessed(networks):
    status, report = plan_checkpoint(networks, "gan.pth", "one.pth")
    assert (status, [problem["code"] for problem in report["problems"]]) == (1, ["several-state-dicts"])
    assert report["next"] == "ckpt show gan.pth"
    assert ckpt("diff", "gan.pth", "one.pth", cwd=networks).status == 2
    assert plan_checkpoint(networks, "gan.pth#generator", "one.pth")[0] == 0


def test_no_command_leads_in_a_circle(networks):
    """Where nothing says more than what was just said there is no `next:`."""
    ran = ckpt("show", "gan.pth", cwd=networks)
    assert (ran.status, proposed(ran)) == (0, None)
    assert json.loads(ckpt("show", "gan.pth", "--json", cwd=networks).out)["next"] is None
    torch.save({"a b.weight": torch.ones(3, 3, 3)}, networks / "strange.pth")
    for line in ("map one.pth strange.pth -o c.pth", "suggest one.pth strange.pth", "map one.pth -e '0.* -> x.* with typo' -o c.pth"):
        seen, words = [], shlex.split(line)
        while words not in seen:
            seen.append(words)
            if (onwards := proposed(ckpt(*words, cwd=networks))) is None:
                break
            words = shlex.split(onwards)
        else:
            pytest.fail(f"a circle: {seen}")


@pytest.mark.parametrize(
    "words", [["--expect", "300"], ["--drop", "nothing.*", "--keep", "head.*"], ["-e", "0.* -> net.0.*", "--keep", "head.*", "--drop", "no.*"]]
)
def test_what_is_to_be_corrected_needs_no_draft(networks, words):
    ran = ckpt("plan", "one.pth", "below.pth", *words, cwd=networks)
    assert (ran.status, proposed(ran)) in [(1, None), (1, "plan one.pth below.pth --keep head.weight")], ran.err


def test_what_is_left_of_a_source_alone_is_said_already(networks):
    assert proposed(ckpt("plan", "one.pth", "-e", "0.weight -> x", cwd=networks)) is None
    assert proposed(ckpt("plan", "one.pth", "-e", "0.wieght -> x", cwd=networks)) == "show one.pth"


@pytest.mark.parametrize("words", [["-e", "0.weight -> x", "-e", "0.bias -> x"], ["-e", "** -> **", "--dtype", "F4"], ["-e", "** -> **: {cast: F4}"], ["-e", "** -> **", "--expect", "9"]])
def test_no_look_is_proposed_where_it_shows_no_more(networks, words):
    ran = ckpt("plan", "one.pth", *words, cwd=networks)
    assert (ran.status, proposed(ran)) == (1, None), ran.err


@pytest.mark.parametrize("line", ["diff one.pth below.pth", "diff one.pth below.pth --renames", "mappings one.pth below.pth"])
def test_what_looks_goes_on_to_a_map_that_was_tried(networks, line):
    ran = ckpt(*line.split(), cwd=networks)
    assert (ran.status, proposed(ran)) == (1, "map one.pth below.pth --keep head.weight -o mapped.pth")
    assert ckpt(*shlex.split(proposed(ran)), cwd=networks).status == 0
    assert json.loads(ckpt(*line.split(), "--json", cwd=networks).out)["next"].startswith("ckpt map one.pth below.pth ")


def test_an_output_is_proposed_that_is_not_there(networks):
    (networks / "mapped.pth").write_bytes(b"mine")
    assert proposed(ckpt("diff", "one.pth", "below.pth", cwd=networks)).endswith("-o mapped_2.pth")


def test_what_was_compared_whole_has_no_way_on(networks):
    assert proposed(ckpt("diff", "one.pth", "gan.pth#generator", "--values", cwd=networks)) is None


def test_check_goes_on_with_the_rules_completed(networks):
    (networks / "rules.yaml").write_text('rules: ["** -> net.**"]\n')
    ran = ckpt("check", "rules.yaml", "one.pth", "below.pth", cwd=networks)
    assert (ran.status, proposed(ran)) == (1, "map one.pth below.pth --rules rules.yaml --keep head.weight -o mapped.pth")
    assert ckpt(*shlex.split(proposed(ran)), cwd=networks).status == 0


def test_nothing_is_proposed_for_what_was_piped_in(networks):
    ran = ckpt("diff", "-", "below.pth", cwd=networks, stdin="0.weight\tF32\t2,3\n")
    assert proposed(ran) is None


@pytest.mark.parametrize("verb", ["plan", "check"])
def test_sides_that_are_swapped_are_named(networks, verb):
    (networks / "rules.yaml").write_text('rules: ["{n}.weight -> net.{n}.weight", "{n}.bias -> net.{n}.bias"]\nkeep: [head.weight]\n')
    rules = {"plan": ["below.pth", "one.pth", "--rules", "rules.yaml"], "check": ["rules.yaml", "below.pth", "one.pth"]}[verb]
    ran = ckpt(verb, *rules, cwd=networks)
    assert (ran.status, proposed(ran)) == (1, "plan one.pth below.pth --rules rules.yaml")
    assert "hint: the sides are swapped: the rules lead from one.pth to below.pth" in ran.err
    assert ckpt(*shlex.split(proposed(ran)), cwd=networks).status == 0


def test_rules_that_fit_neither_way_say_nothing_of_the_sides(networks):
    (networks / "rules.yaml").write_text('rules: ["a.** -> net.**"]\n')
    assert "swapped" not in ckpt("check", "rules.yaml", "below.pth", "one.pth", cwd=networks).err
    (networks / "rules.yaml").write_text('rules: ["** -> **"]\n')  # fits both ways as badly
    assert "swapped" not in ckpt("check", "rules.yaml", "below.pth", "one.pth", cwd=networks).err


@pytest.mark.parametrize("more", [{"extra.weight": torch.ones(5, 5)}, {"fc.weight": torch.ones(10, 3), "fc.bias": torch.ones(10)}])
def test_what_a_catch_all_leaves_of_a_larger_source_is_dropped(networks, more):
    one = torch.load(networks / "one.pth")
    torch.save({**one, **more}, networks / "larger.pth")
    pattern = "extra.weight" if "extra.weight" in more else "fc.*"
    for line in ("plan larger.pth one.pth -e '** -> **'", "map larger.pth one.pth -e '** -> **' -o out.pth"):
        ran = ckpt(*shlex.split(line), cwd=networks)
        assert ran.status == 1
        assert "swapped" not in ran.err
        words = shlex.split(line)
        assert shlex.split(proposed(ran)) == [*words[:5], "--drop", pattern, *words[5:]]
        assert ckpt(*shlex.split(proposed(ran)), cwd=networks).status == 0
    assert is_right(networks / "out.pth", one)


def test_rules_that_name_what_the_target_lacks_are_never_cured_by_dropping_its_counterpart(networks):
    torch.save({f"net.{key}": value for key, value in torch.load(networks / "one.pth").items()}, networks / "net.pth")
    ran = ckpt("plan", "one.pth", "net.pth", "-e", "0.weight -> net.0.wieght", "-e", "0.bias -> net.0.bias", cwd=networks)
    assert ran.status == 1
    assert "--drop" not in (proposed(ran) or "")


def test_a_draft_for_a_shallower_target_leads_to_its_own_comments(tmp_path):
    deep = {f"layers.{i}.{name}.weight": torch.rand(4, 4) for i in range(4) for name in ("q", "up")} | {"head.weight": torch.rand(5, 4)}
    torch.save(deep, tmp_path / "deep.pth")
    torch.save({key: value for key, value in deep.items() if ".3." not in key}, tmp_path / "shallow.pth")
    ckpt("suggest", "deep.pth", "shallow.pth", "-o", "r.yaml", cwd=tmp_path)
    ran = ckpt("check", "r.yaml", "deep.pth", "shallow.pth", cwd=tmp_path)
    assert (ran.status, proposed(ran)) == (1, None)
    assert "swapped" not in ran.err
    assert "hint: r.yaml leaves this to you: of its comments, uncomment what is right: line" in ran.err


def test_a_draft_with_an_ambiguous_group_asks_for_a_pair_first(tmp_path):
    torch.save({"enc.q.weight": torch.rand(8, 8), "enc.up.weight": torch.rand(8, 8), "head.weight": torch.rand(10, 8), "old.weight": torch.rand(3, 3, 3)}, tmp_path / "a.pth")
    torch.save({"x.a.weight": torch.rand(8, 8), "x.z.weight": torch.rand(8, 8), "head.weight": torch.rand(10, 8), "new.weight": torch.rand(9, 9, 9)}, tmp_path / "b.pth")
    ckpt("suggest", "a.pth", "b.pth", "-o", "r.yaml", cwd=tmp_path)
    lines = (tmp_path / "r.yaml").read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if "# ambiguous:" in line)
    for words in (["check", "r.yaml", "a.pth", "b.pth"], ["map", "a.pth", "b.pth", "-r", "r.yaml", "-o", "out.pth"]):
        said = f"hint: r.yaml leaves this to you: draft it again with the pairs that you know: line {number} (`--hint 'enc.q.weight -> x.a.weight'`); else, of its comments, uncomment"
        assert said in ckpt(*words, cwd=tmp_path).err


@pytest.mark.parametrize("by", [[], ["--by", "position"], ["--by", "auto"]])
@pytest.mark.parametrize(("option", "message"), [("--keep", "every key of the target is kept"), ("--drop", "every key of the source is dropped")])
def test_a_pattern_that_names_everything_leaves_nothing_to_map(networks, option, message, by):
    ran = ckpt("map", "one.pth", "one.pth", option, "**", *by, "-o", "out.pth", cwd=networks)
    assert (ran.status, proposed(ran), (networks / "out.pth").exists()) == (1, None, False)
    assert f"error[nothing-pairs]: {message}: nothing is left to be mapped" in ran.err


@pytest.mark.parametrize("options", [[], ["--by", "auto"], ["-e", "** -> a.**"]])
def test_a_model_that_is_built_is_in_no_command_for_files(networks, options):
    (networks / "its_code.py").write_text("from torch import nn\n\n\ndef other():\n    return nn.Sequential(nn.Conv2d(3, 5, 2), nn.Linear(7, 9))\n")
    ran = ckpt("plan", "one.pth", "its_code:other", *options, cwd=networks)
    assert ran.status == 1
    ran = ckpt(*shlex.split(proposed(ran)), cwd=networks)
    assert ran.status in (0, 1)
    assert proposed(ran) is None or ckpt(*shlex.split(proposed(ran)), cwd=networks).status in (0, 1)


@pytest.mark.parametrize("text", ['rules: ["** -> net.**: spilt"]\n', "rule: [a -> b]\n", "rules:\n  - a.{x -> b\n", "rules: [a > b]\n"])
def test_a_mistake_in_the_text_of_rules_is_what_there_is_to_correct(networks, text):
    (networks / "rules.yaml").write_text(text)
    ran = ckpt("check", "rules.yaml", "one.pth", "below.pth", cwd=networks)
    assert (ran.status, proposed(ran)) == (1, None)
    assert json.loads(ckpt("check", "rules.yaml", "one.pth", "below.pth", "--json", cwd=networks).out)["next"] is None


@pytest.mark.parametrize("words", [["--partial"], ["-e", "0.weight -> net.0.weight", "--partial"], []])
def test_a_type_alone_leads_to_its_cast(networks, words):
    below = torch.load(networks / "below.pth")
    torch.save({**below, "net.0.weight": below["net.0.weight"].half()} if words else {"0.weight": below["net.0.weight"].half()}, networks / "half.pth")
    torch.save({key[4:]: value for key, value in below.items() if words or key == "net.0.weight"}, networks / "one.pth")
    ran = ckpt("plan", "one.pth", "half.pth", *words, cwd=networks)
    assert (ran.status, "--dtype target" in proposed(ran)) == (1, True), ran.err
    assert ckpt(*shlex.split(proposed(ran)), cwd=networks).status == 0


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        (["--drop", "haed.**", "--keep", "cls.**"], ["--drop", "head.**", "--keep", "cls.**"]),
        (["--drop", "head.**", "--keep", "clss.**"], ["--drop", "head.**", "--keep", "cls.**"]),
        (["--drop", "head", "--keep", "cls.**"], ["--drop", "head.**", "--keep", "cls.**"]),
        (["--drop", "head.wieght", "--drop", "head.bias", "--keep", "cls.*"], ["--drop", "head.weight", "--drop", "head.bias", "--keep", "cls.*"]),
        (["-e", "bakbone.** -> backbone.**", "--drop", "head.*", "--keep", "cls.*"], ["-e", "backbone.** -> backbone.**", "--drop", "head.*", "--keep", "cls.*"]),
    ],
)
def test_a_misspelt_pattern_leads_to_the_same_command_with_the_right_one(tmp_path, given, corrected):
    body = {"backbone.w": torch.rand(3, 3), "backbone.b": torch.rand(3)}
    torch.save({**body, "head.weight": torch.rand(10, 3), "head.bias": torch.rand(10)}, tmp_path / "a.pth")
    torch.save({**body, "cls.weight": torch.rand(5, 3), "cls.bias": torch.rand(5)}, tmp_path / "b.pth")
    ran = ckpt("map", "a.pth", "b.pth", *given, "-o", "out.pth", cwd=tmp_path)
    assert ran.status == 1
    assert shlex.split(proposed(ran)) == ["map", "a.pth", "b.pth", *corrected, "-o", "out.pth"]
    assert ckpt(*shlex.split(proposed(ran)), cwd=tmp_path).status == 0
    assert ckpt("map", "a.pth", "b.pth", "--drop", "zzz.**", "-o", "out2.pth", cwd=tmp_path).status == 1


@pytest.mark.parametrize(("words", "tally"), [
    (["--drop", "old.wieght", "--drop", "old.bais"], "2 mapped; 1 of 3 target keys would stay fresh"),
    (["-e", "fc.wieght -> fc.weight"], "0 mapped; 3 of 3 target keys would stay fresh (100.0 % of the target's elements); 4 source keys left over"),
    (["-e", "fc.weight -> fc.weight", "--keep", "haed.*"], "1 mapped; 2 of 3 target keys would stay fresh"),
])  # fmt: skip
def test_a_misspelt_pattern_is_corrected_where_a_part_is_asked_for(tmp_path, words, tally):
    torch.save({"fc.weight": torch.ones(4, 4), "fc.bias": torch.ones(4), "old.weight": torch.ones(2), "old.bias": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"fc.weight": torch.ones(4, 4), "fc.bias": torch.ones(4), "head.weight": torch.ones(3, 4)}, tmp_path / "b.pth")
    ran = ckpt("plan", "a.pth", "b.pth", *words, "--partial", cwd=tmp_path)
    corrected = [word.replace("wieght", "weight").replace("bais", "bias").replace("haed.*", "head.*") for word in words]
    assert shlex.split(proposed(ran)) == ["plan", "a.pth", "b.pth", *corrected, "--partial"]
    assert tally in ran.err
    assert ckpt(*shlex.split(proposed(ran)), cwd=tmp_path).status == 0


def test_a_misspelt_name_with_a_placeholder_is_found_by_its_form(tmp_path):
    torch.save({f"enc.stage{i}.{leaf}": torch.rand(3) for i in range(2) for leaf in "wb"}, tmp_path / "a.pth")
    torch.save({f"net.s{i}.{leaf}": torch.rand(3) for i in range(2) for leaf in "wb"}, tmp_path / "b.pth")
    ran = ckpt("map", "a.pth", "b.pth", "-e", "enc.stge{i}.** -> net.s{i}.**", "-o", "out.pth", cwd=tmp_path)
    assert "nearest path: enc.stage{i}" in ran.err
    assert shlex.split(proposed(ran)) == ["map", "a.pth", "b.pth", "-e", "enc.stage{i}.** -> net.s{i}.**", "-o", "out.pth"]


def test_a_rule_without_the_wrapper_s_prefix_leads_to_the_same_command_with_it(tmp_path):
    torch.save({"module.stem.w": torch.rand(3), "module.a.w": torch.rand(3)}, tmp_path / "a.pth")
    torch.save({"layer0.w": torch.rand(3), "b.w": torch.rand(3)}, tmp_path / "b.pth")
    ran = ckpt("map", "a.pth", "b.pth", "-e", "stem.* -> layer0.*", "-e", "module.a.* -> b.*", "-o", "out.pth", cwd=tmp_path)
    assert "begins with `module.`: write `-e 'module.stem.* -> layer0.*'`" in ran.err
    assert shlex.split(proposed(ran)) == ["map", "a.pth", "b.pth", "-e", "module.stem.* -> layer0.*", "-e", "module.a.* -> b.*", "-o", "out.pth"]
    assert ckpt(*shlex.split(proposed(ran)), cwd=tmp_path).status == 0
    with pytest.raises(ckpt_tool.RuleError) as caught:
        ckpt_tool.plan(tmp_path / "a.pth", tmp_path / "b.pth", rules=["stem.* -> layer0.*", "module.a.* -> b.*"])
    assert caught.value.problems[0].notes == ('every key of the source begins with `module.`: write `rules=["module.stem.* -> layer0.*"]`',)
    assert caught.value.next == {"rules": ["module.stem.* -> layer0.*", "module.a.* -> b.*"]}


def test_misspelt_rules_of_a_file_are_to_be_corrected_there(tmp_path):
    torch.save({f"layer{i}.0.bottleneck.w": torch.rand(3) for i in range(2)} | {"stem.w": torch.rand(2)}, tmp_path / "a.pth")
    torch.save({f"stage{i}.0.neck.w": torch.rand(3) for i in range(2)} | {"first.w": torch.rand(2)}, tmp_path / "b.pth")
    (tmp_path / "r.yaml").write_text('rules: ["stme.w -> first.w", "layer{s}.{b}.botleneck.* -> stage{s}.{b}.neck.*"]\n')
    for command in ("map a.pth b.pth -r r.yaml -o o.pth", "check r.yaml a.pth b.pth"):
        ran = ckpt(*command.split(), cwd=tmp_path)
        assert (ran.status, proposed(ran)) == (1, None)
        assert "nearest key: stem.w" in ran.err
        assert "nearest path: layer{s}.{b}.bottleneck" in ran.err


def test_what_nothing_aligns_leads_to_the_pair_that_is_asked_for(tmp_path):
    def tower(name, leaf):
        return {f"{name}.blocks.{i}.{leaf}.w": torch.rand(4, 4) for i in range(3)}

    torch.save(tower("q", "one") | tower("k", "one"), tmp_path / "a.pth")
    torch.save(tower("left", "two") | tower("right", "two"), tmp_path / "b.pth")
    for command in ("map a.pth b.pth -o o.pth", "plan a.pth b.pth --by auto", "diff a.pth b.pth --renames"):
        ran = ckpt(*command.split(), cwd=tmp_path)
        assert proposed(ran) == "suggest a.pth b.pth", command
    ran = ckpt("suggest", "a.pth", "b.pth", cwd=tmp_path)
    assert "hint: --hint 'q.blocks.0.one.w -> left.blocks.0.two.w'" in ran.err
    assert proposed(ran) is None


def test_an_adapter_alone_has_no_look_that_says_more(tmp_path):
    torch.save({f"base_model.model.{i}.q.lora_{side}.weight": torch.rand(2, 4) for i in range(2) for side in "AB"}, tmp_path / "a.pth")
    torch.save({f"{i}.q.weight": torch.rand(4, 4) for i in range(2)}, tmp_path / "b.pth")
    ran = ckpt("map", "a.pth", "b.pth", "-o", "o.pth", cwd=tmp_path)
    assert "which adds to a base model" in ran.err
    assert proposed(ran) is None


def test_a_fit_can_stand_beside_the_rules_that_lack_it(tmp_path):
    torch.save({"emb.w": torch.rand(10, 4), "fc.w": torch.rand(8, 8)}, tmp_path / "a.pth")
    torch.save({"emb.w": torch.rand(12, 4), "fc.w": torch.rand(8, 8)}, tmp_path / "b.pth")
    (tmp_path / "r.yaml").write_text('rules: ["** -> **"]\n')
    (tmp_path / "fit.yaml").write_text("fit: [{emb.w: rows}]\n")
    ran = ckpt("map", "a.pth", "b.pth", "--rules", "r.yaml", "-o", "o.pth", cwd=tmp_path)
    assert "hint: `fit:` can stand in a rule file of its own: `--rules r.yaml --rules fit.yaml`" in ran.err
    assert ckpt("map", "a.pth", "b.pth", "--rules", "r.yaml", "--rules", "fit.yaml", "-o", "o.pth", cwd=tmp_path).status == 0
