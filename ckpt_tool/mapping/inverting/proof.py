"""The way back tried on the catalogs at hand: inverse rules, planned for what a plan gives, must
lead to its source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckpt_tool.errors import RuleError
from ckpt_tool.mapping.assign import strip_prefixes
from ckpt_tool.mapping.compile import compile_plan
from ckpt_tool.mapping.inverting.doubts import STRIPPED
from ckpt_tool.mapping.inverting.verdicts import InvertedRule
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.reading.rule_file import read_rule_text
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text


def proved(
    inverted: Sequence[InvertedRule],
    document: str,
    plan: Plan,
    strip: tuple[str, ...],
    params: Mapping[str, int],
    config: Mapping[str, object],
) -> tuple[InvertedRule, ...]:
    """The inverses, without a text for rules whose keys the way back doesn't give, or not as they
    were.

    Keys are compared without the prefixes of `strip`, which are not put back; rules whose keys had
    one are called so.
    """
    back, why = _way_back(document, plan, params, config)
    if back is None:
        return tuple(
            replace(each, text=None, verdict="lossy", why=why) if each.text else each
            for each in inverted
        )
    found = [_Proof(each, plan, back, strip).result() for each in inverted]
    return tuple(_without_strangers(found, back, plan, strip))


def _way_back(
    document: str, plan: Plan, params: Mapping[str, int], config: Mapping[str, object]
) -> tuple[Plan | None, str]:
    """The plan of the inverse rules without a target or, where that is refused or they fit
    something, with the source; else why there is none.
    """
    rules = read_rule_text(document, "the inverse")
    given = Catalog(plan.outputs.values())
    why = ""
    for target in (plan.source,) if rules.fits else (None, plan.source):
        try:
            return compile_plan(rules, given, target, params, config), ""
        except RuleError as error:
            why = f"the way back is refused: {error.problems[0].message}"
    return None, why


class _Proof:
    """One rule's steps, there and back."""

    def __init__(
        self, inverted: InvertedRule, plan: Plan, back: Plan, strip: tuple[str, ...]
    ) -> None:
        self._inverted, self._plan, self._strip = inverted, plan, strip
        self._steps = [
            step
            for step in plan.steps
            if step.origin.rule and step.origin.rule.where == inverted.where
        ]
        self._back = (
            {strip_prefixes(key, strip): made for key, made in back.producers.items()}
            if strip
            else back.producers
        )

    def result(self) -> InvertedRule:
        each = self._inverted
        if not each.text:
            return each
        fault = next((fault for step in self._steps for fault in self._faults(step)), None)
        if fault:
            return replace(each, text=None, verdict="lossy", why=fault)
        if any(self._name(key) != key for step in self._steps for key in step.inputs):
            why = f"{each.why}; {STRIPPED}" if each.why else STRIPPED
            return replace(each, verdict="lossy", why=why)
        return each

    def _name(self, key: str) -> str:
        return strip_prefixes(key, self._strip)

    def _faults(self, step: Step) -> Iterator[str]:
        """What is wrong with the way back of each of a step's keys."""
        places = [self._name(key) for key in step.inputs]
        for key in step.inputs:
            made, info = self._back.get(self._name(key), (None, None))
            if made is None or info is None or made.inputs != step.outputs:
                yield f"`{key}` would not come back from `{step.outputs[0]}`"
            elif [self._name(each) for each in made.outputs] != places:
                yield f"`{key}` would come back in another place of its group"
            elif _form(info) != (was := _form(self._plan.source[key])):
                yield f"`{key}` would come back as {_form(info)}, and was {was}"


def _form(info: TensorInfo) -> str:
    return f"{info.dtype.value} {shape_text(info.shape)}"


def _without_strangers(
    inverted: Sequence[InvertedRule], back: Plan, plan: Plan, strip: tuple[str, ...]
) -> Iterator[InvertedRule]:
    """The inverses, without a text for those by which keys would come that the source never had."""
    names = {strip_prefixes(key, strip) for key in plan.source}
    strange = {
        _line(step): key
        for key, (step, _) in back.producers.items()
        if strip_prefixes(key, strip) not in names
    }
    for each in inverted:
        key = strange.get(each.text.split("\n")[0]) if each.text else None
        yield (
            each
            if key is None
            else replace(
                each,
                text=None,
                verdict="lossy",
                why=f"`{key}` would come back, which the source never had",
            )
        )


def _line(step: Step) -> str:
    """The line of the inverse rules that made a step."""
    where = step.origin.rule.where if step.origin.rule else None
    return where.text.strip().removeprefix("- ") if where else ""
