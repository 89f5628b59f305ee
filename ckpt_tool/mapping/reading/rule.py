"""One rule from its YAML: `SOURCE -> TARGET`, `SOURCE -> TARGET: OPS`, or
`{from: [...], to: [...], ops: ...}`.
"""

from dataclasses import dataclass, field, replace

from ckpt_tool.errors import Location, Problem
from ckpt_tool.keys import Matcher, Pattern, PatternError, nearest, pair, parse, with_numbers
from ckpt_tool.keys.pattern import Choice, Number, Rest, Star
from ckpt_tool.keys.quoting import arrows, trim
from ckpt_tool.mapping.reading.misread import (
    NO_EXPRESSIONS,
    instead_of_node,
    instead_of_text,
    looks_like_an_expression,
)
from ckpt_tool.mapping.reading.yaml_nodes import (
    QUOTES,
    MappingNode,
    Node,
    Scalar,
    SequenceNode,
    read_yaml,
)
from ckpt_tool.mapping.rules import FitRule, Rule, Selector, Side, part_of
from ckpt_tool.ops import Each, Op, OpError, parse_ops
from ckpt_tool.ops.fits import parse_fit

MAX_WORDS = 500_000
"""Words of all choices of a set of rules; a table counts each time that it is named."""
COST_OF_A_RANGE = 3_000
"""What a pattern counts that names ranges and could not be read."""


@dataclass(slots=True)
class Reading:
    """What the reader of one rule needs to know of its file, and the problems found so far."""

    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    spent: int = 0
    _words: dict[bool, tuple[int, dict[str, tuple[str, ...]]]] = field(default_factory=dict)

    def add(self, code: str, message: str, where: Location, *notes: str) -> None:
        self.problems.append(Problem(code, message, where, notes))

    def words(self, is_source: bool) -> dict[str, tuple[str, ...]]:
        """Each table's words on one side; rows pair by their place."""
        count, words = self._words.get(is_source, (0, {}))
        if count != len(self.tables):
            words = {
                name: tuple(rows if is_source else rows.values())
                for name, rows in self.tables.items()
            }
            self._words[is_source] = len(self.tables), words
        return words


def read_selector(reading: Reading, scalar: Scalar, is_source: bool) -> Selector | None:
    """A pattern of `drop:` or `keep:`."""
    pattern = _pattern(reading, scalar, 0, scalar.text, is_source)
    matcher = _matcher(reading, scalar, 0, pattern, {}) if pattern else None
    return Selector(pattern, matcher, scalar.where) if pattern and matcher else None


def read_fit(reading: Reading, scalar: Scalar, node: Node) -> FitRule | None:
    """A line of `fit:`, `TARGET PATTERN: FIT`."""
    selector = read_selector(reading, scalar, is_source=False)
    try:
        fit = parse_fit(_plain(node))
    except OpError as error:
        reading.add("bad-op", str(error), node.where)
        return None
    return FitRule(selector, fit) if selector else None


def read_rule(reading: Reading, node: Node) -> Rule | None:
    """The rule, or None after adding what is wrong with it to `reading.problems`."""
    if isinstance(node, Scalar):
        node = _with_ops(node)
    if isinstance(node, Scalar):
        return _short(reading, node, ())
    if isinstance(node, MappingNode) and {"from", "to"} & {key.text for key, _ in node.entries}:
        return _long(reading, node)
    if isinstance(node, MappingNode) and len(node.entries) == 1 and arrows(node.entries[0][0].text):
        head, ops = node.entries[0]
        parsed = _ops(reading, ops)
        return None if parsed is None else _short(reading, head, parsed)
    reading.add(
        "bad-rule",
        "a rule reads `SOURCE -> TARGET` or `SOURCE -> TARGET: OPS`",
        node.where,
        instead_of_node(node) or QUOTES,
    )
    return None


def _with_ops(scalar: Scalar) -> Node:
    """`'SOURCE -> TARGET: OPS'` in quotes, or on the command line, as the mapping that it would be
    without them.
    """
    found = arrows(scalar.text)
    colon = scalar.text.find(": ", found[0][0]) if found else -1
    if colon < 0:
        return scalar
    rule = repr(scalar.text)
    ops = read_yaml(
        scalar.text[colon + 1 :],
        f"{scalar.source.file} {rule if len(rule) <= 400 else rule[:400] + '…'}",
    )
    head = replace(scalar, text=scalar.text[:colon])
    return MappingNode(
        ((head, ops or replace(scalar, text="")),), scalar.line, scalar.column, False, scalar.source
    )


