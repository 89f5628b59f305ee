"""Whether the keys that a pairing leaves can be dropped and kept, one side's whole new modules and
the other's whole unused ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from ckpt_tool.advising.harmless import (
    COUNTERS,
    changes_a_weight,
    flat,
    is_averaged,
    is_computed,
    is_constant,
    is_idle_adapter,
    is_network,
    is_untrained,
)
from ckpt_tool.advising.parts import (
    Part,
    common_path,
    contents,
    ends_of,
    is_below,
    is_in_block,
    is_of_a_layer,
    paths_above,
    siblings_of,
    whole_parts,
)
from ckpt_tool.advising.relatives import Relative, relatives, structure, twins
from ckpt_tool.mapping.accounting.heads import ShapeMismatch, are_heads, is_table, is_vocabulary
from ckpt_tool.mapping.accounting.scales import Scales
from ckpt_tool.mapping.plan import Step
from ckpt_tool.tensors import Catalog, Shape

MIN_USED = 0.6
"""The share of the source's keys, in the module that all mapped ones are in, that must be mapped
where something stays fresh.
"""
MIN_OF_A_SIDE = 0.1
"""The share of the values of one side at least that must be mapped, for the two networks to have to
do with each other.
"""


@dataclass(frozen=True)
class Leftovers:
    """What a pairing of two catalogs leaves: `left` of the source and `fresh` of the target, which
    nobody named.

    `name_of` is what the target calls a key of the source. `value_of` reads a tensor of one number,
    where there are values.
    """

    source: Catalog
    target: Catalog
    steps: Sequence[Step]
    left: Sequence[str]
    fresh: Sequence[str]
    name_of: Callable[[str], str | None] = str
    value_of: Callable[[str], float] | None = None

    @cached_property
    def taken(self) -> dict[str, None]:
        return dict.fromkeys(key for step in self.steps for key in step.inputs)

    @cached_property
    def made(self) -> dict[str, None]:
        return dict.fromkeys(key for step in self.steps for key in step.outputs)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A key or a module that may not be left just so, and why; `other` is what it may have to do
    with. No path: a doubt about the whole.
    """

    path: str
    why: str
    other: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Keys that may be dropped and kept without making a wrong network; `doubts` are why the others
    may not.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    @property
    def is_safe(self) -> bool:
        return not self.doubts


def doubts_in_words(doubts: Sequence[Doubt]) -> tuple[str, ...]:
    """A line for each reason, with the first that it concerns, and how many more."""
    by_reason: dict[str, list[Doubt]] = defaultdict(list)
    for doubt in doubts:
        by_reason[doubt.why].append(doubt)
    return tuple(_in_words(alike[0], len(alike) - 1) for alike in by_reason.values())


def _in_words(doubt: Doubt, more: int) -> str:
    path, other = (f"`{name}`" if name else "" for name in (doubt.path, doubt.other))
    return " ".join(word for word in (path, doubt.why, other) if word) + (
        f", and {more} more" if more else ""
    )


def judge(leftovers: Leftovers) -> Judgement:
    """What may be proposed for the keys that are left.

    A target's key may be kept when it belongs to a module that is new as a whole, and nothing that
    is left of the source could be it: no tensor of its shapes, none that it is made of or is a part
    of. A source's key may be dropped when it is a buffer that modules compute, a copy of the
    weights that are taken, or belongs to a whole module that the target has no place for. Numbered
    blocks of one structure are never left by half: which of them would be meant, nothing tells.
    """
    source, target = _Unused(leftovers), _New(leftovers)
    doubts = [*_unreadable(leftovers), *source.doubts(), *target.doubts()]
    doubts += (
        _in_doubt(one)
        for one in twins(
            source.renamed, target.renamed, _shapes(leftovers.source), _shapes(leftovers.target)
        )
    )
    doubts += _too_little(leftovers, source) if target.parts else ()
    return Judgement(tuple(leftovers.left), tuple(leftovers.fresh), tuple(dict.fromkeys(doubts)))


