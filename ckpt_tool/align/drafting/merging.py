"""Renames that differ in one part of each side into one with a choice: `{to_q,to_k,to_out_0}`
becomes `{to_q,to_k,to_out.0}`.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from ckpt_tool.keys import Matcher, PatternError, can_be_word, parse

MAX_WORDS = 16
"""A choice of more words is hard to read: it fills a line."""
MAX_COMPARED = 300
"""Renames with the same holes that came before, with which one is compared."""

Rename = tuple[str, str]
Tokens = tuple[str, ...]
Skeleton = tuple[Tokens, Tokens, Tokens, Tokens]
"""What stands before and behind the part in which renames differ, of the source and of the target.
"""

_TOKEN = re.compile(r"\{[^}]*\}|\*\*|\*|\\.|[._]|[^._{}*\\]+")


def merge_choices(renames: Sequence[Rename]) -> list[Rename]:
    """Renames with those merged that differ in one part of each side; the order of the others is
    kept.
    """
    merging = _Merging(renames)
    while merging.merge_most():
        pass
    return merging.renames


class _Merging:
    """Renames by what they have in common; a merged one stands where its first did."""

    def __init__(self, renames: Sequence[Rename]) -> None:
        self._alive: dict[int, Rename] = {}
        self._tokens: dict[int, tuple[Tokens, Tokens]] = {}
        self._groups: dict[object, list[int]] = defaultdict(list)
        self._alike: dict[Skeleton, set[int]] = defaultdict(set)
        for place, rename in enumerate(renames):
            self._enter(place, rename)

    @property
    def renames(self) -> list[Rename]:
        """Those that are left, in their order."""
        return [self._alive[place] for place in sorted(self._alive)]

    def merge_most(self) -> bool:
        """Merges as many as one choice can say; False where nothing can be merged any more."""
        for skeleton in sorted(self._alike, key=self._rank):
            places = sorted(self._alike.pop(skeleton))
            rename = self._merged(places, skeleton) if 1 < len(places) <= MAX_WORDS else None
            if rename and not self._has_exceptions(places):
                for place in places:
                    self._leave(place)
                self._enter(places[0], rename)
                return True
        return False

    def _rank(self, skeleton: Skeleton) -> tuple[int, int, int, Skeleton]:
        """Short words first, which lets two choices stand side by side; then what merges most."""
        places = self._alike[skeleton]
        lengths = [sum(map(len, self._tokens[place])) for place in places]
        return min(lengths) - sum(map(len, skeleton)), -len(places), min(places), skeleton

    def _enter(self, place: int, rename: Rename) -> None:
        """Takes a rename in, and what it has in common with those that have the same holes."""
        tokens = self._tokens[place] = (_tokens(rename[0]), _tokens(rename[1]))
        group = self._groups[_holes(tokens)]
        for other in group[-MAX_COMPARED:]:
            if (skeleton := _skeleton(tokens, self._tokens[other])) is not None:
                self._alike[skeleton] |= {place, other}
        group.append(place)
        self._alive[place] = rename

    def _leave(self, place: int) -> None:
        del self._alive[place]
        self._groups[_holes(self._tokens.pop(place))].remove(place)
        for skeleton in [each for each, places in self._alike.items() if place in places]:
            self._alike[skeleton].remove(place)
            if len(self._alike[skeleton]) < 2:
                del self._alike[skeleton]

    def _merged(self, places: Sequence[int], skeleton: Skeleton) -> Rename | None:
        """One rename for several; None where words would stand twice, or can't be words."""
        sides = []
        for side, (before, after) in enumerate((skeleton[:2], skeleton[2:])):
            words = [
                "".join(self._tokens[place][side][len(before) : -len(after) or None])
                for place in places
            ]
            text = "".join((*before, choice(words), *after))
            if (
                len(set(words)) < len(words)
                or not all(map(can_be_word, words))
                or not is_readable(text)
            ):
                return None
            sides.append(text)
        return sides[0], sides[1]

    def _has_exceptions(self, places: Sequence[int]) -> bool:
        """Whether another rename is an exception from one of these, so that their order matters."""
        stems = tuple(
            stem for place in places if (stem := self._alive[place][0].removesuffix("**"))
        )
        return any(
            other.startswith(stems)
            for place, (other, _) in self._alive.items()
            if place not in places
        )


def _tokens(text: str) -> Tokens:
    return tuple(_TOKEN.findall(text))


def _holes(sides: tuple[Tokens, Tokens]) -> tuple[Tokens, Tokens]:
    """The holes of a rename's source and target."""
    source, target = (tuple(filter(_is_hole, side)) for side in sides)
    return source, target


def _is_hole(token: str) -> bool:
    return token[0] in "{*"


def _skeleton(one: tuple[Tokens, Tokens], other: tuple[Tokens, Tokens]) -> Skeleton | None:
    """What two renames have in common, if they differ in one part of each side, behind as many
    choices on both.
    """
    (before, after), (start, end) = (_around(a, b) for a, b in zip(one, other, strict=True))
    is_one = all(
        len(before) + len(after) < len(source) and len(start) + len(end) < len(target)
        for source, target in (one, other)
    )
    return (before, after, start, end) if is_one and _choices(before) == _choices(start) else None


def _around(one: Tokens, other: Tokens) -> tuple[Tokens, Tokens]:
    """What two texts begin with, and what they end with."""
    shorter = min(len(one), len(other))
    before = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    left = shorter - before
    after = next((at for at in range(left) if one[-1 - at] != other[-1 - at]), left)
    return one[:before], one[len(one) - after :]


def _choices(tokens: Tokens) -> int:
    return sum("," in token for token in tokens if token[0] == "{")


def choice(words: Sequence[str]) -> str:
    """`{q,k,v}_proj` for `q_proj`, `k_proj`, `v_proj`: what all begin or end with, up to an
    underscore, stands outside.

    >>> choice(["q_proj", "k_proj", "v_proj"])
    '{q,k,v}_proj'
    """
    if len(set(words)) == 1:
        return words[0]
    before = _shared([word.split("_") for word in words])
    after = _shared([word.split("_")[::-1] for word in words])
    shortest = min(len(word.split("_")) for word in words)
    before, after = (before, after) if before + after < shortest else (0, min(after, shortest - 1))
    inner = ["_".join(word.split("_")[before : len(word.split("_")) - after]) for word in words]
    parts = words[0].split("_")
    head, tail = "_".join(parts[:before]), "_".join(parts[len(parts) - after :]) if after else ""
    return f"{head}{'_' if before else ''}{{{','.join(inner)}}}{'_' if after else ''}{tail}"


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many parts all begin with."""
    return next(
        (i for i, each in enumerate(zip(*parts, strict=False)) if len(set(each)) > 1),
        min(map(len, parts)),
    )


def is_readable(text: str) -> bool:
    """Whether a text is a pattern that can be matched."""
    try:
        Matcher(parse(text))
    except PatternError:
        return False
    return True
