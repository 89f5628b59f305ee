"""Rules into those that lead back, with a verdict for each."""
