"""Control characters, terminal escapes and marks of direction in keys, metadata, paths and rules reach no terminal as they are."""

import json

import pytest
import torch
from running import ckpt
from safetensors.torch import save_file

ESCAPE, BELL, RIGHT_TO_LEFT, C1, NEXT_LINE = "\x1b]0;owned\x07", "\x07", "\u202e", "\x9b31m", "\u2028"
EVIL = f"{ESCAPE}{RIGHT_TO_LEFT}{C1}{NEXT_LINE}"
RAW = (*map(chr, (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))), "\u200f", "\u202e", "\u2028", "\u2066", "\ufeff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints, key lists and rules with escapes wherever a text can stand, under names that have some too."""
    folder = tmp_path_factory.mktemp(f"x{C1}")
    values = {f"a{EVIL}.w": torch.ones(3), f"b{EVIL}.w": torch.ones(2, 2), "c.w": torch.zeros(1)}
    extras = {"state_dict": values, f"e{EVIL}": EVIL, "call": torch.nn.Identity(), "list": [EVIL]}
    torch.save(extras, folder / f"a{ESCAPE[:1]}.pth")
    torch.save({**values, f"n{EVIL}": torch.ones(1)}, folder / "b.pth")
    torch.save({f"a{EVIL}.w": torch.ones(4), "c.w": torch.ones(1)}, folder / "c.pth")
    save_file({f"a{EVIL}.w": torch.ones(3)}, folder / "m.safetensors", {f"k{EVIL}": f"v{EVIL}"})
    source = json.dumps(f"a{EVIL}.*")[1:-1]
    (folder / "good.yaml").write_text(f'rules:\n  - "{source} -> x{source[1:]}"\ndrop: ["**"]\n')
    (folder / "bad.yaml").write_text(f'rules:\n  - "nothing{source} -> y{source}"\n  - "a* -> b{{n}}{source}"\n{json.dumps(EVIL)}: 1\n')
    (folder / "unmatched.yaml").write_text(f'rules:\n  - "nothing{source} -> y{source}"\ntests: {{"t{source}": "u{source}"}}\n')
    (folder / "raw.yaml").write_text(f"rules:\n  - a{RIGHT_TO_LEFT}.* -> b{RIGHT_TO_LEFT}{{\n")
    (folder / "broken.yaml").write_bytes(b"rules:\n  - \x1b[31m -> x\n")
    (folder / "bad.txt").write_text(f"a{RIGHT_TO_LEFT}{C1}\tF32\n")
    (folder / "index.json").write_text(json.dumps({"weight_map": {f"a{EVIL}": f"{EVIL}.safetensors"}}))
    (folder / f"html{C1}.pth").write_text(f"<html>{EVIL}")
    return folder


A = f"a{ESCAPE[:1]}.pth"
COMMANDS = [
    ("show", A), ("show", A, "-v"), ("show", A, "--keys"), ("show", A, "--json"), ("show", A, "--checksum"), ("show", "m.safetensors"),
    ("show", f"missing{EVIL}"), ("show", f"{A}#none{EVIL}"), ("show", "bad.txt"), ("show", "index.json"), ("show", f"html{C1}.pth"),
    ("diff", A, "b.pth"), ("diff", A, "b.pth", "-v", "--values"), ("diff", A, "c.pth", "--values"), ("diff", A, "b.pth", "--json"),
    ("diff", A, f"missing{EVIL}"), ("diff", "m.safetensors", "c.pth"),
    ("plan", A, "b.pth"), ("plan", A, "b.pth", "-v"), ("plan", A, "c.pth"), ("plan", A, "c.pth", "--by", "position"),
    ("plan", A, "b.pth", "--why", f"a{EVIL}.w"), ("plan", A, "b.pth", "--why", f"zz{EVIL}"), ("plan", A, "--rules", "good.yaml"),
    ("plan", A, "--rules", "good.yaml", "-v"), ("plan", A, "--rules", "good.yaml", "--why", f"a{EVIL}.w"), ("plan", A, "--rules", "good.yaml", "--json"),
    ("plan", A, "--rules", "bad.yaml"), ("plan", A, "--rules", "unmatched.yaml"), ("plan", A, "--rules", "raw.yaml"), ("plan", A, "--rules", "broken.yaml"),
    ("plan", A, "b.pth", "-e", f"q{EVIL} -> z{EVIL}"), ("plan", A, "b.pth", "-e", f"q{EVIL} -> {{{EVIL}"), ("plan", A, "b.pth", "--drop", EVIL),
    ("plan", A, "b.pth", "--set", EVIL), ("plan", A, "b.pth", "--dtype", EVIL), ("plan", A, f"os{EVIL}:x"), ("plan", A, f"--{EVIL}"), ("plan", A, "--by", EVIL),
    ("map", A, "b.pth", "-o", f"out{EVIL}.pth"), ("map", A, "--rules", "good.yaml", "-o", "out.safetensors"), ("map", A, "b.pth", "-o", f"out.{EVIL}"),
    ("map", A, "b.pth", "-o", f"none{EVIL}/out.pth"), ("map", A, "b.pth", "-o", f"out2{EVIL}.pth", "--json"),
    ("verify", "b.pth", A, "c.pth"), ("verify", "c.pth", A, "b.pth"), ("verify", "b.pth", A, "b.pth"), ("verify", f"none{EVIL}", A, "b.pth"),
    ("check", "good.yaml"), ("check", "good.yaml", A), ("check", "bad.yaml"), ("check", "bad.yaml", "--concise"), ("check", "unmatched.yaml", A, "--concise"),
    ("check", "unmatched.yaml", A), ("check", "bad.yaml", "--json"), ("check", "raw.yaml"), ("check", "broken.yaml"), ("check", f"none{EVIL}.yaml"),
    ("check", "good.yaml", A, "b.pth", "--invert"), ("check", "unmatched.yaml", "--invert"), ("check", "good.yaml", "--invert", "-o", f"back{EVIL}.yaml"),
    ("mappings", A, "b.pth"), ("mappings", f"none{EVIL}", A), ("mappings", "--from", "transformers", EVIL), (EVIL,), ("show", "--color", EVIL, A),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(command).encode("unicode_escape").decode() for command in COMMANDS])
def test_nothing_raw_is_printed(folder, command):
    ran = ckpt(*command, cwd=folder)
    assert "internal error" not in ran.err
    printed = (ran.out + ran.err).replace("\t", " ") if "--keys" in command else ran.out + ran.err
    assert not [mark for mark in RAW if mark in printed]


def test_what_was_written_out_can_be_read(folder):
    assert "a\\x1b]0;owned\\x07\\u202e\\x9b31m\\u2028.w" in ckpt("show", A, "-v", cwd=folder).out
