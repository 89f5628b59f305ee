"""Rule files looked at: checked, inverted, matched with a pair of checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.outputs import refuse_address
from ckpt_tool.api.planning import plan_checkpoint
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.api.sides import open_source
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import open_checkpoint

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.formats import LeftBehind
    from ckpt_tool.importing.transformers import Imported
    from ckpt_tool.mapping import InvertedRules


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found; `rules` and `tests` count what was read. `notes` are worth a look and no
    fault.
    """

    problems: tuple[Problem, ...]
    rules: int = 0
    tests: int = 0
    notes: tuple[Problem, ...] = ()


def asked_by(path: str) -> tuple[str, ...]:
    """What unpickling a checkpoint would call or import besides making its tensors. Raises
    InputError.
    """
    with open_checkpoint(path) as checkpoint:
        return checkpoint.asked


def beside_weights(path: str) -> tuple[LeftBehind, ...]:
    """What a file holds beside the tensors of its state dict. Raises InputError."""
    with open_checkpoint(path) as checkpoint:
        return tuple(checkpoint.contents.left_behind)


def check(source: Given | None, target: Given | None, options: MappingOptions) -> Checked:
    """The problems of a rule file: by itself, with a source's keys, or with both sides'. Raises
    InputError.
    """
    from ckpt_tool.keys.effort import Effort
    from ckpt_tool.mapping import check_rules, find_notes, read_config

    try:
        rules = read_rules(options)
    except RuleError as error:
        return Checked(error.problems)
    if rules is None:
        raise InputError("rules", "are missing", "give a rule file, or rules `SOURCE -> TARGET`")
    effort = Effort()
    alone = source is None
    problems = check_rules(rules, params=options.params, effort=effort) if alone else []
    found = len(rules.rules), len(rules.tests), tuple(find_notes(rules, effort))
    if source is not None and target is not None:
        with plan_checkpoint(source, target, options) as planned:
            return Checked(planned.problems, *found)
    if source is not None:
        with open_source(source, rules.unwrap) as opened_source:
            config = (
                read_config(opened_source.path) if opened_source.is_file and rules.params else {}
            )
            return Checked(
                tuple(check_rules(rules, opened_source.catalog, options.params, config)), *found
            )
    return Checked(tuple(problems), *found)


def invert(source: Given | None, target: Given | None, options: MappingOptions) -> InvertedRules:
    """The inverse of a rule file; with both sides' keys, sizes that the rules alone don't tell come
    from them, and it is proved on them.

    Raises RuleError for rules that are not sound.
    """
    from ckpt_tool.mapping import invert_rules, read_config

    if source is None:
        rules = read_rules(options)
        assert rules is not None
        return invert_rules(rules)
    with plan_checkpoint(source, target, options) as planned:
        assert planned.rules is not None
        named = planned.source.is_file and planned.rules.params
        config = read_config(planned.source.path) if named else {}
        return invert_rules(planned.rules, planned.checked(), options.params, config)


def write_text(path: str, text: str, force: bool = False, inputs: Iterable[str] = ()) -> None:
    """Writes a small text file, complete or not at all, and never in the place of one of the
    inputs. Raises OutputError.
    """
    from ckpt_tool.engine.copying import write_at
    from ckpt_tool.engine.durable.file import atomic_output
    from ckpt_tool.engine.inputs import refuse_input

    refuse_address(path)
    refuse_input(path, inputs)
    content = text.encode()
    with atomic_output(path, len(content), force) as fd:
        write_at(fd, content, 0)


def import_mapping(model_type: str) -> Imported:
    """A rule file out of the installed transformers' table of conversions. Raises InputError."""
    from ckpt_tool.importing import transformers

    return transformers.import_mapping(model_type)
