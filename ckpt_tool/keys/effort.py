"""What comparing patterns with each other may cost: patterns can be made whose comparison would not
end.
"""

MAX_EFFORT = 6_000_000
"""Characters that are tried in all comparisons together: some seconds. 500 rules take half of it,
the longest shipped mapping 2 %.
"""


class TooMuchToCompare(Exception):
    """Comparing patterns would take longer than it may."""


class Effort:
    """What comparisons may still cost."""

    def __init__(self, most: int = MAX_EFFORT) -> None:
        self.left = most

    def spend(self, characters: int) -> None:
        """Raises TooMuchToCompare, and so does every later call."""
        self.left -= characters
        if self.left < 0:
            raise TooMuchToCompare
