"""The state of a live optimizer: read, moved by a plan, and for the optimizer that goes on."""
