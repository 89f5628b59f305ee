"""What a few values of one weight of the alignment do on the conversions of tests/proofs that aren't held out. Prints Markdown.

    python benchmarks/weights.py                    the names of all weights
    python benchmarks/weights.py neighbours 1.2 1.6 2.0

For each value how many tensors get a source with a confidence that makes a rule, and how many of them the right one; then the same of
the ten hard variants of one job, whose names say less.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from align import by_alignment, table, tried  # which puts the tests' folders on the path
from judging import TUNED, Judge
from truths import Truth, read_truth
from variants import Variant, variants

from ckpt_tool.align.weights import WEIGHTS

NAMES = [each.name for each in fields(WEIGHTS) if isinstance(getattr(WEIGHTS, each.name), float)]


@contextmanager
def moved(name: str, value: float) -> Iterator[None]:
    """The alignment of this process with another value of one weight."""
    before = getattr(WEIGHTS, name)
    object.__setattr__(WEIGHTS, name, value)  # frozen for all but this sweep
    try:
        yield
    finally:
        object.__setattr__(WEIGHTS, name, before)


def counted(truths: list[Truth]) -> tuple[int, int]:
    """How many tensors are right, and how many are sure."""
    scores = [Judge(truth).score(by_alignment(truth.source, truth.target)) for truth in truths]
    return sum(score.right for score in scores), sum(score.paired for score in scores)


def counted_variants(known: list[Variant]) -> tuple[int, int]:
    """How many pairs of the hard variants are right, and how many are sure."""
    rows = [tried(variant) for variant in known]
    right, wrong = (sum(int(str(row[column])) for row in rows) for column in ("right", "wrong"))
    return right, right + wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "name",
        nargs="?",
        choices=NAMES,
        metavar="NAME",
        help="the weight; all are listed without it",
    )
    parser.add_argument(
        "values",
        nargs="*",
        type=float,
        metavar="VALUE",
        help="the values to try beside the present one",
    )
    arguments = parser.parse_args()
    if arguments.name is None:
        print(table(("weight", "value"), ((name, getattr(WEIGHTS, name)) for name in NAMES)))
        return
    truths, hard, rows = [read_truth(path) for path in TUNED], variants(), []
    for value in sorted({getattr(WEIGHTS, arguments.name), *arguments.values}):
        with moved(arguments.name, value):
            rows.append((value, *counted(truths), *counted_variants(hard)))
    print(table((arguments.name, "right", "sure", "hard: right", "hard: sure"), rows))


if __name__ == "__main__":
    main()
