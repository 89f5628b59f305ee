"""Renames in an order in which each key goes where it should: exceptions before what they except."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ckpt_tool.keys import Matcher, PatternSet, Renderer, pair, parse, quote

Rename = tuple[str, str]


def in_order(renames: Sequence[Rename], wanted: Mapping[str, str]) -> list[Rename]:
    """The renames so that the first that matches a key gives the wanted one; where no order does,
    single keys come first.
    """
    pairings = [pair(parse(source), parse(target)) for source, target in renames]
    bounds = [{**each.source.bounds, **each.target.bounds} for each in pairings]
    matchers = [Matcher(each.source, given) for each, given in zip(pairings, bounds, strict=True)]
    renderers = [Renderer(each.target) for each in pairings]
    patterns = PatternSet(matchers)
    after: dict[int, set[int]] = defaultdict(set)
    singles: list[str] = []
    for key, target in wanted.items():
        found = patterns.all(key)
        right = [each for each in found if _gives(matchers[each], renderers[each], key, target)]
        if not right:
            singles.append(key)
        elif len(right) < len(found):
            after[right[0]].update(set(found) - set(right))
    order = _sorted(len(renames), after)
    if order is None:
        return _with_singles(renames, wanted, matchers, renderers)
    return [
        *((quote(key), quote(wanted[key])) for key in singles),
        *(renames[each] for each in order),
    ]


def _gives(matcher: Matcher, renderer: Renderer, key: str, target: str) -> bool:
    binding = matcher.match(key)
    try:
        return binding is not None and renderer(binding) == target
    except ValueError:
        return False


def _sorted(count: int, after: Mapping[int, set[int]]) -> list[int] | None:
    """Numbers with those in `after[n]` behind n, else in their own order; None where that goes
    round in a circle.
    """
    before = {
        number: {first for first, others in after.items() if number in others}
        for number in range(count)
    }
    order: list[int] = []
    while before:
        free = next((number for number, others in before.items() if not others - set(order)), None)
        if free is None:
            return None
        order.append(free)
        del before[free]
    return order


def _with_singles(
    renames: Sequence[Rename],
    wanted: Mapping[str, str],
    matchers: Sequence[Matcher],
    renderers: Sequence[Renderer],
) -> list[Rename]:
    """The renames in their own order, behind single keys for all that the first matching one gets
    wrong.
    """
    patterns = PatternSet(matchers)
    wrong = []
    for key, target in wanted.items():
        first = next(iter(patterns.all(key)), None)
        if first is None or not _gives(matchers[first], renderers[first], key, target):
            wrong.append((quote(key), quote(target)))
    return [*wrong, *renames]
