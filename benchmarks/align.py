"""How much of real conversions the alignment finds by names and shapes alone, against simple ways. Prints Markdown.

    python benchmarks/align.py [--unseen] [--json FILE]
    python benchmarks/align.py --seeds 5        only this: whether drafts of all jobs are the same under so many hash seeds

A pair is right when its source keys and its ops are right, judged by the values that they make; an abstention counts as a miss.
weightbridge and lit-wsl are measured too where they can be imported. `--unseen` adds jobs outside tests/proofs, which need timm,
torchvision and transformers and take some minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "align"), str(ROOT / "examples"), str(Path(__file__).parent)]

from align_peers import SECONDS, WAYS, Peer  # noqa: E402
from judging import HELD_OUT, JOBS, TUNED, Judge, Score  # noqa: E402
from truths import Truth, read_truth  # noqa: E402
from variants import Variant, variants  # noqa: E402

from ckpt_tool.align import MIN_CONFIDENCE, Alignment, Pair, align, suggest  # noqa: E402
from ckpt_tool.errors import RuleError  # noqa: E402
from ckpt_tool.mapping import Plan, plan_by_name, plan_by_position, read_rule_files  # noqa: E402
from ckpt_tool.mapping.accounting.account import A_PART  # noqa: E402
from ckpt_tool.ops import parse_ops  # noqa: E402
from ckpt_tool.tensors import Catalog, DType, TensorInfo  # noqa: E402

Method = Callable[[Catalog, Catalog], list[Pair]]


def rename(source: str, target: str) -> Pair:
    return Pair(((source,),), ((target,),))


def by_name(source: Catalog, target: Catalog) -> list[Pair]:
    """`--by name`, which leaves wrappers' prefixes out."""
    return _renames(plan_by_name, source, target)


def by_position(source: Catalog, target: Catalog) -> list[Pair]:
    """The i-th to the i-th, where the shapes agree."""
    return [rename(a, b) for a, b in zip(source, target, strict=False) if source[a].shape == target[b].shape]


def by_our_position(source: Catalog, target: Catalog) -> list[Pair]:
    """`--by position`, which refuses an order that says nothing."""
    return _renames(plan_by_position, source, target)


def _renames(way: Callable[..., Plan], source: Catalog, target: Catalog) -> list[Pair]:
    try:
        return [rename(step.inputs[0], step.outputs[0]) for step in way(source, target, "target", named=A_PART).steps]
    except RuleError:
        return []


def by_suffix(source: Catalog, target: Catalog) -> list[Pair]:
    """detectron2's way: the source key of this shape that shares the longest end of whole names, if only one does."""
    ends: dict[tuple[str, ...], list[str]] = {}
    for key in source:
        names = tuple(key.split("."))
        for depth in range(len(names)):
            ends.setdefault(names[depth:], []).append(key)
    pairs = []
    for key in target:
        names = tuple(key.split("."))
        found = next((ends[names[depth:]] for depth in range(len(names)) if names[depth:] in ends), [])
        fitting = [each for each in found if source[each].shape == target[key].shape]
        if len(fitting) == 1:
            pairs.append(rename(fitting[0], key))
    return pairs


def by_alignment(source: Catalog, target: Catalog) -> list[Pair]:
    return list(align(source, target).at_least(MIN_CONFIDENCE))


BASELINES: dict[str, Method] = {
    "exact name": by_name, "position, i-th to i-th": by_position, "`--by position`": by_our_position, "longest common suffix": by_suffix,
}  # fmt: skip


def by_peer(peer: Peer) -> Method:
    """What another tool pairs; a pair of other shapes is a reshape."""

    def way(source: Catalog, target: Catalog) -> list[Pair]:
        sides = [{key: info.shape for key, info in side.items()} for side in (source, target)]
        return [_reshaped(origin, key, source, target) for key, origin in peer.pairs(*sides).items()]

    return way


def _reshaped(origin: str, key: str, source: Catalog, target: Catalog) -> Pair:
    shape = target[key].shape
    ops = () if source[origin].shape == shape else parse_ops({"reshape": list(shape)})
    return Pair(((origin,),), ((key,),), ops)


def peers() -> list[Peer]:
    return [peer for peer in map(Peer, WAYS) if peer.is_there]


def notes(found: Iterable[Peer]) -> str:
    """How often the tools took too long or refused; and which are not there."""
    lines = [f"{each.name}: {each.timeouts} jobs took more than {SECONDS} s, {each.refusals} it refused as a whole." for each in found]
    missing = [name for name in WAYS if name not in {each.name for each in found}]
    return "\n\n" + "\n".join([*lines, *(f"{name} can't be imported, so it was not run." for name in missing)])


