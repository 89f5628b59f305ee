"""Real conversions, as other people's code does them: what an optimizer keeps goes where the weights go, or has no law."""

from dataclasses import replace

import pytest
import torch
from mapping.test_library import plan_of
from truths import FOLDER, expected, random_tensors, read_truth

from ckpt_tool.errors import RuleError
from ckpt_tool.optimizers.naming import may_be_trained
from ckpt_tool.tensors import Catalog, TensorInfo
from ckpt_tool.training.optimizers.state import optimizer_state

NAMES = (
    "lit_falcon40", "lit_gemma2", "lit_qwen25", "gemma_pytorch_to_hf", "flax_bert", "hf_vits", "hf_swin2sr_x2", "timm_dinov2_reg4_resize",
    "v5_deepseek_v3", "v5_kimi_k25", "v5_phimoe", "tune_gemma2", "tv_swin_v2_t__timm", "hf_blip_base", "sd_vae_ldm_to_diffusers",
    "seed_resnet50_to_yolo_net", "weight_norm_old_to_parametrized",
)  # fmt: skip
"""Those with ops, ties or drops of every kind; the others are renames, and hold too."""
GROUP = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}
REASONS = ("is a copy of", "come from one parameter", "`weight_norm` of", "`sum` of", "`resize_grid` of")
"""Why the states of some of these have no law."""


def with_ties(catalog, ties):
    """The catalog that knows of the source's ties."""
    first = {key: group[0] for group in ties for key in group[1:]}
    return Catalog([TensorInfo(key, info.dtype, info.shape, first.get(key), first.get(key)) for key, info in catalog.items()])


def moved(plan, given):
    """The state, without those parameters that have no law."""
    problems = ()
    try:
        return optimizer_state(plan, given, form="names")
    except RuleError as error:
        problems = error.problems
    assert all(any(reason in problem.message for reason in REASONS) for problem in problems)
    return optimizer_state(plan, given, form="names", fresh=[problem.notes[0].split("'")[1] for problem in problems])


@pytest.mark.parametrize("name", NAMES)
def test_slots_go_where_the_weights_go(name):
    truth = read_truth(FOLDER / f"{name}.json.gz")
    plan = replace(plan_of(truth), source=with_ties(truth.source, truth.ties))
    keys = [key for key, info in plan.source.items() if may_be_trained(info)]
    values = random_tensors(truth.source, 7)
    values |= {key: values[group[0]] for group in truth.ties for key in group}
    state = {number: {"step": torch.tensor(3.0), "exp_avg": values[name]} for number, name in enumerate(keys)}
    found = moved(plan, {"state": state, "param_groups": [{**GROUP, "params": list(state), "param_names": keys}]})
    assert found["state"]
    for key, slots in found["state"].items():
        entry = truth.entries[key]
        if entry["op"] != "computed":
            assert torch.equal(slots["exp_avg"], expected(entry, values, tuple(truth.target[key].shape))), key
