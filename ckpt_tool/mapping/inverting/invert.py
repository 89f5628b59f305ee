"""Rules turned round: what maps the target back onto the source, with a verdict for each rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.errors import Location, Problem, RuleError
from ckpt_tool.keys import PatternError, fold, quote
from ckpt_tool.keys.effort import Effort, TooMuchToCompare
from ckpt_tool.keys.write import write
from ckpt_tool.mapping.assign import strip_prefixes
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.checking.name_tests import check_tests
from ckpt_tool.mapping.inverting.doubts import come_along, common_prefix, with_doubts, without_idle
from ckpt_tool.mapping.inverting.order import order_of_inverses, target_matchers
from ckpt_tool.mapping.inverting.proof import proved
from ckpt_tool.mapping.inverting.verdicts import InvertedRule, InvertedRules
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.reading.rule_file import read_rule_text
from ckpt_tool.mapping.reading.writing import flow, rule_line, scalar
from ckpt_tool.mapping.rules import NameTest, Param, Rule, RuleSet, Selector
from ckpt_tool.ops import (
    Inverse,
    OpError,
    TensorForm,
    infer_chain,
    invert_chain,
    ops_argument,
    weakest,
)


def invert_rules(
    rules: RuleSet,
    plan: Plan | None = None,
    params: Mapping[str, int] | None = None,
    config: Mapping[str, object] | None = None,
) -> InvertedRules:
    """The inverse rules. Raises RuleError.

    A plan that was made of the rules tells the sizes that they alone don't. With it, "exact" is
    proved: the way back is planned for what the plan gives, and leads to the source's keys and
    shapes. `params` and `config` give the numbers of parameters then.
    """
    unchosen = tuple(rule for block in rules.blocks for rule in block.rules) if plan is None else ()
    rules = with_blocks(rules, plan.source) if plan else rules
    stand_ins = dict.fromkeys((param.name for param in rules.params), 1)
    prefix = common_prefix(rules, plan)
    steps: dict[Location, list[Step]] = defaultdict(list)
    for step in plan.steps if plan else ():
        if step.origin.rule:
            steps[step.origin.rule.where].append(step)
    inverted = tuple(
        _inverted(rule, _inverse(rule, steps[rule.where], plan), stand_ins, prefix or "")
        for rule in rules.rules
    )
    why = "a source's headers choose among the blocks of `when:`; name one"
    inverted += tuple(InvertedRule(rule, None, "lossy", why) for rule in unchosen)
    left = rules.strip if prefix is None else (), _dropped(rules, plan)
    effort = Effort()
    try:
        inverted = without_idle(inverted, rules.drop, stand_ins, effort)
        if any(each.text is None for each in inverted):
            return InvertedRules(inverted, None, *left)
        inverted, order = _one_way_back(inverted, stand_ins, effort)
        mixed = come_along(rules, [each.rule for each in order], stand_ins, effort)
        document = _document(rules, inverted, order, mixed, _Concrete(plan, prefix or ""))
    except TooMuchToCompare:
        message = (
            "to order these rules for the way back takes too long: they are too many, or too alike"
        )
        raise RuleError([Problem("not-compared", message, rules.where)]) from None
    if plan is None:
        kept = (
            ("**",)
            if rules.rest_target == "keep"
            else tuple(selector.pattern.text for selector in mixed)
        )
        doubted = with_doubts(rules, inverted, [each.rule for each in order], stand_ins)
        return InvertedRules(_with_fits(rules, doubted), document, *left, kept)
    inverted = proved(
        inverted, document, plan, rules.strip if prefix is None else (), params or {}, config or {}
    )
    return InvertedRules(
        inverted, None if any(each.text is None for each in inverted) else document, *left
    )


def _with_fits(rules: RuleSet, inverted: tuple[InvertedRule, ...]) -> tuple[InvertedRule, ...]:
    """The inverses, none of them exact where a fit may change what a rule makes: without the files
    nothing tells which.
    """
    if not rules.fits:
        return inverted
    why = "`fit:` may adapt what it makes, and is not turned round"
    return tuple(
        replace(each, verdict="lossy", why=each.why or why) if each.text else each
        for each in inverted
    )


def _dropped(rules: RuleSet, plan: Plan | None) -> tuple[str, ...]:
    """Patterns of what the rules leave behind: the keys at hand, or what the rules name."""
    if plan is not None:
        return tuple(one.pattern for one in fold(dict.fromkeys(plan.dropped), plan.source))
    return (
        *(selector.pattern.text for selector in rules.drop),
        *(("**",) if rules.rest_source == "drop" else ()),
    )


@dataclass(frozen=True, slots=True)
class _Concrete:
    """What a plan tells of the way back: the keys that were kept, and the prefix that all keys of
    the source had.
    """

    plan: Plan | None
    prefix: str


def _one_way_back(
    inverted: tuple[InvertedRule, ...], stand_ins: Mapping[str, int], effort: Effort
) -> tuple[tuple[InvertedRule, ...], list[InvertedRule]]:
    """The inverses, those left out whose targets another rule has all of; and those that have a
    text, in their order.
    """
    turned = [each for each in inverted if each.text]
    order, twins = order_of_inverses([each.rule for each in turned], stand_ins, effort)
    for number, other in twins.items():
        why = f"line {turned[other].where.line} has the same targets, and leads back to its own sources"
        turned[number] = replace(turned[number], text="", verdict="lossy", why=why)
    by_place = {id(each.rule): each for each in turned}
    return tuple(by_place.get(id(each.rule), each) for each in inverted), [
        turned[number] for number in order
    ]


def _inverse(rule: Rule, steps: Sequence[Step], plan: Plan | None) -> Inverse:
    """The inverse of a rule's ops: one that serves any sizes, as far as it leads back from those at
    hand, else one with these sizes.
    """
    general = invert_chain(rule.ops)
    if plan is None or not steps:
        return _shared_parts(rule) or general
    found = [_inverse_of(step, plan) for step in steps]
    worst = weakest([inverse for inverse, _ in found])
    sized = {
        str(ops_argument(inverse.ops)): inverse.ops
        for inverse, _ in found
        if inverse.ops or not rule.ops
    }
    if (general.ops or not rule.ops) and all(serves for _, serves in found):
        return replace(worst, ops=general.ops)
    if len(sized) == 1:
        return replace(worst, ops=next(iter(sized.values())))
    if general.ops:
        return replace(weakest([worst, general]), ops=general.ops)
    return replace(
        worst,
        why=worst.why
        or "the rule's tensors need different inverses; turn round a plan of one of them",
    )


def _shared_parts(rule: Rule) -> Inverse | None:
    """No inverse where ops that join, or that part, are more than the names that tell how many each
    takes; None elsewhere.
    """
    collects = [op.name for op in rule.ops if op.collects]
    produces = [op.name for op in rule.ops if op.produces]
    for names, sides in ((collects, rule.sources), (produces, rule.targets)):
        if len(names) > len(sides[0].only if sides else ()) + (len(sides) > 1) and len(names) > 1:
            return Inverse(
                (),
                "lossy",
                f"`{names[0]}` and `{names[1]}` share the names of the parts, which don't tell how many each takes",
            )
    return None


def _inverse_of(step: Step, plan: Plan) -> tuple[Inverse, bool]:
    """The inverse of a step for its sizes, and whether the one for any sizes leads back from them
    too.
    """
    given = [TensorForm(plan.source[key].dtype, plan.source[key].shape) for key in step.inputs]
    general = invert_chain(step.ops)
    try:
        leads_back = list(infer_chain(general.ops, infer_chain(step.ops, given))) == given
    except OpError:
        leads_back = False
    return invert_chain(step.ops, given), leads_back


def _inverted(
    rule: Rule, inverse: Inverse, stand_ins: Mapping[str, int], prefix: str
) -> InvertedRule:
    if rule.is_extra:
        return InvertedRule(rule, None, "lossy", "it reads keys that other rules take")
    if not rule.sources:
        return InvertedRule(rule, "", "exact", "what it makes is dropped on the way back")
    fault = _unmatchable(rule, stand_ins)
    if fault or (rule.ops and not inverse.ops):
        return InvertedRule(rule, None, inverse.verdict, fault or inverse.why)
    sources = [quote(prefix) + write(side.pattern) for side in rule.sources]
    return InvertedRule(
        rule,
        rule_line([write(side.pattern) for side in rule.targets], sources, inverse.ops),
        inverse.verdict,
        inverse.why,
    )


def _unmatchable(rule: Rule, stand_ins: Mapping[str, int]) -> str | None:
    """Why the target's patterns can't be matched, or None where they can."""
    try:
        target_matchers(rule, stand_ins)
    except PatternError as error:
        return error.message
    return None


def _document(
    rules: RuleSet,
    inverted: Sequence[InvertedRule],
    order: Sequence[InvertedRule],
    mixed: Sequence[Selector],
    concrete: _Concrete,
) -> str:
    parts = [
        f"# The inverse of {', '.join(rules.files)}",
        f"about: {scalar(_swapped(rules.about))}",
    ]
    if rules.params:
        parts += ["params:", *(f"  {param.name}: {flow(_param(param))}" for param in rules.params)]
    if rules.tables:
        parts += [
            "tables:",
            *(
                f"  {name}: {flow({right: left for left, right in rows.items()})}"
                for name, rows in rules.tables.items()
            ),
        ]
    maybe = [
        flow({verb: pattern}) for verb, pattern in _optional_patterns(rules, quote(concrete.prefix))
    ]
    for name, texts in _sections(order):
        parts += _section(name, [*texts, *(maybe if name == "optional" else ())])
    made = [
        write(side.pattern)
        for each in inverted
        if not each.rule.sources
        for side in each.rule.targets
    ]
    kept = [selector for selector in rules.keep if not selector.is_optional]
    dropped = [selector.pattern.text for selector in kept if selector not in mixed]
    if concrete.plan and (mixed or rules.rest_target == "keep"):
        dropped = [
            one.pattern for one in fold(dict.fromkeys(concrete.plan.kept), concrete.plan.outputs)
        ]
    parts += _patterns("drop", [*dropped, *made])
    parts += _patterns(
        "keep",
        [
            quote(concrete.prefix) + selector.pattern.text
            for selector in rules.drop
            if not selector.is_optional
        ],
    )
    rest = {"source": "drop"} if rules.rest_target == "keep" or mixed else {}
    rest |= {"target": "keep"} if rules.rest_source == "drop" else {}
    parts += [f"rest: {flow(rest)}"] if rest else []
    text = "\n".join(parts) + "\n"
    tests = [
        f"  {scalar(test.source)}: {scalar(test.targets[0])}"
        for test in _swapped_tests(rules, text, concrete.prefix)
    ]
    return text + "".join(f"{line}\n" for line in (["tests:", *tests] if tests else []))


def _swapped(about: str) -> str:
    """`B -> A` for `A -> B`."""
    source, arrow, target = about.partition(" -> ")
    return (
        f"{target} -> {source}"
        if arrow and " -> " not in target
        else f"inverse of: {about}"
        if about
        else "inverse rules"
    )


def _swapped_tests(rules: RuleSet, text: str, prefix: str) -> list[NameTest]:
    """The tests by names turned round, but for those of a source that the inverse leaves aside for
    its twin.
    """
    inverse = read_rule_text(text, "the inverse")
    swapped = {
        test.targets[0]: prefix + strip_prefixes(test.source, rules.strip)
        for test in rules.tests
        if len(test.targets) == 1
    }
    tests = [NameTest(source, (target,), inverse.where) for source, target in swapped.items()]
    return [test for test in tests if not list(check_tests(replace(inverse, tests=(test,))))]


def _sections(order: Sequence[InvertedRule]) -> list[tuple[str, list[str]]]:
    """`rules:` and `optional:` as their order asks; all are optional where neither can come first
    as a whole.
    """
    kinds = [each.rule.is_optional for each in order]
    parts = {
        kind: [str(each.text) for each in order if each.rule.is_optional is kind]
        for kind in (False, True)
    }
    if kinds == sorted(kinds):
        return [("rules", parts[False]), ("optional", parts[True])]
    if kinds == sorted(kinds, reverse=True):
        return [("optional", parts[True]), ("rules", parts[False])]
    return [("optional", [str(each.text) for each in order])]


def _section(name: str, lines: Sequence[str]) -> list[str]:
    return [f"{name}:", *(f"  - {line}" for line in lines)] if lines else []


def _optional_patterns(rules: RuleSet, prefix: str) -> list[tuple[str, str]]:
    """What may be kept on the way there may be dropped on the way back, and the other way round."""
    keeps = [("drop", selector.pattern.text) for selector in rules.keep if selector.is_optional]
    return keeps + [
        ("keep", prefix + selector.pattern.text) for selector in rules.drop if selector.is_optional
    ]


def _patterns(name: str, patterns: Sequence[str]) -> list[str]:
    return [f"{name}:", *(f"  - {scalar(pattern)}" for pattern in patterns)] if patterns else []


def _param(param: Param) -> dict[str, object]:
    """A parameter that looks at the other side: what was the source's is the target's now."""
    given: dict[str, object] = {"from": list(param.config_keys)} if param.config_keys else {}
    given |= {"dim": list(param.dimension)} if param.dimension else {}
    given |= {"count": write(param.count.pattern)} if param.count else {}
    given |= (
        {"of": "source" if param.of_target else "target"} if param.dimension or param.count else {}
    )
    given |= {"value": param.formula.text} if param.formula else {}
    return given | ({"default": param.default} if param.default is not None else {})
