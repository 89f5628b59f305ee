"""Random training checkpoints through random plans, against the same done with torch in memory."""

from collections import OrderedDict

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckpt_tool

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.complex64, torch.bool]


@st.composite
def runs(draw):
    """Weights, some of which share storages with each other, and things beside them that share storages and tensors with these."""
    base = [torch.arange(24).reshape(4, 6).to(draw(st.sampled_from(DTYPES))) for _ in range(draw(st.integers(1, 4)))]
    views = [lambda t: t, lambda t: t.clone(), lambda t: t[1:3], lambda t: t.T, lambda t: t[:, ::2], lambda t: t[:0], lambda t: t.expand(2, 4, 6), lambda t: t[0, 0]]

    def some(low, high):
        return [draw(st.sampled_from(views))(draw(st.sampled_from(base))) for _ in range(draw(st.integers(low, high)))]

    make = draw(st.sampled_from([dict, OrderedDict]))
    weights = make((f"m{number}.w", value) for number, value in enumerate(some(1, 6)))
    run = {"epoch": 3, "before": some(0, 2), "model": weights, "after": {"x": some(0, 2), "same": list(weights.values())[: draw(st.integers(0, 2))]}}
    if draw(st.booleans()):
        run["copy"] = {f"module.{key}": value.clone() for key, value in weights.items()}
    return run


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, torch.equal(one, other)) == (other.dtype, other.shape, True)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def storages(run, names):
    """Which of some tensors share a storage, as pairs of places."""
    found = [(place, value.untyped_storage().data_ptr()) for place, value in names(run) if value.untyped_storage().nbytes()]
    return {(a, b) for a, one in found for b, other in found if one == other}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(run=runs(), protocol=st.sampled_from([2, 3, 4, 5]), data=st.data())
def test_a_random_plan_leaves_all_else(tmp_path, run, protocol, data):
    path, new = tmp_path / "run.pt", tmp_path / "new.pt"
    torch.save(run, path, pickle_protocol=protocol)
    keys = list(run["model"])
    fates = {key: data.draw(st.sampled_from(["same", "renamed", "computed", "dropped", "twice"])) for key in keys}
    if set(fates.values()) == {"dropped"}:
        fates[keys[0]] = "same"
    fates = {key: "renamed" if fate == "computed" and run["model"][key].dim() < 2 else fate for key, fate in fates.items()}
    right = {"same": "{}", "renamed": "net.{}", "computed": "new.{}: {{transpose: [{}]}}", "twice": "{{one,two}}.{}: copy"}
    rules, drop, made = [], [], {}
    for key, fate in fates.items():
        value = run["model"][key]
        axes = f"0, {value.dim() - 1}"
        if fate == "dropped":
            drop.append(key)
            continue
        rules.append(f"{key} -> {right[fate].format(key, axes)}")
        names = {"same": [key], "renamed": [f"net.{key}"], "computed": [f"new.{key}"], "twice": [f"one.{key}", f"two.{key}"]}[fate]
        made |= dict.fromkeys(names, value.transpose(0, -1) if fate == "computed" else value)
    also = ["#copy"] if "copy" in run and data.draw(st.booleans()) else []
    ckpt_tool.map(path, None, new, rules=rules, drop=drop, also=also, force=True)
    found = torch.load(new, weights_only=False)
    assert_same(dict(found["model"]), made)
    assert type(found["model"]) is type(run["model"])
    expected = {key: value for key, value in run.items() if key != "model" and not (also and key == "copy")}
    assert_same({key: found[key] for key in expected}, expected)
    if also:
        copied = {f"module.{name}": run["copy"][f"module.{name.split('.', 1)[1] if name not in run['model'] else name}"] for name in made}
        assert list(found["copy"]) == list(copied)
        plain = {name for name in made if not name.startswith("new.")}
        assert_same({name: found["copy"][f"module.{name}"] for name in plain}, {name: copied[f"module.{name}"] for name in plain})

    def places(each):
        yield from ((("before", number), value) for number, value in enumerate(each["before"]))
        yield from ((("x", number), value) for number, value in enumerate(each["after"]["x"]))
        yield from ((("same", number), value) for number, value in enumerate(each["after"]["same"]))
        yield from ((("model", key), each["model"][f"net.{key}" if each is found else key]) for key, fate in fates.items() if fate == "renamed")

    assert storages(found, places) == storages(torch.load(path, weights_only=False), places)
