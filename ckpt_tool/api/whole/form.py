"""Whether an output is a whole training checkpoint or the weights alone, and what of the source
goes along.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.planning import Planned
from ckpt_tool.api.sides import is_model, open_target
from ckpt_tool.api.whole.copies import copy_parts, other_copies, why_not_mapped
from ckpt_tool.api.whole.optimizers import keeps_order, optimizers_of
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint, LeftBehind
from ckpt_tool.formats.opening import split_fragment
from ckpt_tool.formats.pickle.graph import children, module_children
from ckpt_tool.formats.torch_files.contents import ReadPickle
from ckpt_tool.frozen import frozen
from ckpt_tool.optimizers.naming import in_module_order, may_be_trained
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.engine import Whole
    from ckpt_tool.engine.whole.weights import Part


@frozen
class Form:
    """What is asked of an output: a training checkpoint as the source is (`whole`), the weights
    alone (not `whole`), or what fits both sides (None).

    `also` names other state dicts of the source that are mapped by the same plan (`#ema`),
    `fresh_optimizer` has patterns of parameters whose optimizer begins without a state,
    `optimizer_order` the parameters in the order of the source's model, where its file doesn't tell
    it.
    """

    whole: bool | None = None
    also: tuple[str, ...] = ()
    fresh_optimizer: tuple[str, ...] = ()
    optimizer_order: tuple[str, ...] = ()


PLAIN = Form()


def form_of(
    whole: bool,
    only_weights: bool,
    also: str | Iterable[str] = (),
    fresh_optimizer: str | Iterable[str] = (),
    optimizer_order: Given | None = None,
) -> Form:
    """The form that these options ask for; `optimizer_order` is something with the keys of the
    source's model in its order. Raises InputError where options say two things, and for keys that
    were sorted.
    """
    if whole and only_weights:
        raise InputError("--whole", "is given with --only-weights", "give one of them")
    asked = True if whole else False if only_weights else None
    return Form(asked, _texts(also), _texts(fresh_optimizer), _order_of(optimizer_order))


def _order_of(given: Given | None) -> tuple[str, ...]:
    """The keys of what tells the order of a model; of a model itself, those of its parameters."""
    if given is None:
        return ()
    if is_model(given):
        return _parameters_of(given)
    with open_target(given) as opened:
        if not in_module_order(opened.catalog):
            hint = "give the model itself, package.module:function, or a .pth that it wrote"
            raise InputError(
                opened.path, "its keys are sorted, so they don't show a model's order", hint
            )
        return tuple(key for key, info in opened.catalog.items() if may_be_trained(info))


def _parameters_of(given: object) -> tuple[str, ...]:
    """The keys of the parameters of a model, or of that which a factory builds, in their order."""
    from ckpt_tool.training.factories import build_model
    from ckpt_tool.training.live import keys_of_parameters, unwrapped
    from ckpt_tool.training.own_code import running

    model = build_model(given) if isinstance(given, str) else given
    with running(given if isinstance(given, str) else type(model).__name__):
        parameters = keys_of_parameters(unwrapped(model))  # type: ignore[arg-type]
    return tuple(key for keys in parameters for key in keys)


def _texts(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@frozen
class Changed:
    """A training checkpoint with what changes in it; what goes along `beside`, and what of the
    source is `left`.
    """

    whole: Whole
    beside: tuple[LeftBehind, ...]
    left: tuple[LeftBehind, ...] = ()
    notes: tuple[str, ...] = ()


@contextmanager
def whole_of(planned: Planned, form: Form, is_torch_file: bool) -> Iterator[Changed | None]:
    """The training checkpoint to be written; None where the weights are written alone.

    `is_torch_file`: whether the output is one. Raises InputError where a training checkpoint is
    asked for and can't be written, RuleError where the plan does not fit one of `also`.
    """
    fault = why_not_whole(planned, is_torch_file)
    if form.whole and fault:
        raise InputError("--whole", fault, "leave it out: the weights are written alone")
    if not refuse_alone(planned, form, is_torch_file):
        yield None
        return
    with ExitStack() as stack:
        yield _whole(planned, form, stack)


def refuse_alone(planned: Planned, form: Form, is_torch_file: bool) -> bool:
    """Whether the output is a training checkpoint. Raises InputError for what is asked of one where
    it isn't.
    """
    fault = why_not_whole(planned, is_torch_file)
    is_wanted = is_whole_wanted(planned, form, is_torch_file)
    asked = {
        "--also": form.also,
        "--fresh-optimizer": form.fresh_optimizer,
        "--optimizer-order": form.optimizer_order,
    }
    if any(asked.values()) and not is_wanted:
        raise InputError(
            next(option for option, given in asked.items() if given),
            "is for whole training checkpoints, and this writes the weights alone"
            + (f": {fault}" if fault else ""),
            None if fault else "--whole writes all of it",
        )
    return is_wanted


def is_whole_wanted(planned: Planned, form: Form, is_torch_file: bool) -> bool:
    """Whether the output is a training checkpoint: as it is asked for, or else where the target is
    one, or there is no target and the source is one. A part that is named (`run.ckpt#ema`) is none.
    """
    if why_not_whole(planned, is_torch_file) or form.whole is False:
        return False
    is_source = is_training(planned.source) and not split_fragment(planned.source.path)[1]
    target = planned.target
    is_target = isinstance(target, Checkpoint) and bool(target.contents.left_behind)
    return form.whole or (is_source and (target is None or is_target))


AVERAGED = "averaged weights"
"""The kind of parts that are copies of the weights by name or place."""
ENDINGS = {".pt": ".pth", ".tar": ".pth", ".pkl": ".pth"}
"""Endings that say as little as another: all others stand for a kind of file, as `.ckpt` does."""


def for_output(planned: Planned, form: Form, output: str) -> Form:
    """The same form for this output. One whose name ends otherwise than the source's is none like
    the source, unless something is asked for that only a whole training checkpoint has.
    """
    is_asked = form.also or form.fresh_optimizer or form.optimizer_order
    if form.whole is not None or planned.target is not None or is_asked:
        return form
    source = planned.source.path
    if os.path.isdir(source) and len(planned.source.files) == 1:
        source = planned.source.files[0].path
    endings = [os.path.splitext(path)[1].lower() for path in (source, output)]
    is_alike = len({ENDINGS.get(ending, ending) for ending in endings}) == 1
    is_folder = not endings[1] and os.path.isdir(planned.source.path)
    return form if is_alike or is_folder else replace(form, whole=False)


def expected_bytes(planned: Planned, form: Form, output: str | None) -> int:
    """About how many bytes of tensors will be written, for whoever shows how far it is."""
    nbytes = planned.checked().outputs.nbytes
    path = output or (planned.rules.output if planned.rules else None) or ""
    is_torch_file = not path.endswith(".safetensors")
    form = for_output(planned, form, path)
    if is_whole_wanted(planned, form, is_torch_file):
        nbytes += sum(one.nbytes for one in planned.left_behind[0])
    return nbytes


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
        return "only torch files hold more than weights, and the output is not one"
    if not isinstance(read, ReadPickle) or len(source.files) != 1:
        return f"`{source.path}` was not written by torch.save, whose pickle could be kept"
    taken = read.described.listing.taken
    if module_children(taken.value) is not None:
        return f"the weights of `{source.path}` are those of a pickled module, which is code"
    return None


def _whole(planned: Planned, form: Form, stack: ExitStack) -> Changed:
    from ckpt_tool.engine import Whole
    from ckpt_tool.engine.whole.weights import Part, in_source_order

    source, plan = planned.source, planned.checked()
    read = source.contents.kept
    assert isinstance(read, ReadPickle)
    if planned.target is None:
        plan = in_source_order(plan)
    weights = Part(read.described.listing.taken.path, plan, source, planned.target)
    copies = tuple(copy_parts(weights, form.also, stack))
    optimizers = optimizers_of(
        source,
        read,
        weights,
        form.fresh_optimizer,
        order=form.optimizer_order,
        also=[part.path for part in copies],
    )
    _refuse_numbered_averages(source, weights)
    others = other_copies(planned, [part.path for part in copies])
    notes = [_mapped_too(part, source) for part in copies]
    notes += [_keeps_its_keys(name, why_not_mapped(weights, name)) for name in others]
    known = (*others, *(part.path for part in copies))
    notes += [
        f"`{one.path}` is averaged weights without the same keys, and stays as it is"
        for one in source.contents.left_behind
        if one.kind == AVERAGED and not (_is_in(one.path, {*known}) or one.path in _owners(known))
    ]
    changed = [part.path for part in copies]
    changed += [".".join(part.names) for part in optimizers.parts]
    changed += _owners(changed)
    left, beside = _parted(source, changed, optimizers.removed)
    whole = Whole(source, read, (weights, *copies, *optimizers.parts), optimizers.removed)
    return Changed(whole, beside, left, (*notes, *optimizers.notes))


def _keeps_its_keys(name: str, obstacle: str | None) -> str:
    """That a copy of the weights stays as it is, and how it is mapped, or why it can't be."""
    more = f"; {obstacle}" if obstacle else f": --also '#{name}' maps it, too"
    return f"`{name}` has the same keys, and keeps them{more}"


