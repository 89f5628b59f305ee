"""Heads for other classes: outputs of a network that differ in their number of rows alone, and stay fresh without being named."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ckpt_tool.tensors import Shape

_VOCABULARY = re.compile(
    r"(^|[._])(lm_head|embed_tokens|tok_embeddings|word_embeddings?|token_embeddings?|wte|wpe|embed_(in|out)|unembed|vocab\w*|shared|"
    r"predictions|position_embeddings?|pos_embed\w*|positional_embedding|relative_position_bias_table|queries|query_embed|prompt\w*)(?=[._]|$)"
)
"""Names of tables over words, positions and queries: what a row means isn't a class."""
_CLASSIFIER = re.compile(r"(^|[._])(fc|heads?|classif\w*|cls\w*|class\w*|logits?|linear|score|predictor|output)(?=[._0-9]|$)")
"""Names that alone, without a bias beside them, tell a classifier."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A pair of keys by name whose shapes differ."""

    source: str
    target: str
    source_shape: Shape
    target_shape: Shape

    @property
    def differs_in_rows(self) -> bool:
        """Whether only the first dimension differs."""
        ours, theirs = self.source_shape, self.target_shape
        return len(ours) == len(theirs) > 0 and ours[1:] == theirs[1:] and ours != theirs


def are_heads(misfits: Iterable[Misfit]) -> bool:
    """Whether these are outputs for other classes: weights with their biases, or weights whose names say so, and no vocabulary.

    >>> are_heads([Misfit("fc.weight", "fc.weight", (1000, 8), (10, 8)), Misfit("fc.bias", "fc.bias", (1000,), (10,))])
    True
    >>> are_heads([Misfit("embed.weight", "embed.weight", (96, 8), (103, 8)), Misfit("head.weight", "head.weight", (96, 8), (103, 8))])
    False
    """
    listed = list(misfits)
    if not all(each.differs_in_rows and not is_vocabulary(each.target) for each in listed):
        return False
    modules: dict[str, list[Misfit]] = defaultdict(list)
    for each in listed:
        modules[each.target.rpartition(".")[0]].append(each)
    return all(_is_head(path, found) for path, found in modules.items())


def is_vocabulary(key: str) -> bool:
    """Whether a name says that a row means a word, a position or a query."""
    return _VOCABULARY.search(key) is not None


def _is_head(path: str, found: list[Misfit]) -> bool:
    """Whether what differs in one module is a weight with as many rows as its bias, or one under a name that tells."""
    matrices = [each for each in found if len(each.target_shape) > 1]
    rows = {(each.source_shape[0], each.target_shape[0]) for each in found}
    return bool(matrices) and len(rows) == 1 and (len(found) > len(matrices) or _CLASSIFIER.search(path) is not None)
