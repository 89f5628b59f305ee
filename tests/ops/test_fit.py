"""Fits: equal to timm's own results, to float rounding; and what they refuse."""

import json

import pytest
import torch
from literals import catalog, facts, problems, rules
from safetensors.torch import load_file

import ckpt_tool
from ckpt_tool import MappingOptions, load_into
from ckpt_tool.api import map_checkpoint
from ckpt_tool.mapping import compile_plan
from ckpt_tool.ops import OpError, TensorForm, run_step
from ckpt_tool.ops.fits import parse_fit
from ckpt_tool.report.plan import why_text
from ckpt_tool.tensors import DType
from ckpt_tool.torch_bridge import DTYPES


def fitted(argument, source, shape, target=None):
    fit = parse_fit(argument).with_form(TensorForm(DType.F32, shape))
    fit.infer([TensorForm(DType.F32, tuple(source.shape))])
    (result,) = run_step([fit], [source], (lambda: target) if target is not None else None)
    assert result.shape == shape
    return result


def close(one, other):
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def made(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("count", "new", "prefix"), [(197, 577, 1), (577, 197, 1), (196, 256, 0), (1374, 261, 5)])
def test_position_tables_are_resized_as_timm_does(timm, count, new, prefix):
    table, side = made(1, count, 8), round((new - prefix) ** 0.5)
    expected = timm.layers.resample_abs_pos_embed(table, [side, side], num_prefix_tokens=prefix)
    assert close(fitted({"resize_grid": {"prefix": prefix}}, table, (1, new, 8)), expected)
    if (count, new) != (1374, 261):
        assert close(fitted("resize_grid", table, (1, new, 8)), expected)


def test_position_tables_of_any_grid(timm):
    table = made(1, 1 + 6 * 8, 4)
    expected = timm.layers.resample_abs_pos_embed(table, [9, 5], old_size=[6, 8], num_prefix_tokens=1)
    fit = {"resize_grid": {"prefix": 1, "grid": [6, 8], "new_grid": [9, 5]}}
    assert close(fitted(fit, table, (1, 46, 4)), expected)
    assert close(fitted(fit, table[0], (46, 4)), expected[0])


@pytest.mark.parametrize(
    ("prefix", "new_prefix", "count", "side"), [(1, 0, 197, 14), (0, 1, 196, 14), (1, 2, 197, 24), (5, 1, 201, 7), (2, 0, 198, 16)]
)
@pytest.mark.parametrize("rank", [2, 3])
def test_positions_with_another_number_of_tokens_before_the_grid(timm, prefix, new_prefix, count, side, rank):
    table, own = made(1, count, 8), made(1, new_prefix + side * side, 8) + 100
    resized = timm.layers.resample_abs_pos_embed(table, [side, side], num_prefix_tokens=prefix)
    kept = min(prefix, new_prefix)
    expected = torch.cat([table[:, :kept], own[:, kept:new_prefix], resized[:, prefix:]], 1)
    argument = {"resize_grid": {"prefix": prefix, "new_prefix": new_prefix}}
    tables = [each.reshape(each.shape[3 - rank :]) for each in (table, own, expected)]
    target = tables[1] if new_prefix > prefix else None
    result = fitted(argument, tables[0], tuple(tables[2].shape), target)
    assert close(result, tables[2])
    if side * side == count - prefix:
        assert torch.equal(result, tables[2])


def test_numbers_that_the_sizes_tell_needn_t_be_given():
    table = made(1, 197, 8)
    fit = parse_fit({"resize_grid": {"new_prefix": 0}}).with_form(TensorForm(DType.F32, (1, 256, 8)))
    assert fit.needs_target
    settled = fit.settled((1, 197, 8))
    assert (settled.prefix, settled.new_prefix, settled.needs_target) == (1, 0, False)  # type: ignore[attr-defined]
    assert run_step([settled], [table])[0].shape == (1, 256, 8)
    same = parse_fit("resize_grid").with_form(TensorForm(DType.F32, (1, 257, 8))).settled((1, 197, 8))
    assert (same.prefix, same.new_prefix, same.needs_target) == (1, None, False)  # type: ignore[attr-defined]
    assert parse_fit({"resize_grid": settled.argument()}).argument() == {"prefix": 1, "new_prefix": 0}
    with pytest.raises(OpError, match="`resize_grid`: `new_prefix` is at least 0"):
        parse_fit({"resize_grid": {"new_prefix": -1}})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("old", "new", "extra"), [(7, 12, 0), (14, 7, 0), (14, 24, 3)])
