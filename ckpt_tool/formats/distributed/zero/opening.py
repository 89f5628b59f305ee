"""A DeepSpeed ZeRO checkpoint, opened: the float32 weights that all ranks' files hold together, the
optimizer's state, or the model as it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, LeftBehind, StateDict
from ckpt_tool.formats.distributed.pieces import Deferred
from ckpt_tool.formats.distributed.rank_files import SHOWN, RankFiles, refuse_missing
from ckpt_tool.formats.distributed.zero.joining import Run, add_steps, join_slots, join_weights
from ckpt_tool.formats.distributed.zero.names import ZeroNames, model_names
from ckpt_tool.formats.distributed.zero.one_run import (
    check_one_run,
    check_versions,
    only_step,
    step_notes,
)
from ckpt_tool.formats.distributed.zero.states import ModelStates, model_states, partition
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.torch_files.contents import PickledFile, contents_of, describe_file
from ckpt_tool.tensors import Catalog, DType, TensorInfo, counted, nbytes_of

WEIGHTS, MODULE, OPTIMIZER = "fp32", "module", "optim"
"""What `FOLDER#NAME` can be."""


def open_zero(names: ZeroNames, path: str, wanted: str) -> Checkpoint:
    """The float32 weights; with `#module` the model as it was trained, with `#optim` the
    optimizer's state by the parameters' names.

    Raises FormatError where a rank's file is missing, or files don't belong together.
    """
    if wanted not in ("", WEIGHTS, MODULE, OPTIMIZER):
        raise InputError(
            path,
            f"no state dict of a DeepSpeed checkpoint is named `{wanted}`",
            f"it has `{WEIGHTS}`, `{MODULE}` and `{OPTIMIZER}`",
        )
    files = RankFiles(names.folder)
    try:
        contents = _contents(names, files, wanted or WEIGHTS)
    except BaseException:
        files.close()
        raise
    return Checkpoint(path, "DeepSpeed ZeRO", contents, files.files)


def _contents(names: ZeroNames, files: RankFiles, wanted: str) -> Contents:
    pickles = [files.open(name) for name in names.optimizer]
    run = Run(names, tuple(map(partition, pickles)))
    run.check()
    check_one_run(run.parts, pickles)
    model = files.open(names.model[0])
    check_versions([pickles[0], model])
    if wanted == MODULE:
        return _module(model, run)
    states = model_states(model)
    models = [model, *_other_models(names, files, states, run)]
    check_versions(models)
    joined = join_slots(states, run) if wanted == OPTIMIZER else join_weights(states, models, run)
    step = only_step(pickles) if wanted == OPTIMIZER else None
    if step is not None:
        add_steps(joined, step)
    order = _order(joined.infos, states.order)
    catalog = Catalog([joined.infos[name] for name in order], are_in_module_order(order))
    return Contents(
        catalog,
        Deferred({name: joined.makers[name] for name in order}),
        extras=(*files.asked, *joined.notes, *step_notes(names.folder, model)),
        state_dicts=_state_dicts(wanted, catalog, model, run),
        taken=wanted,
        left_behind=_left_behind(run) if wanted == WEIGHTS else (),
        layout=_layout(wanted, run) + _without(joined.infos, states, wanted),
    )


def _without(infos: Mapping[str, TensorInfo], states: ModelStates, wanted: str) -> str:
    """What is said of tensors that the model has and the optimizer's files don't: with stage 1
    DeepSpeed saves frozen parameters in the model alone.
    """
    left = [name for name in states.order if name not in infos]
    if wanted != WEIGHTS or not left:
        return ""
    more = ", …" if len(left) > SHOWN else ""
    names = ", ".join(f"`{name[:80]}`" for name in left[:SHOWN])
    return f"; without {counted(len(left), 'tensor')} that only #{MODULE} has: {names}{more}"


def _other_models(
    names: ZeroNames, files: RankFiles, states: ModelStates, run: Run
) -> list[PickledFile]:
    """The model's states of the other ranks, where these have parts of frozen parameters. Raises
    FormatError for one that is missing.
    """
    if run.stage < 3 or not states.frozen_shapes:
        return []
    every = model_names(names, run.ranks)
    refuse_missing(names.folder, [one for one in every if one not in names.model], run.ranks)
    return [files.open(name) for name in every[1:]]


def _module(model: PickledFile, run: Run) -> Contents:
    """The model as it was trained. Raises FormatError for stage 3, which keeps no weights there."""
    if run.stage == 3:
        raise FormatError(
            model.path,
            f"has placeholders in `{MODULE}`: ZeRO 3 keeps the weights in its optimizer's files",
            f"take the float32 weights: {run.folder.path}",
        )
    contents = contents_of(model, describe_file(model, MODULE))
    return replace(contents, layout=_layout(MODULE, run))


def _layout(wanted: str, run: Run) -> str:
    whose = f"DeepSpeed ZeRO {run.stage}, joined from {_ranks(run.ranks)} files"
    match wanted:
        case "module":
            return (
                f"the weights of DeepSpeed ZeRO {run.stage} in the type that the model was trained "
                f"in; #{WEIGHTS} has those of the optimizer"
            )
        case "optim":
            return f"the optimizer's state of {whose}"
        case _:
            kind = "fp32" if run.dtype is DType.F32 else run.dtype.value
            return f"the {kind} weights of {whose}"


def _ranks(count: int) -> str:
    return "1 rank's" if count == 1 else f"{count:,} ranks'"


def _order(infos: Mapping[str, TensorInfo], modules: Sequence[str]) -> list[str]:
    """The names as the model has them, where it has all; else as they were joined."""
    return (
        [name for name in modules if name in infos] if set(infos) <= set(modules) else list(infos)
    )


def _state_dicts(
    wanted: str, catalog: Catalog, model: PickledFile, run: Run
) -> tuple[StateDict, ...]:
    others = () if run.stage == 3 or wanted != WEIGHTS else describe_file(model, MODULE).state_dicts
    return (
        StateDict(wanted, len(catalog), catalog.nbytes),
        *(one for one in others if one.path == MODULE),
    )


def _left_behind(run: Run) -> tuple[LeftBehind, ...]:
    """The optimizer's state, as all ranks have it."""
    flats = [flat for one in run.parts for slot in one.slots.values() for flat in slot]
    nbytes = sum(nbytes_of(flat.dtype, (flat.count,)) for flat in flats)
    return (LeftBehind(OPTIMIZER, "optimizer", len(flats), nbytes),) if flats else ()
