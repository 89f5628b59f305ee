"""Training checkpoints as a whole: when an output is one, and what goes along."""