def test_relative_position_tables_are_resized_as_timm_does(timm, old, new, extra):
    table = made((2 * old - 1) ** 2 + extra, 3)
    shape = ((2 * new - 1) ** 2 + extra, 3)
    expected = timm.layers.resize_rel_pos_bias_table(table, (new, new), shape)
    assert close(fitted({"resize_bias": {"extra": extra}}, table, shape), expected)


@pytest.mark.parametrize("new", [(8, 8), (32, 32), (14, 20)])
def test_patch_kernels_are_resized_as_timm_does(timm, new):
    kernel = made(6, 3, 16, 16)
    assert close(fitted("resize_patch", kernel, (6, 3, *new)), timm.layers.resample_patch_embed(kernel, list(new)))


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_input_channels_are_adapted_as_timm_does(timm, channels):
    kernel = made(5, 3, 7, 7)
    assert torch.equal(fitted("input_channels", kernel, (5, channels, 7, 7)), timm.models.adapt_input_conv(channels, kernel))


@pytest.mark.parametrize("rows", [3, 12])
def test_rows_that_both_have_are_the_sources(rows):
    source, target = made(8, 4), made(rows, 4) + 100
    result = fitted("rows", source, (rows, 4), target)
    assert torch.equal(result[:8], source[:rows])
    assert torch.equal(result[8:], target[8:])


TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
GROWN_PREFIX, LOST_PREFIX = ({"resize_grid": {"prefix": 1, "new_prefix": count}} for count in (2, 0))
NOTHING = slice(0, 0)
RESIZED = [
    ("rows", (6, 4), (9, 4), slice(6, None)),
    ("rows", (6, 4), (3, 4), NOTHING),
    (GROWN_PREFIX, (1, 17, 4), (1, 27, 4), (slice(None), slice(1, 2))),
    (GROWN_PREFIX, (1, 17, 4), (1, 18, 4), (slice(None), slice(1, 2))),
    (LOST_PREFIX, (1, 17, 4), (1, 25, 4), NOTHING),
    ("resize_bias", (49, 3), (121, 3), NOTHING),
    ({"resize_bias": {"extra": 3}}, (52, 3), (124, 3), NOTHING),
    ("resize_patch", (4, 3, 4, 4), (4, 3, 6, 6), NOTHING),
    ("input_channels", (4, 3, 3, 3), (4, 4, 3, 3), NOTHING),
    ("input_channels", (4, 3, 3, 3), (4, 1, 3, 3), NOTHING),
]


@pytest.mark.parametrize("policy", ["target", "source", "F32", "BF16", "F64"])
@pytest.mark.parametrize(("given", "wanted"), [("BF16", "F32"), ("F16", "F32"), ("F32", "F16"), ("BF16", "F16"), ("F32", "BF16"), ("F32", "F32")])
@pytest.mark.parametrize(("fit", "old", "new", "own_part"), RESIZED)
def test_a_fit_rounds_once_and_to_the_outputs_dtype(fit, old, new, own_part, given, wanted, policy, tmp_path):
    (tmp_path / "r.yaml").write_text(json.dumps({"rules": ["t -> t"], "fit": [{"t": fit}]}))
    source, own = {"t": made(*old).to(TYPES[given])}, {"t": (made(*new) / 3).to(TYPES[wanted])}
    ways = {"rules": str(tmp_path / "r.yaml"), "dtypes": policy}
    dtype = TYPES[{"target": wanted, "source": given}.get(policy, policy)]
    plan = ckpt_tool.plan(source, own, **ways)
    result = plan.apply(source)["t"]
    assert plan.outputs["t"].dtype is DTYPES[str(dtype).removeprefix('torch.')]
    assert torch.equal(result, fitted(fit, source["t"].float(), new, own["t"].float()).to(dtype))
    assert torch.equal(result[own_part], own["t"][own_part].to(dtype))
    if dtype is TYPES[wanted]:
        live = torch.nn.ParameterDict({"t": own["t"].clone()})
        ckpt_tool.load_into(live, source, **ways)
        assert torch.equal(live["t"], result)


