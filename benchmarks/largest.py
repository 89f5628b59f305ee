"""The largest files that the reader's limits let through: seconds of the processor and peak memory of `ckpt show` on each.

    python benchmarks/largest.py [--folder benchmarks/.data/largest]

docs/security.md promises 10 seconds of work and 600 MB for any one file. Names and shapes are made to fold as badly as they can.
"""

import argparse
import io
import json
import multiprocessing
import os
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from random import Random

from timing import CKPT, ENVIRONMENT

TENSORS, TORCH_TENSORS = 330_000, 250_000
SECONDS, MEMORY = 10, 600
LETTERS = "abcdefghijklmnopqrstuvwxyz_0123456789"


def names(pieces: int, length: int, seed: int = 0) -> Iterator[str]:
    """Names of random letters, none twice."""
    chance, number = Random(seed), 0
    while True:
        number += 1
        yield ".".join("".join(chance.choices(LETTERS, k=length)) for _ in range(pieces)) + f".{number}.w"


def write_safetensors(path: Path, keys: Iterator[str], shape: Callable[[int], list[int]]) -> None:
    header, offset = {}, 0
    for i, key in zip(range(TENSORS), keys, strict=False):
        size = prod(shape(i))
        header[key] = {"dtype": "U8", "shape": shape(i), "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + offset)


def write_torch(path: Path, zipped: bool) -> None:
    """Views of one storage: what takes the fewest bytes for a tensor."""
    import torch

    values = torch.zeros(TORCH_TENSORS)
    keys = names(1, 8)
    torch.save({next(keys): values[i : i + 1] for i in range(TORCH_TENSORS)}, path, _use_new_zipfile_serialization=zipped)


def write_npz(path: Path) -> None:
    import numpy as np

    array = io.BytesIO()
    np.save(array, np.zeros(1, np.float32))
    with zipfile.ZipFile(path, "w") as archive:
        for _, key in zip(range(100_000), names(1, 8), strict=False):
            archive.writestr(f"{key}.npy", array.getvalue())


def write_entries(path: Path) -> None:
    """As many members as an archive may have, of which the pickle names none."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/version", b"3\n")
        for number in range(599_000):
            archive.writestr(f"a/{number}", b"")


def write_texts(path: Path) -> None:
    """A bare pickle of as many texts as its memory lets through."""
    texts = b"".join(b"X\5\0\0\0%05x" % i for i in range(1_000_000))
    path.write_bytes(b"\x80\x04](" + (b"](" + texts + b"e") * 5 + b"e.")


def write_arrays(path: Path) -> None:
    """A bare pickle that is nearly all bytes."""
    import pickle

    import numpy as np

    path.write_bytes(pickle.dumps({"w": np.zeros(250_000_000, np.uint8)}, 4))


def write_opcodes(path: Path) -> None:
    """As many opcodes as a pickle may have, of the slowest."""
    path.write_bytes(b"\x80\x04" + b"(S'a'\nl0" * 2_200_000 + b"N.")


def write_long_lines(path: Path) -> None:
    path.write_text("".join(f"{i:08d}{'k' * 118}\tF32\t1x2\n" for i in range(480_000)))


def write_key_list(path: Path) -> None:
    chance = Random(1)
    lines = (f"{key}\tF32\t{chance.randrange(99)}x{chance.randrange(99)}\n" for key in names(1, 10))
    path.write_text("".join(line for _, line in zip(range(500_000), lines, strict=False)))


FILES: dict[str, Callable[[Path], None]] = {
    "random names.safetensors": lambda path: write_safetensors(path, names(1, 12), lambda i: [i % 3]),
    "parted names.safetensors": lambda path: write_safetensors(path, names(8, 2), lambda i: [1]),
    "numbered names.safetensors": lambda path: write_safetensors(
        path, (f"a.{i // 300}.b.{i % 300}.w" for i in range(TENSORS)), lambda i: [1]
    ),
    "different shapes.safetensors": lambda path: write_safetensors(path, (f"a.{i}.w" for i in range(TENSORS)), lambda i: [i % 30_000]),
    "views.pth": lambda path: write_torch(path, True),
    "views, old format.pth": lambda path: write_torch(path, False),
    "arrays.npz": write_npz,
    "members.pth": write_entries,
    "texts.pkl": write_texts,
    "bytes.pkl": write_arrays,
    "opcodes.pkl": write_opcodes,
    "key list.txt": write_key_list,
    "key list of long names.txt": write_long_lines,
}


def cost(command: list[str]) -> tuple[float, int, int]:
    """Seconds of the processor, peak memory in MB, and the exit status."""
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(command, stdout=nothing, stderr=nothing, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024, process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / ".data" / "largest")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"| file | show | show --json | show -v |   limits: {SECONDS} s, {MEMORY} MB\n|---|---|---|---|")
    for name, write in FILES.items():
        path = folder / name
        if not path.exists():
            # In a process of its own: a command started by a large process would count as large itself.
            writer = multiprocessing.get_context("fork").Process(target=write, args=(path,))
            writer.start()
            writer.join()
        cells = []
        for options in ([], ["--json"], ["-v"]):
            seconds, memory, status = cost([*CKPT, "show", str(path), *options])
            mark = "" if seconds <= SECONDS and memory <= MEMORY and status == 0 else " ✗"
            cells.append(f"{seconds:.1f} s, {memory} MB{mark}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
