"""The optimizers of a training checkpoint, as they follow the plan of its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.api.whole.owners import other_networks, other_owner
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats.limits import NESTING
from ckpt_tool.formats.opening import split_fragment
from ckpt_tool.formats.pickle.graph import children
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.formats.torch_files.state_dicts import is_optimizer
from ckpt_tool.frozen import frozen
from ckpt_tool.ops import TensorForm
from ckpt_tool.optimizers import move_state, read_optimizer, recognise, with_names
from ckpt_tool.optimizers.groups import GIVE_OPTIMIZER
from ckpt_tool.optimizers.naming import HINT, PARAMETERS_ALONE, pairing_note
from ckpt_tool.optimizers.refusals import matching_any
from ckpt_tool.optimizers.saved import GROUPS, STATE
from ckpt_tool.optimizers.sides import sides_of
from ckpt_tool.optimizers.targets import of_model
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.engine.whole.optimizer import OptimizerPart, Path
    from ckpt_tool.engine.whole.weights import Part
    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.formats.torch_files.contents import ReadPickle
    from ckpt_tool.optimizers import SavedOptimizer

MAX_MEMBERS = 1000
"""Members of a container among which optimizers are looked for."""
ALL = "**"
TELLS = {
    GIVE_OPTIMIZER: (
        "in Python `load_into(…).optimizer_state(saved, model, optimizer)` takes the optimizer "
        "that is to have it"
    ),
    HINT: "`--optimizer-order MODEL` gives the order of its parameters",
    PARAMETERS_ALONE: (
        "if the order has buffers, too, give to `--optimizer-order` the model itself "
        "(package.module:function), or a key list of its parameters alone"
    ),
}
Names = tuple[str, ...]


@frozen
class Optimizers:
    """What becomes of the optimizers: those that change, the entries that are left out, what is to
    be said of them.
    """

    parts: tuple[OptimizerPart, ...] = ()
    removed: tuple[Names, ...] = ()
    notes: tuple[str, ...] = ()


def optimizers_of(
    source: Checkpoint,
    read: ReadPickle,
    weights: Part,
    fresh: Sequence[str],
    others: Sequence[tuple[str, Catalog]] = (),
    order: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Optimizers:
    """Every optimizer of the source as it follows the plan of the weights; parameters that match
    `fresh` begin without a state. `others` are other models, by name, whose optimizer it may be;
    `order` are the source's parameters in the order of its model, where somebody said it; `also`
    are the paths of other state dicts that follow the same plan.

    Raises RuleError where a state can't follow exactly, and for a pattern that matches nothing;
    InputError where it is not certain which parameter is which.
    """
    parts: list[OptimizerPart] = []
    removed: list[Names] = []
    notes: list[str] = []
    used: set[str] = set()
    own = tuple(key for key in order if key in weights.plan.source)
    if order and not own:
        raise InputError("--optimizer-order", f"has `{order[0]}`, and no key of the source")
    for names, optimizer in find_optimizers(read.root):
        opened = _Optimizer(source, read, names, optimizer, others, own, tuple(also))
        if not fresh and opened.keeps_numbers(weights):
            notes += opened.notes(None, weights)
            continue
        try:
            if owner := opened.other_owner(weights):
                notes.append(f"{opened.title} is that of `{owner}`, and is copied unchanged")
                continue
            part, matched = opened.moved(weights, fresh)
        except InputError as error:
            if ALL not in fresh:
                raise _with_way_on(error, source.path, opened.path) from None
            removed.append(opened.outermost)
            notes.append(f"{opened.title} is left out: whose state it holds is not certain")
            used.add(ALL)
            continue
        used.update(matched)
        parts.append(part)
        notes += opened.notes(part, weights)
    if unused := [pattern for pattern in fresh if pattern not in used]:
        message = f"`{unused[0]}` matches no parameter of an optimizer in the source"
        raise RuleError([Problem("dead-rule", message)])
    return Optimizers(tuple(parts), tuple(dict.fromkeys(removed)), tuple(notes))


def _with_way_on(error: InputError, path: str, place: str) -> InputError:
    """The error with what helps on the command line."""
    name = f"{split_fragment(path)[0]}#{place}" if place else path.removesuffix("#.")
    way = f"`--fresh-optimizer '{ALL}'` leaves its state behind"
    way += ", `--only-weights` all but the weights" if place else ""
    told = TELLS.get(error.hint or "", error.hint)
    hint = f"{told}; or {way}" if told else way
    return type(error)(name, error.fact, hint, error.place)


def find_optimizers(root: object) -> Iterator[tuple[Names, dict[object, object]]]:
    """The optimizers' state dicts in a file, each once, with the names that lead to it."""
    pending: list[tuple[Names, object]] = [((), root)]
    seen = set()
    while pending:
        names, value = pending.pop()
        if id(value) in seen or len(names) > NESTING:
            continue
        seen.add(id(value))
        if isinstance(value, dict) and is_optimizer(value):
            yield names, value
        elif isinstance(value, dict | list) and len(value) <= MAX_MEMBERS:
            inside = [((*names, name), child) for name, child in children(value)]
            pending += reversed(inside)


