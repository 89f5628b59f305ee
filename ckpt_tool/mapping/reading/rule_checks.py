"""What a rule that was read must hold: holes on both sides alike, `init` where there is no source,
words of `each` that the rule has.
"""

from collections.abc import Iterator

from ckpt_tool.errors import Problem
from ckpt_tool.keys import nearest
from ckpt_tool.keys.pattern import Choice, Number, Rest, Star, Token
from ckpt_tool.mapping.reading.misread import NO_EXPRESSIONS, looks_like_an_expression
from ckpt_tool.mapping.rules import Rule, RuleSide, part_of
from ckpt_tool.ops import Each


def check_rule(rule: Rule) -> list[Problem]:
    """What is wrong with a rule by itself, its words last and only where all else is right."""
    needs_init = not rule.sources or any(op.name == "init" for op in rule.ops)
    return list(_check_init(rule) if needs_init else check_balance(rule)) or list(
        _check_words(rule)
    )


def _check_init(rule: Rule) -> Iterator[Problem]:
    """A problem for a rule without a source that doesn't begin with `init`; for an `init` with a
    source.
    """
    if rule.sources:
        message = (
            "`init` makes a tensor that has no source; such a rule reads `-> TARGET: {init: zeros}`"
        )
        yield Problem("bad-rule", message, rule.where)
    elif not _begins_with_init(rule) or any(op.collects or op.produces for op in rule.ops):
        message = "a rule without a source begins with `init`, as in `-> TARGET: {init: zeros}`"
        yield Problem("bad-rule", message, rule.where)


def _begins_with_init(rule: Rule) -> bool:
    return bool(rule.ops) and rule.ops[0].name == "init"


def check_balance(rule: Rule) -> Iterator[Problem]:
    """*The* error of this language: a hole on one side only, without an op that collects or
    produces it.
    """
    collects, produces = sum(op.collects for op in rule.ops), sum(op.produces for op in rule.ops)
    is_balanced = True
    for side in rule.sources:
        # Ops collect a source's last holes, and produce a target's first.
        if (hole := _stray_hole(side, side.only[: len(side.only) - collects])) is not None:
            yield _unbalanced(side, hole, "source", "collected by an op (`concat`, `stack`)")
            is_balanced = False
    for side in rule.targets:
        if (hole := _stray_hole(side, side.only[produces:])) is not None:
            yield _unbalanced(
                side, hole, "target", "produced by an op (`split`, `unstack`, `copy`)"
            )
            is_balanced = False
    if is_balanced and not rule.ops and max(len(rule.sources), len(rule.targets)) > 1:
        message = "several patterns on one side need `ops:` that join or split the tensors"
        yield Problem("unbalanced", message, rule.where)


def _stray_hole(side: RuleSide, unused: tuple[str, ...]) -> str | None:
    """The first hole of this side only that no op can have: one for text, else an unused one."""
    texts = {token.id for token in side.pattern.tokens if isinstance(token, Star | Rest)}
    return next((hole for hole in side.only if hole in texts), next(iter(unused), None))


def _unbalanced(side: RuleSide, hole: str, name: str, remedy: str) -> Problem:
    token, (start, end) = next(
        (token, span)
        for token, span in zip(side.pattern.tokens, side.pattern.spans, strict=True)
        if hole in _ids_of(token)
    )
    text = f"`{side.pattern.text[start:end]}` is in the {name} only"
    why = f"it must be {remedy} or be on both sides"
    if isinstance(token, Star | Rest):
        why = "what it matches has no place on the other side"
    notes = (NO_EXPRESSIONS,) if looks_like_an_expression(side.pattern.text) else ()
    where = part_of(side.where, side.pattern, start, end)
    return Problem("unbalanced", f"{text}; {why}", where, notes)


def _ids_of(token: Token) -> tuple[str, ...]:
    if isinstance(token, Number):
        return token.affine.names
    return (token.id,) if isinstance(token, Star | Rest | Choice) else ()


def _check_words(rule: Rule) -> Iterator[Problem]:
    """A problem for each word of `each:` that nothing in the rule is called."""
    words = set(_words_in(rule))
    for word in _words_of_each(rule):
        if word not in words:
            near = nearest(word, words)
            what = "neither a word of a choice in the rule nor one of its patterns"
            notes = (f"did you mean `{near}`?",) if near else ()
            yield Problem("bad-op", f"`each`: `{word}` is {what}", rule.where, notes)


def _words_in(rule: Rule) -> Iterator[str]:
    """What tensors can be called in `each:`: words of choices, and whole patterns."""
    for side in (*rule.sources, *rule.targets):
        yield side.pattern.text
        for token in side.pattern.tokens:
            if isinstance(token, Choice):
                yield from token.words


def _words_of_each(rule: Rule) -> Iterator[str]:
    for op in rule.ops:
        if isinstance(op, Each):
            yield from (word for word, _ in op.chains)
