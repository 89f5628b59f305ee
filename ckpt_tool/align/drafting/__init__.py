"""The fewest rules that say exactly the pairs that were found."""
