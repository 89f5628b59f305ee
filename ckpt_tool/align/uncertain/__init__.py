"""Pairs that nobody could know: equal blocks, equal branches, surplus layers, odd order."""
