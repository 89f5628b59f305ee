"""Which of a file's state dicts is meant: by their names, or by the name that was asked for; never
one of two that are equally likely.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_tool.errors import InputError
from ckpt_tool.formats.limits import NESTING, NODES
from ckpt_tool.formats.pickle.graph import children, module_children, unwrap
from ckpt_tool.formats.pickle.values import PickleFault
from ckpt_tool.formats.torch_files.state_dicts import (
    RANKS,
    Container,
    TensorCounts,
    are_optimizers,
    find_inside,
    is_averaged_copy,
    is_optimizer,
)

WHOLE = "."
"""`FILE#.` means all that a file holds, under its full paths."""
OPTIMIZER = "optim"
"""`FILE#optim` means the optimizers' state, where nothing in the file has that name."""
MAX_NAMES = 20
_ROLES = frozenset((
    "g", "d", "gen", "dis", "disc", "generator", "discriminator", "netg", "netd", "critic",
    "student", "teacher",
))  # fmt: skip
"""Words that distinguish networks which are trained against or beside each other."""
_WORD = re.compile("[a-z]+")
_INDEX = re.compile(r"\[([0-9]+)\]")


def choose(places: list[Container], root: object) -> tuple[Container, tuple[Container, ...]]:
    """The weights of the model: by name, else the only ones there are, else everything in the file;
    and those that are equally likely, of which none is taken.
    """
    whole = Container((), unwrap(root))
    if len(places) == 1:
        return places[0], ()
    plain, averaged = _originals_and_copies(places)
    if named := _named(plain):
        best = _best(named)
        rivals = tuple(place for place in plain if place is best or _is_rival(best, place))
        return (whole, rivals) if len(rivals) > 1 else (best, ())
    known = _named(averaged)
    if known and not _have_copies(plain, averaged):
        return _best(known), ()
    return _only_or_whole(plain or averaged, whole)


def _only_or_whole(
    left: list[Container], whole: Container
) -> tuple[Container, tuple[Container, ...]]:
    """The only place; of several, all of the file, whose parts may be rivals."""
    if len(left) == 1:
        return left[0], ()
    return whole, tuple(left) if _are_alternatives(left) else ()


def _best(named: list[Container]) -> Container:
    return min(named, key=_rank)  # type: ignore[arg-type]


def _originals_and_copies(places: list[Container]) -> tuple[list[Container], list[Container]]:
    copies = [place for place in places if _is_copy(place, places)]
    return [place for place in places if place not in copies], copies


def _named(places: list[Container]) -> list[Container]:
    """Those whose names say that they are weights."""
    return [place for place in places if _rank(place)]


def _have_copies(plain: list[Container], averaged: list[Container]) -> bool:
    return any(_are_alike(place, copy) for place in plain for copy in averaged)


def _is_copy(place: Container, places: list[Container]) -> bool:
    """Whether these are averaged weights or the like. A target beside a source is no copy of it."""
    if not is_averaged_copy(place.path):
        return False
    words = {word for one in places for name in one.path for word in _WORD.findall(name.lower())}
    return "target" not in _WORD.findall(place.path[-1].lower()) or words.isdisjoint(
        ("source", "src")
    )


def _rank(place: Container) -> tuple[int, int, int] | None:
    """How well a path names weights, smaller is better, outer names before inner ones."""
    ranks = [RANKS[name] for name in place.path if name in RANKS]
    return (min(ranks), len(place.path), ranks[-1]) if ranks else None


def _is_rival(best: Container, other: Container) -> bool:
    """Whether another place is as likely: its names say as much, or it has the same place in
    another part of the file.
    """
    if _has_role(best) and _has_role(other):
        return True
    if _rank(other) is None or len(other.path) != len(best.path):
        return False
    if _rank(other) == _rank(best):
        return True
    return other.path[:-1] != best.path[:-1] and RANKS.keys().isdisjoint(
        (*best.path[:-1], *other.path[:-1])
    )


def _has_role(place: Container) -> bool:
    return any(not _ROLES.isdisjoint(_WORD.findall(name.lower())) for name in place.path)


def _are_alternatives(places: list[Container]) -> bool:
    """Whether state dicts are several networks, and not the parts of one: by their names, or since
    two have the same keys.
    """
    if sum(map(_has_role, places)) > 1:
        return True
    return any(
        _is_network(one) and _are_alike(one, other)
        for number, one in enumerate(places)
        for other in places[:number]
    )


def _is_network(place: Container) -> bool:
    return module_children(place.value) is not None or any("." in key for key in _keys(place))


def _keys(place: Container) -> set[str]:
    return {name for name, _ in (module_children(place.value) or children(place.value))}


def _are_alike(one: Container, other: Container) -> bool:
    """Whether they have most of their keys in common."""
    source, target = _keys(one), _keys(other)
    return 2 * len(source & target) > max(len(source), len(target))


