"""Renaming the tensors of a file inside the file itself."""