def test_a_fit_of_another_dtype_is_written_and_verified(tmp_path):
    torch.save({"emb": made(10, 4).bfloat16(), "w": made(2).bfloat16()}, tmp_path / "a.pth")
    torch.save({"emb": (own := made(12, 4) / 3), "w": made(2)}, tmp_path / "b.pth")
    (tmp_path / "r.yaml").write_text('rules: ["** -> **"]\nfit: [emb: rows]\n')
    for dtype, cast in (("target", torch.float32), ("F32", torch.float32), ("F16", torch.float16)):
        ways = {"rules": str(tmp_path / "r.yaml"), "dtypes": dtype}
        output = tmp_path / f"{dtype}.safetensors"
        ckpt_tool.map(tmp_path / "a.pth", tmp_path / "b.pth", output, **ways)
        assert torch.equal(load_file(output)["emb"], torch.cat([made(10, 4).bfloat16().to(cast), own[10:].to(cast)]))
        assert not ckpt_tool.verify(output, tmp_path / "a.pth", tmp_path / "b.pth", **ways).mismatches


def test_what_the_target_s_own_values_lose_is_told(tmp_path):
    text = "rules: ['** -> **']\nfit: [t: rows]\n"
    notes = compile_plan(rules(tmp_path, text), catalog("t 2x3 BF16"), catalog("t 4x3 F32"), dtypes="source").notes
    assert "1 tensor is cast: F32 to BF16 keeps 8 of 24 significand bits" in notes
    notes = compile_plan(rules(tmp_path, text), catalog("t 4x3 BF16"), catalog("t 2x3 F32"), dtypes="source").notes
    assert not any("is cast" in note for note in notes)

REFUSED = [
    ("resize_grid", (1, 197, 8), (1, 577, 9), "`resize_grid` of 1×197×8 to 1×577×9: only the number of positions may differ"),
    (
        "resize_grid",
        (1, 200, 8),
        (1, 578, 8),
        "`resize_grid` of 200 positions to 578: no number of prefix tokens leaves a grid on both sides; `{prefix: 4, new_prefix: 2}` does",
    ),
    (
        "resize_grid",
        (1, 20, 8),
        (1, 18, 8),
        "`resize_grid` of 20 positions to 18: no number of prefix tokens leaves a grid on both sides; "
        "give `prefix`, `new_prefix`, `grid`, `new_grid`",
    ),
    (
        {"resize_grid": {"prefix": 1, "new_prefix": 1}},
        (1, 197, 8),
        (1, 196, 8),
        "`resize_grid` of 197 positions to 196: no number of prefix tokens leaves a grid on both sides; "
        "give `prefix`, `new_prefix`, `grid`, `new_grid`",
    ),
    (
        {"resize_grid": {"new_grid": [13, 28]}},
        (1, 197, 8),
        (1, 393, 8),
        "`resize_grid` of 197 positions to 393: `new_grid: [13, 28]` is 13·28 = 364 positions, and the target has 392 beside 1 prefix token",
    ),
    (
        {"resize_grid": {"prefix": 0, "grid": [13, 15], "new_grid": [14, 28]}},
        (196, 8),
        (392, 8),
        "`resize_grid` of 196 positions to 392: `grid: [13, 15]` is 13·15 = 195 positions, and the source has 196 beside 0 prefix tokens",
    ),
    (
        {"resize_grid": {"new_grid": [14, 27]}},
        (1, 197, 8),
        (1, 393, 8),
        "`resize_grid` of 197 positions to 393: `new_grid: [14, 27]` is 14·27 = 378 positions, and the target has 392 beside 1 prefix token; "
        "`{prefix: 1, new_prefix: 15}` does",
    ),
    ("resize_bias", (50, 3), (49, 3), "`resize_bias` of 50×3 to 49×3: rows are (2h-1)² and `extra`, heads the same"),
    ("resize_patch", (6, 3, 16, 16), (6, 1, 16, 16), "`resize_patch` of 6×3×16×16 to 6×1×16×16: only height and width may differ"),
    ("input_channels", (6, 3, 7, 7), (6, 3, 5, 5), "`input_channels` of 6×3×7×7 to 6×3×5×5: only dimension 1 may differ"),
    ("rows", (6, 3), (6, 4), "`rows` of 6×3 to 6×4: only dimension 0 may differ"),
]


