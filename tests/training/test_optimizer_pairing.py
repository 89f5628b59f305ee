"""Numbers that are paired with keys are the right ones, or none are."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt_tool.errors import InputError
from ckpt_tool.ops import TensorForm
from ckpt_tool.optimizers import read_optimizer, recognise
from ckpt_tool.optimizers.naming import keys_of_parameters
from ckpt_tool.tensors import Catalog, DType, TensorInfo

SHAPES = st.sampled_from([(4,), (4, 4), (4, 8), (8,)])
ADAM = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}


def form_of(value):
    return TensorForm(DType.F32, tuple(value.shape)) if isinstance(value, torch.Tensor) else None


@given(st.lists(SHAPES, min_size=1, max_size=8), st.data())
def test_groups_in_the_order_of_the_model_are_paired_rightly_or_not_at_all(shapes, data):
    keys = [f"layer{i}.{'zyxwvuts'[i]}" for i in range(len(shapes))]
    catalog = Catalog([TensorInfo(key, DType.F32, shape) for key, shape in zip(keys, shapes, strict=True)])
    count = data.draw(st.integers(1, 3))
    places = [data.draw(st.integers(-1, count - 1)) for _ in keys]  # -1: frozen, in no group
    groups = [[key for key, place in zip(keys, places, strict=True) if place == number] for number in range(count)]
    true = [key for group in groups for key in group]
    silent = data.draw(st.sets(st.sampled_from(keys)))  # those that never had a gradient
    state = {number: {"step": 1, "exp_avg": torch.zeros(catalog[key].shape)} for number, key in enumerate(true) if key not in silent}
    starts = [sum(map(len, groups[:number])) for number in range(count)]
    saved = read_optimizer(
        {"state": state, "param_groups": [{**ADAM, "params": list(range(start, start + len(group)))} for start, group in zip(starts, groups, strict=True)]},
        form_of,
        "o",
    )
    try:
        found = keys_of_parameters(saved, catalog, recognise(saved.groups, saved.slots))
    except InputError:
        return
    assert list(found) == true
