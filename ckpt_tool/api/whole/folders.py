"""Folders that training libraries write, as a whole: when an output is one, and what becomes of its
files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ckpt_tool.api.planning import Planned
from ckpt_tool.api.whole.form import Form
from ckpt_tool.api.whole.optimizers import find_optimizers, optimizers_of
from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.torch_files.contents import ReadPickle
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.engine import WholeFolder

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
"""How the names of torch.save's files end."""
_OTHER_WEIGHTS = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite", ".keras")
"""How those of weights for other libraries end."""
_NUMBERED = re.compile(r".+_\d+\.[a-z]+")
"""What accelerate calls the second model and so on, `model_1.safetensors`."""


@frozen
class ChangedFolder:
    """A folder with what changes in it, and what is to be said of it."""

    whole: WholeFolder
    notes: tuple[str, ...]


def is_folder_wanted(planned: Planned, form: Form, output: str, has_format: bool) -> bool:
    """Whether the output is a folder as the target or the source is one: its name is that of no
    file, and neither a format nor the weights alone are asked for.
    """
    if has_format or form.whole is False:
        return False
    is_named = os.path.splitext(output)[1] in (".safetensors", *TORCH_SUFFIXES)
    return not is_named and (_is_plain(planned.target) or _is_plain(planned.source))


def _is_plain(source: object) -> bool:
    """Whether it is a folder whose weights are files of its own that hold nothing else, and no
    parts of a distributed checkpoint.
    """
    if not isinstance(source, Checkpoint) or not os.path.isdir(source.path):
        return False
    places = {os.path.dirname(os.path.abspath(file.path)) for file in source.files}
    is_plain = source.format.startswith("safetensors") or source.format == "torch zip"
    is_bare = not source.contents.left_behind and source.contents.is_whole
    return is_plain and is_bare and places == {os.path.abspath(source.path)}


@contextmanager
def changed_folder(planned: Planned, form: Form) -> Iterator[ChangedFolder]:
    """The folder that is to be written: like the target where that is one, unless the source's
    holds an optimizer. Raises InputError and RuleError.
    """
    if form.also:
        raise InputError("--also", "is for copies of the weights in one file", "leave it out")
    with ExitStack() as stack:
        target = planned.target
        if isinstance(target, Checkpoint) and _is_plain(target) and not _trains(planned.source):
            yield _like_target(target, stack)
        else:
            yield _like_source(planned, form, stack)


def _trains(source: object) -> bool:
    """Whether it is a folder that holds the state of an optimizer, which is to follow."""
    if not isinstance(source, Checkpoint) or not _is_plain(source):
        return False
    with ExitStack() as stack:
        names = [name for name in os.listdir(source.path) if name.endswith(TORCH_SUFFIXES)]
        return bool(_Files(source, stack, names).optimizers()) if names else False


def _like_target(target: Checkpoint, stack: ExitStack) -> ChangedFolder:
    """The target's folder with other weights: its configuration and tokenizer fit them."""
    from ckpt_tool.engine import WholeFolder

    files = _Files(target, stack)
    optimizers = files.optimizers()
    copied = {
        name: stack.enter_context(SourceFile(os.path.join(target.path, name)))
        for name in files.names
        if name not in optimizers
    }
    notes = [f"copied from {target.path}: {', '.join(copied)}"] if copied else []
    if optimizers:
        notes.append(f"left out, as the target's optimizer: {', '.join(optimizers)}")
    return ChangedFolder(WholeFolder(target, copied, {}), tuple(notes))


def _like_source(planned: Planned, form: Form, stack: ExitStack) -> ChangedFolder:
    """The source's folder with its weights mapped, and its optimizers following."""
    from ckpt_tool.engine import Whole, WholeFolder
    from ckpt_tool.engine.whole.weights import Part, in_source_order

    source, plan = planned.source, planned.checked()
    plan = in_source_order(plan) if planned.target is None else plan
    weights = Part((), plan, source, planned.target)
    files = _Files(source, stack)
    found = files.optimizers()
    made = {
        name: optimizers_of(
            one,
            read,
            weights,
            form.fresh_optimizer,
            files.other_models,
            form.optimizer_order,
        )
        for name, (one, read) in found.items()
    }
    changed = {name: Whole(*found[name], one.parts) for name, one in made.items() if one.parts}
    left = [name for name, one in made.items() if one.removed]
    copied = {
        name: stack.enter_context(SourceFile(os.path.join(source.path, name)))
        for name in files.names
        if name not in changed and name not in left
    }
    notes = [note for one in made.values() for note in one.notes]
    if copied:
        notes.append(f"copied unchanged: {', '.join(copied)}")
    return ChangedFolder(WholeFolder(source, copied, changed), tuple(notes))


@dataclass(slots=True)
class _Files:
    """The files of a folder beside the weights. Raises InputError for folders among them."""

    source: Checkpoint
    stack: ExitStack
    names: list[str] = field(default_factory=list)
    other_models: list[tuple[str, Catalog]] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.source.path
        taken = {os.path.basename(file.path) for file in self.source.files}
        taken |= {name for name in os.listdir(path) if name.endswith(".safetensors.index.json")}
        self.names = sorted(set(self.names or os.listdir(path)) - taken)
        folder = next((one for one in self.names if os.path.isdir(os.path.join(path, one))), None)
        if folder is not None:
            raise InputError(
                path,
                f"holds a folder, `{folder}`, and is not written as a whole",
                "write the weights alone: end the output's name in .safetensors",
            )

    def optimizers(self) -> dict[str, tuple[Checkpoint, ReadPickle]]:
        """The files that hold an optimizer's state; other models are noted on the way."""
        found = {}
        for name in self.names:
            if os.path.splitext(name)[1] in (".safetensors", *TORCH_SUFFIXES):
                opened = self._open(name)
                read = opened.contents.kept if opened else None
                if opened and isinstance(read, ReadPickle) and list(find_optimizers(read.root)):
                    found[name] = (opened, read)
                elif opened and opened.catalog:
                    self._refuse_copy(name, opened.catalog)
                    self.other_models.append((name, opened.catalog))
            elif name.endswith(_OTHER_WEIGHTS):
                raise self._holds_again(name)
        return found

    def _refuse_copy(self, name: str, catalog: Catalog) -> None:
        """Raises InputError for the same weights in another file, which would keep their names."""
        if not _NUMBERED.fullmatch(name) and catalog.keys() <= self.source.catalog.keys():
            raise self._holds_again(name)

    def _holds_again(self, name: str) -> InputError:
        return InputError(
            self.source.path,
            f"holds weights once more, in `{name}`, which would keep their names",
            "move it away, or write the weights alone: end the output's name in .safetensors",
        )

    def _open(self, name: str) -> Checkpoint | None:
        """A file as a checkpoint; None for one that is none, such as the state of a scheduler."""
        path = os.path.join(self.source.path, name)
        is_safe = name.endswith(".safetensors")
        try:
            return self.stack.enter_context(open_checkpoint(path if is_safe else f"{path}#."))
        except FormatError:
            return None
