"""All that is looked for, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.errors import FormatError, InputError, WithoutTensors
from ckpt_tool.examining.config import Config, config_findings, tied_values_findings
from ckpt_tool.examining.files import digest_findings, index_findings
from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.measuring import measure
from ckpt_tool.examining.repeats import (
    equal_findings,
    overlap_findings,
    tie_findings,
    untied,
)
from ckpt_tool.examining.scales import scale_findings
from ckpt_tool.examining.siblings import sibling_groups
from ckpt_tool.examining.values import value_findings
from ckpt_tool.examining.zeros import empty_findings
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.tensors import counted

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint


Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Health:
    """What was found in a checkpoint of so many tensors and bytes; nothing is wrong where nothing
    was found. `notes` say what was not examined.
    """

    path: str
    findings: tuple[Finding, ...]
    tensors: int = 0
    nbytes: int = 0
    notes: tuple[str, ...] = ()
    unreadable: int = 0
    """Tensors of the state dict that can't be read here, and were not examined."""
    outside: int = 0
    """Tensors outside of the state dict, which were not examined."""
    distinct_nbytes: int = 0
    """The bytes, those of a tied weight once."""

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong, and every tensor of the state dict was read."""
        return not self.findings and not self.unreadable


def examine(
    checkpoint: Checkpoint,
    config: Config | None = None,
    on_progress: Callable[[int], None] = lambda nbytes: None,
) -> Health:
    """Reads every tensor once and reports what is wrong: values, ties, scales, digests, the index,
    and what `config` (a config.json) contradicts.

    Raises InputError for a key list, which has no values, and where no tensor is, or none can be
    read.
    """
    if not checkpoint.has_values:
        raise InputError(checkpoint.path, "is a key list: it has no values to examine")
    catalog = checkpoint.catalog
    if not catalog and catalog.unreadable:
        raise InputError(
            checkpoint.path, "has no tensors that can be read here, so none to examine"
        )
    findings = [
        *index_findings(checkpoint),
        *digest_findings(checkpoint),
        *config_findings(catalog, config or {}, checkpoint.path),
        *_value_findings(checkpoint, config or {}, on_progress),
    ]
    if not catalog and not findings:
        raise InputError(checkpoint.path, "holds no tensors, so none to examine")
    return Health(
        checkpoint.path,
        tuple(findings),
        len(catalog),
        catalog.nbytes,
        _unread(checkpoint),
        len(catalog.unreadable),
        len(checkpoint.contents.elsewhere),
        catalog.distinct_nbytes,
    )


def _unread(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What of a checkpoint was not examined, in words; and what is to be known of it."""
    contents = checkpoint.contents
    odd, others = len(checkpoint.catalog.unreadable), len(contents.elsewhere)
    notes = []
    if odd:
        were = "was" if odd == 1 else "were"
        notes.append(f"{counted(odd, 'tensor')} can't be read here, and so {were} not examined")
    if others:
        were = "was" if others == 1 else "were"
        fact = f"{counted(others, 'tensor')} outside of the state dict {were} not examined"
        notes.append(f"{fact}: name their part, as in {_a_part(checkpoint)}")
    if contents.layout and not contents.stale_index:
        notes.append(contents.layout)
    return tuple(notes)


def _a_part(checkpoint: Checkpoint) -> str:
    """A part of the file that is outside of its state dict, as it is named on the command line."""
    parts = [each for each in checkpoint.contents.left_behind if each.tensors]
    networks = [each for each in parts if each.kind != "optimizer"]
    path = checkpoint.path.partition("#")[0]
    return f"{path}#{(networks or parts)[0].path if parts else 'optim'}"


def _value_findings(
    checkpoint: Checkpoint, config: Config, on_progress: Callable[[int], None]
) -> Iterator[Finding]:
    catalog = checkpoint.catalog
    measured, damaged = measure(checkpoint, untied(catalog), on_progress)
    groups = sibling_groups(catalog)
    yield from damaged
    yield from empty_findings(catalog, measured, checkpoint.path)
    yield from value_findings(catalog, groups, measured)
    yield from scale_findings(catalog, measured)
    sizes = {key: one.squares for key, one in measured.items()}
    yield from tied_values_findings(catalog, config, checkpoint.path, sizes)
    yield from tie_findings(catalog, groups)
    yield from overlap_findings(_ranges(checkpoint))
    yield from equal_findings(
        catalog,
        groups,
        measured,
        lambda one, other: checkpoint.raw(one) == checkpoint.raw(other),
    )


def _ranges(checkpoint: Checkpoint) -> dict[str, tuple[str, int, int]]:
    """The byte range of each tensor that is one."""
    found = ((key, checkpoint.extent(key)) for key in checkpoint.catalog)
    return {
        key: (extent.file.path, extent.offset, extent.offset + extent.length)
        for key, extent in found
        if extent
    }


@contextmanager
def _unwatched(nbytes: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def examine_path(
    path: str | os.PathLike[str],
    read_config: Callable[[str], Config] = lambda path: {},
    progress: Progress = _unwatched,
) -> Health:
    """The same of a path: a file that can't be read because it is damaged is a finding, too, and so
    is a config.json that is none.

    `read_config` gives the config.json beside a checkpoint; `progress`, of so many bytes, what
    hears how many more were read. Raises InputError where there is no checkpoint.
    """
    text = os.fspath(path)
    try:
        checkpoint = open_checkpoint(text)
    except WithoutTensors:
        raise
    except FormatError as error:
        what = f"{error.fact}; {error.hint}" if error.hint else error.fact
        return Health(text, (Finding("damaged", error.path, what),))
    with checkpoint, progress(checkpoint.catalog.nbytes) as on_progress:
        try:
            config = read_config(text)
        except InputError as error:
            found = examine(checkpoint, None, on_progress)
            fault = Finding("config", error.path, error.fact)
            return replace(found, findings=(fault, *found.findings))
        return examine(checkpoint, config, on_progress)