def _short(reading: Reading, scalar: Scalar, ops: tuple[Op, ...]) -> Rule | None:
    parts = _split_at_arrow(scalar.text)
    if parts is None:
        way = instead_of_text(scalar.text)
        reading.add(
            "bad-rule",
            "a rule reads `SOURCE -> TARGET`, with one arrow",
            scalar.where,
            *((way,) if way else ()),
        )
        return None
    (source, start), (target, target_start) = parts
    if not target:
        reading.add(
            "bad-rule",
            "nothing stands right of the arrow; what is to be left behind is listed under `drop:`",
            scalar.where,
        )
        return None
    sources = [(scalar, start, source)] if source else []
    return _rule(reading, scalar.text, sources, [(scalar, target_start, target)], ops, scalar.where)


def _split_at_arrow(text: str) -> tuple[tuple[str, int], tuple[str, int]] | None:
    found = arrows(text)
    if len(found) != 1:
        return None
    ((start, end),) = found
    left, right = text[:start], text[end:]
    return (trim(left), len(left) - len(left.lstrip())), (
        trim(right),
        end + len(right) - len(right.lstrip()),
    )


def _long(reading: Reading, node: MappingNode) -> Rule | None:
    unknown = [key for key, _ in node.entries if key.text not in ("from", "to", "ops")]
    if unknown or node.get("from") is None or node.get("to") is None:
        reading.add(
            "bad-rule",
            "the long form of a rule has `from:`, `to:` and `ops:`",
            unknown[0].where if unknown else node.where,
        )
        return None
    ops = _ops(reading, node.get("ops"))
    sides = [_patterns_of(reading, node.get(name)) for name in ("from", "to")]
    if sides[1] == []:
        reading.add(
            "bad-rule",
            "`to:` names no target; what is to be left behind is listed under `drop:`",
            node.where,
        )
    if ops is None or sides[0] is None or not sides[1]:
        return None
    text = (
        f"{' + '.join(s.text for s in sides[0])} -> {' + '.join(s.text for s in sides[1])}".lstrip()
    )
    sources, targets = (
        [(scalar, 0, scalar.text) for scalar in side] for side in (sides[0], sides[1])
    )
    return _rule(reading, text, sources, targets, ops, node.where)


def _patterns_of(reading: Reading, node: Node | None) -> list[Scalar] | None:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    texts = [item for item in items if isinstance(item, Scalar)]
    if len(texts) < len(items):
        reading.add(
            "bad-rule",
            "`from:` and `to:` are patterns or lists of patterns",
            node.where if node else Location("", 1, 1),
            QUOTES,
        )
        return None
    return texts


def _ops(reading: Reading, node: Node | None) -> tuple[Op, ...] | None:
    if node is None or (isinstance(node, Scalar) and not node.text and not node.is_quoted):
        return ()
    try:
        return parse_ops(_plain(node))
    except OpError as error:
        reading.add("bad-op", str(error), node.where)
        return None


def _plain(node: Node) -> object:
    """The node as plain data: whole numbers and decimal fractions become numbers, everything else
    stays a text.
    """
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.items]
    if isinstance(node, MappingNode):
        return {key.text: _plain(value) for key, value in node.entries}
    if node.is_quoted:
        return node.text
    if node.text in ("true", "false"):
        return node.text == "true"
    for number in (int, float):
        try:
            return number(node.text) if node.text.isascii() and "_" not in node.text else node.text
        except ValueError:
            continue
    return node.text


Part = tuple[Scalar, int, str]
"""A pattern's text and where it begins in the text of a scalar."""


