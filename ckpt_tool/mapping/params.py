"""The numbers that rules may name: from `--set`, a config file, a shape, or a default. Never
guessed.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats.remote.addresses import is_address
from ckpt_tool.formats.strict_json import JsonFault, object_of
from ckpt_tool.keys import Matcher, Pattern, PatternError, nearest, with_numbers
from ckpt_tool.mapping.assign import names_for_patterns
from ckpt_tool.mapping.formulas import FormulaError
from ckpt_tool.mapping.rules import Param, Rule, RuleSet, RuleSide, Selector
from ckpt_tool.ops import Op, OpError
from ckpt_tool.tensors import Catalog, TensorInfo

CONFIG_BYTES = 16 << 20
MAX_NUMBER = 10**18
"""Numbers of parameters are below this."""


CONFIG_NAMES = ("config.json", "params.json")
"""What holds the sizes of a network beside its weights: transformers' file, and that of Meta's
Llama.
"""


def read_config(checkpoint: str) -> dict[str, object]:
    """The config.json or params.json beside a checkpoint file, or in its folder; nothing where
    there is none.

    Raises InputError for what is no JSON.
    """
    if is_address(checkpoint.partition("#")[0]):
        from ckpt_tool.formats.remote.places import read_beside

        name, content = read_beside(checkpoint.partition("#")[0], CONFIG_NAMES, CONFIG_BYTES)
        return _config(content, name) if content else {}
    place = Path(checkpoint.partition("#")[0])
    folder = place if os.path.isdir(place) else place.parent
    path = next((folder / name for name in CONFIG_NAMES if os.path.isfile(folder / name)), None)
    if path is None:
        return {}
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise InputError(str(path), f"is larger than {CONFIG_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"is no JSON: {error}") from None
    return _config(content, str(path))


def _config(content: bytes, path: str) -> dict[str, object]:
    try:
        config = json.loads(content.decode(), object_pairs_hook=object_of)
    except JsonFault as fault:
        raise InputError(path, str(fault)) from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is no JSON: {error}") from None
    return config if isinstance(config, dict) else {}


def resolve_params(
    rules: RuleSet,
    params: Mapping[str, int],
    config: Mapping[str, object],
    source: Catalog,
    target: Catalog | None = None,
) -> tuple[dict[str, int], list[Problem]]:
    """The number of each declared parameter, and a problem for each that has none."""
    numbers: dict[str, int] = {}
    problems: list[Problem] = []
    unset: set[str] = set()
    names = names_for_patterns(source, rules.strip) if rules.params else {}
    for param in rules.params:
        catalog = dict(target or {}) if param.of_target else names
        try:
            number = _number(param, params, config, catalog, numbers)
            problems += _disagreement(param, number, numbers)
            if number is not None and abs(number) >= MAX_NUMBER:
                raise FormulaError("what it is given has more than 18 digits")
        except FormulaError as error:
            message = f"`{param.name}` has no number: {error}"
            problems.append(Problem("unset-param", message, param.where))
            continue
        if number is None:
            is_missing = param.of_target and target is None
            # what a formula makes of a number that is asked for already needs no other
            if not (param.formula and unset.intersection(param.formula.names)):
                problems.append(_unresolved(param, None if is_missing else catalog))
            unset.add(param.name)
        else:
            numbers[param.name] = number
    return numbers, [*problems, *_unknown(rules, params)]


def known_numbers(
    rules: RuleSet, params: Mapping[str, int]
) -> tuple[dict[str, int], list[Problem]]:
    """The numbers that need no checkpoint: those that are given, defaults, formulas of both; and
    what is wrong with them.
    """
    numbers, problems = resolve_params(rules, params, {}, Catalog(()))
    return numbers, [problem for problem in problems if problem.code != "unset-param"]


def _unknown(rules: RuleSet, given: Iterable[str]) -> Iterator[Problem]:
    """A problem for each name that is given a number and that the rules don't declare."""
    declared = [param.name for param in rules.params]
    for name in given:
        if name not in declared:
            near = nearest(name, declared)
            message = f"`--set {name}`: the rules declare no such parameter"
            notes = (f"did you mean `{near}`?",) if near else ()
            yield Problem("unknown-param", message, rules.where, notes)


def _number(
    param: Param,
    params: Mapping[str, int],
    config: Mapping[str, object],
    catalog: Mapping[str, TensorInfo],
    known: Mapping[str, int],
) -> int | None:
    """The number, from the first place that has it. Raises FormulaError for a formula without a
    whole value.
    """
    if param.name in params:
        return params[param.name]
    found = _from_config(param, config)
    if found is None:
        found = _from_catalog(param, catalog)
    if found is None and param.formula and all(name in known for name in param.formula.names):
        found = param.formula.value(known)
    return param.default if found is None else found


