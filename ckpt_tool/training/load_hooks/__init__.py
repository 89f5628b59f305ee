"""Modules whose own code runs on loading: torch runs it on them, and all it did can be undone."""
