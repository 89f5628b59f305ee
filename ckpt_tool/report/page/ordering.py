"""Keys of both sides in one order, that of the networks."""

from __future__ import annotations

from dataclasses import replace

from ckpt_tool.report.page.document import Item, Measure, Page

Place = tuple[int, int, int]


def in_network_order(page: Page) -> Page:
    """The page with its items in the order of the second side, and of the first where the second
    has none; what only the other side has comes behind what is before it there.
    """
    if len(page.sides) != 2:
        return page
    is_by_first = page.sides[0].is_ordered and not page.sides[1].is_ordered
    places = _places(page.items, is_by_first)
    order = sorted(range(len(page.items)), key=places.__getitem__)
    numbers = {old: new for new, old in enumerate(order)}
    return replace(
        page,
        items=tuple([page.items[old] for old in order]),
        measures=tuple([_renumbered(measure, numbers) for measure in page.measures]),
        details={numbers[old]: tables for old, tables in page.details.items()},
    )


def _renumbered(measure: Measure, numbers: dict[int, int]) -> Measure:
    values = {numbers[old]: value for old, value in measure.values.items()}
    return replace(measure, values=dict(sorted(values.items())))


def _places(items: tuple[Item, ...], is_by_first: bool) -> list[Place]:
    """Where each item stands: by its first key of the one side; else behind the nearest before it
    on the other side that has one.
    """
    sides = [(item.a, item.b) if is_by_first else (item.b, item.a) for item in items]
    places: list[Place] = [(own[0] if own else -1, 0, 0) for own, _ in sides]
    before = -1
    others = [(other[0], at) for at, (_, other) in enumerate(sides) if other]
    for number, at in sorted(others):
        if sides[at][0]:
            before = places[at][0]
        else:
            places[at] = (before, 1, number)
    return places
