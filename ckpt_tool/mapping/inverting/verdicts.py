"""What comes of inverting rules, as values."""

from dataclasses import dataclass

from ckpt_tool.errors import Location
from ckpt_tool.mapping.rules import Rule


@dataclass(frozen=True, slots=True)
class InvertedRule:
    """A rule and what undoes it: `text` is its line in YAML, or None where it has no
    inverse, and `why` says why.

    A rule without a source is undone by dropping what it made, and one that never gets a key by
    nothing: the text is empty.
    """

    rule: Rule
    text: str | None
    verdict: str
    why: str

    @property
    def where(self) -> Location:
        """The place of the rule."""
        return self.rule.where


@dataclass(frozen=True, slots=True)
class InvertedRules:
    """The inverse of a rule set; `yaml` is a rule file, or None where some rule has no
    inverse.

    `stripped` are the prefixes that the rules take off keys: which key had which is lost, so that
    none is put back. `dropped` are the patterns of what the rules leave behind, which only a target
    has. `kept` are those of the target's own keys that rules of the inverse match, so that these
    come along. `measured` are the parameters that the inverse measures in its target.
    """

    rules: tuple[InvertedRule, ...]
    yaml: str | None
    stripped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
