"""Two checkpoints compared, and what to try where little pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from ckpt_tool.api.remarks.long_names import check_names
from ckpt_tool.api.remarks.outside import outside_of
from ckpt_tool.api.sides import label_of, open_side
from ckpt_tool.comparing import Diff, diff_catalogs
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.frozen import frozen
from ckpt_tool.watching import unwatched

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.comparing import Tolerance, Values
    from ckpt_tool.tensors import Catalog
    from ckpt_tool.watching import Watch


@frozen
class Comparison:
    """What is compared, and what counts as equal.

    `values` asks for the tensors' values; `renames` pairs keys that only one side has by alignment,
    with values as well every tensor by what it holds. `include` and `exclude` are patterns of keys,
    of both sides; a text stands for a tuple of one. Values may differ by `atol + rtol * |b|`, as in
    `torch.isclose`; None: by nothing.
    """

    values: bool = False
    renames: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        for name, number in (("--rtol", self.rtol), ("--atol", self.atol)):
            if number is not None and not 0 <= number < inf:
                raise InputError(
                    name, f"{number:g} is not a tolerance", "give 0 or more, for example `1e-5`"
                )
            if number is not None and not self.values:
                raise InputError(
                    name,
                    "says by how much values may differ, and no values are compared",
                    "add `--values`",
                )

    @property
    def tolerance(self) -> Tolerance | None:
        """By how much values may differ; None where they may not."""
        if self.rtol is None and self.atol is None:
            return None
        from ckpt_tool.comparing import Tolerance

        return Tolerance(self.rtol or 0.0, self.atol or 0.0)


def diff_checkpoints(
    a: Given,
    b: Given,
    values: bool = False,
    renames: bool = False,
    options: Comparison | None = None,
    watch: Watch = unwatched,
) -> Diff:
    """The difference of two checkpoints, any formats; with `values`, of their tensors' values too.

    With `renames`, keys that only one side has are paired by alignment; with values as well, every
    tensor by what it holds. `options` says everything else. A side is a path, an open checkpoint, a
    state dict or a module.
    """
    options = options or Comparison(values, renames)
    with open_side(a) as source, open_side(b, source) as target:
        check_names(source.path, source.catalog)
        check_names(target.path, target.catalog)
        one, other = chosen(source.definite(), target.definite(), options)
        result = (
            _diff_by_alignment(one, other, options, watch, source.catalog)
            if options.renames
            else diff_open(one, other, options, watch)
        )
        is_chosen = bool(options.include or options.exclude)
        both, notes = outside_of(source, target, is_chosen)
        beside = _beside(*both, result, options) if both else None
        layouts = tuple(
            f"{side.path}: {side.contents.layout}"
            for side in (source, target)
            if side.contents.layout
        )
        return replace(
            result,
            beside=beside,
            labels=(label_of(source), label_of(target)),
            notes=(*result.notes, *notes),
            layouts=layouts,
            whole=(source.catalog, target.catalog) if is_chosen else None,
        )


def _diff_by_alignment(
    source: Checkpoint, target: Checkpoint, options: Comparison, watch: Watch, every: Catalog
) -> Diff:
    from ckpt_tool.api.renames import diff_by_alignment, not_aligned

    values, tolerance = options.values, options.tolerance
    try:
        return diff_by_alignment(source, target, values, tolerance, watch, every)
    except InputError as error:
        if not (note := not_aligned(error)):
            raise
    found = diff_open(source, target, options, watch)
    return replace(found, notes=(*found.notes, note))


def _beside(source: Checkpoint, target: Checkpoint, diff: Diff, options: Comparison) -> Diff:
    from ckpt_tool.api.renames import diff_beside

    found = diff_beside(source, target, diff, options.values, options.tolerance)
    return diff_open(source, target, options) if found is None else found


def diff_open(
    source: Checkpoint, target: Checkpoint, options: Comparison, watch: Watch = unwatched
) -> Diff:
    """The difference of two open checkpoints: of keys, or of values. Raises InputError for a key
    list without digests, of which values are asked, and for digests with a tolerance.
    """
    if not options.values:
        return diff_catalogs(source.catalog, target.catalog)
    from ckpt_tool.comparing import compare_all, compare_digests

    for side in (source, target):
        if not side.has_digests:
            hint = "`ckpt show --digests` writes one that has digests"
            raise InputError(side.path, "is a key list: it has no values to compare", hint)
    if source.has_values and target.has_values:
        return diff_catalogs(
            source.catalog,
            target.catalog,
            lambda keys: _watched(
                compare_all(source, target, keys, options.tolerance), source, keys, watch
            ),
        )
    if options.tolerance is not None:
        side = target if source.has_values else source
        raise InputError(
            side.path,
            f"is a key list: its digests say that values differ, not by how much; "
            f"{_asked(options)} can't be answered",
            f"give the checkpoint itself, or leave out {_asked(options)}",
        )
    return diff_catalogs(
        source.catalog,
        target.catalog,
        lambda keys: _watched(compare_digests(source, target, keys), source, keys, watch),
    )


def _asked(options: Comparison) -> str:
    """The options that say a tolerance."""
    given = (("--rtol", options.rtol), ("--atol", options.atol))
    return " and ".join(f"`{name}`" for name, number in given if number is not None)


def _watched(
    compared: Iterable[Values | None], source: Checkpoint, keys: Sequence[str], watch: Watch
) -> Iterator[Values | None]:
    """What was compared, while somebody watches how much."""
    sizes = [source.catalog[key].nbytes for key in keys]
    with watch(sum(sizes)) as on_progress:
        for found, size in zip(compared, sizes, strict=True):
            on_progress(size)
            yield found


def chosen(
    source: Checkpoint, target: Checkpoint, options: Comparison
) -> tuple[Checkpoint, Checkpoint]:
    """Both sides with the keys that are to be compared; where names may differ, with those that
    belong to them on the other side. Raises InputError for a pattern that matches none, and where
    nothing is left.
    """
    if not (options.include or options.exclude):
        return source, target
    sides = source, target
    keys = dict.fromkeys(key for side in sides for key in (*side.catalog, *side.catalog.unreadable))
    wanted = set(keys)
    if options.include:
        wanted = _with_partners(_matching("--include", options.include, keys), *sides, options)
    left_out = _matching("--exclude", options.exclude, keys)
    wanted -= _with_partners(left_out, *sides, options) if left_out else left_out
    if keys and not wanted:
        raise InputError("--exclude", "leaves no key that could be compared", "exclude less")
    return source.only(wanted), target.only(wanted)


def _with_partners(
    keys: set[str], source: Checkpoint, target: Checkpoint, options: Comparison
) -> set[str]:
    """Some keys, and where names may differ what belongs to them on the other side."""
    if not options.renames:
        return keys
    from ckpt_tool.api.renames import counterparts, not_aligned

    try:
        return keys | counterparts(source.catalog, target.catalog, keys)
    except InputError as error:
        if not not_aligned(error):
            raise
        return keys


def filtered(checkpoint: Checkpoint, patterns: Sequence[str]) -> Checkpoint:
    """The checkpoint with the keys alone that match one of the patterns; all without patterns.
    Raises InputError for a pattern that matches none.
    """
    if not patterns:
        return checkpoint
    keys = [*checkpoint.catalog, *checkpoint.catalog.unreadable]
    return checkpoint.only(_matching("--filter", patterns, keys, "no key"))


def _matching(
    option: str,
    patterns: Sequence[str],
    keys: Iterable[str],
    nothing: str = "no key of either side",
) -> set[str]:
    from ckpt_tool.keys import Matcher, PatternError, meant_note, parse

    found: set[str] = set()
    for pattern in patterns:
        try:
            matcher = Matcher(parse(pattern))
        except PatternError as error:
            raise InputError(option, f"`{pattern}`: {error.message}") from None
        matching = {key for key in keys if matcher.match(key) is not None}
        if not matching:
            raise InputError(
                option, f"`{pattern}` matches {nothing}", meant_note(pattern, list(keys))
            )
        found |= matching
    return found
