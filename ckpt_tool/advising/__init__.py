"""What may be proposed for the keys that a way of mapping leaves: which can be dropped or kept
without making a wrong network.
"""

from ckpt_tool.advising.casting import are_plain_casts
from ckpt_tool.advising.judging import doubts_in_words, judge
from ckpt_tool.advising.leftovers import Doubt, Judgement, Leftovers
from ckpt_tool.advising.proposing import patterns_of, prefixes, without_place
from ckpt_tool.advising.relatives import belonging

__all__ = [
    "Doubt",
    "Judgement",
    "Leftovers",
    "are_plain_casts",
    "belonging",
    "doubts_in_words",
    "judge",
    "patterns_of",
    "prefixes",
    "without_place",
]