@pytest.mark.parametrize(("argument", "source", "target", "message"), REFUSED)
def test_what_does_not_fit_is_refused(argument, source, target, message):
    with pytest.raises(OpError) as caught:
        parse_fit(argument).with_form(TensorForm(DType.F32, target)).infer([TensorForm(DType.F32, source)])
    assert str(caught.value) == message


TEXT = """\
rules: ["** -> **"]
fit:
  - head.*: rows
  - pos: {resize_grid: {prefix: 1}}
  - extra.w: fresh
"""
SOURCE = catalog("pos 1x17x4", "head.w 10x4", "extra.w 5", "same 2")
TARGET = catalog("pos 1x65x4", "head.w 12x4", "extra.w 6", "same 2")


def test_fits_count_only_where_shapes_differ_and_each_is_told(tmp_path):
    plan = compile_plan(rules(tmp_path, TEXT), SOURCE, TARGET)
    assert {key: [op.name for op in step.ops] for step in plan.steps for key in step.outputs} == {
        "pos": ["resize_grid"],
        "head.w": ["rows"],
        "same": [],
    }
    assert (plan.kept, plan.dropped) == (("extra.w",), ("extra.w",))
    assert plan.notes == (
        "`pos` is fitted by `resize_grid`, which is not exact: 1×17×4 → 1×65×4, grid 4×4 → 8×8, taken as squares",
        "`head.w` is fitted by `rows`, which is not exact: 10×4 → 12×4",
        "`extra.w` stays fresh: 5 → 6",
    )
    assert all(not step.ops for step in compile_plan(rules(tmp_path, TEXT), SOURCE, SOURCE).steps)


@pytest.mark.parametrize(
    ("fit", "told"),
    [
        ("{resize_grid: {prefix: 1}}", "grid 4×4 → 8×8, taken as squares"),
        ("{resize_grid: {new_grid: [4, 16]}}", "grid 4×4 → 4×16, one taken as a square"),
        ("{resize_grid: {grid: [2, 8], new_grid: [4, 16]}}", "grid 2×8 → 4×16"),
    ],
)
def test_the_grids_that_were_taken_are_told(tmp_path, fit, told):
    plan = compile_plan(rules(tmp_path, f"rules: ['** -> **']\nfit: [pos: {fit}]\n"), catalog("pos 1x17x4"), catalog("pos 1x65x4"))
    assert plan.notes == (f"`pos` is fitted by `resize_grid`, which is not exact: 1×17×4 → 1×65×4, {told}",)
    assert f"({told}), by " in why_text(plan, "pos")[0]


def test_fits_that_do_not_fit_are_problems(tmp_path):
    text = 'rules: ["** -> **"]\nfit: [{pos: rows}, {none.*: fresh}]\n'
    found = facts(problems(tmp_path, text, catalog("pos 1x17x4"), catalog("pos 1x65x4")))
    assert found[:2] == [
        ("bad-fit", "2:8", "`rows` of 1×17×4 to 1×65×4: only dimension 0 may differ"),
        ("dead-rule", "2:21", "`none.*` fits nothing: no key of the target matches it"),
    ]


