"""DeepSpeed's universal checkpoints, which ds_to_universal.py makes: `zero/NAME/fp32.pt` of each
parameter; beside them the model's states, for shapes and for what is no parameter.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from math import prod

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, StateDict
from ckpt_tool.formats.distributed.pieces import Deferred
from ckpt_tool.formats.distributed.rank_files import RankFiles, measure
from ckpt_tool.formats.distributed.zero.joining import (
    Joined,
    add_buffers,
    add_frozen,
    add_shared,
    add_steps,
)
from ckpt_tool.formats.distributed.zero.names import model_files
from ckpt_tool.formats.distributed.zero.one_run import number_of
from ckpt_tool.formats.distributed.zero.states import ModelStates, model_states
from ckpt_tool.formats.folder import LocalFolder
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.tensors import Catalog, Shape, counted, shape_text

WEIGHTS, OPTIMIZER = "fp32", "optim"
SLOTS = ("exp_avg", "exp_avg_sq")
INSIDE = "zero"


def _parameters(inside: str) -> list[str]:
    """The names of those that have their weights here."""
    found = os.listdir(inside)
    return sorted(name for name in found if os.path.lexists(f"{inside}/{name}/fp32.pt"))


def open_universal(folder: LocalFolder, path: str, wanted: str) -> Checkpoint:
    """The float32 weights, or with `#optim` the moments. Raises FormatError for a parameter without
    a file.
    """
    if wanted not in ("", WEIGHTS, OPTIMIZER):
        fact = f"no state dict of a universal checkpoint is named `{wanted}`"
        raise InputError(path, fact, f"it has `{WEIGHTS}` and `{OPTIMIZER}`")
    files = RankFiles(folder)
    try:
        contents = _contents(folder, files, wanted or WEIGHTS)
    except BaseException:
        files.close()
        raise
    return Checkpoint(path, "DeepSpeed universal", contents, files.files)


def _contents(folder: LocalFolder, files: RankFiles, wanted: str) -> Contents:
    names, joined = _parameters(folder.join(INSIDE)), Joined(folder)
    models = [files.open(name) for name in model_files(folder, folder.names())]
    states = model_states(models[0])
    if wanted == OPTIMIZER:
        _add_slots(folder, files, names, states, joined)
    else:
        _check_all(folder, states, names)
        _add_weights(files, names, states, models, joined)
    is_known = set(joined.infos) <= set(states.order)
    order = [name for name in states.order if name in joined.infos] if is_known else [*joined.infos]
    catalog = Catalog([joined.infos[name] for name in order], are_in_module_order(order))
    return Contents(
        catalog,
        Deferred({name: joined.makers[name] for name in order}),
        extras=(*files.asked, *joined.notes),
        state_dicts=(StateDict(wanted, len(catalog), catalog.nbytes),),
        taken=wanted,
        layout=_layout(len(names), wanted),
    )


def _layout(count: int, wanted: str) -> str:
    what = "the fp32 weights" if wanted == WEIGHTS else "the optimizer's state"
    return f"{what} of a universal checkpoint of DeepSpeed, {counted(count, 'parameter')}"


def _add_slots(
    folder: LocalFolder, files: RankFiles, names: list[str], states: ModelStates, joined: Joined
) -> None:
    for name in names:
        for slot in SLOTS:
            file = f"{INSIDE}/{name}/{slot}.pt"
            if os.path.lexists(folder.join(file)):
                shape = states.shapes.get(name)
                _add(joined, f"state.{name}.{slot}", files.open(file), shape)
    steps = {
        _step(files.open(file))
        for name in names
        if os.path.lexists(folder.join(file := f"{INSIDE}/{name}/step.pt"))
    }
    if len(steps) == 1 and (step := steps.pop()) is not None:
        add_steps(joined, step)


def _step(pickled: PickledFile) -> float | None:
    """What DeepSpeed wrote: a number, a tensor of one, or either as `param`."""
    root = pickled.root
    return number_of(root.get("param") if isinstance(root, dict) else root, pickled)


def _add_weights(
    files: RankFiles,
    names: list[str],
    states: ModelStates,
    models: list[PickledFile],
    joined: Joined,
) -> None:
    """Buffers, frozen parameters that have no folder, those that have one, ties."""
    stage = 3 if "zero_pp_rank_" in os.path.basename(models[0].path) else 2
    frozen = {name: shape for name, shape in states.frozen_shapes.items() if name not in names}
    add_buffers(joined, states, models[0])
    add_frozen(joined, replace(states, frozen_shapes=frozen), models, stage)
    shapes = states.shapes | states.frozen_shapes
    for name in names:
        if name not in states.shared and name not in states.buffers:
            _add(joined, name, files.open(f"{INSIDE}/{name}/fp32.pt"), shapes.get(name))
    add_shared(joined, states, models[0])


def _check_all(folder: LocalFolder, states: ModelStates, names: list[str]) -> None:
    missing = [name for name in states.shapes if name not in names]
    if missing:
        count = len(states.shapes)
        fact = (
            f"has {count - len(missing):,} of {counted(count, 'parameter')}; "
            f"{INSIDE}/{missing[0][:200]}/fp32.pt is missing"
        )
        raise FormatError(folder.path, fact, "copy the whole folder")


def _add(joined: Joined, name: str, pickled: PickledFile, shape: Shape | None) -> None:
    """A tensor as it is; a flat one, which ZeRO 3 gives, in the shape that the model's states
    have.
    """
    root = pickled.root
    tensor = root.get("param") if isinstance(root, dict) else root
    if type(tensor) is not TensorRef:
        fact = f"its `param` is {describe(tensor, 60)}, not a tensor"
        raise FormatError(pickled.path, fact)
    measured = measure(tensor, name, pickled)
    info = measured.info
    if shape is not None and len(info.shape) == 1 and len(shape) != 1:
        if prod(shape) != info.shape[0] or not measured.is_contiguous:
            fact = f"its `param` has {info.shape[0]:,} elements, not those of {shape_text(shape)}"
            raise FormatError(pickled.path, fact)
        info = replace(info, shape=shape)
    joined.add(info, partial(pickled.place, measured))
