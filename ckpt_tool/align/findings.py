"""What an alignment finds: pairs with how sure they are, and what nobody could know."""

from dataclasses import dataclass, replace

from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.keys import quote

FEW_KEYS = 3
"""Ambiguous keys of one side that are all named."""

Hint = tuple[str, str]
"""A source key and the target key that it becomes."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A pair, how likely it is right (0 to 1), and what speaks for it."""

    pair: Pair
    confidence: float
    evidence: str

    def doubted(self, why: str) -> "Aligned":
        """The same, no longer sure, with what speaks against it."""
        confidence = min(self.confidence, WEIGHTS.doubted)
        return replace(self, confidence=confidence, evidence=f"{self.evidence}; {why}")


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Keys of equal shape that names and shapes can't tell apart; one pair of `hint`, chosen by a
    person, settles them.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Question:
    """Ambiguous keys, and how many groups there are that the same hint settles, in other blocks."""

    group: Ambiguous
    others: int

    def __str__(self) -> str:
        sources, targets = self.group.sources, self.group.targets
        keys = f"{len(sources)} and {len(targets)} key{'' if len(targets) == 1 else 's'}"
        if max(len(sources), len(targets)) <= FEW_KEYS:
            keys += f" ({', '.join(map(quote, sources))} and {', '.join(map(quote, targets))})"
        more = f", and {self.others} more such group{'' if self.others == 1 else 's'}"
        return f"{keys}{more if self.others else ''}, {self.group.reason}"


@dataclass(frozen=True, slots=True)
class Alignment:
    """What belongs together, what nobody could know, and what is left, in the catalogs' order.

    `shape_mismatches` are source and target keys that have the same place, but other shapes; they
    are among the unpaired ones.
    """

    pairs: tuple[Aligned, ...]
    ambiguous: tuple[Ambiguous, ...]
    unpaired_source: tuple[str, ...]
    unpaired_target: tuple[str, ...]
    shape_mismatches: tuple[tuple[str, str], ...] = ()

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is ambiguous, once for all blocks that are alike."""
        alike: dict[object, list[Ambiguous]] = {}
        for each in self.ambiguous:
            kind = len(each.sources), len(each.targets), each.reason, numberless(each.hint)
            alike.setdefault(kind, []).append(each)
        return tuple(Question(groups[0], len(groups) - 1) for groups in alike.values())

    def at_least(self, confidence: float) -> tuple[Pair, ...]:
        """The pairs that are at least so sure, without how sure they are."""
        return tuple(each.pair for each in self.pairs if each.confidence >= confidence)

    def below(self, confidence: float) -> tuple[Aligned, ...]:
        """What is less sure."""
        return tuple(each for each in self.pairs if each.confidence < confidence)
