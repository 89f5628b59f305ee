"""Keys as whole modules: the largest parts of a tree of names of which everything is left."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ckpt_tool.tensors import Shape


@dataclass(frozen=True, slots=True)
class Part:
    """A module all of whose keys are left."""

    path: str
    keys: tuple[str, ...]

    @property
    def is_bare(self) -> bool:
        """Whether it is a parameter of the network itself, as `cls_token` is, and no module."""
        return self.keys == (self.path,)

    @property
    def parent(self) -> str:
        """The path that it is below; empty at the top."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Its last name."""
        return self.path.rpartition(".")[2]


def paths_above(key: str) -> Iterator[str]:
    """The modules that a tensor is in, the outermost first: `a`, `a.b` for `a.b.weight`."""
    return accumulate(key.split(".")[:-1], lambda path, name: f"{path}.{name}")


def ends_of(key: str, root: str) -> Iterator[str]:
    """A name, and its ends that begin inside of a module that it is below: `a.b.c`, `b.c`
    for `a`.
    """
    names = key.split(".")
    return (".".join(names[start:]) for start in range(root.count(".") + 2 if root else 1))


def whole_parts(left: Iterable[str], others: Iterable[str]) -> tuple[list[Part], list[str]]:
    """The largest modules that only keys of `left` are in, none of the `others`; and the keys left
    in modules that the others are in too.

    A parameter of the network itself, that is of no layer, counts as a module.

    >>> whole_parts(["neck.a.weight", "neck.b.weight", "fc.bias"], ["fc.weight"])
    ([Part(path='neck', keys=('neck.a.weight', 'neck.b.weight'))], ['fc.bias'])
    """
    known = list(others)
    used = {path for key in known for path in paths_above(key)}
    root = common_path(known)
    found: dict[str, list[str]] = {}
    halves = []
    for key in left:
        path = next(
            (path for path in paths_above(key) if path not in used),
            key if _is_bare(key, root) else None,
        )
        if path is None:
            halves.append(key)
        else:
            found.setdefault(path, []).append(key)
    return [Part(path, tuple(keys)) for path, keys in found.items()], halves


_OF_A_LAYER = re.compile(
    r"(weight|bias|running_(mean|var)|num_batches_tracked|gamma|beta|kernel|scale|[gvu]|weight_\w+|bias_\w+)$"
)


def _is_bare(key: str, root: str) -> bool:
    """Whether a key is a parameter of the network itself: directly in the module that holds all
    others, and named as none of a layer.
    """
    module, _, leaf = key.rpartition(".")
    return module == root and not is_of_a_layer(leaf)


def is_of_a_layer(leaf: str) -> bool:
    """Whether a last name is one that layers give their tensors."""
    return _OF_A_LAYER.match(leaf) is not None


def contents(path: str, keys: Iterable[str], shapes: Mapping[str, Shape]) -> Counter[Shape]:
    """The shapes of what is below a path."""
    return Counter(shapes[key] for key in keys if key in shapes and key.startswith(f"{path}."))


def common_path(keys: Collection[str]) -> str:
    """The innermost module that all keys are in; empty for the network itself."""
    names = [key.split(".")[:-1] for key in keys]
    shared: list[str] = []
    for level in zip(*names, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def is_below(key: str, path: str) -> bool:
    """Whether a key is a path, or inside of it; all are inside of the empty one."""
    return not path or key == path or key.startswith(f"{path}.")


def numbered(name: str) -> tuple[str, int] | None:
    """What stands before the number that a name ends in, and the number: `layer3` is
    `layer` and 3.
    """
    stem = name.rstrip("0123456789")
    return (stem, int(name[len(stem) :])) if stem != name and len(name) - len(stem) < 7 else None


def siblings_of(part: Part, keys: Sequence[str]) -> set[str]:
    """Modules beside a numbered one that differ from it in the number alone."""
    mine = numbered(part.name)
    if mine is None:
        return set()
    depth = part.path.count(".")
    beside = {
        ".".join(key.split(".")[: depth + 1])
        for key in keys
        if is_below(key, part.parent) and key.count(".") > depth
    }
    return {
        path
        for path in beside
        if path != part.path
        and (other := numbered(path.rpartition(".")[2]))
        and other[0] == mine[0]
    }


def is_in_block(path: str, used: Collection[str]) -> bool:
    """Whether a module lies in a numbered one that others are in too: `layers.3.norm`,
    `layer1.0.bn1`.
    """
    names = path.split(".")[:-1]
    return any(
        numbered(name) and ".".join(names[: depth + 1]) in used for depth, name in enumerate(names)
    )
