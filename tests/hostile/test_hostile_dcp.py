"""Hostile and broken distributed checkpoints: each is refused with its reason, and nothing of them runs."""

import re
import sys
from pathlib import Path

import pytest

from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from tests.hostile.promises import check_error
from tests.hostile.variants_dcp import VARIANTS, Folder, saved, whole

STARTED: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def heard() -> None:
    """What would start a process, or read code, is noted by the interpreter itself."""
    sys.addaudithook(lambda event, _: STARTED.append(event) if event in ("os.system", "subprocess.Popen", "os.exec", "pickle.find_class", "exec", "compile") and LISTENING else None)


LISTENING: list[bool] = []


def read_all(path: Path) -> None:
    with open_checkpoint(f"{path}#.") as checkpoint:
        for key in checkpoint.catalog:
            checkpoint.raw(key)


def test_the_folder_itself_is_sound(tmp_path: Path) -> None:
    whole().write(tmp_path / "run")
    read_all(tmp_path / "run")


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    reason, change = VARIANTS[name]
    folder = whole()
    change(folder)
    folder.write(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    STARTED.clear()
    LISTENING.append(True)
    try:
        with pytest.raises(InputError) as caught:
            read_all(tmp_path / "run")
    finally:
        LISTENING.clear()
    check_error(caught.value)
    assert re.search(reason, str(caught.value)), str(caught.value)
    assert not list(tmp_path.glob("**/marker"))
    assert not [event for event in STARTED if event not in ("exec", "compile")]


def test_an_object_that_would_run_is_named_and_the_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.hostile.variants_dcp import Bait

    folder: Folder = whole()
    content = saved(Bait())
    folder.files["o.distcp"] = content
    folder.place("o", relative_path="o.distcp", offset=0, length=len(content))
    folder.write(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    read_all(tmp_path / "run")
    with open_checkpoint(tmp_path / "run") as checkpoint:
        assert [name for name in checkpoint.asked if name.endswith("system")]
    assert not list(tmp_path.glob("**/marker"))


def test_no_flipped_byte_of_a_data_file_changes_a_value(tmp_path: Path) -> None:
    """Each byte in turn: what is read is what was saved, or it is refused. Names of members that nobody asks for may change."""
    whole().write(tmp_path / "run")
    with open_checkpoint(f"{tmp_path / 'run'}#.") as checkpoint:
        expected = {key: checkpoint.raw(key) for key in checkpoint.catalog}
    path = tmp_path / "run" / "__1_0.distcp"
    sound, refused = path.read_bytes(), 0
    for at in range(0, len(sound), 3):
        path.write_bytes(sound[:at] + bytes((sound[at] ^ 0x21,)) + sound[at + 1 :])
        try:
            with open_checkpoint(f"{tmp_path / 'run'}#.") as checkpoint:
                assert {key: checkpoint.raw(key) for key in checkpoint.catalog} == expected, at
        except InputError as error:
            check_error(error)
            refused += 1
    assert refused > 200
