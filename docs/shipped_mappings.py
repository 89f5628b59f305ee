"""Writes docs/mappings.md out of the `about:` lines of the shipped mappings: `python docs/shipped_mappings.py`."""

import re
from pathlib import Path

import ckpt_tool

HEAD = """\
# Shipped mappings

The rule files that come with `ckpt`, by the library that the source is from. Use one by its name, `ckpt map A B --rules NAME -o OUT`;
`ckpt mappings A B` lists those that account for every key of your two files, `ckpt mappings WORD` searches names and descriptions, and
`ckpt check NAME` checks one. Each file in [mappings/](../mappings/) says in its first lines where its truth comes from. For other model types of
transformers, `ckpt mappings --from transformers MODEL_TYPE` [writes the rules](transformers.md).
"""

GROUPS = (
    ("Wrappers and layouts", r"averaged|Lightning|wrappers|weight_norm|TransformerEncoder|YOLO|^fused|^q_proj"),
    ("torchvision", r"torchvision"),
    ("timm", r"\btimm\b"),
    ("transformers 5", r"transformers 5"),
    ("transformers, and files on the hub", r"transformers|\(hub\)|Bert|BERT|Flax"),
    ("Language and speech models of other libraries", r"Meta|litgpt|torchtune|nanoGPT|Gemma|Whisper|VITS"),
    ("Vision models of other libraries", r""),
)
"""A mapping is in the first group whose expression is found on the left of its arrow."""


def text() -> str:
    """The page."""
    left = {each.name: each.about for each in ckpt_tool.mappings()}
    pages = [HEAD]
    for title, expression in GROUPS:
        found = {name: about for name, about in left.items() if re.search(expression, about.split("->")[0])}
        left = {name: about for name, about in left.items() if name not in found}
        rows = "".join(f"| {about.replace('->', '→')} | `{name}` |\n" for name, about in found.items())
        pages.append(f"## {title}\n\n| from → to | `--rules` |\n|---|---|\n{rows}")
    return "\n".join(pages)


if __name__ == "__main__":
    (Path(__file__).parent / "mappings.md").write_text(text())
