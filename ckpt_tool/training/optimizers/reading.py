"""The state dict of an optimizer out of a checkpoint of any format, as `torch.load` would give it;
nothing is executed, and what would have to be is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ckpt_tool.errors import FormatError, InputError, WithoutTensors
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.opening import split_fragment
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.formats.torch_files.picking import OPTIMIZER as ANY
from ckpt_tool.formats.torch_files.picking import WHOLE
from ckpt_tool.ops import TensorForm
from ckpt_tool.optimizers.saved import GROUPS, STATE
from ckpt_tool.regions import Region
from ckpt_tool.tensors import nbytes_of
from ckpt_tool.torch_bridge import to_tensor

if TYPE_CHECKING:
    import torch

PLAIN = (int, float, str, bool, bytes, type(None))
MAX_DEPTH = 20
"""Dicts and lists inside of each other; optimizers have three or four."""
OPTIMIZER = "optimizer"
"""The kind that parts of a file have which are an optimizer's state."""


@dataclass(frozen=True, slots=True, eq=False)
class Unread:
    """A tensor of an open checkpoint, which is read when it is asked for."""

    opened: Checkpoint
    key: str

    @property
    def form(self) -> TensorForm:
        """Its dtype and shape."""
        info = self.opened.catalog[self.key]
        return TensorForm(info.dtype, info.shape)

    def read(self) -> torch.Tensor:
        """All of it. Raises FormatError where a checksum says otherwise."""
        return self.opened.read(self.key)

    def read_part(self, region: Region) -> torch.Tensor:
        """A box of it, whose checksum `check` has looked at."""
        dtype = self.form.dtype
        if not self.opened.has_parts(self.key):
            return self.read()[region.slices]
        content = bytearray(nbytes_of(dtype, region.shape))
        self.opened.read_part(self.key, region, memoryview(content))
        return to_tensor(content, dtype, region.shape)

    def check(self) -> None:
        """Raises FormatError where a checksum says otherwise; costs reading it."""
        self.opened.check((self.key,))


class _Bare(NamedTuple):
    """A file that holds no tensor, as that of SGD without momentum."""

    path: str


def read_now(value: object) -> object:
    """A value with the tensors that were to be read later."""
    if isinstance(value, Unread):
        return value.read()
    if isinstance(value, dict):
        return {key: read_now(inner) for key, inner in value.items()}
    return value