@frozen
class _Optimizer:
    """An optimizer's state dict in a file."""

    source: Checkpoint
    read: ReadPickle
    names: Names
    state_dict: dict[object, object]
    others: Sequence[tuple[str, Catalog]] = ()
    order: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The names as a dotted path."""
        return ".".join(self.names)

    @property
    def title(self) -> str:
        """What it is called in a note."""
        return f"`{self.path or os.path.basename(self.source.path.removesuffix('#.'))}`"

    @property
    def outermost(self) -> Names:
        """The names of the outermost thing around it that holds no state dict of a network."""
        places = [f"{place.path}." for place in self.source.contents.state_dicts]
        ways = [self.names[:end] for end in range(1, len(self.names))]
        starts = [(way, f"{'.'.join(way)}.") for way in ways]
        free = (way for way, start in starts if not any(one.startswith(start) for one in places))
        return next(free, self.names)

    @property
    def saved(self) -> SavedOptimizer:
        """Its parameters and slots. Raises FormatError."""
        label = f"{self.source.path}#{self.path}" if self.names else self.source.path
        saved = read_optimizer(self.state_dict, self._form_of, label)
        is_numbered = all(each.name is None for each in saved.parameters)
        return with_names(saved, self.order) if self.order and is_numbered else saved

    def _form_of(self, value: object) -> TensorForm | None:
        measured = self.read.described.measured.get(value) if type(value) is TensorRef else None
        return TensorForm(measured.info.dtype, measured.info.shape) if measured else None

    def keeps_numbers(self, weights: Part) -> bool:
        """Whether nothing in it changes: it knows its parameters by numbers, and they stay the
        same.
        """
        saved = self.saved
        is_numbered = saved.form == "ids" and all(each.name is None for each in saved.parameters)
        return is_numbered and keeps_order(weights)

    def moved(self, weights: Part, fresh: Sequence[str]) -> tuple[OptimizerPart, list[str]]:
        """What becomes of it, and the patterns of `fresh` that match something. Raises RuleError
        and InputError.
        """
        from ckpt_tool.engine.whole.optimizer import OptimizerPart

        saved = self.saved
        self._refuse_masters(saved.label)
        if saved.form == "flat":
            raise InputError(
                saved.label,
                "has its state under flat names, which can't be written",
                f"--fresh-optimizer '{ALL}' leaves it out",
            )
        target = of_model(_parameters_of(weights))
        sides = sides_of(weights.plan, saved, target, None)
        parameters = [each.name for each in sides.target.parameters]
        matched = [pattern for pattern in fresh if _matches(pattern, parameters)]
        state = move_state(weights.plan, saved, sides.target, matched, sides.kind)
        return OptimizerPart(self.names, state, self._holder, self._keys(saved)), matched

    def notes(self, part: OptimizerPart | None, weights: Part) -> Iterator[str]:
        """What is to be said of it as it is moved; None where it stays as it is."""
        if part is not None:
            yield f"{self.title}: {part.state}"
            saved = self.saved
            kind = recognise(saved.groups, saved.slots)
            if paired := pairing_note(saved, weights.plan.source, kind):
                yield f"{self.title}: {paired}"
            if weights.target is None and saved.form == "ids":
                yield (
                    f"{self.title} numbers its parameters in the source's order: if the new model "
                    "declares them in another one, map onto it (its state dict, or "
                    "package.module:factory, with --whole)"
                )
        elif weights.target is None:
            yield (
                f"{self.title} is copied unchanged: its numbers are those of the source's order "
                "of parameters"
            )

    def _refuse_masters(self, label: str) -> None:
        """Raises InputError where tensors beside the state are copies of the parameters, as
        those in float32 of apex, fairseq and Megatron are: they would stay what they were.
        """
        owner = _member(self.read.root, self.names[:-1]) if len(self.names) > 1 else None
        around = ".".join(self.names[:-1])
        known = [f"{place.path}." for place in self.source.contents.state_dicts]
        siblings = [
            child
            for name, child in children(owner)
            if isinstance(child, list | tuple)
            or not any(one.startswith(f"{around}.{name}.") for one in known)
        ]
        beside = [
            *(child for name, child in self.state_dict.items() if name not in (STATE, GROUPS)),
            *(child for child in siblings if child is not self.state_dict),
        ]
        for value in beside:
            if _holds_parameters(value):
                raise InputError(
                    label,
                    "has copies of the parameters beside the state, which would not follow",
                    f"--fresh-optimizer '{ALL}' leaves them out",
                )

    @property
    def _holder(self) -> Checkpoint:
        """The open file with the slots under their full paths, which they have inside of the state
        dict where that is all of the file.
        """
        return self.source.outside() if self.source.contents.taken else self.source

    def _keys(self, saved: SavedOptimizer) -> Mapping[Path, str]:
        """The keys of the slots that are tensors, by their paths. Raises InputError for one whose
        name something else has, too.
        """
        keys: dict[Path, str] = {}
        described = self.read.described
        listed = described.outside if self.source.contents.taken else described.inside
        for slot in (slot for each in saved.parameters for slot in each.slots.values()):
            if slot.form is not None and type(slot.value) is TensorRef:
                key = ".".join(map(str, (*self.names, *slot.path)))
                if listed.get(key) is not described.measured[slot.value]:
                    raise InputError(saved.label, f"has two tensors named `{key}`")
                keys[slot.path] = key
        return keys

    def other_owner(self, weights: Part) -> str | None:
        """The network, other than the weights and what is mapped with them, whose optimizer it is;
        None where it is theirs. Raises InputError where it may be that of either.
        """
        mapped = (weights.path, *self.also)
        others = [
            one
            for one in other_networks(self.source.contents, mapped)
            if self.names[:1] != (one[0],)
        ]
        path = "" if self.others else self.path
        return other_owner(self.saved, path, weights.plan, mapped, [*self.others, *others])


def _parameters_of(weights: Part) -> Sequence[tuple[str, ...]]:
    """All keys of each parameter of the target, where that is a model whose state dict has them."""
    parameters: Sequence[tuple[str, ...]] = getattr(weights.target, "parameters", ())
    known = set(weights.plan.target or ())
    return () if any(known.isdisjoint(keys) for keys in parameters) else parameters


def _member(root: object, names: Names) -> object:
    for name in names:
        root = next((child for key, child in children(root) if key == name), None)
    return root


def _holds_parameters(value: object) -> bool:
    """Whether there is a tensor of more than one element in it, other than an optimizer's state."""
    pending, seen = [value], set()
    while pending:
        one = pending.pop()
        if id(one) in seen or is_optimizer(one):
            continue
        seen.add(id(one))
        if type(one) is TensorRef and one.shape not in ((), (0,), (1,)):
            return True
        if isinstance(one, dict | list | tuple):
            pending += [child for _, child in children(one)]
    return False


def _matches(pattern: str, keys: Sequence[str]) -> bool:
    """Whether a pattern matches any of these keys. Raises RuleError for what is no pattern."""
    try:
        return bool(matching_any((pattern,), keys))
    except RuleError as error:
        if any(problem.code != "dead-rule" for problem in error.problems):
            raise
        return False


def keeps_order(part: Part) -> bool:
    """Whether every tensor only gets another name, and all stay in their order: then the numbers by
    which an optimizer knows its parameters are the same.
    """
    plan, moved = part.plan, part.moved
    if plan.kept or plan.dropped or plan.dtype is not None:
        return False
    return [moved.get(key) for key in plan.outputs] == list(plan.source)
