"""Tensors that belong together by what they hold: equal, cast, transposed, split, joined."""
