"""Where rule files are: given by the user, or shipped with the package."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt_tool.api.options import MappingOptions
from ckpt_tool.errors import InputError, Location
from ckpt_tool.formats.remote.addresses import is_named

if TYPE_CHECKING:
    from ckpt_tool.mapping import RuleSet

FACTORY = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
"""A target that is built by a function: `package.module:factory`."""


def read_rules(options: MappingOptions) -> RuleSet | None:
    """The rules that `options` name, files before inline ones; None where it names none."""
    if not options.rules and not options.inline:
        return None
    from ckpt_tool.mapping import join_rule_sets, read_inline_rules, read_rule_files

    inline = (
        read_inline_rules(options.inline, options.drop, options.keep)
        if options.inline or options.drop or options.keep
        else None
    )
    if not options.rules:
        return inline
    rules = read_rule_files([find_rules(name) for name in options.rules], beside)
    rules = replace(rules, files=tuple(_shown(path) for path in rules.files))
    return join_rule_sets(rules, inline) if inline else rules


def check_numbers(rules: RuleSet | None, options: MappingOptions) -> None:
    """Raises InputError for numbers of parameters where there are no rules that could name them."""
    if rules is None and options.params:
        name = next(iter(options.params))
        raise InputError(
            "--set", f"gives `{name}` a number, and there are no rules", "leave it out"
        )


def read_named(options: MappingOptions) -> RuleSet:
    """The keys that `options` name besides another way of mapping than rules, as a set without
    rules. Raises RuleError.
    """
    if not options.drop and not options.keep:
        from ckpt_tool.mapping import RuleSet

        return RuleSet(("-e",), (), Location("-e", 1, 1))
    from ckpt_tool.mapping import read_inline_rules

    return read_inline_rules((), options.drop, options.keep)


def _shown(path: str) -> str:
    """What a rule file is called in a report: a shipped one not by its place in the
    installation.
    """
    return f"mappings/{Path(path).name}" if Path(path).parent in mapping_folders() else path


def find_rules(name: str) -> str:
    """The path of a rule file: as it is given, else among the shipped mappings. Raises
    InputError.
    """
    if os.path.exists(name):
        return name
    for folder in mapping_folders():
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if os.path.isfile(candidate) and os.sep not in name:
                return str(candidate)
    from ckpt_tool.formats.remote.slips import nearest_file

    near = nearest_file(name, (*_beside(name), *shipped_mappings()))
    raise InputError(
        name,
        "no such file, and no shipped mapping has that name",
        f"did you mean {near}?" if near else None,
    )


def _beside(name: str) -> list[str]:
    """The rule files in the folder of one that isn't there."""
    folder = os.path.dirname(name)
    try:
        names = sorted(os.listdir(folder or os.curdir))
    except OSError:
        return []
    return [os.path.join(folder, each) for each in names if each.endswith((".yaml", ".yml"))]


def mapping_folders() -> list[Path]:
    """Where the shipped mappings are: inside the installed package, or beside it in a checkout of
    the project.
    """
    here = Path(__file__).parent.parent
    return [
        folder for folder in (here / "mappings", here.parent / "mappings") if os.path.isdir(folder)
    ]


def shipped_mappings() -> list[str]:
    """The names of the rule files that are shipped, sorted."""
    return sorted({path.name for folder in mapping_folders() for path in folder.glob("*.yaml")})


def find_shipped(name: str) -> str:
    """The path of a shipped mapping."""
    return next(str(folder / name) for folder in mapping_folders() if os.path.isfile(folder / name))


def beside(rule_file: str, path: str) -> str:
    """A path in a rule file is meant from its folder; in a shipped mapping, from the working
    directory.
    """
    is_elsewhere = "://" in path or is_named(path) or re.fullmatch(FACTORY, path) is not None
    if os.path.isabs(path) or is_elsewhere or path == "-":
        return path
    if Path(rule_file).parent in mapping_folders():
        return path
    return os.path.join(os.path.dirname(rule_file), path)


def rules_schema() -> str:
    """The JSON Schema of rule files, which lies beside the shipped mappings."""
    return next(
        path for folder in mapping_folders() if os.path.isfile(path := folder / "rules.schema.json")
    ).read_text(encoding="utf-8")