def mean(numbers: Iterable[float]) -> float:
    return statistics.fmean(numbers)


def summed_up(scores: list[Score]) -> dict[str, float]:
    return {
        "jobs": len(scores),
        "recall": mean(score.recall for score in scores),
        "precision": mean(score.precision for score in scores),
        "perfect": sum(score.is_perfect for score in scores),
        "wrong": sum(score.paired - score.right for score in scores),
    }


def measured(truths: list[Truth], way: Method) -> dict[str, float]:
    return summed_up([Judge(truth).score(way(truth.source, truth.target)) for truth in truths])


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def corpus(parts: dict[str, list[Truth]]) -> tuple[str, object]:
    """Recall and precision of each way on each part; of other tools on the first two, the real conversions of tests/proofs."""
    others = peers()
    ways = {**BASELINES, "alignment": by_alignment}
    found = {part: {name: measured(truths, way) for name, way in ways.items()} for part, truths in parts.items()}
    for part in list(parts)[:2]:
        found[part] |= {each.name: measured(parts[part], by_peer(each)) for each in others}
    rows = [
        (part, name, f"{each['recall']:.3f}", f"{each['precision']:.4f}", f"{each['perfect']} of {each['jobs']}", each["wrong"])
        for part, ways in found.items()
        for name, each in ways.items()
    ]
    return table(("part", "way", "recall", "precision", "perfect", "wrong"), rows) + notes(others), found


def reliability(truths: Iterable[Truth]) -> tuple[str, object]:
    """How often pairs are right, by the confidence that was claimed."""
    counts: dict[float, list[int]] = {}
    for truth in truths:
        judge = Judge(truth)
        for each in align(truth.source, truth.target).pairs:
            count = counts.setdefault(round(each.confidence, 2), [0, 0])
            count[0] += judge.is_right(each.pair)
            count[1] += 1
    rows = [(f"{claim:.2f}", total, right, f"{right / total:.4f}") for claim, (right, total) in sorted(counts.items())]
    sure = [count for claim, count in counts.items() if claim >= MIN_CONFIDENCE]
    right, total = sum(each[0] for each in sure), sum(each[1] for each in sure)
    rows.append((f">= {MIN_CONFIDENCE:g}", total, right, f"{right / total:.4f}"))
    return table(("confidence", "pairs", "right", "share"), rows), rows


def tried(variant: Variant) -> dict[str, object]:
    found = align(variant.source, variant.target)
    hinted = align(variant.source, variant.target, [variant.hint]) if variant.hint else found
    truth = variant.known | variant.unknown
    pairs, after = sources_of(found), sources_of(hinted)
    listed = {key for group in found.ambiguous for key in group.targets}
    return {
        "variant": variant.name,
        "decidable": len(variant.known),
        "right": sum(pairs.get(key) == origin for key, origin in variant.known.items()),
        "wrong": sum(truth.get(key) != origin for key, origin in pairs.items()),
        "unknown": len(variant.unknown),
        "listed": len(listed & variant.unknown.keys()),
        "right with a hint": sum(after.get(key) == origin for key, origin in truth.items()),
        "wrong with a hint": sum(truth.get(key) != origin for key, origin in after.items()),
    }


def sources_of(found: Alignment) -> dict[str, str]:
    return {pair.targets[0][0]: pair.sources[0][0] for pair in found.at_least(MIN_CONFIDENCE)}


def hard_variants() -> tuple[str, object]:
    rows = [tried(variant) for variant in variants()]
    return table(rows[0], (row.values() for row in rows)), rows


def peers_on_variants() -> tuple[str, object]:
    others, rows = peers(), []
    for variant in variants():
        truth = variant.known | variant.unknown
        for each in others:
            shapes = [{key: info.shape for key, info in side.items()} for side in (variant.source, variant.target)]
            found = each.pairs(*shapes)
            right = sum(truth.get(key) == origin for key, origin in found.items())
            rows.append((variant.name, each.name, len(truth), right, len(found) - right))
    return table(("variant", "tool", "pairs", "right", "wrong"), rows) + notes(others), rows


