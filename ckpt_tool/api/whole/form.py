"""Whether an output is a whole training checkpoint or the weights alone, and what of the source
goes along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.api.planning import Planned
from ckpt_tool.api.whole.copies import copy_parts, other_copies
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint, LeftBehind
from ckpt_tool.formats.pickle.graph import module_children
from ckpt_tool.formats.torch_files.zip_archive import ReadPickle

if TYPE_CHECKING:
    from ckpt_tool.engine.whole.weights import Part


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked of an output: a training checkpoint as the source is (`whole`), the weights
    alone (not `whole`), or what fits both sides (None).

    `also` names other state dicts of the source that are mapped by the same plan (`#ema`).
    """

    whole: bool | None = None
    also: tuple[str, ...] = ()


PLAIN = Form()


def form_of(whole: bool, only_weights: bool, also: Iterable[str]) -> Form:
    """The form that these options ask for. Raises InputError where they say two things."""
    if whole and only_weights:
        raise InputError("--whole", "is given with --only-weights", "say one of them")
    return Form(True if whole else False if only_weights else None, tuple(also))


@dataclass(frozen=True, slots=True)
class Whole:
    """A training checkpoint that is to be written: the source, the state dicts that the plan makes
    in it, and what goes along beside them.
    """

    source: Checkpoint
    pickled: bytes
    parts: tuple[Part, ...]
    beside: tuple[LeftBehind, ...]
    notes: tuple[str, ...] = ()


@contextmanager
def whole_of(planned: Planned, form: Form, is_torch_file: bool) -> Iterator[Whole | None]:
    """The training checkpoint to be written; None where the weights are written alone.

    `is_torch_file`: whether the output is one. Raises InputError where a training checkpoint is
    asked for and can't be written, RuleError where the plan does not fit one of `also`.
    """
    fault = why_not_whole(planned, is_torch_file)
    if form.whole and fault:
        raise InputError("--whole", fault, "leave it out: the weights are written alone")
    is_wanted = is_whole_wanted(planned, form, is_torch_file)
    if form.also and not is_wanted:
        raise InputError(
            "--also",
            "is for whole training checkpoints, and this writes the weights alone"
            + (f": {fault}" if fault else ""),
            None if fault else "--whole writes all of it",
        )
    if not is_wanted:
        yield None
        return
    with ExitStack() as stack:
        yield _whole(planned, form, stack)


def is_whole_wanted(planned: Planned, form: Form, is_torch_file: bool) -> bool:
    """Whether the output is a training checkpoint: as it is asked for, or else where the target is
    one, or there is no target and the source is one.
    """
    if why_not_whole(planned, is_torch_file) or form.whole is False:
        return False
    return form.whole or (
        is_training(planned.source) and (planned.target is None or is_training(planned.target))
    )


def is_training(side: object) -> bool:
    """Whether a file holds more than weights."""
    if not isinstance(side, Checkpoint):
        return False
    return bool(side.contents.left_behind or side.contents.taken)


def why_not_whole(planned: Planned, is_torch_file: bool = True) -> str | None:
    """Why the source can't be written as a whole, where it can't."""
    source = planned.source
    read = source.contents.kept if isinstance(source, Checkpoint) else None
    if not is_torch_file:
        return "only torch files hold more than weights, and the output is none"
    if not isinstance(read, ReadPickle) or len(source.files) != 1:
        return f"`{source.path}` is no archive of torch.save, whose pickle could be kept"
    taken = read.described.listing.taken
    if module_children(taken.value) is not None:
        return f"the weights of `{source.path}` are those of a pickled module, which is code"
    return None


def _whole(planned: Planned, form: Form, stack: ExitStack) -> Whole:
    from ckpt_tool.engine.whole.weights import Part

    source, plan = planned.source, planned.checked()
    read = source.contents.kept
    assert isinstance(read, ReadPickle)
    weights = Part(read.described.listing.taken.path, plan, source, planned.target)
    copies = tuple(copy_parts(planned, form.also, stack))
    notes = tuple(
        f"`{name}` has the same keys, and keeps them: --also '#{name}' maps it, too"
        for name in other_copies(planned, form.also)
    )
    mapped = {part.path for part in copies}
    beside = tuple(one for one in source.contents.left_behind if one.path not in mapped)
    return Whole(source, read.data, (weights, *copies), beside, notes)
