"""Checkpoints in parts, one of each process: read as the whole that they are parts of."""
