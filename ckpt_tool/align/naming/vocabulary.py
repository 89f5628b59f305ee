"""Key names in the field's common words: `attention.self.query` and `attn.wq` are both `attn.q`."""

import re
from collections.abc import Collection, Container, Iterable, Sequence
from functools import cache

from ckpt_tool.align.naming.spellings import PHRASES, ROLE_TAILS, ROLES, SYNONYMS

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TOKEN = re.compile(r"[a-z]+|\d+")

_RULES = [(re.compile(pattern), replacement) for pattern, replacement in PHRASES]


def dialect(keys: Iterable[str]) -> list[tuple[str, str]]:
    """What some names mean only because of the others: replacements in common paths."""
    names = {name for key in keys for name in key.split(".")}
    found: list[tuple[str, str]] = []
    if {"fc_1", "fc_2", "proj"} <= names and not names & {"fc1", "fc2"}:
        # litgpt's gated feed-forward.
        found += [(".mlp.fc1", ".mlp.gate"), (".mlp.fc2", ".mlp.up"), (".mlp.proj", ".mlp.down")]
    if {"fc0", "fc1"} <= names and "fc2" not in names:
        found += [(".mlp.fc2", ".mlp.fc2"), (".fc1", ".fc2"), (".mlp.fc0", ".mlp.fc1")]
    if {"w1", "w2", "c_proj"} <= names and "w3" not in names:
        # Qwen's first has w2 as the gate, others of these names w1.
        found += [(".mlp.gate", ".mlp.w1"), (".mlp.down", ".mlp.w2"), (".mlp.fc2", ".mlp.down")]
    if {"fc11", "fc12", "fc2"} <= names:
        # flash-attn's: the second is the gate.
        found += [(".fc11", ".up"), (".fc12", ".gate"), (".fc2", ".down")]
    return found


def is_cross_first(children: Sequence[str]) -> bool:
    """Whether a block's first norm stands behind its attention to another sequence, and the second
    behind that to itself.
    """
    order = [
        children.index(name) for name in ("cross", "norm1", "attn", "norm2") if name in children
    ]
    return len(order) == 4 and order == sorted(order)


def places_of_norms(siblings: Container[str], beside: Collection[str] = ()) -> dict[str, str]:
    """Which norm of a block a name means by what stands beside it: Llama's second is
    `post_attention_layernorm`, Gemma's is not; the second of three stands with attention to
    another sequence, but for those of convolutions.
    """
    if "crossattn_norm" in siblings:
        return {} if "norm2" in siblings else {"norm": "norm2"}
    if all(f"norm{number}" in siblings for number in (1, 2, 3)) and not any(
        "conv" in name for name in beside
    ):
        return {"norm2": "crossattn_norm", "norm3": "norm2"}
    if (
        "norm2" in siblings
        and "norm1" in siblings
        and "postattn_norm" in siblings
        and "postmlp_norm" not in siblings
    ):
        return {"postattn_norm": "norm2", "norm2": "norm3"}
    if "norm2" in siblings:
        return {"norm": "norm1"} if "norm1" not in siblings else {}
    # Without one before it, a norm after attention is the first, as in BERT.
    after = ("norm2", "norm3") if "norm1" in siblings else ("norm1", "norm2")
    return {"postattn_norm": after[0], "postmlp_norm": after[1]}


@cache
def in_common_words(key: str) -> str:
    """The key's names in common words, still with dots between them."""
    text = "." + _CAMEL.sub("_", key.replace("/", ".")).lower()
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.strip(".")


def split_role(path: str) -> tuple[tuple[str, ...], str | None]:
    """The names of the module that owns a tensor, and the tensor's role in it; None where its name
    is no known role.
    """
    names = tuple(path.split("."))
    leaf = names[-1]
    if leaf in ROLES and len(names) > 1:
        return names[:-1], ROLES[leaf]
    for tail, role in ROLE_TAILS:
        if leaf.endswith(tail) and len(leaf) > len(tail):
            return (*names[:-1], leaf.removesuffix(tail)), role
    return names, None


@cache
def words_of(name: str) -> tuple[str, ...]:
    """The words of one name, without its numbers."""
    found = (SYNONYMS.get(token, token) for token in _TOKEN.findall(name) if not token.isdigit())
    return tuple(word for word in found if word)


@cache
def stem_and_number(name: str) -> tuple[str, int] | None:
    """What stands before the last number of a name, and the number: `layer3` is `layer` and 3."""
    found = re.fullmatch(r"(.*?)_?(\d{1,6})", name)
    return (found[1], int(found[2])) if found else None


def numberless(key: str) -> str:
    """A key with `#` for each number: keys that are alike but for their block."""
    return re.sub(r"\d+", "#", key.replace("/", "."))


_OPPOSED = tuple(
    frozenset(words.split())
    for words in (
        "q k v o qkv kv",
        "gate up down",
        "encoder decoder",
        "h w",
        "in out",
        "left right",
        "text visual",
        "mean var",
        "qnorm knorm",
    )
)


@cache
def are_opposed(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two sets of words have unlike ones of which a thing can only be one: `q` and `k`."""
    return any(a & words and b & words and not a & b & words for words in _OPPOSED)
