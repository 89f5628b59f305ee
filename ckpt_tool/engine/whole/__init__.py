"""Whole training checkpoints: the weights where they lie, and everything beside them as it is."""