def _rule(
    reading: Reading,
    text: str,
    sources: list[Part],
    targets: list[Part],
    ops: tuple[Op, ...],
    where: Location,
) -> Rule | None:
    source = [_pattern(reading, *part, is_source=True) for part in sources]
    target = [_pattern(reading, *part, is_source=False) for part in targets]
    if None in source or None in target:
        return None
    paired = _pair_all(reading, [p for p in source if p], [p for p in target if p], targets)
    if paired is None:
        return None
    source_sides, target_sides, carried = paired
    stand_ins = dict.fromkeys(reading.params, 1)
    bounds = {
        name: numbers
        for pattern in (*source, *target)
        if pattern
        for name, numbers in with_numbers(pattern, stand_ins).bounds.items()
    }
    # A rule without a source is matched against the target's keys.
    parts = (
        zip(sources, source_sides, strict=True)
        if sources
        else zip(targets, target_sides, strict=True)
    )
    matchers = [_matcher(reading, scalar, start, p, bounds) for (scalar, start, _), p in parts]
    if None in matchers:
        return None
    rule = Rule(
        text,
        tuple(_side(part, p, {*carried, *reading.params}) for part, p in zip(sources, source_sides, strict=True)),
        tuple(_side(part, p, {*carried, *reading.params}) for part, p in zip(targets, target_sides, strict=True)),
        ops, tuple(m for m in matchers if m), carried, where,
    )  # fmt: skip
    is_sound = _is_initialized(reading, rule) if _needs_init(rule) else _is_balanced(reading, rule)
    return rule if is_sound and _knows_its_words(reading, rule) else None


def _needs_init(rule: Rule) -> bool:
    return not rule.sources or any(op.name == "init" for op in rule.ops)


def _is_initialized(reading: Reading, rule: Rule) -> bool:
    """Adds a problem for a rule without a source that doesn't say what its tensors are, or for an
    `init` with a source.
    """
    if rule.sources:
        reading.add(
            "bad-rule",
            "`init` makes a tensor that has no source; such a rule reads `-> TARGET: {init: zeros}`",
            rule.where,
        )
    elif (
        not rule.ops
        or rule.ops[0].name != "init"
        or any(op.collects or op.produces for op in rule.ops)
    ):
        reading.add(
            "bad-rule",
            "a rule without a source begins with `init`, as in `-> TARGET: {init: zeros}`",
            rule.where,
        )
    else:
        return True
    return False


def _knows_its_words(reading: Reading, rule: Rule) -> bool:
    """Adds a problem for each word of `each:` that nothing in the rule is called."""
    sides = (*rule.sources, *rule.targets)
    words = {
        word
        for side in sides
        for token in side.pattern.tokens
        if isinstance(token, Choice)
        for word in token.words
    }
    words |= {side.pattern.text for side in sides}
    strange = [
        word
        for op in rule.ops
        if isinstance(op, Each)
        for word, _ in op.chains
        if word not in words
    ]
    for word in strange:
        near = nearest(word, words)
        message = (
            f"`each`: `{word}` is neither a word of a choice in the rule nor one of its patterns"
        )
        reading.add("bad-op", message, rule.where, *((f"did you mean `{near}`?",) if near else ()))
    return not strange


def _pair_all(
    reading: Reading, source: list[Pattern], target: list[Pattern], parts: list[Part]
) -> tuple[list[Pattern], list[Pattern], tuple[str, ...]] | None:
    """Every target's holes under the ids of the first source; carried is what all patterns have."""
    if not source:
        return [], target, ()
    targets = []
    for pattern, (scalar, start, _) in zip(target, parts, strict=True):
        try:
            targets.append(pair(source[0], pattern).target)
        except PatternError as error:
            reading.add("unbalanced", error.message, scalar.at(start + error.start, error.length))
            return None
    try:
        sources = [source[0], *(pair(source[0], other).target for other in source[1:])]
    except PatternError as error:
        reading.add("unbalanced", error.message, parts[0][0].where)
        return None
    everywhere = [set(_hole_ids(pattern)) for pattern in (*sources, *targets)]
    carried = tuple(
        hole
        for hole in _hole_ids(sources[0])
        if all(hole in ids for ids in everywhere) and hole not in reading.params
    )
    return sources, targets, carried


def _hole_ids(pattern: Pattern) -> tuple[str, ...]:
    ids: list[str] = []
    for hole in pattern.holes:
        ids.extend(hole.affine.names if isinstance(hole, Number) else (hole.id,))
    return tuple(dict.fromkeys(ids))