def _unreadable(leftovers: Leftovers) -> Iterator[Doubt]:
    for key in leftovers.left:
        if key in leftovers.source.unreadable:
            yield Doubt(key, "can't be read")


def _too_little(leftovers: Leftovers, unused: _Unused) -> Iterator[Doubt]:
    """A pairing that takes little of where it takes anything is no sign that the two networks have
    to do with each other.
    """
    inside = [key for key in leftovers.source if is_below(key, unused.root)]
    known = sum(key in leftovers.taken or key in unused.harmless for key in inside)
    if known < MIN_USED * len(inside):
        yield Doubt("", f"only {known} of {len(inside)} keys of the source are used")
    shares = _share(leftovers.taken, leftovers.source), _share(leftovers.made, leftovers.target)
    if max(shares) < MIN_OF_A_SIDE:
        yield Doubt(
            "",
            f"only {shares[0]:.1%} of the source's values are used, for {shares[1]:.1%} of the target's",
        )


def _share(keys: Iterable[str], catalog: Catalog) -> float:
    """The share of a side's values that these keys have."""
    return sum(prod(catalog[key].shape) for key in keys if key in catalog) / (
        sum(prod(info.shape) for info in catalog.values()) or 1
    )


def _shapes(catalog: Catalog) -> dict[str, Shape]:
    return {key: info.shape for key, info in catalog.items()}


def _in_doubt(relative: Relative) -> Doubt:
    return Doubt(relative.source, relative.how, relative.target)


