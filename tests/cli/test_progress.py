"""The bar: on a terminal, for a job that takes its time; nothing of it anywhere else."""

import io
import time

import pytest

from ckpt_tool.cli.parts import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_terminal(monkeypatch, stream):
    # Within the test, since pytest puts its own stream in place after the fixtures are made.
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_a_short_job_shows_nothing(monkeypatch):
    terminal = on_terminal(monkeypatch, Terminal())
    with progress.Progress(100) as told:
        told(50)
        told(50)
    assert terminal.getvalue() == ""


def test_a_long_job_has_a_bar_that_goes_when_it_ends(monkeypatch):
    terminal = on_terminal(monkeypatch, Terminal())
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with progress.Progress(100) as told:
        told(50)
        told(50)
    assert "100/100 bytes" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")


def test_no_bar_where_nobody_looks(monkeypatch):
    stream = on_terminal(monkeypatch, io.StringIO())
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with progress.Progress(100) as told:
        told(100)
    assert stream.getvalue() == ""


def test_work_of_unknown_length_has_a_sign_that_goes(monkeypatch):
    terminal = on_terminal(monkeypatch, Terminal())
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.working(True, "comparing") as done:
        wait_for(lambda: "comparing" in terminal.getvalue())
        done()
        assert terminal.getvalue().rstrip().endswith("\x1b[2K")
        shown = terminal.getvalue()
    assert terminal.getvalue() == shown


def test_a_bar_takes_the_place_of_the_sign(monkeypatch):
    terminal = on_terminal(monkeypatch, Terminal())
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.working(True, "comparing"):
        wait_for(lambda: "comparing" in terminal.getvalue())
        monkeypatch.setattr(progress, "PATIENCE", -1.0)
        with progress.Progress(100) as told:
            told(100)
        assert "comparing" not in terminal.getvalue().partition("100/100 bytes")[2]


@pytest.mark.parametrize(("stream", "is_wanted"), [(Terminal, False), (io.StringIO, True)])
def test_no_sign_where_nobody_looks_or_it_is_soon_over(monkeypatch, stream, is_wanted):
    shown = on_terminal(monkeypatch, stream())
    with progress.working(is_wanted, "comparing"):
        pass
    assert shown.getvalue() == ""


def wait_for(is_so):
    for _ in range(1000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError
