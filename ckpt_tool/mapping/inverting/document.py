"""The rule file that inverse rules make: each section from the one that it undoes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.keys import fold, quote
from ckpt_tool.keys.write import pattern_text
from ckpt_tool.mapping.assign import strip_prefixes
from ckpt_tool.mapping.checking.name_tests import check_tests
from ckpt_tool.mapping.inverting.fitted import FitsBack
from ckpt_tool.mapping.inverting.verdicts import InvertedRule
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.mapping.reading.rule_file import read_rule_text
from ckpt_tool.mapping.reading.writing import flow, scalar
from ckpt_tool.mapping.rules import NameTest, Param, RuleSet, Selector


@dataclass(frozen=True, slots=True)
class WayBack:
    """What the document says: the rules, their inverses in an order that works, and what a plan
    tells besides.
    """

    rules: RuleSet
    order: Sequence[InvertedRule]
    own: Sequence[Selector]
    """The patterns of `keep:` of which rules of the inverse match some keys."""
    plan: Plan | None
    prefix: str
    """What `strip:` took off every key of the source, to be put back."""
    fits: FitsBack


def inverse_document(back: WayBack) -> str:
    """The rule file's text. Raises RuleFileError where it couldn't be read back."""
    text = "".join(f"{line}\n" for line in _lines(back))
    tests = [
        f"  {scalar(test.source)}: {scalar(test.targets[0])}\n"
        for test in _swapped_tests(back.rules, text, back.prefix)
    ]
    return text + "".join(["tests:\n", *tests] if tests else [])


def _lines(back: WayBack) -> Iterator[str]:
    rules = back.rules
    yield f"# The inverse of {', '.join(rules.files)}"
    yield f"about: {scalar(_swapped(rules.about))}"
    yield from _mapping("params", {param.name: _param(param) for param in rules.params})
    yield from _mapping(
        "tables", {name: _swapped_rows(rows) for name, rows in rules.tables.items()}
    )
    for name, lines in _rule_sections(back):
        yield from _section(name, lines)
    yield from _section("drop", map(scalar, [*_dropped(back), *_initialized(rules)]))
    yield from _section("keep", map(scalar, _kept(back)))
    yield from _section("fit", back.fits.lines)
    if rest := _rest(back):
        yield f"rest: {flow(rest)}"


def _mapping(name: str, entries: Mapping[str, object]) -> Iterator[str]:
    if entries:
        yield f"{name}:"
        yield from (f"  {key}: {flow(value)}" for key, value in entries.items())


def _section(name: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if not number:
            yield f"{name}:"
        yield f"  - {line}"


def _swapped(about: str) -> str:
    """`B -> A` for `A -> B`."""
    source, arrow, target = about.partition(" -> ")
    if arrow and " -> " not in target:
        return f"{target} -> {source}"
    return f"inverse of: {about}" if about else "inverse rules"


def _swapped_rows(rows: Mapping[str, str]) -> dict[str, str]:
    return {right: left for left, right in rows.items()}


def _param(param: Param) -> dict[str, object] | None:
    """A parameter that looks at the other side: what was the source's is the target's now. None for
    one that only the command line gives.
    """
    side = "source" if param.of_target else "target"
    fields = {
        "from": list(param.config_keys) or None,
        "dim": list(param.dimension) if param.dimension else None,
        "count": pattern_text(param.count.pattern) if param.count else None,
        "of": side if param.dimension or param.count else None,
        "value": param.formula.text if param.formula else None,
        "default": param.default,
    }
    return {name: value for name, value in fields.items() if value is not None} or None


def _rule_sections(back: WayBack) -> list[tuple[str, list[str]]]:
    """`rules:` and `optional:` as their order asks; all are optional where neither can come first
    as a whole.
    """
    kinds = [each.rule.is_optional for each in back.order]
    needed = [str(each.text) for each in back.order if not each.rule.is_optional]
    optional = [str(each.text) for each in back.order if each.rule.is_optional]
    patterns = [flow(line) for line in _optional_patterns(back)]
    if kinds == sorted(kinds):
        return [("rules", needed), ("optional", [*optional, *patterns])]
    if kinds == sorted(kinds, reverse=True):
        return [("optional", [*optional, *patterns]), ("rules", needed)]
    return [("optional", [*(str(each.text) for each in back.order), *patterns])]


def _optional_patterns(back: WayBack) -> Iterator[dict[str, str]]:
    """What may be kept on the way there may be dropped on the way back, and the other way round."""
    for selector in back.rules.keep:
        if selector.is_optional:
            yield {"drop": selector.pattern.text}
    for selector in back.rules.drop:
        if selector.is_optional:
            yield {"keep": quote(back.prefix) + selector.pattern.text}


def _dropped(back: WayBack) -> list[str]:
    """What the target alone has, and so is left behind: the keys at hand where rules match some of
    it, or else what `keep:` names.
    """
    if back.plan and (back.own or back.rules.rest_target == "keep"):
        return [one.pattern for one in fold(dict.fromkeys(back.plan.kept), back.plan.outputs)]
    named = [
        selector.pattern.text
        for selector in back.rules.keep
        if not selector.is_optional and selector not in back.own
    ]
    outputs = back.plan.outputs if back.plan else ()
    return named + [one.pattern for one in fold(dict.fromkeys(back.fits.fresh), outputs)]


def _initialized(rules: RuleSet) -> list[str]:
    """The targets of rules without a source, which are undone by dropping them."""
    made = (side for rule in rules.rules if not rule.sources for side in rule.targets)
    return [pattern_text(side.pattern) for side in made]


def _kept(back: WayBack) -> list[str]:
    """What was left behind, and so only a target has."""
    prefix = quote(back.prefix)
    named = [prefix + each.pattern.text for each in back.rules.drop if not each.is_optional]
    source = back.plan.source if back.plan else ()
    return named + [one.pattern for one in fold(dict.fromkeys(back.fits.left), source)]


def _rest(back: WayBack) -> dict[str, str]:
    rest = {}
    if back.rules.rest_target == "keep" or back.own:
        rest["source"] = "drop"
    if back.rules.rest_source == "drop":
        rest["target"] = "keep"
    return rest


def _swapped_tests(rules: RuleSet, text: str, prefix: str) -> list[NameTest]:
    """The tests by names inverted, but for those of a source that the inverse leaves aside for its
    twin.
    """
    inverse = read_rule_text(text, "the inverse")
    swapped = {
        test.targets[0]: prefix + strip_prefixes(test.source, rules.strip)
        for test in rules.tests
        if len(test.targets) == 1
    }
    tests = [NameTest(source, (target,), inverse.where) for source, target in swapped.items()]
    return [test for test in tests if not list(check_tests(replace(inverse, tests=(test,))))]
