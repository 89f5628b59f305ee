"""How a tensor of one shape becomes one of another: not at all, with or without ones, transposed.
Decided for all leaves of a kind.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from ckpt_tool.align.naming.orientation import are_opposite, are_straight, open_shapes
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.ops import Op, parse_ops
from ckpt_tool.tensors import Catalog, Shape

Permutation = str
"""`transpose`, or a pattern of einops."""
_PERMUTATIONS: dict[int, dict[Permutation, tuple[int, ...]]] = {
    2: {"transpose": (1, 0)},
    3: {"a b c -> c b a": (2, 1, 0)},
    4: {"o i h w -> h w i o": (2, 3, 1, 0), "h w i o -> o i h w": (3, 2, 0, 1)},
}
"""For each number of dimensions the permutations between libraries, with the order of the axes."""

Copies = Mapping[str, str]
"""Source keys by target key."""


class Kind(NamedTuple):
    """Keys of both sides without their numbers, and the number of the source's dimensions."""

    source: str
    target: str
    rank: int

    @property
    def blocks(self) -> tuple[str, str]:
        """The blocks that two modules stand in: what is before the last number."""
        return self.source.rpartition("#")[0], self.target.rpartition("#")[0]

    @property
    def leaves(self) -> tuple[str, str]:
        """The last names, as far as they say what a tensor is."""
        return _leaf(self.source), _leaf(self.target)

    @property
    def is_table(self) -> bool:
        """Whether it is an embedding, which is never transposed."""
        return is_table(self.source) or is_table(self.target)

    @property
    def is_plain(self) -> bool:
        """Whether nothing speaks for a transposed matrix."""
        source, target = self.leaves
        return self.rank != 2 or source == target or self.is_table


_TABLES = ("embed", "token", "position", "pos_", "wte", "wpe", "table")


def is_table(key: str) -> bool:
    """Whether a key's words name an embedding."""
    return any(word in key for word in _TABLES)


_LEAVES = ("weight", "kernel", "bias", "embedding", "scale")


def _leaf(key: str) -> str:
    leaf = key.rpartition(".")[2]
    return leaf if leaf in _LEAVES else "bare"


def layout_changes(
    copies: Copies, source: Catalog, target: Catalog
) -> tuple[dict[str, tuple[Op, ...]], set[str]]:
    """The ops for each target key, those that no op leads to left out; and the keys of which it
    isn't sure.

    A square matrix does not show whether it is transposed: the others around it do, then all
    others of the file.
    """
    kinds: dict[Kind, list[str]] = defaultdict(list)
    for key, origin in copies.items():
        kinds[Kind(numberless(origin), numberless(key), len(source[origin].shape))].append(key)
    possible = {
        kind: _permutations([(source[copies[key]].shape, target[key].shape) for key in keys])
        for kind, keys in kinds.items()
    }
    found: dict[str, tuple[Op, ...]] = {}
    unsure: set[str] = set()
    is_straight, is_opposite = are_straight(source, target), are_opposite(source, target)
    for kind, keys in kinds.items():
        permutation, is_sure = _chosen(kind, possible, is_straight, is_opposite)
        for key in keys:
            ops = _ops(source[copies[key]].shape, target[key].shape, permutation)
            if ops is not None:
                found[key] = ops
        if not is_sure:
            unsure.update(keys)
    return found, unsure


def are_transposed(copies: Copies, source: Catalog, target: Catalog) -> bool | None:
    """Whether all matrices are transposed, by the layout of the files or by those whose shapes show
    it; None where nothing does, or where they differ.
    """
    if are_opposite(source, target):
        return True
    unknown = open_shapes(source, target)
    shown = {
        source[origin].shape != target[key].shape
        for key, origin in copies.items()
        if len(source[origin].shape) == len(target[key].shape) == 2
        and len(set(source[origin].shape)) == 2
        and source[origin].shape not in unknown
        and not Kind(origin, key, 2).is_table
    }
    return shown.pop() if len(shown) == 1 else None


Possible = Mapping[Kind, Sequence[Permutation | None]]
"""What each kind may go through, by its shapes alone."""


def _chosen(
    kind: Kind, possible: Possible, is_straight: bool, is_opposite: bool
) -> tuple[Permutation | None, bool]:
    """What a kind goes through, and whether that is sure: nothing where no matrix of the files
    does; what its shapes say; else what the layout of the files says, what all kinds around it do,
    or all of the file.
    """
    own = possible[kind]
    if is_straight and kind.rank == 2 and None in own:
        return None, True
    if len(own) == 1:
        return own[0], True
    if is_opposite and kind.rank == 2 and not kind.is_table:
        return "transpose", True
    for others in _decided(kind, possible):
        if len(others) == 1 and (only := others.pop()) in own:
            return only, True
    if set(kind.leaves) == {"weight", "kernel"}:
        return own[-1], True
    return own[0], kind.is_plain


def _decided(kind: Kind, possible: Possible) -> Iterator[set[Permutation | None]]:
    """What the shapes of other kinds say: of those in the same blocks, then of the same leaves."""
    decided = [
        (other, permutations[0])
        for other, permutations in possible.items()
        if len(permutations) == 1 and other.rank == kind.rank and not other.is_table
    ]
    yield {permutation for other, permutation in decided if other.blocks == kind.blocks}
    yield {permutation for other, permutation in decided if other.leaves == kind.leaves}


def _permutations(shapes: Sequence[tuple[Shape, Shape]]) -> list[Permutation | None]:
    """The permutations that all of a kind may go through; None: none is needed."""
    found: list[Permutation | None] = []
    if all(_squeezed(source) == _squeezed(target) for source, target in shapes):
        found.append(None)
        if not _are_matrices(shapes):
            return found
    known = _PERMUTATIONS.get(len(shapes[0][0]), {})
    fitting = (each for each in known if all(_is_permuted(*pair, each) for pair in shapes))
    found += [each for each in (next(fitting, None),) if each is not None]
    return found or [None]


def _are_matrices(shapes: Sequence[tuple[Shape, Shape]]) -> bool:
    """Whether both sides hold matrices, none of which is a row or a column."""
    source, target = shapes[0]
    return len(source) == len(target) == 2 and not any(1 in shape for shape, _ in shapes)


def _is_permuted(source: Shape, target: Shape, permutation: Permutation) -> bool:
    """Whether a permutation makes one shape another, but for ones."""
    return _squeezed(_permuted(source, permutation)) == _squeezed(target)


def _permuted(shape: Shape, permutation: Permutation) -> Shape:
    return tuple(shape[axis] for axis in _PERMUTATIONS[len(shape)][permutation])


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _ones(source: Shape, target: Shape) -> str:
    """The pattern that adds and takes away ones: `a b -> a b 1 1`."""
    sides = []
    for shape in (source, target):
        names = iter("abcdefghijklmnop")
        sides.append(" ".join("1" if size == 1 else next(names) for size in shape))
    return " -> ".join(sides)


def _ops(source: Shape, target: Shape, permutation: Permutation | None) -> tuple[Op, ...] | None:
    """The ops from one shape to another; None where these don't lead there."""
    ops: list[object] = []
    shape = source
    if permutation is not None:
        ops.append(permutation if permutation == "transpose" else {"rearrange": permutation})
        shape = _permuted(source, permutation)
    if shape == target:
        return parse_ops(ops)
    if _squeezed(shape) == _squeezed(target) and prod(shape) == prod(target):
        return parse_ops([*ops, {"rearrange": _ones(shape, target)}])
    return None