def _from_config(param: Param, config: Mapping[str, object]) -> int | None:
    values = (_config_value(config, key) for key in param.config_keys)
    return next((value for value in values if value is not None), None)


def _from_catalog(param: Param, catalog: Mapping[str, TensorInfo]) -> int | None:
    """The dimension of a key, or how many keys a pattern matches; None where there are none."""
    if param.dimension:
        key, axis = param.dimension
        shape = catalog[key].shape if key in catalog else ()
        if -len(shape) <= axis < len(shape):
            return shape[axis]
    if param.count is None:
        return None
    return sum(param.count.match(key) is not None for key in catalog) or None


def _disagreement(param: Param, number: int | None, known: Mapping[str, int]) -> list[Problem]:
    """A number that was given, and isn't what the parameter's own formula says."""
    if (
        number is None
        or param.formula is None
        or not all(name in known for name in param.formula.names)
    ):
        return []
    try:
        computed: object = param.formula.value(known)
    except FormulaError as error:
        computed = error
    if computed == number:
        return []
    fact = (
        f"is {number}, and `{param.formula.text}` gives {computed}"
        if isinstance(computed, int)
        else f"is {number}, but {computed}"
    )
    return [Problem("param-mismatch", f"`{param.name}` {fact}", param.where, (_given(known),))]


def _config_value(config: Mapping[str, object], key: str) -> int | None:
    value: object = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _unresolved(param: Param, catalog: Mapping[str, TensorInfo] | None) -> Problem:
    """The problem of a parameter that is in no place; None for a target that was not given."""
    ways = [f"`--set {param.name}=…`"]
    ways += [
        f"`{key}` in a config.json or params.json beside the source" for key in param.config_keys
    ]
    is_measured = param.dimension is not None or param.count is not None
    if catalog is None and is_measured:
        ways.append("a target, in which it is measured")
    notes = [f"give it by {' or '.join(ways)}"]
    if catalog is not None:
        notes += _not_measured(param, catalog)
    if param.formula:
        notes.append(f"`{param.formula.text}` needs params that have no number themselves")
    return Problem("unset-param", f"`{param.name}` has no number", param.where, tuple(notes))


def _not_measured(param: Param, catalog: Mapping[str, TensorInfo]) -> Iterator[str]:
    side = "target" if param.of_target else "source"
    if param.dimension:
        key, axis = param.dimension
        has = f"has no dimension {axis}" if key in catalog else f"is not a key of the {side}"
        yield f"`{key}` {has}"
    if param.count:
        yield f"`{param.count.pattern}` matches no key of the {side}"


Part = TypeVar("Part", Rule, Selector)


def bind_params(rules: RuleSet, numbers: Mapping[str, int]) -> RuleSet:
    """The rules with their parameters replaced by numbers, in patterns and in ops; those without a
    number stay. Raises RuleError.
    """
    if not rules.params:
        return rules
    problems: list[Problem] = []

    def bind(
        parts: Iterable[Part], bound: Callable[[Part, Mapping[str, int]], Part]
    ) -> tuple[Part, ...]:
        found = []
        for part in parts:
            try:
                found.append(bound(part, numbers))
            except (OpError, PatternError) as error:
                problems.append(Problem("bad-param", str(error), part.where, (_given(numbers),)))
        return tuple(found)

    bound_rules, drop, keep = (
        bind(rules.rules, _bind_rule),
        bind(rules.drop, _bind_selector),
        bind(rules.keep, _bind_selector),
    )
    if problems:
        raise RuleError(problems)
    return replace(rules, rules=bound_rules, drop=drop, keep=keep)


def _given(numbers: Mapping[str, int]) -> str:
    return f"with {', '.join(f'{name} = {number}' for name, number in numbers.items())}"


def _bind_rule(rule: Rule, numbers: Mapping[str, int]) -> Rule:
    sources, targets = (
        tuple(_bind_side(side, numbers) for side in sides) for sides in (rule.sources, rule.targets)
    )
    bounds = {
        name: span for side in (*sources, *targets) for name, span in side.pattern.bounds.items()
    }
    matchers = tuple(Matcher(side.pattern, bounds) for side in sources or targets)
    return replace(
        rule,
        sources=sources,
        targets=targets,
        matchers=matchers,
        ops=tuple(_bind_op(op, numbers) for op in rule.ops),
    )


def _bind_side(side: RuleSide, numbers: Mapping[str, int]) -> RuleSide:
    return replace(side, pattern=with_numbers(side.pattern, numbers))


def _bind_op(op: Op, numbers: Mapping[str, int]) -> Op:
    names = op.parameters()
    return op.bind(numbers) if names and names <= numbers.keys() else op


def _bind_selector(selector: Selector, numbers: Mapping[str, int]) -> Selector:
    pattern: Pattern = with_numbers(selector.pattern, numbers)
    return (
        selector
        if pattern is selector.pattern
        else replace(selector, pattern=pattern, matcher=Matcher(pattern))
    )
