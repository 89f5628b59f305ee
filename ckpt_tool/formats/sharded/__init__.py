"""Checkpoints of several files: folders, indexes, numbered shards."""
