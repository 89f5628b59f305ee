"""Fuzzed rules: what must hold of their patterns, of the plans that they make, and of what turns them round."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, product
from math import prod
from pathlib import Path

from ckpt_tool.errors import CkptError
from ckpt_tool.keys import (
    Choice,
    Matcher,
    Number,
    Pattern,
    PatternError,
    Renderer,
    Rest,
    Star,
    parse,
)
from ckpt_tool.mapping import Plan, RuleSet, compile_plan, find_notes, invert_rules
from ckpt_tool.mapping import check_rules as analyse_rules
from ckpt_tool.mapping.inverting.invert import InvertedRules  # type: ignore[attr-defined]
from ckpt_tool.mapping.reading.rule_file import read_rule_text
from ckpt_tool.mapping.rules import Rule
from ckpt_tool.ops import OpError, TensorForm, infer_chain
from ckpt_tool.report.parts.problems import notes_text
from ckpt_tool.report.plan import PlanNames, plan_text
from ckpt_tool.tensors import Catalog, DType, Shape, TensorInfo
from tests.hostile.promises import CATALOG, Misread, check_error, check_shown

SHAPES: tuple[Shape, ...] = ((24, 24), (24,), (24, 24, 2, 2), (1, 1, 1, 24), (2, 3, 24), ())
MAX_PATTERNS, MAX_KEYS = 200, 48
"""Patterns that get keys, and keys for each."""


def check_rules(raw: bytes, path: Path) -> None:
    """Rules are read, looked over, compiled for keys that they match, and inverted; or refused."""
    try:
        rules = read_rule_text(raw.decode("utf-8", "replace"), "rules.yaml")
        check_shown(notes_text([*islice(find_notes(rules), 100), *analyse_rules(rules, CATALOG)]))
        plan = compile_plan(replace(rules, rest_source="drop"), _matched(rules))
        check_shown(plan_text(plan, PlanNames("a", None, rules.files)))
        turned = invert_rules(rules, plan)
    except CkptError as error:
        return check_error(error)
    return _check_inverse(plan, turned)


def _check_inverse(plan: Plan, turned: InvertedRules) -> None:
    """What was inverted can be read; where it says that it is exact, it leads every key back to where it came from."""
    if turned.yaml is None:
        return None
    inverse = read_rule_text(turned.yaml, "inverse.yaml")
    if not turned.stripped and all(each.verdict == "exact" for each in turned.rules):
        try:
            back = compile_plan(inverse, plan.outputs)
        except CkptError as error:
            return check_error(error)
        for way, other in ((plan, back), (back, plan)):
            led = {(step.inputs, step.outputs) for step in way.steps if not step.ops and step.inputs}
            lost = led - {(step.outputs, step.inputs) for step in other.steps}
            if lost:
                raise Misread(f"the inverse of {sorted(lost)[:3]} is another")
    return None


def check_pattern(raw: bytes, path: Path) -> None:
    source, _, target = raw.decode("utf-8", "replace").partition(" -> ")
    for side in (source, target):
        try:
            pattern = parse(side, {"t": ("a", "b")})
            matcher = Matcher(pattern)
        except PatternError:
            continue
        for key in (*CATALOG, "a.1" * 100, "." * 300, "1" * 300, ""):
            binding = matcher.match(key)
            if binding is not None and Renderer(pattern)(binding) != key:
                raise Misread(f"{side!r} matches {key!r} and renders {Renderer(pattern)(binding)!r}")
    check_rules(f"rules:\n  - {json.dumps(source)}: {json.dumps(target)}\n".encode(), path)
    check_rules(b"rules:\n  - " + raw + b"\n", path)


def _matched(rules: RuleSet) -> Catalog:
    """The given keys, and some that the rules' sources match, of shapes that their ops take."""
    shapes: dict[str, Shape] = dict.fromkeys(CATALOG, SHAPES[0])
    patterns = [(side.pattern, _shape(rule)) for rule in rules.rules for side in rule.sources]
    patterns += [(selector.pattern, SHAPES[0]) for selector in rules.drop]
    for pattern, shape in patterns[:MAX_PATTERNS]:
        shapes |= dict.fromkeys(islice(_examples(pattern), MAX_KEYS), shape)
    return Catalog(TensorInfo(key, DType.F32, shape) for key, shape in shapes.items())


def _shape(rule: Rule) -> Shape:
    """The first that its ops take, or any."""
    for shape in SHAPES if rule.ops else ():
        with suppress(OpError):
            infer_chain(rule.ops, [TensorForm(DType.F32, shape)] * len(rule.sources))
            return shape
    return SHAPES[0]


def _examples(pattern: Pattern) -> Iterator[str]:
    """Keys that it matches, with all words of its choices."""
    choices = prod(len(token.words) for token in pattern.tokens if isinstance(token, Choice))
    values: dict[str, Sequence[int | str]] = {}
    for token in pattern.tokens:
        match token:
            case Choice(id=id, words=words):
                values[id] = range(len(words))
            case Number(affine):
                values |= {name: pattern.bounds.get(name, range(9))[: 2 if choices < 9 else 1] for name in affine.names}
            case Star(id) | Rest(id):
                values[id] = ("weight",)
    for chosen in product(*values.values()):
        with suppress(ValueError):  # a number that would be negative
            yield Renderer(pattern)(dict(zip(values, chosen, strict=True)))
