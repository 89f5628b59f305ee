"""Names of a package that are bound on first use, so that a command imports what it uses and no
more.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def bind_on_use(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A module's `__getattr__` (PEP 562); `homes` gives for each module of the package the names
    that it offers, with spaces between.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
