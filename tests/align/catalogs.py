"""Small catalogs for tests of single rooms: their modules, and places of these by a part of their names."""

from literals import catalog

from ckpt_tool.align.naming.modules import modules_of
from ckpt_tool.align.sides import Sides


def modules(*lines):
    return modules_of(catalog(*lines))


def module(*lines):
    """The only module of a catalog."""
    (found,) = modules(*lines)
    return found


def sides(source, target):
    """The modules of two lists of lines."""
    return Sides(modules(*source), modules(*target))


def place(side, key):
    """The place of the module that owns a key."""
    return next(each.place for each in side if key in each.keys.values())


def keys(found, modules):
    """Pairs of places as the first keys of their modules."""
    return {(first(modules.source[i]), first(modules.target[j])) for i, j in found}


def first(module):
    return next(iter(module.keys.values()))
