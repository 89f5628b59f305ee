"""The weights of TorchScript programs: which attributes are parameters and buffers stands in the code of each class.

The class `__torch__.a.b.C` is in `R/code/__torch__/a/b.py`, where the lines `__parameters__ = ["weight", ]` and `__buffers__ = [...]`
follow `class C(Module):`. The code is searched for these lines and nothing else.
"""

from __future__ import annotations

import re

from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.pickle_values import Global, Opaque
from ckpt_tool.formats.zip_directory import Archive

CODE_BYTES = 16 * MiB
_CLASS = re.compile(r"^class ([^\s(]+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n", re.MULTILINE)
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
Classes = dict[str, tuple[frozenset[str], frozenset[str]]]


def as_modules(root: object, archive: Archive, folder: str) -> object:
    """The same objects, with the attributes of each module sorted into parameters, buffers, submodules and others."""
    files: dict[str, Classes] = {}
    pending, seen = [root], {id(root)}
    while pending:
        value = pending.pop()
        if type(value) is not Opaque or not isinstance(value.state, dict):
            continue
        children = [child for child in value.state.values() if type(child) is Opaque and id(child) not in seen]
        seen.update(map(id, children))
        pending += children
        _sort_attributes(value, archive, folder, files)
    return root


def _sort_attributes(module: Opaque, archive: Archive, folder: str, files: dict[str, Classes]) -> None:
    attributes = module.state
    names = _names(module.callee, archive, folder, files)
    if not isinstance(attributes, dict) or names is None:
        return
    parameters, buffers = names
    inner = {name: value for name, value in attributes.items() if type(value) is Opaque and isinstance(value.state, dict)}
    sorted_names = parameters | buffers | {name for name in inner if isinstance(name, str)}
    module.state = {
        **{name: value for name, value in attributes.items() if name not in sorted_names},
        "_parameters": {name: value for name, value in attributes.items() if name in parameters},
        "_buffers": {name: value for name, value in attributes.items() if name in buffers},
        "_modules": inner,
    }


def _names(callee: object, archive: Archive, folder: str, files: dict[str, Classes]) -> tuple[frozenset[str], frozenset[str]] | None:
    """The parameters and buffers of a class, or None where its code does not tell."""
    if type(callee) is not Global:
        return None
    path = f"{folder}/code/{callee.module.replace('.', '/')}.py"
    if path not in files:
        files[path] = _classes(archive.read(path, CODE_BYTES)) if path in archive.members else {}
    return files[path].get(callee.name)


def _classes(code: bytes) -> Classes:
    found = _CLASS.findall(code.decode("utf-8", "replace"))
    return {name: (frozenset(_NAME.findall(parameters)), frozenset(_NAME.findall(buffers))) for name, parameters, buffers in found}
