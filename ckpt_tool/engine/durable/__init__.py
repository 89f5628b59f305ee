"""Outputs that appear complete or not at all, and that last once they have appeared."""