class _Unused:
    """What is left of the source."""

    def __init__(self, leftovers: Leftovers) -> None:
        self._all, self._source = leftovers, leftovers.source
        taken = leftovers.taken
        self.root = common_path(taken)
        flats = {flat(key): key for key in taken}
        self.harmless = {
            key for key in leftovers.left
            if is_computed(key) or is_constant(key, self._shape(key)) or is_untrained(key, taken)
            or self._is_copy(key, flats) or self._is_plain_alpha(key)
        }  # fmt: skip
        rest = [key for key in leftovers.left if key not in self.harmless]
        self.parts, self.halves = whole_parts(rest, taken)
        self._used = {path for key in taken for path in paths_above(key)}

    @property
    def renamed(self) -> list[Part]:
        """The modules that the target has under no name of theirs."""
        shape_mismatches = {source for source, _ in _misfits(self._all)}
        return [part for part in self.parts if shape_mismatches.isdisjoint(part.keys)]

    def _is_copy(self, key: str, flats: dict[str, str]) -> bool:
        """Whether this is an average of a tensor that is taken, by its name and shape."""
        if not is_averaged(key) or key not in self._source:
            return False
        name = flat(key)
        ends = (flats.get(name[cut:]) for cut in range(1, len(name)))
        twin = next(
            (
                other
                for other in ends
                if other and self._source[other].shape == self._source[key].shape
            ),
            None,
        )
        return twin is not None or not is_below(key, self.root)

    def _is_plain_alpha(self, key: str) -> bool:
        """Whether this is the `alpha` of a LoRA that is taken, and equal to its rank: then it
        scales by 1.
        """
        stem = key.removesuffix(".alpha")
        downs = (f"{stem}.{name}.weight" for name in ("lora_down", "lora_A", "lora_A.default"))
        down = next((name for name in downs if name in self._all.taken), None)
        if stem == key or down is None or self._all.value_of is None or self._shape(key):
            return False
        return self._all.value_of(key) == self._source[down].shape[0]

    def doubts(self) -> Iterator[Doubt]:
        shape_mismatches = {source for source, _ in _misfits(self._all)}
        for key in self.halves:
            if key not in shape_mismatches and is_below(key, self.root):
                yield Doubt(key, "is left of a module that is mapped")
        for part in self.parts:
            if not shape_mismatches.issuperset(part.keys):
                yield from self._faults(part)

    def _faults(self, part: Part) -> Iterator[Doubt]:
        if any(changes_a_weight(key) for key in part.keys) and is_below(part.path, self.root):
            yield Doubt(part.path, "is a part of the weights beside it")
        elif not is_network(part.path) and self._mirrors(part):
            yield Doubt(
                part.path, "has something for the weights that are mapped, under their names"
            )
        scales = Scales(part.keys)
        if key := next((key for key in self._all.taken if scales.of(key)), None):
            yield Doubt(part.path, "belongs to", key)
        if not is_below(part.path, self.root) or all(
            key in self._source.unreadable for key in part.keys
        ):
            return
        if any(self._is_alike(part, other) for other in siblings_of(part, list(self._all.taken))):
            yield Doubt(part.path, "is one of several equal blocks, of which others are mapped")
        elif is_in_block(part.path, self._used):
            yield Doubt(part.path, "is left of a block that is mapped")
        elif all(len(self._shape(key)) < 2 for key in part.keys) and not self._is_of_another(part):
            yield Doubt(part.path, "has no weights of its own")

    def _is_of_another(self, part: Part) -> bool:
        """Whether a module is one of several of a name that go together, `decoder_norm` with
        `decoder_blocks`.
        """
        stem, mark, _ = part.name.partition("_")
        others = (
            other for other in self.parts if other is not part and other.parent == part.parent
        )
        return bool(mark) and any(
            other.name.startswith(f"{stem}_") and self._has_matrices(other) for other in others
        )

    def _has_matrices(self, part: Part) -> bool:
        return any(len(self._shape(key)) > 1 for key in part.keys)

    def _mirrors(self, part: Part) -> bool:
        """Whether a tree of its own repeats the names of what is mapped: masks, differences,
        adapters.
        """
        return 2 * sum(
            self._is_mirrored(key, key[len(part.path) + 1 :]) for key in part.keys
        ) >= len(part.keys)

    def _is_mirrored(self, key: str, name: str) -> bool:
        if changes_a_weight(key):
            return any((path, None) in self._ends for path in paths_above(name))
        return len(self._shape(key)) > 0 and (name, self._shape(key)) in self._ends

    @cached_property
    def _ends(self) -> set[tuple[str, Shape | None]]:
        """The ends of the names of what is mapped, with their shapes, and those of the modules
        without.
        """
        tensors = (
            (end, self._shape(key)) for key in self._all.taken for end in ends_of(key, self.root)
        )
        modules = {key.rpartition(".")[0] for key in self._all.taken}
        return {
            *tensors,
            *((end, None) for module in modules for end in ends_of(module, self.root)),
        }

    def _is_alike(self, part: Part, other: str) -> bool:
        shapes = {
            key: shape for key, shape in _shapes(self._source).items() if not is_computed(key)
        }
        return contents(part.path, part.keys, shapes) == contents(other, self._source, shapes)

    def _shape(self, key: str) -> Shape:
        return self._source[key].shape if key in self._source else ()


