"""Which state dict of a file is taken, what its keys are, and that nothing of the file is lost."""

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from tests.formats.oracles import assert_agrees


def T(*shape: int) -> torch.Tensor:  # noqa: N802
    return torch.zeros(shape or (1,))


def model(*keys: str) -> dict[str, torch.Tensor]:
    return {key: T() for key in keys or ("w", "b")}


ADAM = {"state": {0: {"step": T(), "exp_avg": T()}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def opened(tmp_path: Path, value: object, fragment: str = "") -> Checkpoint:
    torch.save(value, tmp_path / "run.pth")
    return open_checkpoint(f"{tmp_path / 'run.pth'}{fragment}")


CASES: dict[str, tuple[object, str, list[str]]] = {
    "a flat state dict": (model(), "", ["w", "b"]),
    "training with an optimizer": ({"model": model(), "optimizer": ADAM, "rng": T(), "epoch": 3}, "model", ["w", "b"]),
    "lightning": ({"state_dict": model("net.w"), "optimizer_states": [ADAM], "callbacks": {"x": T()}, "epoch": 1}, "state_dict", ["net.w"]),
    "an average beside the weights": ({"state_dict_ema": model("e"), "state_dict": model()}, "state_dict", ["w", "b"]),
    "only an average": ({"ema": model("e"), "epoch": 1}, "ema", ["e"]),
    "params and their average": ({"params_ema": model("e"), "params": model()}, "params", ["w", "b"]),
    "a well-known name inside of another": (
        {"checkpoint": {"model": model(), "cfg": {}}, "other": model("x")},
        "checkpoint.model",
        ["w", "b"],
    ),
    "two levels of well-known names": ({"model": {"state_dict": model(), "lr": 1}}, "model.state_dict", ["w", "b"]),
    "the only mapping of tensors": ({"foo": model(), "epoch": 1}, "foo", ["w", "b"]),
    "the only one, deep inside": ({"foo": {"bar": model()}}, "foo.bar", ["w", "b"]),
    "several of unknown names": ({"a": model("w"), "b": model("w")}, "", ["a.w", "b.w"]),
    "several beside an optimizer": ({"a": model("w"), "b": model("w"), "optim": ADAM}, "", ["a.w", "b.w"]),
    "an optimizer by its shape": ({"a": model("w"), "o": ADAM}, "a", ["w"]),
    "nested mappings": ({"encoder": {"w": T()}, "w": T(), "v": T()}, "", ["encoder.w", "w", "v"]),
    "nested mappings under a well-known name": (
        {"model": {"encoder": {"w": T()}, "decoder": {"w": T()}}},
        "model",
        ["encoder.w", "decoder.w"],
    ),
    "tensors beside an optimizer": ({"w": T(), "b": T(), "optimizer": ADAM}, "", ["w", "b"]),
    "few tensors beside a model": ({"model": model("a", "b", "c"), "loss": T(), "grid": T()}, "model", ["a", "b", "c"]),
    "a generator alone": ({"generator": model("g"), "epoch": 1}, "generator", ["g"]),
    "a copy beside what it is a copy of": ({"ema": model(), "other": model()}, "other", ["w", "b"]),
    "an average beside other things": ({"ema": model(), "other": model("x")}, "ema", ["w", "b"]),
    "a network and its target": ({"online": model(), "target": model()}, "online", ["w", "b"]),
    "the two parts of a model": ({"encoder": model("l.w"), "decoder": model("k.w")}, "", ["encoder.l.w", "decoder.k.w"]),
    "layers of the same names": ({"linear": model(), "linear_1": model()}, "", ["linear.w", "linear.b", "linear_1.w", "linear_1.b"]),
    "a list of one": ({"model": [model()], "epoch": 1}, "model.0", ["w", "b"]),
    "layers in a list": ({"params": [model(), model()]}, "params", ["0.w", "0.b", "1.w", "1.b"]),
    "modules that are called as training is": (
        {"model": {"sampler": model(), "hooks": {"loops": T()}, "enc": {"callbacks": model("w")}}},
        "model",
        ["sampler.w", "sampler.b", "hooks.loops", "enc.callbacks.w"],
    ),
    "no tensor, and nothing else": ({}, "", []),
    "a list": ([T(), {"x": T()}, (T(),)], "", ["0", "1.x", "2.0"]),
    "numbers as keys": ({0: T(), 1: {2: T()}}, "", ["0", "1.2"]),
    "nothing but an optimizer": ({"optimizer": ADAM}, "", []),
    "a lone tensor": (T(2), "", [""]),
    "an empty name": ({"": T(), "a": {"": T()}}, "", ["", "a."]),
}


@pytest.mark.parametrize(("value", "taken", "keys"), CASES.values(), ids=list(CASES))
def test_the_state_dict_that_is_meant_is_taken(tmp_path: Path, value: object, taken: str, keys: list[str]) -> None:
    with opened(tmp_path, value) as checkpoint:
        assert (checkpoint.contents.taken, list(checkpoint.catalog)) == (taken, keys)


def test_every_other_tensor_is_listed_under_its_full_path(tmp_path: Path) -> None:
    with opened(tmp_path, {"model": model(), "optimizer": ADAM, "rng": T()}) as checkpoint:
        elsewhere = [info.key for info in checkpoint.contents.elsewhere]
        assert elsewhere == ["optimizer.state.0.step", "optimizer.state.0.exp_avg", "rng"]


def test_all_state_dicts_are_listed_with_their_sizes(tmp_path: Path) -> None:
    with opened(tmp_path, {"model": model(), "ema": model("w"), "optimizer": ADAM}) as checkpoint:
        assert [(found.path, found.tensors, found.nbytes) for found in checkpoint.contents.state_dicts] == [("model", 2, 8), ("ema", 1, 4)]


def test_a_state_dict_is_picked_by_its_name(tmp_path: Path) -> None:
    value = {"model": {"encoder": {"w": T(2)}, "v": T()}, "ema": model("e"), "a.b": {"c": model("d")}}
    for fragment, keys in {"#ema": ["e"], "#model": ["encoder.w", "v"], "#model.encoder": ["w"], "#a.b.c": ["d"], "#a.b": ["c.d"]}.items():
        with opened(tmp_path, value, fragment) as checkpoint:
            assert (checkpoint.contents.taken, list(checkpoint.catalog)) == (fragment[1:], keys)


def test_averages_are_found_below_their_decay(tmp_path: Path) -> None:
    value = {"model": model("a", "b"), "ema": {"decay": T(), "shadow": model("a", "b")}}
    for fragment, taken in {"": "model", "#ema": "ema.shadow", "#shadow": "ema.shadow"}.items():
        with opened(tmp_path, value, fragment) as checkpoint:
            assert (checkpoint.contents.taken, list(checkpoint.catalog)) == (taken, ["a", "b"])
    with opened(tmp_path, {"ema": value["ema"], "epoch": 3}) as checkpoint:
        assert (checkpoint.contents.taken, list(checkpoint.catalog)) == ("ema.shadow", ["a", "b"])


SLOTS = ["state.0.step", "state.0.exp_avg"]


@pytest.mark.parametrize(
    ("file", "fragment", "taken", "keys"),
    [
        ({"state_dict": model(), "optimizer_states": [ADAM]}, "optimizer_states", "optimizer_states.0", SLOTS),
        ({"state_dict": model(), "optimizer_states": [ADAM]}, "optim", "optimizer_states.0", SLOTS),
        ({"model": model(), "optimizer": ADAM}, "optim", "optimizer", SLOTS),
        ({"model": model(), "training": {"opt": ADAM}}, "optim", "training.opt", SLOTS),
        ({"state_dict": model(), "optimizer_states": [ADAM, ADAM]}, "optimizer_states", "optimizer_states", [f"{i}.{key}" for i in (0, 1) for key in SLOTS]),
        ({"state_dict": model(), "opts": {"g": ADAM}, "optim": model("x")}, "optim", "optim", ["x"]),
    ],
)
def test_the_state_of_optimizers_is_found_by_what_it_is(tmp_path: Path, file: object, fragment: str, taken: str, keys: list[str]) -> None:
    with opened(tmp_path, file, f"#{fragment}") as checkpoint:
        assert (checkpoint.contents.taken, list(checkpoint.catalog)) == (taken, keys)


def test_one_of_two_optimizers_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has the states of 2 optimizers; it has `opt_g` \(2 tensors\), `opt_d` \(2 tensors\)$"):
        opened(tmp_path, {"netG": model(), "opt_g": ADAM, "opt_d": ADAM}, "#optim")


def test_an_optimizer_can_be_picked_by_its_name(tmp_path: Path) -> None:
    with opened(tmp_path, {"model": model(), "optimizer": ADAM}, "#optimizer") as checkpoint:
        assert list(checkpoint.catalog) == ["state.0.step", "state.0.exp_avg"]


def test_an_unknown_name_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"named `mdoel`; it has `model` \(2 tensors\), `ema` \(2 tensors\), `optimizer` \(2 tensors\)$"):
        opened(tmp_path, {"model": model(), "ema": model(), "optimizer": ADAM, "epoch": 1}, "#mdoel")


RIVALS: dict[str, tuple[object, list[str]]] = {
    "a GAN": ({"generator": model("g"), "discriminator": model("d"), "epoch": 1}, ["generator", "discriminator"]),
    "a GAN's state dicts": ({"netG": {"state_dict": model()}, "netD": {"state_dict": model("x")}}, ["netG.state_dict", "netD.state_dict"]),
    "one of them under a name of its own": ({"netG": {"state_dict": model()}, "netD": model()}, ["netG.state_dict", "netD"]),
    "two models": ({"a": {"model": model()}, "b": {"model": model()}}, ["a.model", "b.model"]),
    "two models of other names": ({"a": {"model": model()}, "b": {"module": model()}}, ["a.model", "b.module"]),
    "student and teacher": ({"student": model(), "teacher": model(), "optimizer": ADAM}, ["student", "teacher"]),
    "a GAN with an average": ({"g": model(), "d": model("x"), "g_ema": model()}, ["g", "d"]),
    "a list of two": ({"model": [model("cnn.w"), model("rnn.w")], "epoch": 1}, ["model.0", "model.1"]),
    "two networks of the same keys": ({"first": model("l.w", "l.b"), "second": model("l.w", "l.b")}, ["first", "second"]),
    "source and target": ({"source": model("l.w"), "target": model("l.w")}, ["source", "target"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RIVALS)
def test_none_of_several_that_are_equally_likely_is_taken(tmp_path: Path, name: str) -> None:
    value, names = RIVALS[name]
    with opened(tmp_path, value) as checkpoint:
        assert (checkpoint.contents.rivals, checkpoint.contents.taken) == (tuple(names), "")
        assert all(any(key.startswith(f"{name}.") for key in checkpoint.catalog) for name in names)
        with pytest.raises(InputError) as raised:
            checkpoint.definite()
        assert all(f"run.pth#{name}" in str(raised.value) for name in names)
    for wanted in names:
        with opened(tmp_path, value, f"#{wanted}") as checkpoint:
            assert checkpoint.definite() is checkpoint
            assert checkpoint.contents.taken == wanted


@pytest.mark.parametrize("name", CASES)
def test_what_is_taken_or_whole_is_definite(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, CASES[name][0]) as checkpoint:
        assert checkpoint.definite() is checkpoint


def test_all_of_a_file_can_be_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path, RIVALS["a GAN's state dicts"][0], "#.") as checkpoint:
        assert list(checkpoint.catalog) == ["netG.state_dict.w", "netG.state_dict.b", "netD.state_dict.x"]
        assert checkpoint.definite() is checkpoint


def test_a_name_may_be_the_last_part_of_a_path_or_an_index(tmp_path: Path) -> None:
    ema = {"ema": {"state_dict": model("e")}, "timer": {"x": 1}}
    value = {"netG": {"state_dict": model("g")}, "netD": {"state_dict": model("d"), "n": 1}, "callbacks": ema, "parts": [model("p"), model("q")]}
    taken = {
        "#netD": ("netD.state_dict", ["d"]), "#ema": ("callbacks.ema.state_dict", ["e"]), "#callbacks.ema": ("callbacks.ema.state_dict", ["e"]),
        "#ema.state_dict": ("callbacks.ema.state_dict", ["e"]), "#parts[1]": ("parts.1", ["q"]), "#parts.0": ("parts.0", ["p"]),
        "#parts": ("parts", ["0.p", "1.q"]),
    }  # fmt: skip
    for fragment, (path, keys) in taken.items():
        with opened(tmp_path, value, fragment) as checkpoint:
            assert (checkpoint.contents.taken, list(checkpoint.catalog)) == (path, keys)
    with pytest.raises(InputError, match=r"is the end of 2 names; it has `netG.state_dict` \(1 tensor\), `netD.state_dict` \(1 tensor\)"):
        opened(tmp_path, {"netG": value["netG"], "netD": value["netD"]}, "#state_dict")


def test_what_lies_outside_of_the_state_dict_is_summed_up(tmp_path: Path) -> None:
    value = {
        "epoch": 3, "state_dict": model(), "state_dict_ema": model(), "optimizer_states": [ADAM], "hyper_parameters": {"lr": 0.1},
        "callbacks": {"ema": model("e"), "timer": 1}, "rng": T(), "teacher": {"net": model("a", "b", "c")}, "run": {"note": "x", "grid": [T(2), T(3)]},
    }  # fmt: skip
    with opened(tmp_path, value) as checkpoint:
        assert [(one.path, one.kind, one.tensors, one.nbytes) for one in checkpoint.contents.left_behind] == [
            ("epoch", "values", 0, 0),
            ("state_dict_ema", "averaged weights", 2, 8),
            ("optimizer_states", "optimizer", 2, 8),
            ("hyper_parameters", "values", 0, 0),
            ("callbacks", "values", 0, 0),
            ("callbacks.ema", "averaged weights", 1, 4),
            ("rng", "tensors", 1, 4),
            ("teacher.net", "state dict", 3, 12),
            ("run", "values", 0, 0),
            ("run.grid", "state dict", 2, 20),
        ]
        assert sum(one.tensors for one in checkpoint.contents.left_behind) == len(checkpoint.contents.elsewhere)


def test_what_is_skipped_inside_of_a_file_that_is_a_state_dict_is_told(tmp_path: Path) -> None:
    with opened(tmp_path, {"w": T(), "b": T(), "optimizer": ADAM, "callbacks": {"x": T()}, "step": 3}) as checkpoint:
        assert list(checkpoint.catalog) == ["w", "b"]
        assert [(one.path, one.kind, one.tensors) for one in checkpoint.contents.left_behind] == [
            ("optimizer", "optimizer", 2), ("callbacks", "tensors", 1), ("step", "values", 0),
        ]  # fmt: skip


@pytest.mark.parametrize("value", [5, {"a": 1, "args": "x"}, [], "x", {"state_dict": {}, "epoch": 1}, None], ids=str)
def test_a_file_without_any_tensor_is_no_checkpoint(tmp_path: Path, value: object) -> None:
    with pytest.raises(FormatError, match="holds no tensor, but "):
        opened(tmp_path, value)


@pytest.mark.parametrize("value", [{}, torch.nn.ReLU().state_dict(), torch.nn.ReLU()], ids=["a dict", "a state dict", "a module"])
def test_the_state_dict_of_a_model_without_tensors_is_one(tmp_path: Path, value: object) -> None:
    with opened(tmp_path, value) as checkpoint:
        assert not checkpoint.catalog


def test_a_file_without_tensors_that_would_call_something_is_told_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.")
    with pytest.raises(FormatError, match=r"unpickling it would call or import os\.system"):
        open_checkpoint(tmp_path / "a.pkl")


@pytest.mark.parametrize("value", [{0: T(), "0": T()}, {"a": {"b": T()}, "a.b": T()}], ids=str)
def test_keys_that_become_the_same_are_an_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(FormatError, match="two tensors of its state dict are named"):
        opened(tmp_path, value)


def test_things_that_are_no_tensors_are_extras(tmp_path: Path) -> None:
    value = OrderedDict(w=T(), step=3, note="a\nb", shape=(1, 2), none=None)
    with opened(tmp_path, value) as checkpoint:
        assert [(extra.path, extra.kind, extra.text) for extra in checkpoint.extras] == [
            ("step", "value", "3"), ("note", "value", "'a\\nb'"), ("shape", "container", "(1, 2)"), ("none", "value", "None"),
        ]  # fmt: skip


def test_texts_of_extras_are_short_and_their_number_is_bounded(tmp_path: Path) -> None:
    value = {"w": T(), "long": "x" * 10_000, **{f"n{i}": i for i in range(3000)}}
    with opened(tmp_path, value) as checkpoint:
        assert len(checkpoint.extras) == 1001
        assert max(len(extra.text) for extra in checkpoint.extras) <= 200
        assert checkpoint.extras[-1].text == "2001 more things besides the tensors are not listed"


WORDS = st.sampled_from(
    ["model", "state_dict", "ema", "optimizer", "netG", "netD", "student", "teacher", "callbacks", "sampler", "w", "l.0.w", "l.0.b", "x", "state", "epoch"]
)
LEAVES = st.sampled_from([0, 1, 2, "x", None])
NESTED = st.recursive(LEAVES, lambda inner: st.dictionaries(WORDS, inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=14)


def planted(value: object) -> object:
    """The same with tensors for numbers: 0 for a plain one, 1 for a sparse one."""
    if isinstance(value, dict):
        return {name: planted(one) for name, one in value.items()}
    if isinstance(value, list):
        return [planted(one) for one in value]
    return T() if value == 0 else torch.eye(2).to_sparse() if value == 1 else value


def count(value: object) -> int:
    if isinstance(value, dict | list):
        return sum(map(count, value.values() if isinstance(value, dict) else value))
    return isinstance(value, torch.Tensor)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=NESTED)
def test_every_tensor_of_a_file_is_a_key_or_counted_outside(tmp_path: Path, value: object) -> None:
    made = planted({"root": value, "more": 0} if not isinstance(value, dict | list) else value)
    # Keys that become the same are refused, as is a file without tensors.
    with suppress(FormatError), opened(tmp_path, made) as checkpoint:
        inside = len(checkpoint.catalog) + len(checkpoint.catalog.unreadable)
        assert inside + sum(one.tensors for one in checkpoint.contents.left_behind) == count(made)
        for found in checkpoint.contents.state_dicts:
            if found.path:
                with open_checkpoint(f"{checkpoint.path}#{found.path}") as other:
                    assert len(other.catalog) + len(other.catalog.unreadable) == found.tensors


def test_of_very_many_things_outside_the_others_are_summed_up(tmp_path: Path) -> None:
    value = {"model": model(), **{f"n{i}": i for i in range(900)}, **{f"t{i}": T() for i in range(300)}}
    with opened(tmp_path, value, "#model") as checkpoint:
        left = checkpoint.contents.left_behind
        assert (len(left), left[-1].path, sum(one.tensors for one in left)) == (1001, "…", 300)


def test_a_state_dict_that_two_names_share_is_taken_once(tmp_path: Path) -> None:
    shared = model()
    with opened(tmp_path, {"model": shared, "best": shared}) as checkpoint:
        assert list(checkpoint.catalog) == ["w", "b"]
        assert [(info.key, info.shared_storage_with) for info in checkpoint.contents.elsewhere] == [("best.w", "w"), ("best.b", "b")]


def test_a_bomb_of_references_to_a_tensor_is_an_error(tmp_path: Path) -> None:
    value: object = T()
    for _ in range(60):
        value = (value, value)
    with pytest.raises(FormatError, match="refers to the same objects over and over"):
        opened(tmp_path, {"w": value})


def test_a_bomb_without_tensors_is_skipped(tmp_path: Path) -> None:
    value: object = (1,)
    for _ in range(60):
        value = (value, value)
    with opened(tmp_path, {"w": T(), "bomb": value}) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]


def test_a_container_that_holds_itself_is_an_error_or_skipped(tmp_path: Path) -> None:
    plain: dict[str, object] = {"w": T(), "note": []}
    plain["note"].append(plain["note"])  # type: ignore[attr-defined]
    with opened(tmp_path, plain) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]
    plain["self"] = plain
    with pytest.raises(FormatError, match="refers to the same objects over and over"):
        opened(tmp_path, plain)


def test_arrays_are_extras_beside_tensors_and_tensors_where_there_are_none(tmp_path: Path) -> None:
    import pickle

    import numpy as np

    arrays = {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3), "f": np.asfortranarray(np.eye(2)), "b": np.array([1, 2], ">i2")}
    with opened(tmp_path, {"model": {"t": T()}, "mean": arrays["w"]}) as checkpoint:
        assert [(extra.path, extra.kind, extra.text) for extra in checkpoint.extras] == [("mean", "tensor", "array <f4 2×3")]
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(arrays, 2))
    assert_agrees(
        tmp_path / "a.pdparams", {key: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for key, array in arrays.items()}  # type: ignore[attr-defined]
    )