def _side(part: Part, pattern: Pattern, known: set[str]) -> Side:
    scalar, start, text = part
    return Side(
        pattern,
        scalar.at(start, len(text)),
        tuple(hole for hole in _hole_ids(pattern) if hole not in known),
    )


def _is_balanced(reading: Reading, rule: Rule) -> bool:
    """Adds *the* error of this language: a hole on one side only, without an op that collects or
    produces it.
    """
    collects, produces = sum(op.collects for op in rule.ops), sum(op.produces for op in rule.ops)
    before = len(reading.problems)
    for side in rule.sources:
        if (
            stray := [hole for hole in side.only if _is_text_hole(side.pattern, hole)]
            or list(side.only)[: len(side.only) - collects]
        ):
            _add_unbalanced(
                reading, side, stray[0], "source", "collected by an op (`concat`, `stack`)"
            )
    for side in rule.targets:
        if (
            stray := [hole for hole in side.only if _is_text_hole(side.pattern, hole)]
            or list(side.only)[produces:]
        ):
            _add_unbalanced(
                reading, side, stray[0], "target", "produced by an op (`split`, `unstack`, `copy`)"
            )
    if (
        len(reading.problems) == before
        and not rule.ops
        and (len(rule.sources) > 1 or len(rule.targets) > 1)
    ):
        reading.add(
            "unbalanced",
            "several patterns on one side need `ops:` that join or part the tensors",
            rule.where,
        )
    return len(reading.problems) == before


def _is_text_hole(pattern: Pattern, hole: str) -> bool:
    return any(isinstance(token, Star | Rest) and token.id == hole for token in pattern.tokens)


def _add_unbalanced(reading: Reading, side: Side, hole: str, name: str, remedy: str) -> None:
    token, (start, end) = next(
        (t, s)
        for t, s in zip(side.pattern.tokens, side.pattern.spans, strict=True)
        if hole in _ids_of(t)
    )
    where = part_of(side.where, side.pattern, start, end)
    text = side.pattern.text[start:end]
    if isinstance(token, Star | Rest):
        message = (
            f"`{text}` stands in the {name} only; what it matches has no place on the other side"
        )
    else:
        message = f"`{text}` stands in the {name} only; it must be {remedy} or stand on both sides"
    reading.add(
        "unbalanced",
        message,
        where,
        *((NO_EXPRESSIONS,) if looks_like_an_expression(side.pattern.text) else ()),
    )


def _ids_of(token: object) -> tuple[str, ...]:
    if isinstance(token, Number):
        return token.affine.names
    return (token.id,) if isinstance(token, Star | Rest | Choice) else ()


def _pattern(
    reading: Reading, scalar: Scalar, start: int, text: str, is_source: bool
) -> Pattern | None:
    if reading.spent > MAX_WORDS:
        return None
    try:
        pattern = parse(text, reading.words(is_source))
    except PatternError as error:
        reading.spent += COST_OF_A_RANGE * (".." in text)
        reading.add(
            "bad-pattern",
            error.message,
            scalar.at(start + error.start, error.length),
            *((error.hint,) if error.hint else ()),
        )
        return None
    reading.spent += sum(len(token.words) for token in pattern.tokens if isinstance(token, Choice))
    if reading.spent > MAX_WORDS:
        reading.add(
            "too-many-words",
            f"the choices of all rules have more than {MAX_WORDS:,} words",
            scalar.where,
        )
    strange = [
        name
        for ends in pattern.open_bounds.values()
        for end in ends
        for name in end.names
        if name not in reading.params
    ]
    if strange:
        reading.add(
            "bad-pattern",
            f"`{strange[0]}` bounds a number and is declared under no `params:`",
            scalar.at(start, len(text)),
        )
    return None if strange else pattern


def _matcher(
    reading: Reading, scalar: Scalar, start: int, pattern: Pattern, bounds: dict[str, range]
) -> Matcher | None:
    """A matcher of the pattern; parameters, whose numbers are known only for a given checkpoint,
    count as 1.
    """
    try:
        return Matcher(with_numbers(pattern, dict.fromkeys(reading.params, 1)), bounds)
    except PatternError as error:
        reading.add("bad-pattern", error.message, scalar.at(start + error.start, error.length))
        return None
