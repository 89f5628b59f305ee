"""What is wrong with weights, as values; and how many of a kind there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: `kind` names it, `subject` is the key or the file, `text` the fact.

    The kinds: `nan`, `inf`, `zero`, `zero rows`, `far` (from its siblings in other layers),
    `equal` (to its sibling), `shared` (storage), `scale`, `config`, `index`, `digest` (of a file),
    `damaged` (a file that can't be read, or bytes that are not those of their checksum).
    """

    kind: str
    subject: str
    text: str