class _New:
    """What is left of the target."""

    def __init__(self, leftovers: Leftovers) -> None:
        self._all, self._target = leftovers, leftovers.target
        counted = any(COUNTERS.search(key) for key in leftovers.left)
        self._computed = {
            key for key in leftovers.fresh
            if (is_computed(key) and not (counted and COUNTERS.search(key))) or is_idle_adapter(key, leftovers.made)
        }  # fmt: skip
        rest = [key for key in leftovers.fresh if key not in self._computed]
        self.parts, self.halves = whole_parts(rest, leftovers.made)
        self._used = {path for key in leftovers.made for path in paths_above(key)}
        self._wanted = {
            key: leftovers.source[key].shape
            for key in leftovers.left
            if key in leftovers.source and not is_computed(key)
        }

    def doubts(self) -> Iterator[Doubt]:
        shape_mismatches = {target: source for source, target in _misfits(self._all)}
        heads = [
            ShapeMismatch(source, key, self._all.source[source].shape, self._target[key].shape)
            for key, source in shape_mismatches.items()
        ]
        if heads and not are_heads(heads, self._all.source, self._target):
            yield from (Doubt(head.target, "has another shape in the source") for head in heads)
        yield from (
            Doubt(key, "is missing in a module that is mapped")
            for key in self.halves
            if key not in shape_mismatches
        )
        for part in self.parts:
            if not set(part.keys) <= shape_mismatches.keys():
                yield from self._faults(part)
        yield from self._relatives(
            [key for part in self.parts for key in part.keys if key not in shape_mismatches]
        )

    def _faults(self, part: Part) -> Iterator[Doubt]:
        shapes = {
            key: shape for key, shape in _shapes(self._target).items() if not is_computed(key)
        }
        mine = contents(part.path, part.keys, shapes) or Counter(shapes[key] for key in part.keys)
        if any(
            contents(other, self._target, shapes) == mine
            for other in siblings_of(part, list(self._all.made))
        ):
            yield Doubt(part.path, "is one of several equal blocks, of which others are mapped")
        elif is_in_block(part.path, self._used):
            yield Doubt(part.path, "is missing in a block that is mapped")
        elif any(
            self._is_deeper(part, other, shapes)
            for other in siblings_of(part, list(self._all.made))
        ):
            yield Doubt(
                part.path, "is one of several blocks of one kind, of which others are mapped"
            )
        elif (part.is_bare and is_vocabulary(part.path)) or all(
            _is_buffer(key, shapes.get(key, (0, 0))) for key in part.keys
        ):
            yield Doubt(part.path, "is missing in the source")
        vocabularies = {
            self._target[key].shape
            for key in self._all.made
            if is_table(key, self._target[key].shape)
        }
        if any(shape in vocabularies for shape in mine):
            yield Doubt(part.path, "has the shape of an embedding, which it may be tied to")

    @property
    def renamed(self) -> list[Part]:
        """The modules that the source has under no name of theirs."""
        shape_mismatches = {target for _, target in _misfits(self._all)}
        return [part for part in self.parts if shape_mismatches.isdisjoint(part.keys)]

    def _is_deeper(self, part: Part, other: str, shapes: dict[str, Shape]) -> bool:
        """Whether a numbered module is another one of a sequence, in another width."""
        mine = structure(part.path, part.keys, shapes, 1)
        return bool(mine) and mine == structure(other, shapes, shapes, 1)

    def _relatives(self, fresh: Collection[str]) -> Iterator[Doubt]:
        """Tensors that are left of the source and could be what is fresh, and what has the name of
        a module that is.
        """
        matrices = any(len(self._target[key].shape) > 1 for key in fresh)
        left = {key: shape for key, shape in self._wanted.items() if len(shape) > 1 or not matrices}
        wanted = {
            key: self._target[key].shape
            for key in fresh
            if len(self._target[key].shape) > 1 or not matrices
        }
        yield from (_in_doubt(one) for one in relatives(left, wanted))
        modules = {self._all.name_of(key) or "" for key in self._wanted}
        paths = {name.rpartition(".")[0] for name in modules if "." in name}
        yield from (
            Doubt(key, "has something in the source under its own name")
            for key in fresh
            if key.rpartition(".")[0] in paths
        )


def _is_buffer(key: str, shape: Shape) -> bool:
    """Whether a vector is none of those that layers learn."""
    return len(shape) < 2 and not is_of_a_layer(key.rpartition(".")[2])


def _misfits(leftovers: Leftovers) -> Iterator[tuple[str, str]]:
    """Keys of the source and of the target that are left, have one name, and other shapes."""
    fresh = frozenset(leftovers.fresh)
    for key in leftovers.left:
        name = leftovers.name_of(key)
        if (
            name in fresh
            and key in leftovers.source
            and leftovers.source[key].shape != leftovers.target[name].shape
        ):
            yield key, name