def test_fits_load_into_a_live_model(tmp_path):
    (tmp_path / "r.yaml").write_text('rules: ["** -> **"]\nfit: {weight: rows, bias: fresh}\n')
    source, model = torch.nn.Linear(3, 4), torch.nn.Linear(3, 6)
    fresh = model.weight.detach().clone()
    report = load_into(model, source.state_dict(), options=MappingOptions(rules=(str(tmp_path / "r.yaml"),)))
    assert (report.loaded, report.fresh) == (("weight",), ("bias",))
    assert torch.equal(model.weight[:4], source.weight)
    assert torch.equal(model.weight[4:], fresh[4:])


def test_fits_are_written(timm, tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    values = {"pos": made(1, 17, 4), "head.w": made(10, 4), "extra.w": made(5), "same": made(2)}
    fresh = {"pos": made(1, 65, 4), "head.w": made(12, 4), "extra.w": made(6), "same": made(2) + 1}
    torch.save(values, tmp_path / "a.pth")
    torch.save(fresh, tmp_path / "b.pth")
    map_checkpoint(str(tmp_path / "a.pth"), str(tmp_path / "b.pth"), str(tmp_path / "c.pth"), MappingOptions(rules=(str(tmp_path / "r.yaml"),)))
    mapped = torch.load(tmp_path / "c.pth")
    assert close(mapped["pos"], timm.layers.resample_abs_pos_embed(values["pos"], [8, 8], num_prefix_tokens=1))
    assert torch.equal(mapped["head.w"], torch.cat([values["head.w"], fresh["head.w"][10:]]))
    assert torch.equal(mapped["extra.w"], fresh["extra.w"])


def test_a_class_token_less_or_a_distillation_token_more(tmp_path):
    rule = {prefix: f"rules: ['** -> **']\nfit: [pos_embed: {{resize_grid: {{prefix: 1, new_prefix: {prefix}}}}}]\n" for prefix in (0, 2)}
    source = {"pos_embed": made(1, 17, 4), "w": made(2)}
    for prefix, side in ((0, 4), (2, 5)):
        (tmp_path / "r.yaml").write_text(rule[prefix])
        model = torch.nn.ParameterDict({"pos_embed": made(1, prefix + side * side, 4) + 100, "w": made(2)})
        own = model["pos_embed"].detach().clone()
        report = load_into(model, source, rules=str(tmp_path / "r.yaml"))
        assert set(report.loaded) == {"pos_embed", "w"}
        first = slice(0, 1) if prefix else slice(1, 2)
        assert torch.equal(model["pos_embed"][:, :1], source["pos_embed"][:, first])
        assert torch.equal(model["pos_embed"][:, 1:2], own[:, 1:2] if prefix else source["pos_embed"][:, 2:3])


def test_a_key_list_as_target_has_no_tokens_to_keep(tmp_path):
    from ckpt_tool import InputError

    torch.save({"pos_embed": made(1, 17, 4)}, tmp_path / "a.pth")
    (tmp_path / "b.keys").write_text("pos_embed\tF32\t1x18x4\n")
    (tmp_path / "r.yaml").write_text("rules: ['** -> **']\nfit: [pos_embed: {resize_grid: {prefix: 1, new_prefix: 2}}]\n")
    with pytest.raises(InputError, match="is a key list"):
        map_checkpoint(tmp_path / "a.pth", tmp_path / "b.keys", tmp_path / "c.pth", MappingOptions(str(tmp_path / "r.yaml")))


def test_what_is_wrong_with_a_shape_names_the_tokens(tmp_path):
    found = problems(tmp_path, "rules: ['** -> **']\n", catalog("pos_embed 1x197x8", "patch.weight 8x3x16x16"), catalog("pos_embed 1x196x8", "patch.weight 8x3x16x16"))
    assert "other tokens before the grid? `fit: [{pos_embed: {resize_grid: {prefix: 1, new_prefix: 0}}}]` in a rule file adapts it" in found[0].notes


def test_many_fitted_tensors_are_told_in_one_line(tmp_path):
    text = "rules: ['** -> **']\nfit:\n  - '**.table': resize_bias\n  - '**.head.*': fresh\n"
    source = catalog(*(f"l.{i}.{name}" for i in range(12) for name in ("table 169x3", "head.w 5", "w 2")))
    target = catalog(*(f"l.{i}.{name}" for i in range(12) for name in (f"table {[529, 729][i > 5]}x3", "head.w 6", "w 2")))
    assert compile_plan(rules(tmp_path, text), source, target).notes == (
        "`l.{0..5}.table` (6) are fitted by `resize_bias`, which is not exact: 169×3 → 529×3, window 7×7 → 12×12, taken as squares",
        "`l.{0..11}.head.w` (12) stay fresh: 5 → 6",
        "`l.{6..11}.table` (6) are fitted by `resize_bias`, which is not exact: 169×3 → 729×3, window 7×7 → 14×14, taken as squares",
    )


COPIED = """\
rules:
  - "wte.weight -> {wte,lm_head}.weight: copy"
  - "l.* -> l.*"
fit:
  - "{wte,lm_head}.weight": rows
"""


@pytest.mark.parametrize("is_tied", [True, False])
def test_each_copy_of_a_tensor_is_fitted(tmp_path, is_tied):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.lm_head, self.l = torch.nn.Embedding(12, 4), torch.nn.Linear(4, 12, bias=False), torch.nn.Linear(2, 2)
            if is_tied:
                self.lm_head.weight = self.wte.weight

    (tmp_path / "r.yaml").write_text(COPIED)
    network, source = Network(), {"wte.weight": made(10, 4), "l.weight": made(2, 2), "l.bias": made(2)}
    own = {key: value.clone() for key, value in network.state_dict().items()}
    assert set(ckpt_tool.load_into(network, source, rules=str(tmp_path / "r.yaml")).loaded) == set(own)
    for module in (network.wte, network.lm_head):
        assert torch.equal(module.weight[:10], source["wte.weight"])
    assert torch.equal(network.wte.weight[10:], own["wte.weight"][10:])
    assert torch.equal(network.lm_head.weight[10:], own["lm_head.weight"][10:])


def test_only_the_copies_of_another_shape_are_fitted(tmp_path):
    target = catalog("wte.weight 12x4", "lm_head.weight 10x4", "l.w 2")
    plan = compile_plan(rules(tmp_path, COPIED), catalog("wte.weight 10x4", "l.w 2"), target)
    assert {key: [op.name for op in step.ops] for step in plan.steps for key in step.outputs} == {"wte.weight": ["rows"], "lm_head.weight": [], "l.w": []}
    fresh = compile_plan(rules(tmp_path, COPIED.replace("rows", "fresh")), catalog("wte.weight 10x4", "l.w 2"), target)
    assert (fresh.kept, fresh.dropped) == (("wte.weight",), ())
    both = catalog("wte.weight 12x4", "lm_head.weight 12x4", "l.w 2")
    fresh = compile_plan(rules(tmp_path, COPIED.replace("rows", "fresh")), catalog("wte.weight 10x4", "l.w 2"), both)
    assert (fresh.kept, fresh.dropped) == (("wte.weight", "lm_head.weight"), ("wte.weight",))


def test_a_fit_of_one_of_several_parts_is_a_problem(tmp_path):
    text = "rules: ['w -> {a,b}: {split: 0, sizes: [4, 4]}']\nfit: [{a: rows}]\n"
    found = problems(tmp_path, text, catalog("w 8x4"), catalog("a 3x4", "b 4x4"))
    assert facts(found)[-1] == ("bad-fit", "2:8", "`rows` can't adapt `a`, one of 2 tensors that `split` makes")
    assert not any("`fit: " in note for each in found for note in each.notes)