def layers(count: int, name: str, experts: int = 0) -> Iterator[TensorInfo]:
    """A transformer of so many layers with keys of a library."""
    words = {"ours": ("model.layers", "self_attn.{}_proj", "qkvo", "mlp"), "theirs": ("blocks", "attn.w{}", "qkvo", "ffn")}
    stem, attention, letters, mlp = words[name]
    gate = ("gate_proj", "up_proj", "down_proj") if name == "ours" else ("w1", "w3", "w2")
    shapes = ((96, 64), (96, 64), (64, 96))
    for layer in range(count):
        for letter in letters:
            yield TensorInfo(f"{stem}.{layer}.{attention.format(letter)}.weight", DType.F32, (64, 64))
        for norm in ("input_layernorm", "post_attention_layernorm") if name == "ours" else ("attention_norm", "ffn_norm"):
            yield TensorInfo(f"{stem}.{layer}.{norm}.weight", DType.F32, (64,))
        for expert in range(max(1, experts)):
            inside = f"{mlp}.experts.{expert}" if experts else mlp
            for word, shape in zip(gate, shapes, strict=True):
                yield TensorInfo(f"{stem}.{layer}.{inside}.{word}.weight", DType.F32, shape)


SIZES = {"1,000 keys": (111, 0), "1,000 keys, experts": (2, 165), "50,000 keys, experts": (50, 331)}


def speed() -> tuple[str, object]:
    rows = []
    for name, (count, experts) in SIZES.items():
        source, target = Catalog(layers(count, "ours", experts)), Catalog(layers(count, "theirs", experts))
        start = time.perf_counter()
        found = align(source, target)
        aligned = time.perf_counter()
        right = sum(wanted == got for wanted, got in zip(source, _in_order(found, target), strict=True))
        drafted = suggest(source, target)
        rows.append(
            (
                name,
                len(source),
                f"{aligned - start:.2f}",
                f"{time.perf_counter() - aligned:.2f}",
                right,
                len(found.pairs),
                len(drafted.rules),
            )
        )
    return table(("job", "keys", "align, s", "suggest, s", "right", "paired", "rules"), rows), rows


def _in_order(found: Alignment, target: Catalog) -> list[str | None]:
    pairs = sources_of(found)
    return [pairs.get(key) for key in target]


def rule_counts(truths: Iterable[Truth]) -> tuple[str, object]:
    """Rules of a draft against the shipped mapping's; a whole mapping counts its drops too."""
    rows = []
    for truth in truths:
        found = suggest(truth.source, truth.target)
        by_hand = read_rule_files([str(ROOT / "mappings" / name) for name in truth.proof["rules"]])
        rows.append((truth.name, len(found.rules), len(by_hand.rules), f"{len(found.rules) / max(1, len(by_hand.rules)):.2f}"))
    median = statistics.median(float(row[3]) for row in rows)
    return table(("job", "drafted", "by hand", "ratio"), rows) + f"\n\nMedian ratio: {median:.2f}", rows


def drafts_under(seed: int) -> dict[str, str]:
    """The draft of each job of tests/proofs, made by a process of its own that hashes texts with this seed."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    ran = subprocess.run([sys.executable, __file__, "--drafts"], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def drafts() -> dict[str, str]:
    truths = (read_truth(path) for path in JOBS)
    found = ((truth.name, suggest(truth.source, truth.target)) for truth in truths)
    return {name: f"{drafted.text}{drafted.alignment}" for name, drafted in found}


def compare_seeds(count: int) -> int:
    """Prints the jobs whose drafts differ; 1 if there are any."""
    first, *others = (drafts_under(seed) for seed in range(count))
    differing = sorted(name for name in first if any(other[name] != first[name] for other in others))
    print(f"{len(differing)} of {len(first)} drafts differ under {count} hash seeds", *differing, sep="\n")
    return int(bool(differing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--unseen", action="store_true", help="jobs outside tests/proofs too")
    parser.add_argument("--json", metavar="FILE", help="the same figures for programs")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="compare the drafts of N processes with different hash seeds, and nothing else"
    )
    parser.add_argument("--drafts", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drafts:
        print(json.dumps(drafts()))
        return
    if arguments.seeds:
        sys.exit(compare_seeds(arguments.seeds))
    parts = {"tuned on": [read_truth(path) for path in TUNED], "held out": [read_truth(path) for path in HELD_OUT]}
    if arguments.unseen:
        import unseen

        parts |= {f"unseen: {family}": list(unseen.jobs((family,))) for family in unseen.FAMILIES}
    every = [truth for truths in parts.values() for truth in truths]
    proved = parts["tuned on"] + parts["held out"]
    figures = {}
    sections: dict[str, Callable[[], tuple[str, object]]] = {
        "Real conversions by names and shapes": lambda: corpus(parts),
        "How sure, and how often right": lambda: reliability(every),
        "Ten variants of the ResNet-50 to detector job": hard_variants,
        "Other tools on them": peers_on_variants,
        "Rules drafted and written by hand": lambda: rule_counts(proved),
        "Speed": speed,
    }
    for title, section in sections.items():
        text, figures[title] = section()
        print(f"## {title}\n\n{text}\n", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
