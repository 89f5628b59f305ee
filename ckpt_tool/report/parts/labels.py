"""What tensors have in common that stand on one line of a report."""

import re
from collections import defaultdict
from collections.abc import Hashable

from ckpt_tool.keys.folding.tokens import NO_DIGITS
from ckpt_tool.tensors import Catalog, Shape, TensorInfo

_NUMBERS = re.compile(r"(\d+)")


def alike_labels(catalog: Catalog) -> dict[str, Hashable]:
    """A label for each key: one for the same tensor of repeated blocks, whatever their widths are,
    and one for all vectors of a norm or another module that has only these.

    Tensors of other names have a label in common where their shapes are the same, in every block.
    """
    modules = _vector_modules(catalog)
    names = {key: _owner(key) if _owner(key) in modules else key for key in catalog}
    shapes: dict[str, set[Shape]] = defaultdict(set)
    dtypes: dict[str, set[str]] = defaultdict(set)
    for key, info in catalog.items():
        form = names[key].translate(NO_DIGITS)
        shapes[form].add(info.shape)
        dtypes[names[key]].add(info.dtype.value)
    frozen = {form: frozenset(found) for form, found in shapes.items()}
    return {
        key: (
            frozenset(dtypes[names[key]]),
            (info.shared_storage_with is None, info.tied_to is None),
            info.shape[2:],
            len(info.shape) if names[key] == key else "vectors",
            frozen[names[key].translate(NO_DIGITS)],
        )
        for key, info in catalog.items()
    }


def _owner(key: str) -> str:
    """The module that a tensor is of, with its dot."""
    return key[: key.rfind(".") + 1]


def _vector_modules(catalog: Catalog) -> set[str]:
    """Modules with several tensors, all of one dimension or none, and none tied."""
    members: dict[str, list[TensorInfo]] = defaultdict(list)
    for key, info in catalog.items():
        members[_owner(key)].append(info)
    return {
        name
        for name, infos in members.items()
        if name and len(infos) > 1 and all(map(_is_free_vector, infos))
    }


def _is_free_vector(info: TensorInfo) -> bool:
    return len(info.shape) < 2 and info.shared_storage_with is None


def by_number(name: str) -> tuple[tuple[bool, int, str], ...]:
    """A key for sorting by which `layers.2` comes before `layers.10`."""
    parts = _NUMBERS.split(name)
    return tuple([(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts])
