"""What headers cost over the wire: requests, bytes and seconds, against servers on this machine: `python benchmarks/remote.py`.

A file of 1 GB has zeros for values (a sparse file); the answers of the hub's endpoint wait 20 ms each.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from tests.remote.hub import Hub  # noqa: E402
from tests.remote.server import serving  # noqa: E402

DELAY, SHARDS, KEYS, RUNS = 0.02, 100, 1000, 3


def sparse_safetensors(tensors: int, nbytes: int) -> bytes:
    """A header of so many tensors, and zeros behind it."""
    each = nbytes // tensors // 4
    header = {
        f"model.layers.{at}.self_attn.q_proj.weight": {
            "dtype": "F32", "shape": [each], "data_offsets": [at * each * 4, (at + 1) * each * 4],
        }
        for at in range(tensors)
    }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(tensors * each * 4)


def torch_file(tensors: int, numbers: int) -> bytes:
    buffer = io.BytesIO()
    torch.save({f"layer{at}.weight": torch.zeros(numbers) for at in range(tensors)}, buffer)
    return buffer.getvalue()


def ckpt(*arguments: str, home: str, **more: str) -> float:
    environment = (
        os.environ
        | {"TORCH_HOME": home, "HF_HOME": home, "PYTHONPATH": str(ROOT), "no_proxy": "*"}
        | more
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ckpt_tool", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode in (0, 1), arguments
    return time.perf_counter() - start


def main() -> None:
    print("| command | requests | kB | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home, serving() as server:
        for name, content in (
            ("1 GB safetensors, 400 tensors", sparse_safetensors(400, 10**9)),
            ("1 GB .pth, 400 tensors", torch_file(400, 625_000)),
        ):
            address = server.put("/big.safetensors" if "safe" in name else "/big.pth", content)
            server.forget()
            ckpt(
                "show", address, home=home
            )  # its time is that of the server, which computes an ETag
            print(f"| show, {name} | {len(server.asked)} | {server.sent / 1e3:.0f} | |")
    with tempfile.TemporaryDirectory() as home, serving() as server, serving() as storage:
        hub = Hub(server, storage)
        names = [f"model-{at + 1:05}-of-{SHARDS:05}.safetensors" for at in range(SHARDS)]
        for repository in ("a/x", "b/x"):
            files, weight_map = {}, {}
            for at, name in enumerate(names):
                keys = [
                    f"model.layers.{at}.mlp.experts.{one}.up_proj.weight"
                    for one in range(KEYS // SHARDS * 10)
                ]
                header = {
                    key: {
                        "dtype": "BF16",
                        "shape": [2048],
                        "data_offsets": [4096 * n, 4096 * (n + 1)],
                    }
                    for n, key in enumerate(keys)
                }
                text = json.dumps(header).encode()
                files[name] = len(text).to_bytes(8, "little") + text + bytes(4096 * len(keys))
                weight_map |= dict.fromkeys(keys, name)
            files["model.safetensors.index.json"] = json.dumps(
                {"metadata": {}, "weight_map": weight_map}
            ).encode()
            hub.put(repository, files)
        server.delay = storage.delay = DELAY
        times = []
        for run in range(RUNS):
            server.forget()
            storage.forget()
            times.append(
                ckpt(
                    "diff", "hf://a/x", "hf://b/x", home=f"{home}/{run}", HF_ENDPOINT=server.address
                )
            )
        print(
            f"| diff hf:// of two repositories of {SHARDS} shards, {DELAY * 1000:g} ms an answer | {len(server.asked) + len(storage.asked)} "
            f"| {(server.sent + storage.sent) / 1e3:.0f} | {statistics.median(times):.2f} |"
        )


if __name__ == "__main__":
    main()
