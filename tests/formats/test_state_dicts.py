"""Which state dict of a file is taken, what its keys are, and that nothing of the file is lost."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

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
    "a GAN": ({"generator": model("g"), "discriminator": model("d")}, "generator", ["g"]),
    "a list": ([T(), {"x": T()}, (T(),)], "", ["0", "1.x", "2.0"]),
    "numbers as keys": ({0: T(), 1: {2: T()}}, "", ["0", "1.2"]),
    "nothing but an optimizer": ({"optimizer": ADAM}, "", []),
    "a lone tensor": (T(2), "", [""]),
    "an empty name": ({"": T(), "a": {"": T()}}, "", ["", "a."]),
    "no tensor at all": ({"epoch": 1}, "", []),
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


def test_an_optimizer_can_be_picked_by_its_name(tmp_path: Path) -> None:
    with opened(tmp_path, {"model": model(), "optimizer": ADAM}, "#optimizer") as checkpoint:
        assert list(checkpoint.catalog) == ["state.0.step", "state.0.exp_avg"]


def test_an_unknown_name_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="named `mdoel`; it has `model`, `ema`"):
        opened(tmp_path, {"model": model(), "ema": model()}, "#mdoel")


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


def test_a_state_dict_that_two_names_share_is_taken_once(tmp_path: Path) -> None:
    shared = model()
    with opened(tmp_path, {"model": shared, "best": shared}) as checkpoint:
        assert list(checkpoint.catalog) == ["w", "b"]
        assert [(info.key, info.shares) for info in checkpoint.contents.elsewhere] == [("best.w", "w"), ("best.b", "b")]


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
        tmp_path / "a.pdparams", {key: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for key, array in arrays.items()}
    )
