"""Threads that open checkpoints at the same time: each gets its own file's description and values, and none is refused for another."""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.pickle import machine
from ckpt_tool.formats.pickle.machine import PickleMachine

THREADS, KEYS = 8, 60


@pytest.fixture
def nervous() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def write(folder: Path, number: int, name: str) -> Path:
    """A file whose keys say which it is, in an order of its own."""
    keys = [f"k{(i * (number + 1)) % 61}.w" for i in range(KEYS)]
    tensors = {key: torch.full((2,), float(number)) for key in dict.fromkeys(keys)} | {f"only_in_{number}": torch.ones(1)}
    path = folder / f"{number}.{name}"
    if name == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name == "pth")
    return path


def is_its_own(path: Path) -> bool:
    number = int(path.name.partition(".")[0])
    with open_checkpoint(path) as checkpoint:
        values = {checkpoint.raw(key) for key in ("k1.w", "k7.w")}
        return f"only_in_{number}" in checkpoint.catalog and values == {bytes(torch.full((2,), float(number)).numpy())}


def mixed_up(folder: Path, times: int) -> int:
    paths = [write(folder, number, name) for number in (0, 1) for name in ("pth", "legacy", "safetensors")]
    with ThreadPoolExecutor(THREADS) as pool:
        return sum(not own for own in pool.map(is_its_own, (paths[i * 5 % len(paths)] for i in range(times))))


def test_each_thread_gets_its_own_file(tmp_path: Path, nervous: None) -> None:
    assert mixed_up(tmp_path, 300) == 0


@pytest.mark.slow
def test_twenty_thousand_openings_by_eight_threads(tmp_path: Path, nervous: None) -> None:
    assert mixed_up(tmp_path, 20_000) == 0


def test_a_thread_that_reads_between_two_steps_of_another_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second file is opened while the first one's pickle is being read."""
    first, second = write(tmp_path, 0, "pth"), write(tmp_path, 1, "pth")
    real, inside = PickleMachine.load, []

    def load(self: PickleMachine, path: str, place: str) -> object:
        if not inside:
            inside.append(True)
            assert is_its_own(second)
        return real(self, path, place)

    monkeypatch.setattr(PickleMachine, "load", load)
    assert is_its_own(first)
    assert is_its_own(second)


def test_what_other_threads_hold_is_not_counted_against_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PICKLE_MEMORY", 20_000_000)
    hoard: list[object] = []
    hungry = PickleMachine(b"]" + b"NQ0" * 60_000 + b".", persistent=lambda _: hoard.extend(object() for _ in range(10)))
    assert hungry.load("a.pkl", "the pickle") == []
    assert len(hoard) == 600_000


def test_the_collector_runs_again_whatever_the_order_in_which_threads_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread asks whether it runs while another has paused it, and goes on when that one is done."""
    path = write(tmp_path, 0, "pth")
    gc.disable()
    monkeypatch.setattr(gc, "isenabled", lambda: (gc.enable(), False)[1])
    assert is_its_own(path)
    monkeypatch.undo()
    assert gc.isenabled()
