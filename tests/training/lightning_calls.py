"""Calls of Lightning that differ between its versions."""

import inspect


def read_whole(call):
    """The arguments with which `call` reads a checkpoint with everything in it: before 2.6 Lightning always does."""
    return {"weights_only": False} if "weights_only" in inspect.signature(call).parameters else {}
