"""One prefix that one side has and the other lacks: `model.` before every key of a training
checkpoint, `backbone.` in a detector.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping

from ckpt_tool.frozen import frozen

MAX_PARTS = 64
"""Parts of a name whose beginnings are tried; no module is as deep."""


@frozen
class Prefix:
    """What the source's keys have before the target's names (`strip`), or the target's before the
    source's (`add`); one of the two.
    """

    strip: str = ""
    add: str = ""

    def renamed(self, key: str) -> str | None:
        """The name that the target has for a key of the source; None for a key without
        the prefix.
        """
        return self.add + key[len(self.strip) :] if key.startswith(self.strip) else None


def unique_prefix(source: Mapping[str, Hashable], target: Mapping[str, Hashable]) -> Prefix:
    """The prefix after which most keys have the name and the value (a shape) of one on the other
    side; an empty one where none is clear.

    It is clear when keys pair by it that are half of the smaller side's, and twice as many as by
    any other prefix or by none.

    >>> unique_prefix({"model.a.w": 2, "model.b.w": 3, "steps": 0}, {"a.w": 2, "b.w": 3})
    Prefix(strip='model.', add='')
    """
    if _agreeing(source, target) == min(len(source), len(target)):
        return Prefix()
    likely = likely_prefixes(source, target)
    return likely[0] if len(likely) == 1 else Prefix()


def likely_prefixes(source: Mapping[str, Hashable], target: Mapping[str, Hashable]) -> list[Prefix]:
    """The prefixes, an empty one among them, by which more than half as many keys pair as by the
    best one; the best one first.

    None where that are less than half of the smaller side's keys. One by which all of them pair is
    the only one, if no other does that.
    """
    counts: Counter[Prefix] = Counter()
    counts[Prefix()] = _agreeing(source, target)
    counts.update(Prefix(strip=prefix) for prefix in _found(source, target))
    counts.update(Prefix(add=prefix) for prefix in _found(target, source))
    most = max(counts.values())
    if not most or 2 * most < min(len(source), len(target)):
        return []
    enough = most if most == min(len(source), len(target)) else most // 2 + 1
    return [prefix for prefix, count in counts.most_common() if count >= enough]


def _agreeing(source: Mapping[str, Hashable], target: Mapping[str, Hashable]) -> int:
    """How many keys have the same value on both sides."""
    return sum(key in target and target[key] == value for key, value in source.items())


def _found(longer: Mapping[str, Hashable], shorter: Mapping[str, Hashable]) -> Iterator[str]:
    """What stands before each end of a longer key that is a key of the other side with the same
    value.
    """
    for key, value in longer.items():
        at = key.find(".")
        for _ in range(MAX_PARTS):
            if at < 0:
                break
            end = key[at + 1 :]
            if end in shorter and shorter[end] == value:
                yield key[: at + 1]
            at = key.find(".", at + 1)
