"""The library's door: one function for each command, named as the command. Each side is a path, an
open checkpoint, a state dict or a module; each answer prints as the command prints it.
"""
