"""The bar: on a terminal, for a job that takes its time; nothing of it anywhere else."""

import io

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
