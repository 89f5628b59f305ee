"""Draws the pictures of the README: commands of the story, in their colours, as SVG.

    python examples/resnet50_to_detector.py && python docs/pictures/terminal.py resnet50_to_detector

Needs `rich`, which the tests install.
"""

import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

HERE = Path(__file__).parent

MISSPELT = """\
rules:
  - conv1.* -> layer0.0.*
  - bn1.* -> layer0.1.*
  - layer{s}.{b}.conv{n}.* -> layer{s}.{b}.botleneck.{3*n-3}.*
  - layer{s}.{b}.bn{n}.* -> layer{s}.{b}.bottleneck.{3*n-2}.*
  - layer{s}.{b}.downsample.** -> layer{s}.{b}.shortcut.**
drop: ["fc.*"]
keep: ["layer5.**", "conv_end.*", "bn_end.*"]
"""

PICTURES = {
    "diff": "diff resnet50.pth detector.pth",
    "problem": "plan resnet50.pth detector.pth --rules rules.yaml",
    "plan": "plan --rules resnet50_to_yolo.yaml",
    "suggest": "suggest resnet50.pth detector.pth",
}

FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#191919"/>
<g transform="translate(10, 30)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def draw(name: str, story: Path) -> str:
    """The picture of one command, run in the folder of the story's files."""
    (story / "rules.yaml").write_text(MISSPELT)
    command = [sys.executable, "-m", "ckpt_tool", *PICTURES[name].split(), "--color", "always"]
    ran = subprocess.run(command, cwd=story, capture_output=True, text=True, check=False)
    text = Text.assemble((f"$ ckpt {PICTURES[name]}\n", "bold"), Text.from_ansi((ran.stdout + ran.stderr).rstrip()))
    console = Console(record=True, width=max(map(len, text.plain.splitlines())) + 2, file=StringIO())
    console.print(text)
    picture = console.export_svg(code_format=FRAME, unique_id=f"ckpt-{name}", theme=DIMMED_MONOKAI)
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


if __name__ == "__main__":
    for each in PICTURES:
        (HERE / f"{each}.svg").write_text(draw(each, Path(sys.argv[1])))
