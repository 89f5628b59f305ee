"""What the commands cost, as ratios against what users do today: `python benchmarks/speed.py [--full] [--only TEXT] [--json FILE]`.

Quick: files of 100 MB, a minute or two. Full: files of 4 GB, an hour, 30 GB of disk. Each row runs ours and its yardstick by turns,
whole processes, and prints the ratio of the medians with our peak memory. What ours writes is compared with its yardstick's
result, bit by bit, once. Nothing here is a test: a figure that is missed is printed, not raised.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import inputs
from speed_peers import peer_rows
from timing import CKPT, ENVIRONMENT, PYTHON, Measured, Row, measure, python, shell


def rows(folder: Path, size: int) -> list[Row]:
    """All rows, their inputs made where they are missing."""
    # In a process of its own: a child counts the memory that its parent had at most.
    subprocess.run([PYTHON, str(Path(__file__).parent / "inputs.py"), str(folder), str(size)], check=True, env=ENVIRONMENT)
    paths = inputs.paths_in(folder)
    few = 3 if size > 1 << 30 else 7
    r50, other, detector = paths["resnet50"], paths["resnet50_other"], paths["detector"]
    out = str(folder / "out")
    small = [*CKPT, "diff", r50, other]
    differ = (0, 1)
    pth, safe = (paths["big.pth"], paths["big2.pth"]), (paths["big.safetensors"], paths["big2.safetensors"])
    shards = (paths["sharded"], paths["sharded2"])
    import_torch = python("import torch")
    rename = ["-e", "** -> net.**"]
    heavy = paths["heavy.yaml"]
    naive = python(inputs.NAIVE.format(resnet50=r50, detector=detector, output=f"{out}_naive.pth", root=str(inputs.ROOT)))

    def copy(source: str, suffix: str) -> list[str]:
        return shell(f"cp -r {source} {out}{suffix} && sync {out}{suffix if not os.path.isdir(source) else suffix + '/*'}")

    def there_and_back(path: str) -> list[str]:
        rename = " ".join([*CKPT, "map", "-q", "--in-place", path])
        return shell(f"{rename} -e '** -> net.**' && {rename} -e 'net.** -> **'")

    def mapped(source: str, suffix: str, *more: str) -> list[str]:
        return [*CKPT, "map", source, "-o", f"{out}{suffix}", "-f", *(more or rename)]

    nothing = python("pass")
    return [
        Row("`ckpt --version`, against `python -c pass`, CPU seconds", [*CKPT, "--version"], nothing, 4, runs=20, counts_cpu=True),
        Row("diff of two ResNet-50 .pth, against `python -c pass`, CPU seconds", small, nothing, 12, runs=20, statuses=differ, counts_cpu=True),
        Row("diff of two ResNet-50 .pth of the same names, against `python -c pass`, CPU seconds", [*CKPT, "diff", r50, paths["resnet50_same"]], nothing, 12, runs=20, counts_cpu=True),
        Row("diff of two ResNet-50 .pth, against `import torch`", small, import_torch, 0.12, statuses=differ),
        Row("diff of two big .pth, against the ResNet-50 run", [*CKPT, "diff", *pth], small, 1.3, 60, statuses=differ),
        Row("diff of two big safetensors, against the ResNet-50 run", [*CKPT, "diff", *safe], small, 1.3, 60, statuses=differ),
        Row("diff of two sharded folders, against the ResNet-50 run", [*CKPT, "diff", *shards], small, 1.3, 60, statuses=differ),
        Row(
            "diff of 2 × 100,000 keys, .pth, against torch.load of both",
            [*CKPT, "diff", paths["many.pth"], paths["many2.pth"]],
            python(inputs.LOAD_BOTH.format(a=paths["many.pth"], b=paths["many2.pth"])), 0.10, runs=3, statuses=differ,
        ),
        Row(
            "diff of 2 × 100,000 keys, safetensors, against safe_open listing all shapes",
            [*CKPT, "diff", paths["many.safetensors"], paths["many2.safetensors"]],
            python(inputs.LIST_BOTH.format(a=paths["many.safetensors"], b=paths["many2.safetensors"])), 0.50, runs=3, statuses=differ,
        ),
        Row("rename safetensors → safetensors, against cp + sync", mapped(safe[0], ".safetensors"), copy(safe[0], ".safetensors"), 1.1, 80, few, f"{out}.safetensors"),
        Row("rename .pth → .pth, against cp + sync", mapped(pth[0], ".pth"), copy(pth[0], ".pth"), 1.1, 80, few, f"{out}.pth"),
        Row("rename sharded → safetensors, against cp + sync", mapped(shards[0], ".safetensors"), copy(safe[0], ".safetensors"), 1.1, 80, few, f"{out}.safetensors"),
        Row("rename sharded → sharded, against cp + sync", mapped(shards[0], "_sharded", *rename, "--max-shard-size", str(-(-size // 4))), copy(shards[0], "_sharded"), 1.1, 80, few, f"{out}_sharded"),
        Row(".pth → safetensors, against cp + sync", mapped(pth[0], ".safetensors"), copy(safe[0], ".safetensors"), 1.3, 80, few, f"{out}.safetensors"),
        Row("safetensors → .pth, against cp + sync", mapped(safe[0], ".pth"), copy(pth[0], ".pth"), 1.3, 80, few, f"{out}.pth"),
        *[
            Row(f"rename {kind} in place, against the same of {small_name}", there_and_back(large), there_and_back(few_bytes), 1.3, 80)
            for kind, large, few_bytes, small_name in (
                (".pth", paths["place.pth"], paths["place_small.pth"], "the ResNet-50"),
                ("safetensors", paths["place.safetensors"], paths["place_small.safetensors"], "the ResNet-50"),
            )
        ],
        Row("320 → 384 keys, against load, load_state_dict, save in torch", [*CKPT, "map", r50, detector, "-r", "resnet50_to_yolo.yaml", "-o", f"{out}.pth", "-f"], naive, 0.15, output=f"{out}.pth"),
        Row("ops on every matrix, bf16, against cp + sync", mapped(paths["llama.safetensors"], ".safetensors", "-r", heavy, "--set", "heads=8"), copy(paths["llama.safetensors"], ".safetensors"), 2.0, None, few, f"{out}.safetensors"),
        Row("diff --values of equal files, against cmp", [*CKPT, "diff", "--values", safe[0], paths["big_copy.safetensors"]], ["cmp", safe[0], paths["big_copy.safetensors"]], 1.2, 400, few),
        Row("diff --values, all different, against cmp of equal files", [*CKPT, "diff", "--values", *safe], ["cmp", safe[0], paths["big_copy.safetensors"]], 3.0, 400, few, statuses=differ),
        *peer_rows(paths, out, folder, size),
        Row("planning 100,000 keys × 50 rules, against `import torch`", [*CKPT, "plan", paths["many.safetensors"], "-r", paths["fifty.yaml"], "-q"], import_torch, 1.0, 300),
    ]  # fmt: skip


def figures(row: Row, measured: Measured) -> dict[str, object]:
    return {
        "job": row.name, "ratio": round(measured.ratio, 3), "limit": row.limit, "memory": measured.memory, "memory_limit": row.memory,
        "ours": measured.ours, "yardstick": measured.yardstick,
    }  # fmt: skip


def table(results: list[dict[str, object]]) -> str:
    lines = ["| job | ratio | at most | peak memory | at most |", "|---|---|---|---|---|"]
    for each in results:
        mark = "" if each["ratio"] <= each["limit"] else " ✗"  # type: ignore[operator]
        most = f"{each['memory_limit']} MB" if each["memory_limit"] else ""
        lines.append(f"| {each['job']} | {each['ratio']:.2f}{mark} | {each['limit']} | {each['memory']} MB | {most} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="files of 4 GB instead of 100 MB")
    parser.add_argument("--megabytes", type=int, help="files of another size")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--folder", default=str(Path(__file__).parent / ".data"), help="where inputs and outputs go")
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    megabytes = options.megabytes or (4096 if options.full else 100)
    results = []
    for row in rows(Path(options.folder) / str(megabytes), megabytes << 20):
        if options.only not in row.name:
            continue
        measured = measure(row)
        results.append(figures(row, measured))
        print(table(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