def _mapped_too(copy: Part, source: Checkpoint) -> str:
    """How much of another copy of the weights is mapped, as its own counts say, and how much is in
    it that they have not.
    """
    counts = copy.plan.counts
    others = [f"{counts[name]:,} {name}" for name in ("kept", "dropped") if counts[name]]
    inside = sum(info.key.startswith(f"{copy.path}.") for info in source.contents.elsewhere)
    more = inside - len(copy.plan.source)
    others += [f"{plural(more, 'other tensor')} unchanged"] if more else []
    mapped = f"{plural(counts['mapped'], 'tensor')} mapped"
    return f"`{copy.path}` follows the same rules: {', '.join([mapped, *others])}"


def _refuse_numbered_averages(source: Checkpoint, weights: Part) -> None:
    """Raises InputError for averaged weights that are a list in the order of the parameters, where
    that order, or the tensors, change: the list would belong to others.
    """
    if keeps_order(weights):
        return
    for one in source.contents.left_behind:
        if one.kind != AVERAGED:
            continue
        start = f"{one.path}."
        inside = [info for info in source.contents.elsewhere if info.key.startswith(start)]
        names = [info.key.rpartition(".")[2] for info in inside if info.shape]
        if names and all(name.isdecimal() for name in names):
            raise InputError(
                f"{source.path}#{one.path}",
                "has averaged weights by number, which would not follow",
                "--only-weights leaves them behind",
            )


def _parted(
    source: Checkpoint, changed: Sequence[str], removed: Sequence[tuple[str, ...]]
) -> tuple[tuple[LeftBehind, ...], tuple[LeftBehind, ...]]:
    """Of what is beside the weights: what is left, and what goes along as it is."""
    read = source.contents.kept
    assert isinstance(read, ReadPickle)
    gone = {".".join(names) for names in removed}
    taken = read.described.listing.taken.value
    same = {name for name, child in children(read.root) if child is taken}
    left = [one for one in source.contents.left_behind if _is_in(one.path, gone)]
    others = {*changed, *same}
    beside = [
        one for one in source.contents.left_behind if one not in left and one.path not in others
    ]
    return tuple(left), tuple(beside)


def _owners(paths: Iterable[str]) -> set[str]:
    """What these paths lie in."""
    names = [path.split(".") for path in paths]
    return {".".join(each[:end]) for each in names for end in range(1, len(each))}


def _is_in(path: str, names: set[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)
