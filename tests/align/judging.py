"""How right an alignment is: its pairs against the truth of a real conversion, by the values that they make."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from truths import FOLDER, Truth, expected

from ckpt_tool.align import Aligned, Pair, draft_rules
from ckpt_tool.mapping import Step, compile_plan, read_rule_text
from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.tensors import Catalog

JOBS = sorted(FOLDER.glob("*.json.gz"))
HELD_OUT = JOBS[3::4]
"""Jobs whose single errors nobody looked at while the alignment was made."""
TUNED = [path for path in JOBS if path not in HELD_OUT]


@dataclass(frozen=True)
class Score:
    """How many target tensors have a source, how many got one, and how many of these the right one, by the right ops."""

    possible: int
    paired: int
    right: int

    @property
    def recall(self) -> float:
        return self.right / self.possible if self.possible else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.paired if self.paired else 1.0

    @property
    def is_perfect(self) -> bool:
        return self.possible == self.paired == self.right


class Judge:
    """Tells for each pair whether it is right: whether random tensors become what the truth makes of them."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self._same = {key: group[0] for group in truth.ties for key in group}
        self._values: dict[str, torch.Tensor] = {}

    def score(self, pairs: Iterable[Pair]) -> Score:
        made = [(key, self.is_right(pair)) for pair in pairs for slot in pair.targets for key in slot]
        return Score(len(self.truth.entries), len(made), sum(is_right for _, is_right in made))

    def is_right(self, pair: Pair) -> bool:
        """Whether all target tensors of a pair are what they must be."""
        keys = [key for slot in pair.targets for key in slot]
        if not all(key in self.truth.entries for key in keys):
            return False
        entries = [self.truth.entries[key] for key in keys]
        if pair.is_rename:
            return entries[0]["op"] == "copy" and self._of(pair.sources[0][0]) == self._of(entries[0]["sources"][0])
        if any(entry["op"] == "computed" for entry in entries):
            return False
        if all(entry["op"] == "pair" and _said(entry["pair"]) == _said(pair) for entry in entries):
            return True
        step = self._step(pair)
        made = apply_step(step, [self._value(key) for key in step.inputs])
        return all(
            self._is_expected(*each) for each in zip(step.outputs, [self.truth.entries[key] for key in step.outputs], made, strict=True)
        )

    def _step(self, pair: Pair) -> Step:
        """What the planner makes of a pair, as a rule of its own."""
        sides = [[key for slot in slots for key in slot] for slots in (pair.sources, pair.targets)]
        catalogs = [
            Catalog([catalog[key] for key in side]) for catalog, side in zip((self.truth.source, self.truth.target), sides, strict=True)
        ]
        (line,) = draft_rules([pair], sides[0])
        (step,) = compile_plan(read_rule_text(f"rules:\n  - {line}\n", "a pair"), *catalogs, dtypes="target").steps
        return step

    def _is_expected(self, key: str, entry: dict, made: torch.Tensor) -> bool:
        shape = self.truth.target[key].shape
        if entry["op"] == "pair":
            step = entry.get("step") or self._step(entry["pair"])
            results = apply_step(step, [self._value(each) for each in step.inputs])
            wanted = results[step.outputs.index(key)]
        else:
            wanted = expected(entry, {each: self._value(each) for each in entry["sources"]}, shape)
        return tuple(made.shape) == shape and torch.equal(made, wanted.reshape(shape))

    def _of(self, key: str) -> str:
        return self._same.get(key, key)

    def _value(self, key: str) -> torch.Tensor:
        """Random values, other ones for each tensor."""
        key = self._of(key)
        if key not in self._values:
            generator = torch.Generator().manual_seed(len(self._values))
            self._values[key] = torch.rand(self.truth.source[key].shape, generator=generator)
        return self._values[key]


def _said(pair: Pair) -> object:
    return [[key for slot in slots for key in slot] for slots in (pair.sources, pair.targets)], pair.ops


def confidences(pairs: Iterable[Aligned], judge: Judge) -> list[tuple[float, bool]]:
    """For each pair what was claimed and whether it is right."""
    return [(each.confidence, judge.is_right(each.pair)) for each in pairs]