def look_up(
    root: object, wanted: str, holding: set[int], places: list[Container], file: str
) -> Container:
    """What `file#wanted` means: a path, or the last part of one. Raises InputError that lists the
    names that exist.
    """
    counts, top = TensorCounts(holding), unwrap(root)
    if wanted == WHOLE:
        return Container((), top)
    spellings = dict.fromkeys((wanted, _INDEX.sub(r".\1", wanted).removeprefix(".")))
    for name in spellings:
        if place := _descend((), top, name, holding):
            return _refined(place, counts)
    for name in spellings:
        found = _ending_in(name, places, top, holding)
        if len(found) == 1:
            return _refined(found[0], counts)
        if found:
            fact = f"is the end of {len(found)} names"
            raise InputError(f"{file}#{wanted}", fact, _listed(found, counts))
    if wanted == OPTIMIZER and (found := list(_optimizers((), top, holding, set()))):
        if len(found) == 1:
            return _refined(found[0], counts)
        fact = f"has the states of {len(found)} optimizers"
        raise InputError(file, fact, _listed(found, counts))
    known = _known_places(places, top, holding)
    hint = _listed(known, counts) if known else "it has no other state dict"
    raise InputError(f"{file}#{wanted}", f"no state dict in the file is named `{wanted}`", hint)


def _optimizers(
    path: tuple[str, ...], value: object, holding: set[int], seen: set[int]
) -> Iterator[Container]:
    """What holds the states of optimizers, outermost first."""
    if is_optimizer(value) or are_optimizers(value):
        yield Container(path, value)
        return
    seen.add(id(value))
    if len(path) > NESTING:
        return
    for name, child in children(value):
        if id(child) in holding and id(child) not in seen:
            yield from _optimizers((*path, name), unwrap(child), holding, seen)


def _ending_in(
    name: str, places: list[Container], top: object, holding: set[int]
) -> list[Container]:
    """The state dicts whose paths end in a name; without any, all containers whose paths do."""
    ends = [place for place in places if f".{place.text}".endswith(f".{name}")]
    if ends:
        return ends
    every = _walk((), top, holding, set())
    return [place for place in every if place.text.endswith(f".{name}")]


def _known_places(places: list[Container], top: object, holding: set[int]) -> list[Container]:
    """The state dicts that have a path, and what else lies at the file's top."""
    covered = {place.path[:1] for place in places}
    beside = [Container((name,), child) for name, child in children(top) if id(child) in holding]
    others = [place for place in beside if place.path not in covered]
    return [place for place in (*places, *others) if place.path]


def _listed(places: list[Container], counts: TensorCounts) -> str:
    named = [f"`{place.text}` ({_counted(counts.of(place.value))})" for place in places[:MAX_NAMES]]
    more = f" and {len(places) - MAX_NAMES} more" if len(places) > MAX_NAMES else ""
    return f"it has {', '.join(named)}{more}"


def _counted(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _refined(found: Container, counts: TensorCounts) -> Container:
    """The one state dict inside of what was named that has a known name, or its one optimizer;
    else all of it.
    """
    if are_optimizers(found.value) and len(listed := list(children(found.value))) == 1:
        name, optimizer = listed[0]
        return Container((*found.path, name), unwrap(optimizer))
    is_copy = is_averaged_copy(found.path[-1:])
    inside = [
        place
        for place in find_inside(found, counts)
        if len(place.path) > len(found.path) and (is_copy or not is_averaged_copy(place.path[-1:]))
    ]
    depth = len(found.path)
    known = [place for place in inside if all(name in RANKS for name in place.path[depth:])]
    return known[0] if len(known) == 1 else found


def _descend(
    path: tuple[str, ...], value: object, rest: str, holding: set[int]
) -> Container | None:
    """The object at a dotted path; names may have dots themselves."""
    if len(path) > NESTING:
        return None
    for name, child in module_children(value) or children(value):
        if id(child) not in holding:
            continue
        if name == rest:
            return Container((*path, name), unwrap(child))
        if rest.startswith(f"{name}.") and (
            found := _descend((*path, name), unwrap(child), rest[len(name) + 1 :], holding)
        ):
            return found
    return None


def _walk(
    path: tuple[str, ...], value: object, holding: set[int], seen: set[int]
) -> Iterator[Container]:
    """Every container that holds tensors, each once, outermost first."""
    if len(path) > NESTING or len(seen) > NODES:
        raise PickleFault("refers to the same objects over and over")
    seen.add(id(value))
    for name, child in module_children(value) or children(value):
        if id(child) in holding and id(child) not in seen:
            yield Container((*path, name), unwrap(child))
            yield from _walk((*path, name), unwrap(child), holding, seen)
