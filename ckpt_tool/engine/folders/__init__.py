"""Outputs of several files in a folder."""
