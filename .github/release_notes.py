"""The notes of a release, from CHANGELOG.md: `python .github/release_notes.py 0.2.0`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(version: str, changelog: str) -> str:
    """The section of a version. Raises SystemExit where there is none, or nothing in it."""
    sections = re.split(r"^## +", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        title, _, text = section.partition("\n")
        if title.split()[:1] == [version] and text.strip():
            return text.strip()
    named = ", ".join(section.split("\n", 1)[0].strip() for section in sections)
    sys.exit(f"CHANGELOG.md says nothing of {version}; it has {named}")


def main() -> None:
    version = sys.argv[1]
    package = (ROOT / "ckpt_tool" / "__init__.py").read_text("utf-8")
    if f'__version__ = "{version}"' not in package:
        sys.exit(f"the package is not {version}: see `__version__` in ckpt_tool/__init__.py")
    print(notes(version, (ROOT / "CHANGELOG.md").read_text("utf-8")))


if __name__ == "__main__":
    main()
