"""The numbers that rules may name: from `--set`, a config file, a shape, or a default. Never guessed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ckpt_tool.errors import InputError, Problem
from ckpt_tool.keys import Matcher, Pattern, nearest, with_numbers
from ckpt_tool.mapping.rules import Param, Rule, RuleSet, Selector, Side
from ckpt_tool.ops import Op
from ckpt_tool.tensors import Catalog

CONFIG_BYTES = 16 << 20


def read_config(folder: str) -> dict[str, object]:
    """The config.json of a folder, or nothing where there is none. Raises InputError for one that is no JSON object."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise InputError(str(path), f"is larger than {CONFIG_BYTES:,} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), f"is no JSON: {error}") from None
    return config if isinstance(config, dict) else {}


def resolve_params(
    rules: RuleSet, settings: Mapping[str, int], config: Mapping[str, object], source: Catalog
) -> tuple[dict[str, int], list[Problem]]:
    """The number of each declared parameter, and a problem for each that has none."""
    numbers: dict[str, int] = {}
    problems: list[Problem] = []
    for param in rules.params:
        number = _number(param, settings, config, source)
        if number is None:
            problems.append(_unresolved(param, source))
        else:
            numbers[param.name] = number
    for name in settings:
        if name not in {param.name for param in rules.params}:
            near = nearest(name, [param.name for param in rules.params])
            notes = (f"did you mean `{near}`?",) if near else ()
            problems.append(Problem("unknown-param", f"`--set {name}`: the rules declare no such parameter", rules.where, notes))
    return numbers, problems


def _number(param: Param, settings: Mapping[str, int], config: Mapping[str, object], source: Catalog) -> int | None:
    if param.name in settings:
        return settings[param.name]
    for key in param.config_keys:
        found = _config_value(config, key)
        if found is not None:
            return found
    if param.dimension:
        key, axis = param.dimension
        shape = source[key].shape if key in source else ()
        if -len(shape) <= axis < len(shape):
            return shape[axis]
    return param.default


def _config_value(config: Mapping[str, object], key: str) -> int | None:
    value: object = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _unresolved(param: Param, source: Catalog) -> Problem:
    ways = [f"`--set {param.name}=…`"]
    ways += [f"`{key}` in the config.json beside the source" for key in param.config_keys]
    notes = [f"give it by {' or '.join(ways)}"]
    if param.dimension:
        key, axis = param.dimension
        has = f"has no dimension {axis}" if key in source else "is no key of the source"
        notes.append(f"`{key}` {has}")
    return Problem("unset-param", f"`{param.name}` has no number", param.where, tuple(notes))


def bind_params(rules: RuleSet, numbers: Mapping[str, int]) -> RuleSet:
    """The rules with their parameters replaced by numbers, in patterns and in ops. Raises OpError."""
    if not rules.params:
        return rules
    return replace(
        rules,
        rules=tuple(_bind_rule(rule, numbers) for rule in rules.rules),
        drop=tuple(_bind_selector(selector, numbers) for selector in rules.drop),
        keep=tuple(_bind_selector(selector, numbers) for selector in rules.keep),
    )


def _bind_rule(rule: Rule, numbers: Mapping[str, int]) -> Rule:
    sources, targets = (tuple(_bind_side(side, numbers) for side in sides) for sides in (rule.sources, rule.targets))
    bounds = {name: span for side in (*sources, *targets) for name, span in side.pattern.bounds.items()}
    matchers = tuple(Matcher(side.pattern, bounds) for side in sources)
    return replace(rule, sources=sources, targets=targets, matchers=matchers, ops=tuple(_bind_op(op, numbers) for op in rule.ops))


def _bind_side(side: Side, numbers: Mapping[str, int]) -> Side:
    return replace(side, pattern=with_numbers(side.pattern, numbers))


def _bind_op(op: Op, numbers: Mapping[str, int]) -> Op:
    return op.bind(numbers) if op.parameters() else op


def _bind_selector(selector: Selector, numbers: Mapping[str, int]) -> Selector:
    pattern: Pattern = with_numbers(selector.pattern, numbers)
    return selector if pattern is selector.pattern else replace(selector, pattern=pattern, matcher=Matcher(pattern))
