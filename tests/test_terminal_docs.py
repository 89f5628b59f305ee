"""The commands that docs/terminal.md shows print what it shows."""

import re
import shlex
from pathlib import Path

import pytest
from running import ckpt

SHOWN = re.findall(r"```\n\$ ckpt (.*)\n((?:.|\n)*?)```", (Path(__file__).parent.parent / "docs" / "terminal.md").read_text())


@pytest.mark.parametrize(("command", "printed"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_the_docs_show_is_printed(story, command, printed):
    ran = ckpt(*shlex.split(command), cwd=story)
    assert ran.out + ran.err == printed
