"""The weights of TorchScript programs: which attributes are parameters and buffers stands in the
code of each class.

The class `__torch__.a.b.C` is in `R/code/__torch__/a/b.py`, where the lines
`__parameters__ = ["weight", ]` and `__buffers__ = [...]` follow `class C(Module):`. The code is
searched for these lines and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ckpt_tool.formats.archives.zip_directory import Archive
from ckpt_tool.formats.limits import CODE_BYTES
from ckpt_tool.formats.pickle.values import Global, Opaque

_CLASS = re.compile(
    r"^class ([^\s(]+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n",
    re.MULTILINE,
)
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
Classes = dict[str, tuple[frozenset[str], frozenset[str]]]


def as_modules(root: object, archive: Archive, folder: str) -> object:
    """The same objects, with the attributes of each module sorted into parameters, buffers,
    submodules and others.
    """
    code = _Code(archive, folder)
    pending, seen = [root], {id(root)}
    while pending:
        value = pending.pop()
        if type(value) is not Opaque or not isinstance(value.state, dict):
            continue
        children = [
            child
            for child in value.state.values()
            if type(child) is Opaque and id(child) not in seen
        ]
        seen.update(map(id, children))
        pending += children
        _sort_attributes(value, code)
    return root


def _sort_attributes(module: Opaque, code: _Code) -> None:
    """Gives a module its attributes as `nn.Module` has them, where its code is known."""
    attributes = module.state
    names = code.names_of(module.callee)
    if not isinstance(attributes, dict) or names is None:
        return
    parameters, buffers = names
    modules = {name for name, value in attributes.items() if _is_module(value)}
    rest = attributes.keys() - parameters - buffers - modules
    module.state = {
        **_only(attributes, rest),
        "_parameters": _only(attributes, parameters),
        "_buffers": _only(attributes, buffers),
        "_modules": _only(attributes, modules),
    }


def _is_module(value: object) -> bool:
    return type(value) is Opaque and isinstance(value.state, dict)


def _only(attributes: Mapping[object, object], names: Collection[object]) -> dict[object, object]:
    """The attributes of these names, in their order."""
    return {name: value for name, value in attributes.items() if name in names}


class _Code:
    """The code of a program's classes, each file of it read once, and no more than `CODE_BYTES` of
    all.
    """

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive, self._folder, self._left = archive, folder, CODE_BYTES
        self._files: dict[str, Classes] = {}

    def names_of(self, callee: object) -> tuple[frozenset[str], frozenset[str]] | None:
        """The parameters and buffers of a class, or None where its code does not name them. Raises
        FormatError for too much code.
        """
        if type(callee) is not Global:
            return None
        path = f"{self._folder}/code/{callee.module.replace('.', '/')}.py"
        if path not in self._files:
            code = self._archive.read(path, self._left) if path in self._archive.members else b""
            self._left -= len(code)
            self._files[path] = _classes(code)
        return self._files[path].get(callee.name)


def _classes(code: bytes) -> Classes:
    found = _CLASS.findall(code.decode("utf-8", "replace"))
    return {
        name: (frozenset(_NAME.findall(parameters)), frozenset(_NAME.findall(buffers)))
        for name, parameters, buffers in found
    }
