"""Heads for other classes: outputs of a network that differ in their number of rows alone, and stay
fresh without being named.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Catalog, Shape

_VOCABULARY = (
    r"(^|[._])(lm_head|embed_tokens|tok_embeddings|word_embeddings?|token_embeddings?|wte|wpe|embed_(in|out)|unembed|vocab\w*|shared|"
    r"predictions|position_embeddings?|pos_embed\w*|positional_embedding|relative_position_bias_table|queries|query_embed|prompt\w*)(?=[._]|$)"
)
"""Names of tables over words, positions and queries: what a row means isn't a class."""
_NAMED = r"(^|[._])(heads?|classif\w*|cls\w*|class\w*|logits?|score|predictor)(?=[._0-9]|$)"
"""Names of classifiers."""
_LINEAR = r"(^|\.)(fc\d*(_\w+)?|linear|output)(?=\.|$)"
"""Names of classifiers that layers in the middle of a network have too."""
_CLASSIFIER = f"{_NAMED}|{_LINEAR}"
"""Names that alone, without a bias beside them, tell a classifier, wherever in a network it lies.
"""
_AUXILIARY = r"(?i)(^|[._])aux|head|logits|classif"
_NUMBERED = r"(^|\.)\d+\."
_TABLE = r"(?i)embed|(^|[._])(emb|wte|tok\w*|word\w*|vocab\w*|shared)([._]|$)"
_ENDING = r"[0-9]{1,9}$"
_IN_A_BLOCK = r"^(.*?\.)?\w*\d+\."


@frozen
class ShapeMismatch:
    """A pair of keys by name whose shapes differ."""

    source: str
    target: str
    source_shape: Shape
    target_shape: Shape

    @property
    def differs_in_rows(self) -> bool:
        """Whether only the first dimension differs, and is there on both sides: a placeholder of no
        row is no head.
        """
        source, target = self.source_shape, self.target_shape
        return (
            len(source) == len(target) > 0
            and source[1:] == target[1:]
            and source != target
            and 0 not in (source[0], target[0])
        )


def are_heads(shape_mismatches: Iterable[ShapeMismatch], source: Catalog, target: Catalog) -> bool:
    """Whether these are outputs for other classes: no vocabulary, and nothing of the middle of a
    network.

    They are weights whose names say so, or with as many rows as their biases and the last weights
    of the network, in one block alone.

    >>> from ckpt_tool.tensors import DType, TensorInfo
    >>> def network(key, rows): return Catalog([TensorInfo(key, DType.F32, (rows, 8))])
    >>> def differs(key): return ShapeMismatch(key, key, (1000, 8), (10, 8))
    >>> are_heads([differs("fc.weight")], network("fc.weight", 1000), network("fc.weight", 10))
    True
    >>> key = "embed.weight"
    >>> are_heads([differs(key)], network(key, 1000), network(key, 10))
    False
    """
    listed = list(shape_mismatches)
    if any(_is_no_output(each, source) for each in listed):
        return False
    modules: dict[str, list[ShapeMismatch]] = defaultdict(list)
    for each in listed:
        modules[each.target.rpartition(".")[0]].append(each)
    last = _last_weights({each.target for each in listed}, target)
    return len(_blocks_of(modules)) < 2 and all(
        _is_head(path, found, last) for path, found in modules.items()
    )


def may_be_head(key: str, network: Catalog) -> bool:
    """Whether a tensor may be of a classifier: its name says so, and that of no block, or it is of
    the last weights of a network in its own order.

    >>> from ckpt_tool.tensors import DType, TensorInfo
    >>> keys = ["fc1.weight", "mid.weight", "blocks.0.fc.weight", "fc2.weight", "last.weight"]
    >>> network = Catalog([TensorInfo(key, DType.F32, (8, 8)) for key in keys])
    >>> [key for key in keys if may_be_head(key, network)]
    ['fc2.weight', 'last.weight']
    """
    path = key.rpartition(".")[0] or key
    if re.search(_NAMED, path):
        return True
    is_named = re.search(_LINEAR, path) and not re.search(_NUMBERED, f"{path}.")
    if is_named and not _has_next(path, network):
        return True
    inside = {other for other in network if other == key or other.startswith(f"{path}.")}
    last = _last_weights(inside, network) if network.is_ordered else set()
    return any(len(network[other].shape) > 1 for other in last)


def is_named_head(path: str) -> bool:
    """Whether a module's name says that it is a head, or an auxiliary one.

    >>> [is_named_head(path) for path in ("AuxLogits", "mask_head", "class_embed", "layer3")]
    [True, True, True, False]
    """
    return re.search(_NAMED, path) is not None or re.search(_AUXILIARY, path) is not None


def _has_next(path: str, network: Catalog) -> bool:
    """Whether a module with the next number in its name follows: `fc2` after `fc1`."""
    number = re.search(_ENDING, path)
    if number is None:
        return False
    following = f"{path[: number.start()]}{int(number[0]) + 1}."
    return any(key.startswith(following) for key in network)


def _is_no_output(each: ShapeMismatch, source: Catalog) -> bool:
    """Whether more than the rows differ, or a row is a word and no class."""
    return (
        not each.differs_in_rows
        or is_vocabulary(each.target)
        or has_shape_of_a_table(each.source, source)
    )


def _blocks_of(paths: Iterable[str]) -> set[str]:
    """The numbered blocks of modules whose names don't say that they are classifiers."""
    unnamed = (path for path in paths if not re.search(_CLASSIFIER, path))
    return {block[0] for path in unnamed if (block := re.search(_IN_A_BLOCK, f"{path}."))}


def has_shape_of_a_table(key: str, catalog: Catalog) -> bool:
    """Whether a matrix has the shape of an embedding beside it: its rows are words, whatever its
    name is.
    """
    shape = catalog[key].shape
    return len(shape) == 2 and any(
        info.shape == shape and other != key and is_table(other, shape)
        for other, info in catalog.items()
    )


def is_table(key: str, shape: Shape) -> bool:
    """Whether a name and a shape tell an embedding."""
    return (
        len(shape) == 2
        and re.search(_TABLE, key) is not None
        and re.search(_CLASSIFIER, key) is None
    )


def _last_weights(keys: Collection[str], target: Catalog) -> set[str]:
    """Those of some keys after which no other weights follow."""
    last: set[str] = set()
    for key, info in reversed(list(target.items())):
        if key in keys:
            last.add(key)
        elif len(info.shape) > 1:
            break
    return last


def is_vocabulary(key: str) -> bool:
    """Whether a name says that a row means a word, a position or a query."""
    return re.search(_VOCABULARY, key) is not None


def _is_head(path: str, found: list[ShapeMismatch], last: Collection[str]) -> bool:
    """Whether what differs in one module is a weight with as many rows as its bias, or one under a
    name that tells.
    """
    matrices = [each for each in found if len(each.target_shape) > 1]
    rows = {(each.source_shape[0], each.target_shape[0]) for each in found}
    if not matrices or len(rows) != 1:
        return False
    if re.search(_CLASSIFIER, path) is not None:
        return True
    return len(found) > len(matrices) and all(each.target in last for each in matrices)
