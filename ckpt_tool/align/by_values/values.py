"""Which tensors of two checkpoints belong together, by what they hold: every pair is equal, bit for
bit, after its ops.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.align.alignment import align
from ckpt_tool.align.by_values.companions import followers
from ckpt_tool.align.by_values.fingerprints import (
    Content,
    DigestedTensors,
    cast_content,
    content_of,
    digest_of,
    elements_of,
    plain_shape,
    read_as,
)
from ckpt_tool.align.by_values.proof import is_proved
from ckpt_tool.align.by_values.reshaping import Plain, reshaped
from ckpt_tool.align.by_values.row_search import TURNS, RowFinder, are_castable, parts_of_vectors
from ckpt_tool.align.by_values.surroundings import settled_by_surroundings
from ckpt_tool.align.findings import Aligned, Alignment, Ambiguous, Hint
from ckpt_tool.align.pairs import Pair
from ckpt_tool.ops import OpError, parse_ops, run_chain
from ckpt_tool.tensors import DType, Shape

if TYPE_CHECKING:
    import torch

EQUAL, DIFFERENT = "equal values", "the values differ"
SURE, UNSURE = 0.9, 0.85
MOST = 0.9
"""The share of pairs by name that must have equal values for the others to be doubted."""
Kind = tuple[DType, bytes]
"""A dtype and the digest of what is held in it."""


def align_values(
    source: DigestedTensors, target: DigestedTensors, hints: Sequence[Hint] = ()
) -> Alignment:
    """Pairs by equal values, then by names and shapes for what has no equal. Costs reading both
    sides once, a few tensors more often.
    """
    return _Comparing(source, target, hints).run()


@dataclass
class _Comparing:
    source: DigestedTensors
    target: DigestedTensors
    hints: Sequence[Hint]

    def __post_init__(self) -> None:
        self.ours, self.theirs = _contents(self.source), _contents(self.target)
        self.pairs: list[Aligned] = []
        self.left_source = dict.fromkeys(self.source.catalog)
        self.left_target = dict.fromkeys(self.target.catalog)
        self.is_settled = False
        self.kinds = self._kinds()
        self.telling = {kind for key, kind in self.kinds[1].items() if self.theirs[key].tells}

    def run(self) -> Alignment:
        self._whole()
        if self._telling_left():
            self._normalised()
            self._rearranged()
            self._in_parts()
        if self._is_any_left():
            self._around()
        self.is_settled = True
        self._rearranged()
        self._copies()
        named = (
            align(self.source.catalog, self.target.catalog, self.hints)
            if self._is_any_left()
            else Alignment((), (), (), ())
        )
        self._by_name(named)
        return self._result(named)

    def _is_any_left(self) -> bool:
        return bool(self.left_source and self.left_target)

    def _kinds(self) -> tuple[dict[str, Kind], dict[str, Kind]]:
        """What keys hold; a source key's in the dtype of the target where only there it has an
        equal.
        """
        target = {
            key: (self.target.catalog[key].dtype, content.digest)
            for key, content in self.theirs.items()
        }
        known = set(target.values())
        sizes = {
            (info.dtype, info.nbytes * 8 // info.dtype.bits)
            for info in self.target.catalog.values()
        }
        source = {}
        for key, content in self.ours.items():
            info = self.source.catalog[key]
            source[key] = kind = (info.dtype, content.digest)
            if kind in known:
                continue
            for dtype in {
                dtype
                for dtype, count in sizes
                if count == info.nbytes * 8 // info.dtype.bits and dtype is not info.dtype
            }:
                if (
                    are_castable(info.dtype, dtype)
                    and (dtype, (cast := cast_content(self.source, key, dtype)).digest) in known
                ):
                    source[key], self.ours[key] = (dtype, cast.digest), cast
                    break
        return source, target

    def _take(self, pair: Pair, confidence: float = 1.0, evidence: str = EQUAL) -> bool:
        sources, targets = (
            [key for slot in side for key in slot] for side in (pair.sources, pair.targets)
        )
        if any(key not in self.left_source for key in sources) or any(
            key not in self.left_target for key in targets
        ):
            return False
        for key in sources:
            del self.left_source[key]
        for key in targets:
            del self.left_target[key]
        self.pairs.append(Aligned(pair, confidence, evidence))
        return True

    def _whole(self) -> None:
        """Tensors of the same bytes that are the only ones of their content on both sides."""
        for kind, (source, target) in self._by_kind(*self.kinds).items():
            if len(source) == len(target) == 1 and kind in self.telling:
                self._take(self._copy(source[0], target[0]))

    def _by_kind(
        self, source: Mapping[str, Kind], target: Mapping[str, Kind]
    ) -> dict[Kind, tuple[list[str], list[str]]]:
        found: dict[Kind, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, kinds in enumerate((source, target)):
            for key, kind in kinds.items():
                found[kind][side].append(key)
        return found

    def _copy(self, origin: str, key: str, ops: Plain | None = None) -> Pair:
        shapes = (self.source.catalog[origin].shape, self.target.catalog[key].shape)
        return Pair(((origin,),), ((key,),), parse_ops(reshaped(*shapes) if ops is None else ops))

    def _telling_left(self) -> bool:
        return bool(self._open(0)) and bool(self._open(1))

    def _open(self, side: int) -> list[str]:
        """Keys that aren't paired, of content that the other side hasn't; of the source, in the
        end, also what is left of equal ones.
        """
        left, contents, others = (
            (self.left_source, self.ours, 1),
            (self.left_target, self.theirs, 0),
        )[side]
        known = set(self.kinds[others].values())
        is_any = self.is_settled and side == 0
        return [
            key
            for key in left
            if contents[key].tells and (is_any or self.kinds[side][key] not in known)
        ]

    def _rearranged(self) -> None:
        """Tensors of the same elements in another order of dimensions."""
        target: dict[tuple[DType, int], list[str]] = defaultdict(list)
        for key in self._open(1):
            info = self.target.catalog[key]
            if len(plain_shape(info.shape)) > 1:
                target[info.dtype, prod(info.shape)].append(key)
        for (dtype, count), keys in target.items():
            source = [key for key in self._open(0) if self._is_like(key, dtype, count)]
            if not source:
                continue
            known: dict[int, list[str]] = defaultdict(list)
            for key in source:
                known[elements_of(read_as(self.source, key, dtype))].append(key)
            for key in keys:
                for origin in known.get(elements_of(read_as(self.target, key, dtype)), ()):
                    if (ops := self._turned(origin, key)) is not None:
                        self._take(self._copy(origin, key, ops))
                        break

    def _is_like(self, key: str, dtype: DType, count: int) -> bool:
        info = self.source.catalog[key]
        is_matrix = len(plain_shape(info.shape)) > 1 and dtype.itemsize > 0
        return is_matrix and prod(info.shape) == count and are_castable(info.dtype, dtype)

    def _turned(self, origin: str, key: str) -> Plain | None:
        """The ops that put a tensor's dimensions in the other's order, if that makes it equal."""
        import torch

        dtype = self.target.catalog[key].dtype
        source, target = read_as(self.source, origin, dtype), read_as(self.target, key, dtype)
        plain, wanted = plain_shape(tuple(source.shape)), plain_shape(tuple(target.shape))
        for order in (
            permutations(range(len(plain))) if len(plain) == len(wanted) <= MAX_DIMENSIONS else ()
        ):
            is_fitting = tuple(plain[axis] for axis in order) == wanted and list(order) != sorted(
                order
            )
            if is_fitting and torch.equal(
                _bits(source.reshape(plain).permute(order)), _bits(target.reshape(wanted))
            ):
                return _permuting(tuple(source.shape), tuple(target.shape), order)
        return None

    def _in_parts(self) -> None:
        finder = RowFinder(self.source, self.target)
        for turns in TURNS:
            for pair in finder.pairs(self._open(0), self._open(1), turns):
                self._prove(pair)
        for pair in parts_of_vectors(self.source, self.target, self._open(0), self._open(1)):
            self._prove(pair)

    def _prove(self, pair: Pair) -> None:
        """Takes a pair of parts if its ops make the target's bytes, and what lies beside its
        tensors and goes the same way.
        """
        if (
            not self._is_free(pair)
            or not is_proved(pair, self.source, self.target)
            or not self._take(pair)
        ):
            return
        for other in followers(
            pair, self.left_source, self.left_target, (self.source.catalog, self.target.catalog)
        ):
            if self._is_free(other) and is_proved(other, self.source, self.target):
                self._take(other, evidence=f"{EQUAL}, beside tensors that go the same way")

    def _is_free(self, pair: Pair) -> bool:
        sources, targets = (
            [key for slot in side for key in slot] for side in (pair.sources, pair.targets)
        )
        return all(key in self.left_source for key in sources) and all(
            key in self.left_target for key in targets
        )

    def _normalised(self) -> None:
        """Weights that the source holds as a length and a direction."""
        found = {self.kinds[1][key]: key for key in self._open(1)}
        for g, v in _lengths(self.left_source):
            key = found.get((self.source.catalog[v].dtype, self._folded(g, v)))
            if key is not None:
                self._prove(Pair(((g,), (v,)), ((key,),), parse_ops({"weight_norm": 0})))

    def _folded(self, g: str, v: str) -> bytes:
        """The digest of the weight that a length and a direction make; empty where they make none."""
        tensors = [read_as(self.source, key, self.source.catalog[key].dtype) for key in (g, v)]
        try:
            (weight,) = run_chain(parse_ops({"weight_norm": 0}), tensors)
        except (OpError, RuntimeError):
            return b""
        return digest_of(weight)

    def _around(self) -> None:
        """Contents that stand in several places."""
        numbers: dict[object, int] = {}
        telling = set()
        labels: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for place, each in enumerate(self.pairs):
            if each.pair.is_rename or len(each.pair.sources) == len(each.pair.targets) == 1:
                label = numbers.setdefault(place, len(numbers))
                telling.add(label)
                for side, slots in zip(labels, (each.pair.sources, each.pair.targets), strict=True):
                    side.update({key: label for slot in slots for key in slot})
        left = self._by_kind(
            *(
                {key: self.kinds[side][key] for key in keys}
                for side, keys in enumerate((self.left_source, self.left_target))
            )
        )
        for kind, (source, target) in left.items():
            if source and target:
                label = numbers.setdefault(kind, len(numbers))
                telling |= {label} if kind in self.telling else set()
                labels[0].update(dict.fromkeys(source, label))
                labels[1].update(dict.fromkeys(target, label))
        catalogs = (self.source.catalog, self.target.catalog)
        for found in settled_by_surroundings(catalogs, labels, frozenset(telling), self.hints):
            origin, key = found.pair.sources[0][0], found.pair.targets[0][0]
            if origin in self.left_source and key in self.left_target:
                self._take(
                    self._copy(origin, key),
                    found.confidence,
                    f"{EQUAL}, elsewhere too; {found.evidence}",
                )

    def _copies(self) -> None:
        """Targets that hold what a source key gives another target already: tied weights that are
        stored twice.
        """
        by_kind = self._by_kind(*self.kinds)
        order = {key: place for place, key in enumerate(self.target.catalog)}
        for place, each in enumerate(self.pairs):
            if not each.pair.is_rename or not self.theirs[key := each.pair.targets[0][0]].tells:
                continue
            source, target = by_kind[self.kinds[1][key]]
            more = [other for other in target if other in self.left_target]
            same_shape = all(
                self.target.catalog[other].shape == self.target.catalog[key].shape for other in more
            )
            if more and same_shape and not any(other in self.left_source for other in source):
                slots = tuple((other,) for other in sorted((key, *more), key=order.__getitem__))
                self.pairs[place] = replace(
                    each, pair=Pair(each.pair.sources, slots, parse_ops("copy"))
                )
                for other in more:
                    del self.left_target[other]

    def _by_name(self, named: Alignment) -> None:
        """What has no equal is paired by names and shapes; not for sure where nearly all that they
        pair has its equal there.
        """
        sure = [each.pair for each in named.pairs if each.confidence >= SURE]
        found = {(each.pair.sources, each.pair.targets) for each in self.pairs}
        is_decided = sum((pair.sources, pair.targets) in found for pair in sure) > MOST * len(sure)
        for each in named.pairs:
            if not is_decided or self._are_equal(each.pair):
                self._take(
                    each.pair,
                    each.confidence,
                    f"{each.evidence}; {EQUAL if self._are_equal(each.pair) else DIFFERENT}",
                )
            else:
                self._take(
                    each.pair,
                    min(each.confidence, UNSURE),
                    f"{each.evidence}; {DIFFERENT}, where nearly all others are equal",
                )

    def _are_equal(self, pair: Pair) -> bool:
        return (
            pair.is_rename
            and self.kinds[0][pair.sources[0][0]] == self.kinds[1][pair.targets[0][0]]
        )

    def _result(self, named: Alignment) -> Alignment:
        order = {key: place for place, key in enumerate(self.target.catalog)}
        pairs = sorted(self.pairs, key=lambda each: order[each.pair.targets[0][0]])
        shape_mismatches = tuple(
            (a, b)
            for a, b in named.shape_mismatches
            if a in self.left_source and b in self.left_target
        )
        open_groups = tuple(self._still_open(named.ambiguous))
        return Alignment(
            tuple(pairs),
            open_groups,
            tuple(self.left_source),
            tuple(self.left_target),
            shape_mismatches,
        )

    def _still_open(self, groups: Iterable[Ambiguous]) -> Iterator[Ambiguous]:
        for group in groups:
            source = tuple(key for key in group.sources if key in self.left_source)
            target = tuple(key for key in group.targets if key in self.left_target)
            if source and target:
                yield replace(
                    group, sources=source, targets=target, hint=f"{source[0]} -> {target[0]}"
                )


MAX_DIMENSIONS = 5
READERS = 2


def _contents(side: DigestedTensors) -> dict[str, Content]:
    """What every key holds; two are read at a time, for digests leave Python to others."""
    with ThreadPoolExecutor(READERS) as readers:
        return dict(
            zip(
                side.catalog,
                readers.map(lambda key: content_of(side, key), side.catalog),
                strict=True,
            )
        )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as integers, so that NaN equals itself."""
    import torch

    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(
        tensor.element_size()
    )
    return tensor.contiguous().view(whole) if whole else tensor