@contextmanager
def opened_state(
    given: str | os.PathLike[str] | Checkpoint,
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """What messages call it, and the state dict, whose slots are read when they are asked for: of
    `run.pth#optimizer`, or of the only optimizer that `run.pth` holds.

    Raises InputError where there is none, or more than one.
    """
    if isinstance(given, Checkpoint):
        yield given.path, _state_dict(given)
        return
    path = os.fspath(given)
    with ExitStack() as stack:
        try:
            name, opened = _open_optimizer(path, stack)
        except WithoutTensors as error:
            found = _only_state(path, error.values, _Bare(path))
            if found is None:
                raise
            yield found
            return
        except InputError:
            found = _without_tensors(path)
            if found is None:
                raise
            yield found
            return
        yield name, _state_dict(opened)


def _open_optimizer(path: str, stack: ExitStack) -> tuple[str, Checkpoint]:
    opened = stack.enter_context(open_checkpoint(path))
    return (path, opened) if _is_optimizer(opened) else _open_inside(opened, path, stack)


def _without_tensors(path: str) -> tuple[str, Mapping[str, object]] | None:
    """The optimizer that is meant by `run.pth#optimizer`, or the only one of `run.pth`, where it
    has no tensors, as that of SGD without momentum, and so is no part of its own.
    """
    file, _ = split_fragment(path)
    try:
        with open_checkpoint(f"{file}#{WHOLE}") as whole:
            return _only_state(path, whole.contents.values, whole)
    except InputError:
        return None


def _only_state(
    path: str, values: object, opened: Checkpoint | _Bare
) -> tuple[str, Mapping[str, object]] | None:
    """The optimizer that a path names among what its file holds, or the only one."""
    file, name = split_fragment(path)
    some = {at: one for at, one in _states_in(values) if name in ("", ANY, at)}
    if len(some) != 1:
        return None
    [(at, state)] = some.items()
    return (
        (f"{file}#{at}", _plain(opened, state, f"{at}.")) if at else (file, _plain(opened, state))
    )


def _states_in(values: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The state dicts of optimizers among nested dicts, with the dotted names that lead there."""
    pending, seen = [("", values)], set()
    while pending:
        path, value = pending.pop()
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        if STATE in value and GROUPS in value:
            yield path, value
        else:
            pending += [(f"{path}.{key}".lstrip("."), one) for key, one in value.items()]


def _open_inside(opened: Checkpoint, path: str, stack: ExitStack) -> tuple[str, Checkpoint]:
    """The only optimizer of a file, and what it is called: all of it, or a part."""
    if "#" not in path and opened.contents.taken and opened.contents.values is not None:
        whole = stack.enter_context(open_checkpoint(f"{path}#{WHOLE}"))
        if _is_optimizer(whole):
            return path, whole
    name, file = _only_optimizer(opened), path.removesuffix(f"#{opened.contents.taken}")
    for inside in (f"{file}#{name}", f"{file}#{name}.0"):
        found = stack.enter_context(open_checkpoint(inside))
        if _is_optimizer(found):
            return inside, found
    raise InputError(
        path, f"`{name}` is not one optimizer's state", f"name one, as `{path}#{name}.1`"
    )


def _is_optimizer(opened: Checkpoint) -> bool:
    """Whether the state dict that is taken is an optimizer's."""
    values = opened.contents.values
    if isinstance(values, Mapping) and STATE in values and GROUPS in values:
        return True
    keys = list(opened.catalog)
    return bool(keys) and all(key.startswith((f"{STATE}.", f"{GROUPS}.")) for key in keys)


def _only_optimizer(opened: Checkpoint) -> str:
    found = [part.path for part in opened.contents.left_behind if part.kind == OPTIMIZER]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(opened.path, "holds no optimizer's state", "give the file that has it")
    names = ", ".join(f"`{opened.path}#{name}`" for name in found)
    raise InputError(
        opened.path, f"holds the states of {len(found)} optimizers", f"name one: {names}"
    )


def _state_dict(opened: Checkpoint) -> Mapping[str, object]:
    values = opened.contents.values
    if isinstance(values, Mapping) and STATE in values:
        return _plain(opened, values)
    slots: dict[str, object] = {key: _tensor(opened, key) for key in opened.catalog}
    return slots | _flat_groups(values)


def _flat_groups(values: object) -> dict[str, object]:
    """The entries of groups in the flat form, where all of them were read: of a folder with
    thousands the rest is not, and hyper-parameters of some parameters are none.
    """
    given = values if isinstance(values, Mapping) else {}
    entries = {key: value for key, value in given.items() if str(key).startswith(f"{GROUPS}.")}
    plain = (*PLAIN, list, tuple)
    return entries if all(isinstance(value, plain) for value in entries.values()) else {}


def _plain(opened: Checkpoint | _Bare, state: object, path: str = "") -> Mapping[str, object]:
    """An optimizer's state dict, at a path that ends with a dot or is empty."""
    assert isinstance(state, Mapping)
    return {str(key): _filled(opened, f"{path}{key}", value) for key, value in state.items()}


def _filled(opened: Checkpoint | _Bare, path: str, value: object, depth: int = 0) -> object:
    """A value with its tensors, read or to be read; `path` leads to it. Raises InputError for an
    object whose class would have to be imported, FormatError for what refers to itself.
    """
    if depth > MAX_DEPTH:
        fact = f"its optimizer's state is nested {depth} deep, or refers to itself"
        raise FormatError(opened.path, fact)
    if isinstance(value, TensorRef):
        return _tensor(opened, path)
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {
            key: _filled(opened, f"{path}.{key}", inner, depth + 1) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        items = [
            read_now(_filled(opened, f"{path}.{place}", inner, depth + 1))
            for place, inner in enumerate(value)
        ]
        return tuple(items) if isinstance(value, tuple) else items
    fact = "is an object of a class that is not imported"
    raise InputError(opened.path, fact, "load it with torch, and give the state dict", f"`{path}`")


def _tensor(opened: Checkpoint | _Bare, path: str) -> Unread | torch.Tensor:
    """A slot, to be read later; anything else at once."""
    if isinstance(opened, _Bare) or path not in opened.catalog:
        raise InputError(opened.path, "is a tensor that can't be read", None, f"`{path}`")
    unread = Unread(opened, path)
    return unread if path.startswith(f"{STATE}.") else unread.read()
