"""Words of YAML and of other languages that stand in a pattern, where they would become part of a
tensor's name without a word.
"""

import re
from collections.abc import Iterable, Iterator

from ckpt_tool.errors import Problem
from ckpt_tool.keys.quoting import quote_marks
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.ops import OPS

_MANY = (
    "several names are a choice, `{b,c}`, or a list in the long form, "
    "`{from: a, to: [b, c], ops: {split: 0}}`"
)
_STRAY = (
    (re.compile(r"\A\[.*\]\Z|\A\(.*,.*\)\Z|\[[\"']", re.DOTALL), _MANY),
    (re.compile(r",\s"), _MANY),
    (re.compile(r"\s#"), "a comment goes after the whole rule, outside of quotation marks"),
    (re.compile("[=:]>|:="), "a rule has one arrow, `->`"),
    (
        re.compile(rf":\s*(?:{'|'.join(OPS)})\b"),
        "ops go after a colon and a space, as in `a -> b: transpose`",
    ),
    (re.compile(r";\Z"), "nothing ends a rule; leave out the `;`"),
)
"""What nobody means as a part of a name, and what to write instead."""
_MASKED = re.compile(r"\\.|\{[^{}]*\}", re.DOTALL)
"""What is escaped or stands in a choice means what it says."""


def check_words(rules: RuleSet, *keys: Iterable[str]) -> Iterator[Problem]:
    """A problem for each pattern of a rule with such words, unless a key at hand has them too."""
    for rule in rules.rules:
        for side in (*rule.sources, *rule.targets):
            found = _stray(side.pattern.text)
            if found and not any(found[0] in key for catalog in keys for key in catalog):
                words, instead = found
                message = f"`{words}` would become a part of the name `{side.pattern.text}`"
                yield Problem(
                    "bad-pattern",
                    message,
                    side.where,
                    (instead, f"a name that really has it is written `{quote_marks(words)}`"),
                )


def _stray(pattern: str) -> tuple[str, str] | None:
    masked = _MASKED.sub(lambda found: "_" * len(found[0]), pattern)
    for expression, instead in _STRAY:
        if found := expression.search(masked):
            words = pattern[found.start() : found.end()]
            return (words if len(words) < len(pattern) else words[0]), instead
    return None