def _permuting(source: Shape, target: Shape, order: Sequence[int]) -> Plain:
    """A transpose, or a `rearrange` of all dimensions, with the ones that are added or go."""
    plain = plain_shape(source)
    if source == plain and len(source) == len(target) == 2:
        return ["transpose"]
    for usual in _USUAL.get(len(source), ()) if len(source) == len(target) else ():
        long = [axis for axis in usual if source[axis] != 1]
        if tuple(source[axis] for axis in usual) == target and [
            sorted(long).index(axis) for axis in long
        ] == list(order):
            return [
                {
                    "rearrange": f"{' '.join('abcd'[: len(source)])} -> {' '.join('abcd'[axis] for axis in usual)}"
                }
            ]
    names = "abcdefgh"[: len(plain)]
    left, right = iter(names), iter(names[axis] for axis in order)
    return [{"rearrange": f"{_dims(source, left)} -> {_dims(target, right)}"}]


_USUAL = {3: ((2, 1, 0),), 4: ((2, 3, 1, 0), (3, 2, 0, 1))}
"""Orders between torch and JAX or TensorFlow: a kernel of one element goes as the others do."""


def _dims(shape: Shape, names: Iterator[str]) -> str:
    return " ".join("1" if size == 1 else next(names) for size in shape)


def _lengths(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Keys of a length with those of its direction, in torch's old names and its new ones."""
    known = dict.fromkeys(keys)
    found = []
    for g in known:
        for source, target in (("_g", "_v"), (".original0", ".original1")):
            if g.endswith(source) and (v := g.removesuffix(source) + target) in known:
                found.append((g, v))
    return found
