"""Pickles read as data: a machine that imports nothing and calls nothing, and what it describes."""
