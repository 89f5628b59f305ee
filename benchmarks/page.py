"""How large report pages are, and how long a search in them takes: 50,000 keys on each side, in headless Chromium.

    python benchmarks/page.py [KEYS]

Needs Debian's `chromium` and `chromium-driver`, and `selenium`, which the tests install.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.report.page.browser import Shown, chromium

ATTENTION = [f"self_attn.{name}_proj.weight" for name in "qkvo"]
EXPERTS = [f"mlp.experts.{e}.{name}_proj.weight" for e in range(128) for name in ("gate", "up", "down")]
QUERIES = ("layers.77 gate", "weight", "experts.12.up*weight", "q_proj", "no such key", "layers", "")
RULE = "model.** -> net.language_model.model.**"


def write_keys(path: Path, prefix: str, count: int) -> None:
    """A key list like that of a mixture of experts."""
    names = ATTENTION + EXPERTS
    keys = (f"{prefix}.layers.{i // len(names)}.{names[i % len(names)]}" for i in range(count))
    path.write_text("".join(f"{key}\tBF16\t1536x4096\n" for key in keys))


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_keys(folder / "a.txt", "model", count)
        write_keys(folder / "b.txt", "net.language_model.model", count)
        with chromium(folder / "profile") as driver:
            for command in (("show", "a.txt"), ("plan", "a.txt", "b.txt", "-e", RULE), ("diff", "a.txt", "b.txt")):
                arguments = [sys.executable, "-m", "ckpt_tool", *command, "--quiet", "--html", "page.html"]
                if subprocess.run(arguments, cwd=folder, check=False).returncode == 2:
                    sys.exit("no page")
                page = Shown(driver, folder / "page.html")
                for query in QUERIES * 3:
                    page.search(query)
                times = page.run("return performance.getEntriesByName('search').map(each => each.duration)")
                opened = page.run("return performance.getEntriesByType('navigation')[0].domComplete")
                size = (folder / "page.html").stat().st_size / 1e6
                print(f"{command[0]:<5} {count:,} keys: {size:.1f} MB, opens in {opened / 1000:.1f} s, search {median(times):.0f} ms, at most {max(times):.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
