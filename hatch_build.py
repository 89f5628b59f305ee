"""What a wheel has besides the package: man pages and completions, made from the command line
itself, so that they say what `--help` says.

    python hatch_build.py FOLDER        # writes them below FOLDER, as below `share/`
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
PROGRAMS = ("ckpt", "ckpt-tool")
COMPLETIONS = {
    "bash": "bash-completion/completions/{name}",
    "zsh": "zsh/site-functions/_{name}",
    "fish": "fish/vendor_completions.d/{name}.fish",
}
"""Where each shell looks for the completions of a program, below `share/`."""

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # as a script
    BuildHookInterface = object  # type: ignore[assignment, misc]


class ShellFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Makes the files for `share/`, and removes them when the wheel is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the files to the wheel; an editable install has none."""
        if version == "editable":
            return
        self.made = Path(tempfile.mkdtemp())
        for path in write_shell_files(self.made):
            build_data["shared_data"][str(self.made / path)] = f"share/{path.as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the files."""
        if version != "editable":
            shutil.rmtree(self.made)


def write_shell_files(folder: Path) -> list[Path]:
    """Writes the man pages and completions below a folder, and gives their paths in it."""
    sys.path.insert(0, str(ROOT))
    try:
        texts = dict([*_man_pages(), *_completions()])
    finally:
        sys.path.remove(str(ROOT))
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return list(texts)


def _completions() -> Iterator[tuple[Path, str]]:
    """The scripts that `--show-completion` prints."""
    for shell, place in COMPLETIONS.items():
        command = [sys.executable, "-m", "ckpt_tool", "--show-completion", shell]
        script = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.lstrip("\n")
        for name in PROGRAMS:
            yield Path(place.format(name=name)), re.sub(r"\b(_?)ckpt\b", rf"\1{name}", script)


def _man_pages() -> Iterator[tuple[Path, str]]:
    """A page for the program, and one for each command."""
    from typer.main import get_command

    from ckpt_tool.cli.app import COMMANDS, app

    group: Any = get_command(app)
    with group.make_context("ckpt", [], resilient_parsing=True) as context:
        commands = {name: group.get_command(context, name) for name in COMMANDS}
        whole = [
            *_head("ckpt", group.help),
            *_synopsis(context),
            *_prose("DESCRIPTION", group.help),
            *_table("COMMANDS", [(f"ckpt {name}", each.help) for name, each in commands.items()]),
            *_options(context),
            *_prose("EXIT STATUS", re.sub("^Exit status: ", "", group.epilog)),
            *_see_also(f"ckpt-{name}" for name in COMMANDS),
        ]
        yield Path("man/man1/ckpt.1"), "\n".join(whole) + "\n"
        for name, each in commands.items():
            with each.make_context(name, [], parent=context, resilient_parsing=True) as inner:
                page = [
                    *_head(f"ckpt-{name}", each.help),
                    *_synopsis(inner),
                    *_prose("DESCRIPTION", each.help),
                    *_options(inner),
                    *_prose("EXAMPLES", "\n\n".join(f"\b\n{line}" for line in each.examples)),
                    *_see_also(["ckpt"]),
                ]
            yield Path(f"man/man1/ckpt-{name}.1"), "\n".join(page) + "\n"


def _head(name: str, about: str) -> list[str]:
    from ckpt_tool import __version__

    first = re.split(r"(?<=[.:;])\s", about.strip(), maxsplit=1)[0].rstrip(".:;")
    title = f'.TH "{name.upper()}" "1" "" "ckpt {__version__}" "ckpt"'
    return [title, ".SH NAME", f"{_roff(name)} \\- {_roff(first)}"]


def _synopsis(context: Any) -> list[str]:
    pieces = context.command.collect_usage_pieces(context)
    return [".SH SYNOPSIS", f".B {_roff(context.command_path)}", _roff(" ".join(pieces))]


def _prose(title: str, text: str) -> Iterator[str]:
    """Paragraphs; one that begins with `\\b` keeps its lines."""
    yield f".SH {title}"
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        is_kept = lines[0].strip() == "\b"
        yield ".PP"
        yield from ([".nf", *map(_roff, lines[1:]), ".fi"] if is_kept else map(_roff, lines))


def _options(context: Any) -> Iterator[str]:
    given = [each.get_help_record(context) for each in context.command.get_params(context)]
    yield from _table("OPTIONS", [record for record in given if record])


def _table(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in rows:
        first = re.split(r"\n\s*\n", text.strip())[0]
        yield from (".TP", f".B {_roff(name)}", *map(_roff, first.splitlines() or [""]))


def _see_also(names: Iterator[str] | list[str]) -> list[str]:
    return [".SH SEE ALSO", ", ".join(f"\\fB{_roff(name)}\\fP(1)" for name in names)]


def _roff(text: str) -> str:
    """A line of text as it stands in a page."""
    plain = text.strip("\b").replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", plain)


if __name__ == "__main__":
    for written in write_shell_files(Path(sys.argv[1])):
        print(written)
