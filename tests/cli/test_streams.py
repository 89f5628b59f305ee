"""Standard streams that are closed or full: a result that can't be printed is told, and no file pays for it."""

import os

import pytest
import torch
from running import ckpt, in_shell

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
OUTPUT = "error: standard output: "


@pytest.fixture
def folder(tmp_path):
    torch.save({"a.w": torch.randn(3), "b.w": torch.randn(2, 2)}, tmp_path / "a.pth")
    return tmp_path



@pytest.mark.parametrize(("sink", "fact"), [(">&-", "Bad file descriptor"), pytest.param("> /dev/full", "No space left on device", marks=FULL)])
@pytest.mark.parametrize("command", ["show a.pth", "show a.pth --json", "--help", "show --help"])
def test_a_result_that_cannot_be_printed_is_told_in_one_line(folder, command, sink, fact):
    ran = in_shell(f'"$0" -m ckpt_tool {command} {sink}', folder)
    assert (ran.status, ran.err) == (2, f"{OUTPUT}{fact}\n")


COMMANDS = [("show a.pth", 0), ("show none.pth", 2), ("show none.pth --debug", 2), ("show --none", 2), ("map a.pth a.pth -o out.pth --force", 0)]


@pytest.mark.parametrize("sink", ["2>&-", pytest.param("2> /dev/full", marks=FULL)])
@pytest.mark.parametrize(("command", "status"), COMMANDS)
def test_where_messages_go_nowhere_the_rest_is_as_ever(folder, command, status, sink):
    wanted, ran = in_shell(f'"$0" -m ckpt_tool {command}', folder), in_shell(f'"$0" -m ckpt_tool {command} {sink}', folder)
    assert (wanted.status, ran.status, ran.out) == (status, status, wanted.out)


def test_no_file_gets_the_number_of_a_closed_stream(folder):
    """Else what is printed would be written into it."""
    ran = in_shell('"$0" -m ckpt_tool map a.pth a.pth -o out.pth <&- >&- 2>&-', folder)
    assert (ran.status, ran.out, ran.err) == (2, "", "")
    assert ckpt("diff", "a.pth", "out.pth", "--values", cwd=folder).status == 0


def test_a_key_list_from_a_closed_stream_has_no_lines(folder):
    ran = in_shell('"$0" -m ckpt_tool diff - a.pth <&-', folder)
    assert (ran.status, ran.err) == (2, "error: standard input: has no line of a key list; `ckpt show --keys` writes one\n")
